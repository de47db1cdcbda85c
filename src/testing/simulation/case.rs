//! What happens in one run, but for the order in which workers get on: drawn from a seed, and made smaller
//! where it fails.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::store::StoreFault;
use super::member::{Sent, Tuning};
use super::network::CallFault;
use super::random::Random;
use crate::message::Envelope;

/// Into how many partitions the ingress is divided.
const PARTITIONS: u64 = 3;
/// How many messages have the same time, on average.
const TO_A_TIME: u64 = 4;
/// About how many actions of a run there are for each message of the ingress.
pub(super) const ACTIONS: u64 = 4;
/// Calls that anything may go wrong with.
const CALLS: u64 = 30;
/// What is asked of a store that anything may go wrong with.
const REQUESTS: u64 = 120;

/// A run, but for the order in which workers get on.
#[derive(Clone)]
pub(super) struct Case<M> {
    pub(super) seed: u64,
    pub(super) messages: Arc<[Sent<M>]>,
    pub(super) crews: Vec<Crewing>,
    pub(super) events: Vec<Event>,
    pub(super) tuning: Tuning,
}

/// The workers of an execution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crewing {
    pub(super) workers: usize,
    /// Whether what they exchange crosses as bytes.
    pub(super) as_bytes: bool,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A snapshot is asked for, before the action of this number.
    Snapshot { at: u64 },
    /// A snapshot of exactly what is before a time is asked for.
    Aligned { at: u64, time: u64 },
    /// The program ends at once and is started again.
    Crash { at: u64, how: Crash },
    /// A worker gets nowhere for a while.
    Stall { at: u64, worker: usize, actions: u64 },
    /// Something goes wrong with a call.
    Call { number: u64, fault: CallFault },
    /// Something goes wrong with the store.
    Store { number: u64, fault: StoreFault },
}

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// Its processes are gone, and what was on its way is lost.
    Killed,
    /// The machine loses power: what the store had not synced is lost as well.
    PowerLost,
    /// It is believed to be dead, and wakes after so many actions of its successor, for some of its own.
    Believed { sleeps: u64, actions: u64 },
}

impl<M: Clone> Case<M> {
    pub(super) fn draw(
        seed: u64,
        count: usize,
        workers_max: usize,
        faults: bool,
        mut message: impl FnMut(&mut Random) -> Envelope<M>,
    ) -> Self {
        let mut random = Random::branch(seed, 1);
        let (mut time, mut messages, mut next) = (0, Vec::new(), [0; PARTITIONS as usize]);
        for _ in 0..count {
            if random.once_in(TO_A_TIME) {
                time += 1 + random.below(3);
            }
            let partition = random.below(PARTITIONS);
            let position = next[partition as usize];
            next[partition as usize] += 1 + random.below(2);
            messages.push(Sent { time, partition, position, envelope: message(&mut random) });
        }
        let mut random = Random::branch(seed, 2);
        let crewing = |random: &mut Random| Crewing {
            workers: 1 + random.below(workers_max as u64) as usize,
            as_bytes: random.once_in(2),
        };
        let crews = (0..8).map(|_| crewing(&mut random)).collect();
        let tuning = Tuning {
            budget: *random.pick(&[1, 2, 7, 64, 4096]),
            credit: *random.pick(&[1, 3, 16, 65_536]),
            loop_bytes_soft: *random.pick(&[1, 1 << 10, usize::MAX, usize::MAX]),
            delay_max: *random.pick(&[0, 2, 6, 20]),
        };
        let actions = count as u64 * ACTIONS;
        let events = if faults { Self::events(seed, actions, time, workers_max) } else { vec![] };
        Case { seed, messages: messages.into(), crews, events, tuning }
    }

    fn events(seed: u64, actions: u64, last: u64, workers_max: usize) -> Vec<Event> {
        let mut random = Random::branch(seed, 3);
        let mut events = Vec::new();
        for _ in 0..1 + random.below(5) {
            events.push(Event::Snapshot { at: random.below(actions) });
        }
        if random.once_in(3) {
            let (at, time) = (random.below(actions), random.below(last + 3));
            events.push(Event::Aligned { at, time });
        }
        for _ in 0..1 + random.below(3) {
            let at = random.below(actions * 5 / 4);
            let how = match random.below(4) {
                0 => Crash::PowerLost,
                1 => {
                    // It has a cut under way, and others come to theirs while it sleeps.
                    events.push(Event::Snapshot { at: at.saturating_sub(random.below(30)) });
                    events.push(Event::Snapshot { at: at + random.below(60) });
                    let next = at + random.below(200);
                    events.push(Event::Crash { at: next, how: Crash::Killed });
                    Crash::Believed { sleeps: random.below(150), actions: 1 + random.below(100) }
                }
                _ => Crash::Killed,
            };
            events.push(Event::Crash { at, how });
        }
        for _ in 0..random.below(3) {
            let worker = random.below(workers_max as u64) as usize;
            let (at, length) = (random.below(actions), 1 + random.below(150));
            events.push(Event::Stall { at, worker, actions: length });
        }
        for _ in 0..1 + random.below(12) {
            let fault = match random.below(8) {
                0 => CallFault::Refused,
                1 => CallFault::Unavailable,
                2 | 3 => CallFault::Lost,
                4 => CallFault::Hangs,
                5 => CallFault::Twice,
                6 => CallFault::TimedOut,
                _ => CallFault::Late(Duration::from_millis(random.below(20_000))),
            };
            events.push(Event::Call { number: random.below(CALLS), fault });
        }
        for _ in 0..1 + random.below(6) {
            let fault = match random.below(7) {
                0 => StoreFault::Refused,
                1 => StoreFault::ReplyLost,
                2 => StoreFault::Slow(Duration::from_millis(1 + random.below(5_000))),
                3 => StoreFault::Late,
                4 => StoreFault::Unsynced,
                5 => StoreFault::OldList(Duration::from_millis(random.below(60_000))),
                _ => StoreFault::Stalled,
            };
            events.push(Event::Store { number: random.below(REQUESTS), fault });
        }
        events
    }

    /// The time at which ingress ends.
    pub(super) fn end(&self) -> u64 {
        self.messages.last().map_or(0, |last| last.time) + 1
    }

    /// The number of the action after which nothing happens that is not drawn.
    pub(super) fn last(&self) -> u64 {
        let at = self.events.iter().map(|event| match *event {
            Event::Snapshot { at } | Event::Aligned { at, .. } | Event::Crash { at, .. } => at,
            Event::Stall { at, actions, .. } => at + actions,
            Event::Call { .. } | Event::Store { .. } => 0,
        });
        at.max().unwrap_or(0)
    }

    pub(super) fn crew(&self, execution: u32) -> Crewing {
        self.crews[execution as usize % self.crews.len()]
    }

    /// The same with less in it, in the order in which it is worth trying. `step` is the number of the try;
    /// `None` after the last.
    pub(super) fn smaller(&self, step: usize) -> Option<Self> {
        let mut smaller = self.clone();
        let (messages, events) = (self.messages.len(), self.events.len());
        // Halves of what happens and of the messages, then quarters and so on; then workers.
        let mut step = step;
        let mut pieces = 2;
        while pieces <= 2 * messages.max(events).min(256) {
            if step < pieces {
                smaller.events.drain(piece(events, step, pieces));
                return Some(smaller);
            }
            step -= pieces;
            if step < pieces {
                let mut left = smaller.messages.to_vec();
                left.drain(piece(messages, step, pieces));
                smaller.messages = left.into();
                return Some(smaller);
            }
            step -= pieces;
            pieces *= 2;
        }
        let crew = smaller.crews.get_mut(step)?;
        crew.workers = (crew.workers - 1).max(1);
        Some(smaller)
    }

    /// How much there is in it.
    pub(super) fn size(&self) -> usize {
        let workers: usize = self.crews.iter().map(|crew| crew.workers).sum();
        self.messages.len() + self.events.len() + workers
    }
}

/// One of so many pieces of about the same length, of so much.
fn piece(of: usize, number: usize, pieces: usize) -> Range<usize> {
    of * number / pieces..of * (number + 1) / pieces
}

impl<M: fmt::Debug> fmt::Display for Case<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers: Vec<_> = self.crews.iter().map(|crew| crew.workers).collect();
        writeln!(f, "  workers of the executions: {workers:?}; {:?}", self.tuning)?;
        for event in &self.events {
            writeln!(f, "  {event:?}")?;
        }
        for sent in self.messages.iter().take(20) {
            let Sent { time, partition, position, envelope } = sent;
            let Envelope { target, message, .. } = envelope;
            writeln!(f, "  at {time}, from {partition}/{position}: {target} {message:?}")?;
        }
        match self.messages.len() {
            0..=20 => Ok(()),
            more => writeln!(f, "  and {} more messages", more - 20),
        }
    }
}
