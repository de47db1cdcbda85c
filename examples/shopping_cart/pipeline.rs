//! The dataflow: what customers do goes in, what they are told and what the functions keep comes out.
//!
//! It does not know where the functions are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{AtClose, Clock, Envelope, Functions, StatefulFunctions, Stopped};

use crate::customers::Hour;
use crate::functions::{
    BASKET, Basket, CART, HOUR, LEFT, Message, NOTICES, Notice, STOCK, ToCart, ToStock,
};

/// What worker 0 has seen of the shop.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What customers were told in this hour.
    pub notices: Vec<Notice>,
    /// What is in stock.
    pub left: BTreeMap<String, i64>,
    /// Carts with something in them, by their customers.
    pub baskets: BTreeMap<u64, Basket>,
    /// The least that ever was of any item.
    pub least: i64,
}

/// Runs the hours. Every worker feeds its share of what happens. At the end of each hour worker 0 calls
/// `check` with its number, from 0, and all that was seen.
///
/// # Errors
///
/// Why the functions stopped.
pub fn run(
    worker: &mut Worker,
    functions: Functions<Message>,
    hours: &[Hour],
    mut check: impl FnMut(usize, &Seen),
) -> Result<(), Stopped> {
    // Each worker has a clock of its own, which it turns in step with its input.
    let (clock, hands) = Clock::turned(0);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let [of_notices, of_left, of_baskets] = [0; 3].map(|_| Rc::clone(&seen));
    let probe = ProbeHandle::new();
    let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
        let functions = functions.clock(clock).at_close(AtClose::SendNow);
        let egresses = stream.stateful_functions(functions).expect("bound once each");

        let notices = egresses.stream(NOTICES).expect("NOTICES is bound");
        let notices = notices.exchange(|_| 0);
        let notices = notices
            .inspect(move |notice: &Notice| of_notices.borrow_mut().notices.push(notice.clone()));
        let left = egresses.changes(STOCK, LEFT).expect("it is watched").exchange(|_| 0);
        let left = left.inspect(move |change| {
            let (mut seen, left) = (of_left.borrow_mut(), change.new.unwrap_or(0));
            seen.least = seen.least.min(left);
            seen.left.insert(change.id.to_string(), left);
        });
        let baskets = egresses.changes(CART, BASKET).expect("it is watched").exchange(|_| 0);
        let baskets = baskets.inspect(move |change| {
            let customer = change.id.as_number().expect("customers have numbers");
            let baskets = &mut of_baskets.borrow_mut().baskets;
            match &change.new {
                Some(basket) => baskets.insert(customer, basket.clone()),
                None => baskets.remove(&customer),
            };
        });
        notices.probe_with(&probe);
        left.probe_with(&probe);
        baskets.probe_with(&probe);
        (input, egresses.handle())
    });

    let (index, peers) = (worker.index(), worker.peers());
    for (number, hour) in hours.iter().enumerate() {
        // Nothing happens at the first time of an hour, so that no worker goes on before worker 0 has looked
        // at the hour before.
        let begins = 4 * number as u64 + 1;
        input.advance_to(begins);
        handle.run_while(worker, || probe.less_than(&begins))?;
        if number > 0 {
            // What is due happens in this step, while the input still stands at the beginning of the hour.
            hands.advance(HOUR);
            worker.step();
        }
        // Each part of an hour is over before the next begins. In the first, carts that are given up and
        // deliveries both fill the stock; in the second it is asked; in the third it is filled again.
        let delivered = hour
            .delivered
            .iter()
            .map(|(item, pieces)| STOCK.message(*item, ToStock::Deliver(*pieces)));
        let added = hour.added.iter().map(|(customer, item, pieces)| {
            CART.message(*customer, ToCart::Add { item: (*item).to_owned(), pieces: *pieces })
        });
        let cleared = hour.cleared.iter().map(|customer| CART.message(*customer, ToCart::Clear));
        let paid = hour.paid.iter().map(|customer| CART.message(*customer, ToCart::Checkout));
        let parts: [Vec<_>; 3] =
            [delivered.collect(), added.collect(), cleared.chain(paid).collect()];
        for (part, over) in parts.into_iter().zip(begins + 1..) {
            part.into_iter().skip(index).step_by(peers).for_each(|message| input.send(message));
            input.advance_to(over);
            handle.run_while(worker, || probe.less_than(&over))?;
        }
        if index == 0 {
            check(number, &seen.borrow());
            seen.borrow_mut().notices.clear();
        }
    }
    input.close();
    handle.run(worker)
}
