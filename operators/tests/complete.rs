//! What a cut says to be complete in time is: nothing leaves after the cut at an earlier time.
//!
//! Random messages cause random others on random workers, at once, after something that holds their
//! time, later than that, or as events, while cuts are taken. All that leaves says after how many cuts
//! it left. For each cut, what left after it is compared with what all workers together said.
//!
//! A run also fails if it proves nothing: if what was said never moved, or lay far below what came.

#[path = "support/pair.rs"]
mod pair;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pair::Pair;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::vec::UnorderedInput;
use timely::progress::timestamp::Refines;
use timely::progress::{Antichain, Timestamp};
use timely_statefun_operators::{
    Awaits, CutControl, Cuts, Decider, Handler, Held, Inbox, Ingress, LoopConfig, Order, Outbox,
    Verdict, keyed_loop,
};

/// Steps of each worker in which it admits something, and how many where each depth takes a round of
/// progress.
const STEPS: u64 = 300;
const STEPS_IN_ORDER: u64 = 60;

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Decides by its number what it does.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
struct Message {
    number: u64,
    /// The worker that handles it.
    to: u64,
    /// How many more messages may follow from it.
    fuel: u64,
}

impl Message {
    fn new(number: u64, fuel: u64) -> Self {
        Message { number, to: number >> 16, fuel }
    }

    fn next(self, way: u64) -> Self {
        Message::new(mix(self.number.wrapping_add(way)), self.fuel - 1)
    }
}

trait Times: Timestamp + Refines<()> {
    /// The time of each step on each worker.
    fn at(worker: u64, step: u64) -> Self;
    /// A later time.
    fn later(&self, number: u64) -> Self;
}

impl Times for u64 {
    fn at(worker: u64, step: u64) -> u64 {
        // One worker lags now and then.
        if worker == 0 { step / 16 * 16 } else { step }
    }

    fn later(&self, number: u64) -> u64 {
        self + number % 9
    }
}

impl Times for Pair {
    fn at(worker: u64, step: u64) -> Pair {
        match worker % 2 {
            0 => Pair(step, step / 2),
            _ => Pair(step / 2, step),
        }
    }

    fn later(&self, number: u64) -> Pair {
        Pair(self.0 + number % 5, self.1 + number / 8 % 5)
    }
}

/// What waits for some polls of its handler.
enum Waiting {
    Held(Held, Message),
    Event(Message),
}

/// What workers said of a cut, and how many.
type Said<T> = (Vec<T>, usize);

struct Shared<T> {
    said: Mutex<BTreeMap<u64, Said<T>>>,
    /// After how many cuts something left, and at which time.
    left: Mutex<Vec<(u64, T)>>,
    control: CutControl<T>,
}

struct Wanderers<T> {
    worker: u64,
    cuts: u64,
    waiting: Vec<(u64, Waiting)>,
    emitted: Vec<(T, u64)>,
    shared: Arc<Shared<T>>,
}

impl<T: Times> Handler<T> for Wanderers<T> {
    type Message = Message;
    /// After how many cuts it left.
    type Output = u64;
    type Failure = String;

    fn route(message: &Message) -> u64 {
        message.to
    }

    fn handle(&mut self, message: Message, outbox: &mut Outbox<'_, T, Message>) -> Verdict<String> {
        self.emitted.push((outbox.time().clone(), self.cuts));
        if message.fuel == 0 {
            return Verdict::Done;
        }
        let random = mix(message.number ^ 0x9e37_79b9_7f4a_7c15);
        let (way, polls) = (random % 16, random >> 8 & 15);
        match way {
            0..=8 => outbox.send(message.next(1)),
            9 => {
                outbox.send(message.next(1));
                outbox.send(message.next(2));
            }
            10..=13 => {
                let held = outbox.hold();
                self.waiting.push((polls, Waiting::Held(held, message.next(3))));
            }
            14 => {
                outbox.expect_event();
                self.waiting.push((polls, Waiting::Event(message.next(4))));
            }
            _ => {}
        }
        Verdict::Done
    }

    fn poll(&mut self, inbox: &mut Inbox<'_, T, Message>) -> Result<(), String> {
        for (polls, waiting) in std::mem::take(&mut self.waiting) {
            match waiting {
                _ if polls > 0 => self.waiting.push((polls - 1, waiting)),
                Waiting::Event(message) => inbox.event(message),
                Waiting::Held(held, message) if message.number % 4 == 0 && message.fuel > 0 => {
                    let later = inbox.time_of(&held).later(message.number);
                    let again = inbox.hold_later(&held, later);
                    inbox.release(held);
                    self.waiting.push((2, Waiting::Held(again, message.next(5))));
                }
                Waiting::Held(held, message) if message.number % 4 == 1 => {
                    self.emitted.push((inbox.time_of(&held).clone(), self.cuts));
                    inbox.release(held);
                }
                Waiting::Held(held, message) => {
                    inbox.resume(held, Message { to: self.worker, ..message });
                }
            }
        }
        Ok(())
    }

    fn awaits(&self) -> Awaits {
        let events = self.waiting.iter().any(|(_, w)| matches!(w, Waiting::Event(_)));
        let poll_after = (!self.waiting.is_empty()).then_some(std::time::Duration::ZERO);
        Awaits { events, poll_after }
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&T, u64)) {
        self.emitted.drain(..).for_each(|(time, cuts)| emitter(&time, cuts));
    }

    fn take_cut(&mut self, cut: u64, _: Option<&T>) {
        self.cuts = cut;
    }

    fn complete_cut(&mut self, cut: u64, complete: &[T]) {
        let mut said = self.shared.said.lock().unwrap();
        let (said, workers) = said.entry(cut).or_default();
        said.extend_from_slice(complete);
        *workers += 1;
    }
}

/// What came of a program: for each cut what all workers said, and all that left.
struct Run<T> {
    said: BTreeMap<u64, Antichain<T>>,
    left: Vec<(u64, T)>,
    sent_away: u64,
    logged: u64,
}

fn run<T: Times>(workers: usize, order: Order, seed: u64) -> Run<T> {
    let shared = Arc::new(Shared::<T> {
        said: Mutex::default(),
        left: Mutex::default(),
        control: CutControl::new(),
    });
    let of_worker = Arc::clone(&shared);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index() as u64, worker.peers());
        let shared = Arc::clone(&of_worker);
        let wanderers = Wanderers {
            worker: index,
            cuts: 0,
            waiting: Vec::new(),
            emitted: Vec::new(),
            shared: Arc::clone(&shared),
        };
        let seen = Arc::clone(&shared);
        let decider = Decider::new(&shared.control);
        let ((mut input, mut now), handle) = worker.dataflow::<T, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input::<Message>();
            let ingress = vec![Ingress::new("numbers", stream, |message| message)];
            let config = LoopConfig {
                budget_messages: 16,
                // So little that gates hold records back.
                gate_credit_records: 4,
                order,
                ..LoopConfig::default()
            };
            let cuts = Cuts::from(decider);
            let (out, handle) =
                keyed_loop(scope, "wanderers", ingress, config, Some(cuts), wanderers);
            out.inspect_time(move |time, cuts| {
                seen.left.lock().unwrap().push((*cuts, time.clone()));
            });
            (input, handle)
        });
        let commit = || {
            let Some(open) = shared.control.open() else { return shared.control.request() };
            let complete = shared.said.lock().unwrap().get(&open).map_or(0, |said| said.1);
            if complete == peers {
                shared.control.committed(open);
            }
        };
        let steps = if order == Order::Time { STEPS_IN_ORDER } else { STEPS };
        for step in 0..steps {
            now.downgrade(&T::at(index, step));
            let mut random = mix(seed * 1_000_003 + step * 64 + index);
            for _ in 0..random % 4 {
                random = mix(random + 1);
                input.activate().session(&now).give(Message::new(random, random % 24));
            }
            for _ in 0..1 + random % 3 {
                worker.step();
            }
            std::thread::yield_now();
            if index == 0 {
                commit();
            }
        }
        drop((input, now));
        while !worker.installed_dataflows().is_empty() {
            if index == 0 {
                commit();
            }
            worker.step_or_park(Some(std::time::Duration::from_millis(1)));
        }
        handle.run(worker).unwrap();
        (handle.stats().sent_away, handle.stats().logged)
    });
    let ends: Vec<_> = guards.unwrap().join().into_iter().map(|end| end.unwrap()).collect();
    let said = std::mem::take(&mut *shared.said.lock().unwrap());
    assert!(said.values().all(|said| said.1 == workers), "no cut is given up");
    Run {
        said: said.into_iter().map(|(cut, (said, _))| (cut, said.into())).collect(),
        left: std::mem::take(&mut *shared.left.lock().unwrap()),
        sent_away: ends.iter().map(|(sent_away, _)| sent_away).sum(),
        logged: ends.iter().map(|(_, logged)| logged).sum(),
    }
}

fn check<T: Times>(workers: usize, order: Order) {
    let (mut logged, mut tight) = (0, 0);
    for seed in 1..=4 {
        println!("{workers} workers, {order:?}, seed {seed}");
        let run = run::<T>(workers, order, seed);
        let after = |cut: u64| run.left.iter().filter(move |(count, _)| *count >= cut);
        for (cut, complete) in &run.said {
            for (count, time) in after(*cut) {
                assert!(
                    complete.less_equal(time),
                    "{time:?} left after cut {count}; complete at {cut} was {complete:?}"
                );
            }
            tight += after(*cut).filter(|(_, time)| complete.elements().contains(time)).count();
        }
        let all: Vec<_> = run.said.values().collect();
        for (before, after) in all.iter().zip(&all[1..]) {
            let went_back = after.elements().iter().find(|time| !before.less_equal(time));
            assert_eq!(went_back, None, "{before:?} was followed by {after:?}");
        }
        // What proves nothing fails.
        assert!(all.last().unwrap().elements().is_empty(), "all was over at the last");
        let moved = all.iter().zip(&all[1..]).filter(|(before, after)| before != after).count();
        assert!(moved > 3, "{moved} of {} cuts said anything new", all.len());
        assert!(after(all.len() as u64 / 2).count() > 50, "little left after a cut");
        assert!(workers == 1 || run.sent_away > 100, "few messages crossed workers");
        logged += run.logged;
    }
    assert!(tight > 20, "all that left came long after what was said");
    assert!(workers == 1 || logged > 0, "no cut logged a message");
}

#[test]
fn what_leaves_after_a_cut_leaves_where_it_is_not_complete() {
    for workers in [1, 2, 4] {
        check::<u64>(workers, Order::Arrival);
    }
}

#[test]
fn what_leaves_after_a_cut_leaves_where_it_is_not_complete_in_the_order_of_time() {
    for workers in [1, 2] {
        check::<u64>(workers, Order::Time);
    }
}

#[test]
fn what_leaves_after_a_cut_leaves_where_it_is_not_complete_at_partially_ordered_times() {
    for workers in [1, 2, 4] {
        check::<Pair>(workers, Order::Arrival);
    }
}
