//! Delayed messages: sent off when they are due, in order, once, unless they were taken back; at the
//! time that ingress has come to; and holding back nothing meanwhile.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{Random, Running, on_workers};
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::{
    AtClose, Clock, Egress, Envelope, Function, FunctionType, Functions, Limits, OnFailure, Order,
    Reason, StatefulFunctions, ValueSpec,
};

const PLAYER: FunctionType<Message> = FunctionType::new("delayed/player");
/// Another function of the same ids: tokens of one are none of the other's business.
const OTHER: FunctionType<Message> = FunctionType::new("delayed/other");
const REPORTS: Egress<Report> = Egress::new("delayed/reports");
const START_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    Script { number: u64, actions: Vec<Action> },
    Due(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Action {
    Send { number: u64, delay_ms: u64, token: Option<u8>, to: u64 },
    Cancel(u8),
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Report {
    /// What became of each action of a script: whether it took effect.
    Played(u64, Vec<bool>),
    /// A delayed message arrived: its number, where, by whom it was sent, and the clock.
    Arrived { number: u64, at: String, from: String, now_ms: u64 },
}

fn functions(clock: &Clock, at_close: AtClose) -> Functions<Message> {
    let play = || {
        Function::new(|context, message: &Message| {
            let (number, actions) = match message {
                Message::Script { number, actions } => (*number, actions),
                Message::Due(number) => {
                    let from = context.caller().ok_or("somebody sent it")?.to_string();
                    let (at, now_ms) = (context.address().to_string(), context.now_ms());
                    context.emit(REPORTS, Report::Arrived { number: *number, at, from, now_ms });
                    return Ok(());
                }
            };
            let mut took_effect = Vec::new();
            for action in actions {
                took_effect.push(match action {
                    Action::Send { number, delay_ms, token, to } => {
                        let (delay, message) =
                            (Duration::from_millis(*delay_ms), Message::Due(*number));
                        match token {
                            Some(token) => {
                                let token = token.to_string();
                                context
                                    .send_after_unless_cancelled(
                                        &token, delay, PLAYER, *to, message,
                                    )
                                    .is_ok()
                            }
                            None => {
                                context.send_after(delay, PLAYER, *to, message);
                                true
                            }
                        }
                    }
                    Action::Cancel(token) => context.cancel(&token.to_string()),
                    Action::Fail => return Err("the script says so".into()),
                });
            }
            context.emit(REPORTS, Report::Played(number, took_effect));
            Ok(())
        })
        .on_failure(OnFailure::DeadLetter)
    };
    Functions::new()
        .embedded(PLAYER, play())
        .embedded(OTHER, play())
        .egress(REPORTS)
        .clock(clock.clone())
        .at_close(at_close)
}

/// A message: who sent it, with which token, its number, and to whom.
type Sent = (String, Option<u8>, u64, u64);

/// What should happen, as plainly as it can be said.
#[derive(Clone, Default)]
struct Model {
    sent: u64,
    /// By due time and order of sending.
    waiting: BTreeMap<(u64, u64), Sent>,
}

impl Model {
    fn token(&self, sender: &str, token: u8) -> Option<(u64, u64)> {
        let mut found = self.waiting.iter();
        let found = found.find(|(_, (by, with, ..))| by == sender && *with == Some(token));
        found.map(|(key, _)| *key)
    }

    /// Plays a script, if it does not fail.
    fn play(&mut self, sender: &str, actions: &[Action], now_ms: u64) -> Option<Vec<bool>> {
        let mut after = self.clone();
        let mut took_effect = Vec::new();
        for action in actions {
            took_effect.push(match action {
                Action::Send { number, delay_ms, token, to } => {
                    let free = token.is_none_or(|token| after.token(sender, token).is_none());
                    if free {
                        after.sent += 1;
                        let message = (sender.to_owned(), *token, *number, *to);
                        after.waiting.insert((now_ms + delay_ms, after.sent), message);
                    }
                    free
                }
                Action::Cancel(token) => match after.token(sender, *token) {
                    Some(key) => after.waiting.remove(&key).is_some(),
                    None => false,
                },
                Action::Fail => return None,
            });
        }
        *self = after;
        Some(took_effect)
    }

    /// What arrives when the clock shows `now_ms`.
    fn turn(&mut self, now_ms: u64, until_ms: u64) -> Vec<Report> {
        let later = self.waiting.split_off(&(until_ms, u64::MAX));
        let due = std::mem::replace(&mut self.waiting, later).into_values();
        let arrived = due.map(|(from, _, number, to)| {
            let at = PLAYER.at(to).to_string();
            Report::Arrived { number, at, from, now_ms }
        });
        arrived.collect()
    }
}

fn script(random: &mut Random, number: &mut u64) -> Vec<Action> {
    let length = 1 + random.below(5);
    let actions = (0..length).map(|_| match random.below(20) {
        0 => Action::Fail,
        1..6 => Action::Cancel(random.below(3) as u8),
        _ => {
            *number += 1;
            let up_to = [1, 10, 1000, 100_000][random.below(4) as usize];
            let delay_ms = 1 + random.below(up_to);
            let token = (random.below(2) == 0).then(|| random.below(3) as u8);
            Action::Send { number: *number, delay_ms, token, to: random.below(4) }
        }
    });
    actions.collect()
}

/// On one worker everything is determined, to the order of arrival and the time it happens at.
#[test]
fn random_scripts_do_what_a_plain_model_says() {
    for seed in 0..60 {
        let _running = Running(format!("seed {seed}"));
        let at_close = if seed % 2 == 0 { AtClose::Wait } else { AtClose::SendNow };
        timely::execute_directly(move |worker| one_run(worker, seed, at_close));
    }
}

fn one_run(worker: &mut timely::worker::Worker, seed: u64, at_close: AtClose) {
    let (clock, hands) = Clock::turned(START_MS);
    let reports = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&reports);
    let (mut input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
        let egresses = stream.stateful_functions(functions(&clock, at_close)).unwrap();
        let stream = egresses.stream(REPORTS).unwrap();
        let stream = stream.inspect_batch(move |time, batch| {
            seen.borrow_mut().extend(batch.iter().map(|report| (*time, report.clone())));
        });
        (input, stream.probe().0, egresses.handle())
    });
    let mut random = Random(seed);
    let (mut model, mut now_ms, mut epoch, mut number) = (Model::default(), START_MS, 0, 0);
    for script_number in 0..60 {
        let actions = script(&mut random, &mut number);
        let to = if random.below(4) == 0 { OTHER } else { PLAYER };
        let id = random.below(3);
        let outcome = model.play(&to.at(id).to_string(), &actions, now_ms);
        input.send(to.message(id, Message::Script { number: script_number, actions }));
        epoch += 1;
        input.advance_to(epoch);
        // What waits holds no frontier.
        handle.run_while(worker, || probe.less_than(&epoch)).unwrap();
        let played = outcome.map(|played| (epoch - 1, Report::Played(script_number, played)));
        let mut expected: Vec<_> = played.into_iter().collect();
        if random.below(2) == 0 {
            let up_to = [2, 50, 5000][random.below(3) as usize];
            let by = random.below(up_to);
            hands.advance(Duration::from_millis(by));
            now_ms += by;
            let due = model.turn(now_ms, now_ms);
            expected.extend(due.into_iter().map(|report| (epoch, report)));
        }
        for _ in 0..20 {
            worker.step();
        }
        assert_eq!(reports.take(), expected);
    }
    input.close();
    let rest = match at_close {
        AtClose::SendNow => model.turn(now_ms, u64::MAX),
        AtClose::Wait => {
            for _ in 0..50 {
                worker.step();
            }
            assert_eq!(probe.less_equal(&epoch), !model.waiting.is_empty(), "it waits");
            hands.advance(Duration::from_secs(1000));
            model.turn(now_ms + 1_000_000, u64::MAX)
        }
    };
    handle.run(worker).unwrap();
    let rest: Vec<_> = rest.into_iter().map(|report| (epoch, report)).collect();
    assert_eq!(reports.take(), rest);
}

/// Every address of several workers sets and cancels; each message arrives once or is cancelled.
#[test]
fn on_several_workers_each_message_arrives_once_or_was_cancelled() {
    const IDS: u64 = 50;
    let results = on_workers(4, |worker| {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let reports = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&reports);
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
            let functions = functions(&Clock::system(), AtClose::Wait);
            let egresses = stream.stateful_functions(functions).unwrap();
            let stream = egresses.stream(REPORTS).unwrap();
            stream.inspect(move |report| seen.borrow_mut().push(report.clone()));
            (input, egresses.handle())
        });
        for id in (0..IDS).filter(|id| id % peers == index) {
            let send = |number: u64, token| Action::Send {
                number: id * 100 + number,
                delay_ms: number % 7,
                token,
                to: (id + number) % IDS,
            };
            let actions = (0..40).map(|number| send(number, (number == 7).then_some(1)));
            let mut actions: Vec<_> = actions.collect();
            if id % 2 == 0 {
                actions.push(Action::Cancel(1));
            }
            input.send(PLAYER.message(id, Message::Script { number: id, actions }));
        }
        input.close();
        handle.run(worker).unwrap();
        reports.take()
    });
    let mut arrived = Vec::new();
    for report in results.into_iter().flatten() {
        if let Report::Arrived { number, at, from, .. } = report {
            assert_eq!(from, PLAYER.at(number / 100).to_string());
            assert_eq!(at, PLAYER.at((number / 100 + number % 100) % IDS).to_string());
            arrived.push(number);
        }
    }
    arrived.sort_unstable();
    let expected = (0..IDS).flat_map(|id| (0..40).map(move |number| (id, number)));
    let expected = expected.filter(|(id, number)| id % 2 == 1 || *number != 7);
    assert!(expected.map(|(id, number)| id * 100 + number).eq(arrived));
}

/// Delayed messages that send each other, long after ingress has closed, on workers that had nothing
/// left to wait for.
#[test]
fn a_chain_of_delays_goes_on_after_ingress_has_closed() {
    chain_of_delays(Order::Arrival);
}

/// The same in the order of time. A message of a chain that sent another with a delay, once ingress had
/// closed, ended its worker with a panic, since it was to keep a right that a message of no depth has.
#[test]
fn a_chain_of_delays_goes_on_in_the_order_of_time() {
    chain_of_delays(Order::Time);
}

fn chain_of_delays(order: Order) {
    const WALKER: FunctionType<u64> = FunctionType::new("delayed/walker");
    const STEPS: ValueSpec<u64> = ValueSpec::new("steps");
    const DONE: Egress<(u64, u64)> = Egress::new("delayed/done");
    let results = on_workers(3, move |worker| {
        let done = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&done);
        let (mut input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let walker = Function::new(|context, left: &u64| {
                context.update(STEPS, |steps| *steps += 1);
                match left {
                    0 => context.emit(DONE, (*context.time(), 0)),
                    // Every other step at once, so that chains cross workers both ways.
                    left if left % 2 == 0 => context.send(WALKER, left * 31, left - 1),
                    left => {
                        context.send_after(Duration::from_millis(1), WALKER, left * 17, left - 1)
                    }
                }
                Ok(())
            });
            let functions = Functions::new().embedded(WALKER, walker.value(STEPS)).egress(DONE);
            let egresses = stream.stateful_functions(functions.order(order)).unwrap();
            let stream = egresses.stream(DONE).unwrap();
            let stream =
                stream.inspect_time(move |time, record| seen.borrow_mut().push((*time, record.0)));
            (input, stream.probe().0, egresses.handle())
        });
        input.advance_to(5);
        // An event happens at the time that ingress has come to on all workers.
        handle.run_while(worker, || probe.less_than(&5)).unwrap();
        if worker.index() == 0 {
            input.send(WALKER.message("start", 60));
        }
        input.close();
        handle.run(worker).unwrap();
        (done.take(), handle.stats().handled)
    });
    // A worker that hears that ingress has moved to 5 and closed in one step never saw it at 5.
    let done: Vec<_> = results.iter().flat_map(|(done, _)| done.clone()).collect();
    assert!(done == [(5, 5)] || done == [(0, 0)], "it ends once, at a time there was: {done:?}");
    assert_eq!(results.iter().map(|(_, handled)| handled).sum::<u64>(), 61);
    assert!(results.iter().all(|(_, handled)| *handled > 0), "all workers took part");
}

#[test]
fn there_is_a_limit_on_what_waits() {
    let letters = timely::execute_directly(|worker| {
        let (clock, hands) = Clock::turned(START_MS);
        let letters = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&letters);
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
            let limits = Limits { delayed_messages_max: 3, ..Limits::default() };
            let functions = functions(&clock, AtClose::Wait).limits(limits);
            let egresses = stream.stateful_functions(functions).unwrap();
            let letters = egresses.dead_letters().unwrap();
            letters.inspect(move |letter| seen.borrow_mut().push(letter.reason.clone()));
            (input, egresses.handle())
        });
        let send = Action::Send { number: 1, delay_ms: 5, token: None, to: 1 };
        for (number, sends) in [(0, 2), (1, 2), (2, 1)] {
            let actions = vec![send.clone(); sends];
            input.send(PLAYER.message(1, Message::Script { number, actions }));
        }
        input.close();
        hands.advance(Duration::ZERO);
        handle.run_while(worker, || handle.stats().handled < 3).unwrap();
        hands.advance(Duration::from_millis(5));
        handle.run(worker).unwrap();
        assert_eq!(handle.stats().handled, 3 + 3);
        letters.take()
    });
    assert_eq!(letters, [Reason::TooManyDelayed(3)], "the second would have made four");
}

/// Nobody turns the clock, and yet what is due at once is sent off.
#[test]
fn what_has_no_delay_is_sent_off_by_a_clock_that_stands_still() {
    const COUNTDOWN: FunctionType<u64> = FunctionType::new("delayed/countdown");
    timely::execute_directly(|worker| {
        let (clock, _hands) = Clock::turned(START_MS);
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let countdown = Function::new(|context, left: &u64| {
                if *left > 0 {
                    context.send_after(Duration::ZERO, COUNTDOWN, "a", left - 1);
                }
                Ok(())
            });
            let functions = Functions::new().embedded(COUNTDOWN, countdown).clock(clock);
            (input, stream.stateful_functions(functions).unwrap().handle())
        });
        input.send(COUNTDOWN.message("a", 10));
        input.flush();
        for _ in 0..1000 {
            worker.step();
        }
        assert_eq!(handle.stats().handled, 11);
        input.close();
        handle.run(worker).unwrap();
    });
}

/// More than a worker handles at once, and each sends another with a delay when it arrives: a program
/// that does not wait for delays ends although nobody turns the clock. It used to wait for the first that
/// did not fit.
#[test]
fn what_is_sent_off_at_the_close_is_sent_off_to_the_last_and_so_is_what_it_sends() {
    const FOLLOWER: FunctionType<u64> = FunctionType::new("delayed/follower");
    const MESSAGES: u64 = 1000;
    timely::execute_directly(|worker| {
        let (clock, _hands) = Clock::turned(START_MS);
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let follower = Function::new(|context, left: &u64| {
                if *left > 0 {
                    let id = context.id().clone();
                    context.send_after(Duration::from_secs(60), FOLLOWER, id, left - 1);
                }
                Ok(())
            });
            let limits = Limits { budget_messages: 16, ..Limits::default() };
            let functions = Functions::new().embedded(FOLLOWER, follower).clock(clock);
            let functions = functions.at_close(AtClose::SendNow).limits(limits);
            (input, stream.stateful_functions(functions).unwrap().handle())
        });
        (0..MESSAGES).for_each(|id| input.send(FOLLOWER.message(id, 2)));
        input.close();
        for _ in 0..10_000 {
            worker.step();
        }
        assert_eq!(handle.stats().handled, 3 * MESSAGES);
        handle.run(worker).unwrap();
    });
}
