//! What is told of each function type.

use std::collections::BTreeMap;

use crate::address::TypeName;
use crate::dispatch::{self, Counts, Dispatcher, Ended};
use crate::metering::{self, Labels, Metric, Present, Spread, Total};

/// So many function types of a worker are told of one by one. Types come into being with messages for them, also
/// where nothing is bound to them; those beyond are told of together, as the function `*`.
const FUNCTIONS_MAX: usize = 1024;
/// What stands for all of those.
const OTHERS: &str = "*";

/// Those of all function types.
pub(super) struct FunctionMeters {
    labels: Labels,
    /// By number of the type.
    functions: BTreeMap<u32, FunctionMeter>,
    /// What is there of those that are told of together.
    others: Option<Gauges>,
}

/// One function type's.
struct FunctionMeter {
    labels: Labels,
    received: Total,
    sent_here: Total,
    sent_away: Total,
    emitted: Total,
    failures: Total,
    ended: BTreeMap<(Ended, &'static str), Total>,
    /// Of remote functions, once one was called.
    called: Option<(Total, Spread)>,
    /// None if it is told of with others.
    gauges: Option<Gauges>,
}

/// What there is now. Most functions never have any of some kinds, of which nothing is told then.
struct Gauges {
    labels: Labels,
    backlog: Option<Present>,
    blocked: Option<Present>,
    calls: Option<Present>,
    retrying: Option<Present>,
    operations: Option<Present>,
    delayed: Option<Present>,
}

impl FunctionMeters {
    pub(super) fn new(labels: Labels) -> Self {
        FunctionMeters { labels, functions: BTreeMap::new(), others: None }
    }

    pub(super) fn tell<M, T, H>(&mut self, dispatcher: &mut Dispatcher<M, T, H>) {
        let FunctionMeters { labels, functions, others } = self;
        let mut of_others = None;
        dispatcher.counted(&mut |index, name, counts, present| {
            let known = functions.len();
            let meter = functions.entry(index).or_insert_with(|| {
                FunctionMeter::new(labels, (known < FUNCTIONS_MAX).then_some(name))
            });
            meter.count(counts);
            match &mut meter.gauges {
                Some(gauges) => gauges.tell(present),
                None => *of_others.get_or_insert_with(dispatch::Present::default) += present,
            }
        });
        if let Some(present) = of_others {
            let gauges = others.get_or_insert_with(|| Gauges::new(labels.with("function", OTHERS)));
            gauges.tell(present);
        }
    }
}

impl FunctionMeter {
    fn new(labels: &Labels, name: Option<&TypeName>) -> Self {
        let labels = labels.with("function", name.map_or(OTHERS, TypeName::as_str));
        FunctionMeter {
            received: Total::new(&metering::FUNCTION_IN, &labels),
            sent_here: Total::new(&metering::FUNCTION_OUT_LOCAL, &labels),
            sent_away: Total::new(&metering::FUNCTION_OUT_REMOTE, &labels),
            emitted: Total::new(&metering::FUNCTION_OUT_EGRESS, &labels),
            failures: Total::new(&metering::FUNCTION_FAILURES, &labels),
            ended: BTreeMap::new(),
            called: None,
            gauges: name.map(|_| Gauges::new(labels.clone())),
            labels,
        }
    }

    fn count(&mut self, counts: &mut Counts) {
        self.received.tell(counts.received);
        self.sent_here.tell(counts.sent_here);
        self.sent_away.tell(counts.sent_away);
        self.emitted.tell(counts.emitted);
        self.failures.tell(counts.failures);
        for (how, why, count) in counts.ended() {
            let total = self.ended.entry((how, why)).or_insert_with(|| {
                let of = match how {
                    Ended::DeadLetter => &metering::FUNCTION_DEAD_LETTERS,
                    Ended::Skipped => &metering::FUNCTION_SKIPPED,
                };
                Total::new(of, &self.labels.with("reason", why))
            });
            total.tell(count);
        }
        let batches = counts.take_batches();
        if !batches.is_empty() || self.called.is_some() {
            let (failures, sizes) = self.called.get_or_insert_with(|| {
                let failures = Total::new(&metering::FUNCTION_CALL_FAILURES, &self.labels);
                (failures, Spread::new(&metering::FUNCTION_BATCH, &self.labels))
            });
            failures.tell(counts.call_failures);
            batches.into_iter().for_each(|(size, often)| sizes.tell_often(size, often));
        }
    }
}

impl Gauges {
    fn new(labels: Labels) -> Self {
        Gauges {
            labels,
            backlog: None,
            blocked: None,
            calls: None,
            retrying: None,
            operations: None,
            delayed: None,
        }
    }

    fn tell(&mut self, now: dispatch::Present) {
        let Gauges { labels, backlog, blocked, calls, retrying, operations, delayed } = self;
        let tell = |gauge: &mut Option<Present>, of: &Metric, now: usize| {
            if now > 0 && gauge.is_none() {
                *gauge = Some(Present::new(of, labels));
            }
            gauge.iter().for_each(|gauge| gauge.tell_count(now));
        };
        tell(backlog, &metering::FUNCTION_BACKLOG, now.backlog);
        tell(blocked, &metering::FUNCTION_BLOCKED, now.blocked);
        tell(calls, &metering::FUNCTION_CALLS, now.calls);
        tell(retrying, &metering::FUNCTION_RETRYING, now.retrying);
        tell(operations, &metering::FUNCTION_ASYNC_OPERATIONS, now.operations);
        tell(delayed, &metering::FUNCTION_DELAYED, now.delayed);
    }
}

/// How long calls take, by function type.
pub(in crate::dataflow) struct CallMeters {
    labels: Labels,
    known: BTreeMap<TypeName, Spread>,
}

impl CallMeters {
    pub(super) fn new(labels: Labels) -> Self {
        CallMeters { labels, known: BTreeMap::new() }
    }

    /// That of one type.
    pub(in crate::dataflow) fn of(&mut self, function: &TypeName) -> Spread {
        if let Some(spread) = self.known.get(function) {
            return spread.clone();
        }
        let is_told = self.known.len() < FUNCTIONS_MAX;
        let name = if is_told { function.as_str() } else { OTHERS };
        let spread =
            Spread::new(&metering::FUNCTION_CALL_SECONDS, &self.labels.with("function", name));
        if is_told {
            self.known.insert(function.clone(), spread.clone());
        }
        spread
    }
}
