//! The dataflow: confirmations and transactions go in, alerts come out, day by day.
//!
//! It neither makes events nor prints.

use std::cell::RefCell;
use std::rc::Rc;

use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{AtClose, Clock, Envelope, StatefulFunctions, Stopped};
use tokio::runtime::Handle as Runtime;

use crate::events::Day;
use crate::functions::{ALERTS, Alert, COUNT, DAY, MANAGER, Message, ToCount, ToManager};

/// Runs the days. Every worker feeds its share of their events; worker 0 is told of all alerts, and calls
/// `evening` after each day with the number of the day, from 0, and of the alerts so far.
///
/// # Errors
///
/// Why the functions stopped.
pub fn run(
    worker: &mut Worker,
    days: &[Day],
    runtime: Runtime,
    evening: impl Fn(u64, usize),
) -> Result<Option<Vec<Alert>>, Stopped> {
    // Each worker has a clock of its own, which it turns in step with its input.
    let (clock, hands) = Clock::turned(0);
    let alerts = Rc::new(RefCell::new(Vec::new()));
    let hear = Rc::clone(&alerts);
    let (mut inputs, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (confirmations, confirmed) = scope.new_input::<Vec<Envelope<Message>>>();
        let (transactions, to_judge) = scope.new_input::<Vec<Envelope<Message>>>();
        let functions =
            crate::functions::functions().runtime(runtime).clock(clock).at_close(AtClose::SendNow);
        let egresses = [confirmed, to_judge].stateful_functions(functions);
        let egresses = egresses.expect("functions and egresses are bound once each");
        let alerts = egresses.stream(ALERTS).expect("ALERTS is bound").exchange(|_| 0);
        let alerts = alerts.inspect(move |alert| hear.borrow_mut().push(*alert));
        ([confirmations, transactions], alerts.probe().0, egresses.handle())
    });

    let (index, peers) = (worker.index(), worker.peers());
    for (number, day) in (0..).zip(days) {
        // A day has three times. Each is over, on all workers, before the next begins: so it is certain which
        // frauds count when a transaction is judged.
        let [night, morning, noon, next_night] = [0, 1, 2, 3].map(|at| 3 * number + at);
        if night > 0 {
            // What is due happens in this step, while the inputs still stand at the night.
            hands.advance(DAY);
            worker.step();
        }
        inputs.iter_mut().for_each(|input| input.advance_to(morning));
        handle.run_while(worker, || probe.less_than(&morning))?;
        for account in day.confirmed.iter().skip(index).step_by(peers) {
            inputs[0].send(COUNT.message(*account, ToCount::Confirm));
        }
        inputs.iter_mut().for_each(|input| input.advance_to(noon));
        handle.run_while(worker, || probe.less_than(&noon))?;
        for transaction in day.transactions.iter().skip(index).step_by(peers) {
            let judge = ToManager::Judge(*transaction);
            inputs[1].send(MANAGER.message(transaction.number, judge));
        }
        inputs.iter_mut().for_each(|input| input.advance_to(next_night));
        handle.run_while(worker, || probe.less_than(&next_night))?;
        if index == 0 {
            evening(number, alerts.borrow().len());
        }
    }
    drop(inputs);
    handle.run(worker)?;
    Ok((index == 0).then(|| alerts.take()))
}
