//! The dataflow of the job: links go to the functions and to the reference, and what both find is
//! counted and compared.
//!
//! It neither opens files nor prints, and it does not know how either finds what it finds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::{Broadcast, Map};
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe, ToStream};
use timely::dataflow::{InputHandleVec, Scope};
use timely::worker::Worker;
use timely_statefun::{Functions, Handle, StatefulFunctions, Stopped};

use crate::functions::{COMPONENTS, DISTANCES, SYSTEM, ToSystem};
use crate::reference::{self, Pairs, Systems};

/// A link from the input, as a change of the collection of links.
type Link = ((u64, u64), u64, isize);

/// What the functions have found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// How many systems there are in each component, by the smallest of them.
    pub components: BTreeMap<u64, isize>,
    /// How many systems there are at each distance from the root.
    pub distances: BTreeMap<u64, isize>,
}

/// What all workers did together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Messages delivered to functions.
    pub delivered: u64,
    /// Messages that functions sent from one worker to another.
    pub crossed: u64,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// After each batch.
    pub findings: Vec<Findings>,
    pub work: Work,
}

/// A value that a system has according to only one of functions and reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The batch after which it shows, from 0.
    pub batch: u64,
    pub system: u64,
    pub what: &'static str,
    pub value: u64,
    /// Whether the functions say it.
    pub by_functions: bool,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("the functions and differential dataflow differ {count} times, first here: {first}")]
    Differ { count: usize, first: Difference },
}

impl Findings {
    /// Adds changes of the counts, and forgets what is counted no more.
    fn add(&mut self, changes: &Findings) {
        let both = [
            (&mut self.components, &changes.components),
            (&mut self.distances, &changes.distances),
        ];
        for (counts, changes) in both {
            for (value, change) in changes {
                *counts.entry(*value).or_insert(0) += change;
            }
            counts.retain(|_, count| *count != 0);
        }
    }

    /// The line that every run on the same input ends with.
    pub fn summary(&self) -> String {
        let systems: isize = self.components.values().sum();
        let largest = self.components.values().max().unwrap_or(&0);
        let reached: isize = self.distances.values().sum();
        let farthest = self.distances.keys().max().unwrap_or(&0);
        let components = self.components.len();
        format!(
            "systems {systems} components {components} largest {largest} \
             reached {reached} farthest {farthest}"
        )
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { batch, system, what, value, by_functions } = self;
        let (who, who_not) = match by_functions {
            true => ("functions", "differential dataflow"),
            false => ("differential dataflow", "functions"),
        };
        let batch = batch + 1;
        write!(
            f,
            "after batch {batch}, system {system} has {what} {value} by {who}, not by {who_not}"
        )
    }
}

/// The links of one batch. They are dealt out one by one, so that every batch changes the whole graph.
fn batch(links: &[(u64, u64)], batches: usize, batch: usize) -> impl Iterator<Item = (u64, u64)> {
    links.iter().copied().skip(batch).step_by(batches)
}

/// Finds components, and distances from the root, after each batch. Every worker is given all links
/// and feeds its share of them; the outcome is returned on worker 0. Where functions and reference
/// differ, all workers fail alike, after the first batch for which they do.
pub fn run(
    worker: &mut Worker,
    functions: Functions<ToSystem>,
    links: &[(u64, u64)],
    root: u64,
    batches: usize,
) -> Result<Option<Outcome>, Failure> {
    let (index, peers) = (worker.index(), worker.peers());
    let kept = Rc::new(RefCell::new(Kept::default()));
    let Source { links: mut input, mut work, handle, done } =
        worker.dataflow(|scope| dataflow(scope, functions, root, &kept));

    for number in 0..batches {
        let (time, next) = (number as u64, number as u64 + 1);
        for link in batch(links, batches, number).skip(index).step_by(peers) {
            input.send((link, time, 1));
        }
        input.advance_to(next);
        // Functions handle messages as they arrive. Since the next batch does not begin before this one
        // is over everywhere, what they say at this time is what follows from all batches so far.
        handle.run_while(worker, || done.less_than(&next))?;
        // Another worker may have been faster, and differences of its next batch may be here already.
        let kept = kept.borrow();
        let so_far = kept.differences.iter().filter(|difference| difference.batch <= time);
        if let Some(first) = so_far.clone().min() {
            return Err(Failure::Differ { count: so_far.count(), first: first.clone() });
        }
    }

    let stats = handle.stats();
    work.send((stats.handled, stats.sent_away));
    work.close();
    input.close();
    handle.run(worker)?;

    let Kept { changes, work, .. } = kept.take();
    let mut findings = Findings::default();
    let findings = (0..batches as u64).map(|batch| {
        changes.get(&batch).into_iter().for_each(|changes| findings.add(changes));
        findings.clone()
    });
    Ok((index == 0).then(|| Outcome { findings: findings.collect(), work }))
}

/// What a worker is told of the results: worker 0 all of it, others only of differences.
#[derive(Default)]
struct Kept {
    /// How each batch changed what the functions have found.
    changes: BTreeMap<u64, Findings>,
    differences: Vec<Difference>,
    work: Work,
}

/// Where links enter, and how far everything is with them.
struct Source {
    links: InputHandleVec<u64, Link>,
    /// What this worker has done, at the end: `(delivered, crossed)`.
    work: InputHandleVec<u64, (u64, u64)>,
    handle: Handle<u64>,
    done: ProbeHandle<u64>,
}

fn dataflow(
    scope: Scope<'_, u64>,
    functions: Functions<ToSystem>,
    root: u64,
    kept: &Rc<RefCell<Kept>>,
) -> Source {
    let (input, links) = scope.new_input::<Vec<Link>>();
    let roots = (scope.index() == 0).then_some((root, 0, 1)).to_stream(scope);

    let told_links = links.clone().flat_map(|((one, other), _time, _change)| {
        [SYSTEM.message(one, ToSystem::Link(other)), SYSTEM.message(other, ToSystem::Link(one))]
    });
    let told_roots = roots.clone().map(|(root, _, _)| SYSTEM.message(root, ToSystem::Root));
    let egresses = [told_links, told_roots].stateful_functions(functions);
    let egresses = egresses.expect("functions and egresses are bound once each");
    let components = egresses.updates(COMPONENTS).expect("COMPONENTS is bound");
    let distances = egresses.updates(DISTANCES).expect("DISTANCES is bound");

    let done = ProbeHandle::new();
    count(components.clone(), kept, &done, |findings| &mut findings.components);
    count(distances.clone(), kept, &done, |findings| &mut findings.distances);

    let links = reference::both_ways(links.as_collection());
    let roots: Systems<'_> = roots.as_collection();
    let reference = reference::components(links.clone(), roots.clone());
    compare("component", components, reference, kept, &done);
    compare("distance", distances, reference::distances(links, roots), kept, &done);

    let (work, works) = scope.new_input::<Vec<(u64, u64)>>();
    let kept = Rc::clone(kept);
    works.exchange(|_| 0).inspect(move |(delivered, crossed)| {
        let work = &mut kept.borrow_mut().work;
        work.delivered += delivered;
        work.crossed += crossed;
    });
    Source { links: input, work, handle: egresses.handle(), done }
}

/// Keeps, on worker 0, by how much each batch changed how many systems have each value.
fn count(
    values: Pairs<'_>,
    kept: &Rc<RefCell<Kept>>,
    done: &ProbeHandle<u64>,
    counts: impl Fn(&mut Findings) -> &mut BTreeMap<u64, isize> + 'static,
) {
    let kept = Rc::clone(kept);
    let changes = values.map(|(_system, value)| value).inner.exchange(|_| 0);
    let counted = changes.inspect(move |(value, batch, change)| {
        let mut kept = kept.borrow_mut();
        let changes = kept.changes.entry(*batch).or_default();
        *counts(changes).entry(*value).or_insert(0) += change;
    });
    counted.probe_with(done);
}

/// Tells every worker of each pair that is in only one of the collections, at the time from which
/// it is.
fn compare(
    what: &'static str,
    by_functions: Pairs<'_>,
    by_reference: Pairs<'_>,
    kept: &Rc<RefCell<Kept>>,
    done: &ProbeHandle<u64>,
) {
    let kept = Rc::clone(kept);
    let differences = by_functions.concat(by_reference.negate()).consolidate();
    let told = differences.inner.broadcast().inspect(move |((system, value), time, change)| {
        let (batch, system, value, by_functions) = (*time, *system, *value, *change > 0);
        let difference = Difference { batch, system, what, value, by_functions };
        kept.borrow_mut().differences.push(difference);
    });
    told.probe_with(done);
}
