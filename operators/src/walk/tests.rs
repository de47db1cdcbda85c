//! An engine that is cut at random: what is handed over is what waited, exactly, whatever the slices.
//!
//! The engine is driven without a dataflow. When a cut is taken, all that waits is listed in one go. What
//! is handed over afterwards, while messages are handled, sent, put first, held and resumed, must be
//! that list when the cut is complete, and its beginning when it is abandoned.

use std::cmp::Ordering;
use std::collections::VecDeque;

use timely::order::Product;

use crate::config::{LoopConfig, Order};
use crate::engine::{Engine, Ship};
use crate::handler::{Handler, Held, Inbox, Outbox, Verdict};
use crate::part::{Place, Places, Work};
use crate::record::{Admitted, GateAddress, Record};
use crate::stages::Stage;

/// Time, depth, whether it is known as a record, and number.
type Seen = (u64, u64, bool, u64);

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Does at random what a handler may do.
struct Fickle {
    chance: Chance,
    next: u64,
    held: VecDeque<Held>,
    /// Messages wait that it may still make.
    lively: bool,
    handled: Vec<u64>,
    handed_over: Vec<Seen>,
    open: Option<u64>,
    units: u64,
    complete: u64,
    abandoned: u64,
}

impl Fickle {
    fn message(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Handler<u64> for Fickle {
    type Message = u64;
    type Output = ();
    type Failure = String;

    fn route(_: &u64) -> u64 {
        0
    }

    fn compare(&self, one: &u64, other: &u64) -> Ordering {
        (one % 3).cmp(&(other % 3))
    }

    fn handle(&mut self, message: u64, outbox: &mut Outbox<'_, u64, u64>) -> Verdict<String> {
        self.handled.push(message);
        if !self.lively {
            return Verdict::Done;
        }
        for _ in 0..self.chance.below(3) {
            let sent = self.message();
            outbox.send(sent);
        }
        match self.chance.below(8) {
            0 => self.held.push_back(outbox.hold()),
            1 => {
                self.held.push_back(outbox.put_off(true));
                return Verdict::Undone;
            }
            2 if !self.held.is_empty() => {
                let held = self.held.pop_front().unwrap();
                let first = self.message();
                outbox.resume_first(held, first);
            }
            3 => {
                let event = self.message();
                outbox.event_first(event);
            }
            _ => {}
        }
        Verdict::Done
    }

    fn poll(&mut self, inbox: &mut Inbox<'_, u64, u64>) -> Result<(), String> {
        while let Some(held) = self.held.pop_front() {
            let message = self.message();
            match self.chance.below(4) {
                0 => inbox.resume(held, message),
                1 => inbox.resume_first(held, message),
                2 => inbox.release(held),
                _ => {
                    self.held.push_front(held);
                    break;
                }
            }
        }
        if self.lively && self.chance.below(4) == 0 {
            let message = self.message();
            match self.chance.below(2) {
                0 => inbox.event(message),
                _ => inbox.event_first(message),
            }
        }
        Ok(())
    }

    fn take_cut(&mut self, cut: u64, _: Option<&u64>) {
        assert_eq!(self.open, None);
        self.open = Some(cut);
        self.handed_over.clear();
        self.units = self.chance.below(10);
    }

    fn queued(&mut self, cut: u64, place: Place<'_, u64>, message: &u64) {
        assert_eq!(self.open, Some(cut));
        assert!(!self.handled.contains(message), "{message} was handled before");
        self.handed_over.push((*place.time, place.depth, place.record, *message));
    }

    fn work_on_cut(&mut self, cut: u64, budget: usize, _: &Places<'_, u64>) -> Work {
        assert_eq!(self.open, Some(cut));
        self.units = self.units.saturating_sub(budget as u64);
        if self.units == 0 { Work::Done } else { Work::More }
    }

    fn complete_cut(&mut self, cut: u64, _: &[u64]) {
        assert_eq!(self.open.take(), Some(cut));
        assert_eq!(self.units, 0, "complete, and not written");
        self.complete += 1;
    }

    fn abandon_cut(&mut self, cut: u64) {
        assert_eq!(self.open.take(), Some(cut));
        self.abandoned += 1;
    }
}

struct Nowhere;

impl Ship<u64, u64> for Nowhere {
    fn ship(&mut self, _: &mut Vec<Record<u64, u64>>, _: Option<&Stage<u64>>) {
        panic!("there is one worker");
    }
}

/// All that waits, in the order in which it will be handled, by looking at all of it.
fn waiting(engine: &Engine<u64, Fickle>) -> Vec<Seen> {
    let flow = &engine.flow;
    let by_stage = flow.stages.is_some();
    let queue = flow.queue.iter().map(|waiting| {
        let Product { outer, inner } = *flow.times.time(waiting.time);
        let record = waiting.put_off || by_stage && inner == 0;
        (outer, inner, record, waiting.message)
    });
    let mut all: Vec<Seen> = queue.collect();
    let stages = flow.stages.iter().flat_map(|stages| stages.list());
    for (stage, messages) in stages {
        let mut messages: Vec<_> = messages.iter().collect();
        messages.sort_by_key(|staged| (staged.waiting.message % 3, staged.gate));
        all.extend(messages.into_iter().map(|staged| {
            let record = staged.gate.is_some() || staged.waiting.put_off;
            (stage.outer, stage.inner, record, staged.waiting.message)
        }));
    }
    all
}

#[derive(Default)]
struct Totals {
    complete: u64,
    abandoned: u64,
    /// Messages handed over when they were about to be handled, and in slices.
    popped: usize,
    walked: usize,
    /// Cuts at which a stage was open, with others behind.
    within_a_stage: usize,
}

fn run(seed: u64, order: Order, totals: &mut Totals) {
    let mut chance = Chance(seed);
    let config = LoopConfig {
        order,
        budget_messages: 1 + chance.below(12) as usize,
        cut_slice: 1 + chance.below(6) as usize,
        activation_max: None,
        ..LoopConfig::default()
    };
    let handler = Fickle {
        chance: Chance(seed ^ 0x5555),
        next: 0,
        held: VecDeque::new(),
        lively: true,
        handled: Vec::new(),
        handed_over: Vec::new(),
        open: None,
        units: 0,
        complete: 0,
        abandoned: 0,
    };
    let mut engine = Engine::new(handler, config, 0, 1);
    let mut expected: Vec<Seen> = Vec::new();
    let (mut now, mut cut) = (0, 0);
    for step in 0.. {
        let over = step >= 120;
        engine.handler.lively = !over && (engine.waiting().0 < 200);
        if over && engine.is_empty() && engine.handler.held.is_empty() && !engine.cut_is_open() {
            break;
        }
        assert!(step < 5000, "seed {seed}: it never comes to an end");
        // What arrives is of this time or a later one; earlier stages may be opened.
        if chance.below(3) == 0 {
            now += chance.below(2);
        }
        if chance.below(4) == 0 && !over {
            let before = engine.handler.handed_over.clone();
            assert!(expected.starts_with(&before), "seed {seed}: {before:?} of {expected:?}");
            expected = waiting(&engine);
            cut += 1 + chance.below(2);
            engine.take_cut(cut);
            engine.take_cut(cut - 1);
            totals.within_a_stage += usize::from(
                order == Order::Time
                    && engine.has_work()
                    && expected.len() > engine.flow.queue.len(),
            );
        }
        if !over {
            let records = (0..chance.below(8)).map(|_| Admitted {
                time: now + chance.below(3),
                gate: GateAddress { worker: 0, gate: chance.below(2) as u32 },
                message: engine.handler.message(),
            });
            let mut records: Vec<_> = records.collect();
            engine.receive_admitted(cut, &mut records);
        }
        engine.note_frontier(timely::progress::Antichain::from_elem(now));
        assert_eq!(engine.poll(&mut Nowhere), None);
        let bound = (!over).then(|| Product::new(now, 0));
        engine.open_stage(bound);
        let before = engine.handler.handed_over.len();
        assert_eq!(engine.run(&mut Nowhere), None);
        let popped = engine.handler.handed_over.len() - before;
        engine.settle();
        // Now and then nothing comes for a while but red messages.
        let lowest = (chance.below(3) > 0).then(|| cut - u64::from(cut > 0));
        let complete = engine.handler.complete;
        let work = engine.work_on_cut(lowest.filter(|_| !over), true);
        totals.popped += popped;
        totals.walked += engine.handler.handed_over.len() - before - popped;
        let seen = &engine.handler.handed_over;
        assert!(expected.starts_with(seen), "seed {seed}: {seen:?} of {expected:?}");
        assert_eq!(work.completed, engine.handler.complete > complete);
        if work.completed {
            assert_eq!(*seen, expected, "seed {seed}: something is missing");
        }
    }
    totals.complete += engine.handler.complete;
    totals.abandoned += engine.handler.abandoned;
}

fn check(order: Order) -> Totals {
    let mut totals = Totals::default();
    for seed in 1..=400 {
        run(seed, order, &mut totals);
    }
    assert!(totals.complete > 400 && totals.abandoned > 400, "cuts must end in both ways");
    assert!(totals.popped > 1000 && totals.walked > 1000, "messages are handed over in both ways");
    totals
}

#[test]
fn what_is_handed_over_is_what_waited() {
    check(Order::Arrival);
}

#[test]
fn what_is_handed_over_is_what_waited_in_the_order_of_time() {
    let totals = check(Order::Time);
    assert!(totals.within_a_stage > 100, "stages were open when a cut was taken");
}
