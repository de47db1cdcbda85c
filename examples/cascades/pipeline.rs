//! The dataflow of the job: from lines to calls, to messages for functions, and from what leaves the
//! functions to a count of links and a maintained collection of cascades.
//!
//! It neither opens files nor prints.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use differential_dataflow::operators::CountTotal;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Exchange, Input, Inspect, OkErr, Probe};
use timely::dataflow::{InputHandleVec, Stream};
use timely::worker::Worker;
use timely_statefun::{
    Envelope, Error, Handle, Ingress, Positions, Snapshots, StatefulFunctions, Stopped,
};

use crate::functions::{self, LINKS, MEMBERS, Message, PERSON, ToPerson};
use crate::input::{Call, Line, Rejected};

/// The ingress of calls, as snapshots know it.
const CALLS: &str = "calls";

/// Lines belong to partitions, which stay what they are on any number of workers.
const PARTITIONS: u64 = 64;

/// Lines that are read between two looks at how far the functions are.
pub const BATCH_LINES: usize = 256;

/// Batches that a worker may have read and not yet seen all consequences of.
///
/// The gates bound how much waits. This bounds how far workers drift apart in event time, and with
/// it how long a person must remember calls for a record that another worker has yet to read.
pub const BATCHES_AHEAD: usize = 4;

/// What is known at some moment of the run, or at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Ordered pairs of calls of which the first leads to the second.
    pub links: u64,
    /// Lines that were not calls.
    pub rejected: u64,
    /// Cascades by the smallest call in them, with their sizes, and how often each is in the
    /// collection: once, as soon as nothing is under way.
    pub cascades: BTreeMap<(u64, isize), isize>,
}

/// How a run goes.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// If snapshots are taken, and the run goes on from one.
    pub snapshots: Option<Snapshots<u64>>,
    /// Lines that are read in a second at most, by all workers together.
    pub rate: Option<u64>,
    /// If a savepoint is taken on the way.
    pub mark: Option<Mark>,
}

/// A savepoint that is taken before a line is read, or at the end of the input.
#[derive(Clone, Debug)]
pub struct Mark {
    pub name: String,
    pub line: u64,
    /// Whether the run stops there.
    pub stops: bool,
}

/// What happens during a run, told on worker 0.
pub enum Event<'a> {
    /// The run goes on from a cut, with this line.
    Resumed { cut: u64, line: u64 },
    /// A savepoint is there, or came to nothing.
    Saved { name: &'a str, cut: Result<u64, String> },
    /// A line is not a call. Lines are told in no particular order.
    Rejected(&'a Rejected),
    /// This many lines were read.
    Progress { lines: u64, findings: &'a Findings },
}

/// What all workers did together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Messages delivered to functions.
    pub delivered: u64,
    /// Messages that functions sent from one worker to another.
    pub crossed: u64,
    /// The most calls that one person kept from one message to the next.
    pub kept_max: usize,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that were read.
    pub calls: u64,
    pub findings: Findings,
    pub work: Work,
}

impl Findings {
    fn change(&mut self, cascade: (u64, isize), change: isize) {
        let count = self.cascades.entry(cascade).or_insert(0);
        *count += change;
        if *count == 0 {
            self.cascades.remove(&cascade);
        }
    }

    /// The size of the largest cascade.
    pub fn largest(&self) -> isize {
        self.cascades.keys().map(|(_, size)| *size).max().unwrap_or(0)
    }

    /// Calls that are in a cascade.
    pub fn members(&self) -> isize {
        self.cascades.keys().map(|(_, size)| *size).sum()
    }

    /// The line that every run on the same input ends with.
    pub fn summary(&self) -> String {
        let (links, cascades) = (self.links, self.cascades.len());
        let (calls, largest) = (self.members(), self.largest());
        format!("links {links} cascades {cascades} calls {calls} largest {largest}")
    }
}

/// Finds all cascades. Every worker is given all lines and feeds its share of them; `observe` is
/// called, and the outcome returned, on worker 0.
pub fn run(
    worker: &mut Worker,
    lines: impl Iterator<Item = Vec<u8>>,
    window: u64,
    mut pace: Pace,
    observe: impl Fn(Event<'_>) + 'static,
) -> Result<Option<Outcome>, Stopped> {
    let findings = Rc::new(RefCell::new(Findings::default()));
    let kept_max = Rc::new(Cell::new(0));
    let observe = Rc::new(observe);
    let mut source = {
        let (findings, kept_max) = (Rc::clone(&findings), Rc::clone(&kept_max));
        let (observe, snapshots) = (Rc::clone(&observe), pace.snapshots.as_ref());
        worker.dataflow(|scope| {
            let (input, lines) = scope.new_input();
            let functions = functions::functions(window, kept_max);
            let dataflow = dataflow(lines, functions, snapshots, &findings, move |rejected| {
                observe(Event::Rejected(rejected));
            });
            let (handle, done) = dataflow.expect("functions and egresses are bound once each");
            Source { input, handle, done, starts: VecDeque::new() }
        })
    };

    let (index, peers) = (worker.index() as u64, worker.peers() as u64);
    let restored = pace.snapshots.as_ref().map(|snapshots| snapshots.positions(CALLS));
    let (first, tells_time) = go_on(&restored.unwrap_or_default());
    if index == 0
        && let Some(restored) = pace.snapshots.as_ref().and_then(Snapshots::restored)
    {
        observe(Event::Resumed { cut: restored.cut, line: first });
    }
    let (mut clock, mut calls) = (0, 0);
    let began = Instant::now();
    for (number, text) in (1..).zip(lines) {
        if number >= first && number % BATCH_LINES as u64 == 0 {
            source.wait_turn(worker, clock)?;
            if index == 0 {
                observe(Event::Progress { lines: number, findings: &findings.borrow() });
            }
        }
        let line = Line { number, text, clock };
        if Some(number) == tells_time {
            clock = line.parse().map_or(clock, |call| call.start);
        }
        if number < first {
            continue;
        }
        if let Some(mark) = pace.mark.take_if(|mark| index == 0 && number >= mark.line) {
            source.save(worker, &pace, &mark, &*observe)?;
        }
        let line = Line { clock, ..line };
        if let Some(rate) = pace.rate {
            let due = Duration::from_secs_f64((number - first) as f64 / rate as f64);
            source.wait_until(worker, began + due)?;
        }
        if line.is_silent() {
            continue;
        }
        // Read here only to know what time it is, which all workers must agree on: whether a line
        // counts is decided where it is parsed for good. A wrong line must not move the clock, or it
        // would take the lines below it with it.
        if let Ok(call) = line.parse() {
            clock = call.start;
            calls += 1;
            source.input.advance_to(clock);
        }
        if number % PARTITIONS % peers == index {
            source.input.send(line);
        }
    }
    if let Some(mark) = pace.mark.take_if(|_| index == 0) {
        source.save(worker, &pace, &mark, &*observe)?;
    }
    source.input.close();
    source.handle.run(worker)?;

    let stats = source.handle.stats();
    let (delivered, crossed) = (stats.handled, stats.sent_away);
    let work = gather(worker, Work { delivered, crossed, kept_max: kept_max.get() });
    let findings = findings.borrow().clone();
    for (cascade, count) in &findings.cascades {
        assert!(*count == 1 && cascade.1 >= 2, "cascade {cascade:?} is there {count} times");
    }
    Ok((index == 0).then_some(Outcome { calls, findings, work }))
}

/// Where each end of a call stands in the source: a partition, and a position in it.
fn position(call: u64, is_caller: bool) -> (u64, u64) {
    (call % PARTITIONS, 2 * call + u64::from(is_caller))
}

/// Where a run goes on that a snapshot with these positions was taken of: the first line of which it may
/// lack something, and one that tells what time it is there.
fn go_on(positions: &Positions) -> (u64, Option<u64>) {
    let next = (0..PARTITIONS).map(|partition| match positions.get(&partition) {
        // The call was taken in with both its ends, or with the first.
        Some(position) => (position / 2 + position % 2, Some(position / 2)),
        None => (1, None),
    });
    next.min().expect("there are partitions")
}

/// Where lines enter, and how far the functions are with them.
struct Source {
    input: InputHandleVec<u64, Line>,
    handle: Handle<u64>,
    done: ProbeHandle<u64>,
    /// The clock before each of the last batches.
    starts: VecDeque<u64>,
}

impl Source {
    /// Steps the worker until the gates have room and the functions are not far behind `clock`.
    fn wait_turn(&mut self, worker: &mut Worker, clock: u64) -> Result<(), Stopped> {
        self.input.flush();
        self.starts.push_back(clock);
        let oldest = match self.starts.len() > BATCHES_AHEAD {
            true => self.starts.pop_front(),
            false => None,
        };
        let Source { handle, done, .. } = self;
        handle.until_ready(worker)?;
        handle.run_while(worker, || oldest.is_some_and(|oldest| done.less_than(&oldest)))
    }

    /// Takes a savepoint, and waits for it, and for the end if the run stops there.
    fn save(
        &mut self,
        worker: &mut Worker,
        pace: &Pace,
        mark: &Mark,
        observe: &impl Fn(Event<'_>),
    ) -> Result<(), Stopped> {
        let Mark { name, stops, .. } = mark;
        let Some(snapshots) = &pace.snapshots else { return Ok(()) };
        self.input.flush();
        let asked = match stops {
            true => snapshots.stop_at_savepoint(name),
            false => snapshots.savepoint(name),
        };
        let cut = match asked {
            Err(wrong) => Err(wrong.to_string()),
            Ok(savepoint) => {
                let waited = self.handle.run_while(worker, || savepoint.outcome().is_none());
                // The stop may come together with it.
                waited.or_else(|stopped| match savepoint.outcome() {
                    Some(Ok(_)) => Ok(()),
                    _ => Err(stopped),
                })?;
                let outcome = savepoint.outcome().expect("it was waited for");
                outcome.map(|done| done.cut).map_err(|error| error.to_string())
            }
        };
        let is_there = cut.is_ok();
        observe(Event::Saved { name, cut });
        self.handle.run_while(worker, || *stops && is_there)
    }

    /// Steps the worker until it is time to go on.
    fn wait_until(&mut self, worker: &mut Worker, due: Instant) -> Result<(), Stopped> {
        let mut left = due.saturating_duration_since(Instant::now());
        // What is due within a moment is sent together.
        if left < Duration::from_millis(1) {
            return Ok(());
        }
        self.input.flush();
        while !left.is_zero() {
            self.handle.run_while(worker, || false)?;
            worker.step_or_park(Some(left));
            left = due.saturating_duration_since(Instant::now());
        }
        Ok(())
    }
}

/// Builds the dataflow. Findings are kept up on worker 0; the probe tells up to which time all
/// consequences are known.
fn dataflow(
    lines: Stream<'_, u64, Vec<Line>>,
    functions: timely_statefun::Functions<Message>,
    snapshots: Option<&Snapshots<u64>>,
    findings: &Rc<RefCell<Findings>>,
    on_rejected: impl Fn(&Rejected) + 'static,
) -> Result<(Handle<u64>, ProbeHandle<u64>), Error> {
    let (calls, rejected) = lines.ok_err::<Vec<Call>, _, Vec<Rejected>, _, _>(|line| line.parse());
    let kept = Rc::clone(findings);
    rejected.exchange(|_| 0).inspect(move |rejected| {
        kept.borrow_mut().rejected += 1;
        on_rejected(rejected);
    });

    let calls = calls.flat_map(envelopes);
    let calls = match snapshots {
        Some(snapshots) => snapshots.replayed(CALLS, calls),
        None => Ingress::from(calls),
    };
    let egresses = calls.stateful_functions(functions)?;

    let kept = Rc::clone(findings);
    let links = egresses.stream(LINKS)?;
    let (done, _) = links.exchange(|_| 0).inspect(move |_| kept.borrow_mut().links += 1).probe();

    let kept = Rc::clone(findings);
    let members = egresses.updates(MEMBERS)?;
    let cascades = members.map(|(_call, label)| label).count_total();
    cascades.inner.exchange(|_| 0).inspect(move |(cascade, _time, change)| {
        kept.borrow_mut().change(*cascade, *change);
    });
    Ok((egresses.handle(), done))
}

/// What the two ends of a call are told.
fn envelopes(call: Call) -> [Envelope<Message>; 2] {
    let Call { number, caller, callee, start, end } = call;
    let received = PERSON.message(callee, ToPerson::Received { call: number, end });
    let placed = PERSON.message(caller, ToPerson::Placed { call: number, start });
    [(received, false), (placed, true)].map(|(message, is_caller)| {
        let (partition, position) = position(number, is_caller);
        message.read_at(partition, position)
    })
}

/// Adds up what the workers did; worker 0 gets the sum.
fn gather(worker: &mut Worker, own: Work) -> Work {
    let sum = Rc::new(Cell::new(Work::default()));
    let kept = Rc::clone(&sum);
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, works) = scope.new_input::<Vec<Work>>();
        let (probe, _) = works
            .exchange(|_| 0)
            .inspect(move |work| {
                let sum = kept.get();
                kept.set(Work {
                    delivered: sum.delivered + work.delivered,
                    crossed: sum.crossed + work.crossed,
                    kept_max: sum.kept_max.max(work.kept_max),
                });
            })
            .probe();
        (input, probe)
    });
    input.send(own);
    input.close();
    while !probe.done() {
        worker.step_or_park(None);
    }
    sum.get()
}
