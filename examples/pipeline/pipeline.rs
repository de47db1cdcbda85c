//! The dataflow: text becomes calls by ordinary operators, calls are messages, and what the functions know is
//! joined with a table.
//!
//! It neither starts processes nor prints.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{StatefulFunctions, Stopped};

use crate::calls::{self, LEAST_SECONDS};
use crate::contacts::FAVOURITES;
use crate::functions::{Call, PHONE, functions};
use crate::metering::{LEVELS, Level};
use crate::tariffs;

/// What a phone is offered: calls to its favourite, at the price of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offer {
    pub phone: u64,
    pub favourite: u64,
    pub level: Level,
    /// For a minute.
    pub cents: u64,
}

/// Worker 0 is told of all changes of offers: what changes, in which month, and by how much.
pub type Change = (Offer, u64, isize);

/// Runs all months. Every worker reads its share of the lines. On worker 0 `month_over` is called after each
/// month with all changes so far, and these are returned.
///
/// # Errors
///
/// Why the functions stopped.
pub fn run(
    worker: &mut Worker,
    month_over: impl Fn(u64, &[Change]),
) -> Result<Option<Vec<Change>>, Stopped> {
    let seen = Rc::new(RefCell::new(Vec::<Change>::new()));
    let see = Rc::clone(&seen);
    let probe = ProbeHandle::new();
    let (mut input, mut table, handle) = worker.dataflow::<u64, _, _>(|scope| {
        // Ordinary streams, until a call is a message for a phone.
        let (input, lines) = scope.new_input::<Vec<String>>();
        let calls = lines.flat_map(|line| calls::parse(&line));
        let calls = calls.filter(|call| call.seconds >= LEAST_SECONDS);
        let messages = calls.map(|calls::Line { caller, callee, seconds, .. }| {
            PHONE.message(caller, Call { callee, seconds })
        });

        let egresses = messages.stateful_functions(functions());
        let egresses = egresses.expect("functions and egresses are bound once each");

        // Collections, joined with a table that changes now and then, and with each other.
        let (table, tariffs) = scope.new_input::<Vec<((Level, u64), u64, isize)>>();
        let levels = egresses.collection(LEVELS).expect("LEVELS is bound");
        let favourites = egresses.collection(FAVOURITES).expect("FAVOURITES is bound");
        let prices = levels
            .map(|(phone, level)| (level, phone))
            .join_map(tariffs.as_collection(), |level, phone, cents| (*phone, (*level, *cents)));
        let offers = prices.join_map(favourites, |phone, (level, cents), favourite| Offer {
            phone: *phone,
            favourite: *favourite,
            level: *level,
            cents: *cents,
        });

        // Ordinary streams again.
        let changes = offers.consolidate().inner.exchange(|_| 0);
        changes.inspect(move |change| see.borrow_mut().push(*change)).probe_with(&probe);
        (input, table, egresses.handle())
    });

    let (index, peers) = (worker.index(), worker.peers());
    let mut lines = calls::by_month().enumerate().peekable();
    for month in 0.. {
        if index == 0 {
            table.send_batch(&mut changes_of_table(month));
        }
        while let Some((number, (_, line))) = lines.next_if(|(_, (of, _))| *of == month) {
            if number % peers == index {
                input.send(line.to_owned());
            }
        }
        // Functions handle messages as they come. Since the next month does not begin before this one is over
        // everywhere, what they know now is what follows from the months so far.
        let next = month + 1;
        input.advance_to(next);
        table.advance_to(next);
        handle.run_while(worker, || probe.less_than(&next))?;
        if index == 0 {
            month_over(month, &seen.borrow());
        }
        if lines.peek().is_none() {
            break;
        }
    }
    input.close();
    table.close();
    handle.run(worker)?;
    Ok((index == 0).then(|| seen.take()))
}

fn changes_of_table(month: u64) -> Vec<((Level, u64), u64, isize)> {
    tariffs::changes(month).into_iter().map(|(entry, change)| (entry, month, change)).collect()
}
