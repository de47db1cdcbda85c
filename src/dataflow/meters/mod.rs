//! What one worker tells of a set of functions: once in an interval, and when its dataflow ends.
//!
//! It reads what others count, and counts nothing itself but how long calls took. It decides nothing.

mod functions;
mod snapshots;

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use timely::progress::Timestamp;

use super::Handle;
use crate::clock::Clock;
use crate::dispatch::{Dispatcher, Loads};
use crate::metering::{self, Labels, Metering, Present, Total};
use crate::placement::BINS;
pub(super) use functions::CallMeters;
use functions::FunctionMeters;
use snapshots::SnapshotMeters;
pub(super) use snapshots::{SnapshotFigures, TOOK_MAX};

/// The handle on the loop, once that is built.
pub(super) type LaterHandle<T> = Rc<OnceCell<Handle<T>>>;

/// What one worker tells of a set of functions.
pub(super) struct Meters<T: Timestamp> {
    metering: Metering<T>,
    labels: Labels,
    every_ms: u64,
    /// When to tell the next time.
    due_ms: u64,
    handle: LaterHandle<T>,
    loads: Loads,
    egress_names: Vec<&'static str>,
    /// None before the first time.
    registered: Option<Registered>,
}

/// What is known beside the dispatcher and the loop.
pub(super) struct Beside {
    /// Records that are held, if some are.
    pub(super) held: Option<usize>,
    /// Of snapshots, if this worker decides on them and this set tells of them.
    pub(super) snapshots: Option<SnapshotFigures>,
}

/// All that is told, with what was told before.
struct Registered {
    functions: FunctionMeters,
    waiting: Present,
    waiting_bytes: Present,
    handled: Total,
    live_times: Present,
    lag: Option<Present>,
    admitted: Total,
    skipped: Total,
    /// By ingress: what it holds back, and whether it is shut.
    gates: Vec<(Present, Present)>,
    egresses: Vec<Total>,
    held: Option<Present>,
    bins: Vec<(Present, Present)>,
    loads_before: Vec<u64>,
    handled_before: u64,
    snapshots: Option<SnapshotMeters>,
}

impl<T: Timestamp> Meters<T> {
    /// `None` if nothing is to be told.
    pub(super) fn new(
        metering: Metering<T>,
        set: &str,
        worker: usize,
        egress_names: Vec<&'static str>,
        loads: Loads,
        handle: LaterHandle<T>,
    ) -> Option<Self> {
        let every_ms = u64::try_from(metering.every?.as_millis()).unwrap_or(u64::MAX);
        let labels = Labels::of_worker(worker).with("set", set);
        let (due_ms, registered) = (0, None);
        Some(Meters { metering, labels, every_ms, due_ms, handle, loads, egress_names, registered })
    }

    /// Whether it is time to tell.
    pub(super) fn are_due(&self, now_ms: u64) -> bool {
        now_ms >= self.due_ms
    }

    /// After how long it will be.
    pub(super) fn due_after(&self, clock: &Clock) -> Option<Duration> {
        clock.until(self.due_ms)
    }

    /// Tells what there is. Everything that can be emitted yet is at or after `earliest`.
    pub(super) fn tell<M, H>(
        &mut self,
        now_ms: u64,
        earliest: Option<&T>,
        dispatcher: &mut Dispatcher<M, T, H>,
        beside: Beside,
    ) {
        self.due_ms = now_ms.saturating_add(self.every_ms);
        let lag_ms = match (&self.metering.millis, earliest) {
            (Some(millis), Some(time)) => millis(time).map(|time| now_ms.saturating_sub(time)),
            // All is over.
            (Some(_), None) => Some(0),
            (None, _) => None,
        };
        self.tell_lagging(lag_ms, dispatcher, beside);
    }

    /// Tells what there was at last.
    pub(super) fn tell_last<M, H>(&mut self, dispatcher: &mut Dispatcher<M, T, H>, beside: Beside) {
        let is_over = self
            .handle
            .get()
            .is_some_and(|handle| handle.admitted().done() && handle.stats().live_times == 0);
        self.tell_lagging(is_over.then_some(0), dispatcher, beside);
    }

    fn tell_lagging<M, H>(
        &mut self,
        lag_ms: Option<u64>,
        dispatcher: &mut Dispatcher<M, T, H>,
        beside: Beside,
    ) {
        let Some(handle) = self.handle.get() else { return };
        let gates = handle.gates();
        let Meters { metering, labels, loads, egress_names, registered, .. } = self;
        let registered = registered.get_or_insert_with(|| {
            metering::describe();
            Registered::new(metering, labels, gates.len(), egress_names, &beside)
        });
        let stats = handle.stats();
        registered.functions.tell(dispatcher);
        registered.waiting.tell_count(stats.waiting);
        registered.waiting_bytes.tell_count(stats.waiting_bytes);
        registered.handled.tell(stats.handled);
        registered.live_times.tell_count(stats.live_times);
        if let (Some(lag), Some(lag_ms)) = (&registered.lag, lag_ms) {
            lag.tell(lag_ms as f64 / 1e3);
        }
        registered.admitted.tell(stats.admitted);
        registered.skipped.tell(stats.skipped);
        for ((held_back, shut), gate) in registered.gates.iter().zip(gates) {
            held_back.tell_count(gate.held_back);
            shut.tell_count(gate.shut.into());
        }
        for (total, left) in registered.egresses.iter_mut().zip(dispatcher.left_of_all()) {
            total.tell(*left);
        }
        if let (Some(held), Some(records)) = (&registered.held, beside.held) {
            held.tell_count(records);
        }
        registered.tell_bins(loads, stats.handled);
        if let (Some(meters), Some(figures)) = (&mut registered.snapshots, beside.snapshots) {
            meters.tell(figures);
        }
    }

    /// How long calls of functions take.
    pub(super) fn of_calls(&self) -> CallMeters {
        CallMeters::new(self.labels.clone())
    }
}

impl Registered {
    fn new<T>(
        metering: &Metering<T>,
        labels: &Labels,
        gates: usize,
        egresses: &[&'static str],
        beside: &Beside,
    ) -> Self {
        let gate = |number: usize| {
            let labels = labels.with("ingress", number.to_string());
            let held_back = Present::new(&metering::INGRESS_HELD_BACK, &labels);
            (held_back, Present::new(&metering::INGRESS_SHUT, &labels))
        };
        let egress = |name: &&str| {
            Total::new(&metering::EGRESS_RECORDS, &labels.with("egress", (*name).to_owned()))
        };
        let bin = |rank: usize| {
            let labels = labels.with("rank", rank.to_string());
            let messages = Present::new(&metering::BIN_MESSAGES, &labels);
            (messages, Present::new(&metering::BIN_NUMBER, &labels))
        };
        let lag = metering.millis.as_ref();
        Registered {
            functions: FunctionMeters::new(labels.clone()),
            waiting: Present::new(&metering::LOOP_WAITING, labels),
            waiting_bytes: Present::new(&metering::LOOP_WAITING_BYTES, labels),
            handled: Total::new(&metering::LOOP_HANDLED, labels),
            live_times: Present::new(&metering::LIVE_TIMES, labels),
            lag: lag.map(|_| Present::new(&metering::FRONTIER_LAG, labels)),
            admitted: Total::new(&metering::INGRESS_ADMITTED, labels),
            skipped: Total::new(&metering::INGRESS_SKIPPED, labels),
            gates: (0..gates).map(gate).collect(),
            egresses: egresses.iter().map(egress).collect(),
            held: beside.held.map(|_| Present::new(&metering::HELD_RECORDS, labels)),
            bins: (1..=metering.heaviest_bins).map(bin).collect(),
            loads_before: vec![0; BINS as usize],
            handled_before: 0,
            snapshots: beside.snapshots.as_ref().map(|_| SnapshotMeters::new()),
        }
    }

    /// Tells which bins had most since the last time, when so many messages had been handled.
    fn tell_bins(&mut self, loads: &Loads, handled: u64) {
        let most = self.bins.len();
        // Heaviest first, and of those that are alike the one with the lowest number.
        let mut heaviest: Vec<(u64, usize)> = Vec::with_capacity(most + 1);
        if most > 0 && std::mem::replace(&mut self.handled_before, handled) != handled {
            for (bin, (now, before)) in loads.totals().zip(&mut self.loads_before).enumerate() {
                let since = now - std::mem::replace(before, now);
                let is_heavy = heaviest.get(most - 1).is_none_or(|(least, _)| since > *least);
                if since > 0 && is_heavy {
                    let at = heaviest.partition_point(|(messages, _)| *messages >= since);
                    heaviest.insert(at, (since, bin));
                    heaviest.truncate(most);
                }
            }
        }
        for (rank, (messages, number)) in self.bins.iter().enumerate() {
            let heavy = heaviest.get(rank);
            messages.tell(heavy.map_or(0.0, |(messages, _)| *messages as f64));
            heavy.iter().for_each(|(_, bin)| number.tell_count(*bin));
        }
    }
}
