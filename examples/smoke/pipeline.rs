//! The dataflow, and its driver: sends what is planned, asks every instance for its count until all
//! are right, and looks at what is there in the end.
//!
//! It neither follows commands nor prints.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::{Broadcast, Map};
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::dataflow::{InputHandleVec, Scope};
use timely::worker::Worker;
use timely_statefun::{
    Envelope, Functions, Handle, Ingress, Positions, Snapshots, StatefulFunctions, Stopped,
    TypedValue,
};

use crate::commands::{
    Command, Commands, DISCARDS, INTERPRETER, RESULTS, SourceCommand, VerificationResult,
};
use crate::generator::Plan;
use crate::tracker::{self, Tracker};
use crate::verification::{self, Wrong};

/// Messages of one ingress time, of all workers together.
const BATCH: u64 = 1024;
/// Messages belong to partitions, which stay what they are on any number of workers.
const PARTITIONS: u64 = 64;
/// The ingress of messages, and that of questions, as snapshots know them.
const MESSAGES: &str = "messages";
const QUESTIONS: &str = "questions";
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(2);
/// How long, and how often, counts may stay as they are and too small. What is missing then does not
/// come: of what was sent, all has happened except for what is delayed, by a millisecond each.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_ROUNDS: usize = 20;
/// How much longer for each level of commands, if the interpreter is served elsewhere: StateFun's own in
/// JavaScript delays by a second.
const DELAY_ELSEWHERE: Duration = Duration::from_secs(1);

/// What to do wrong, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Do not send one message.
    Lose,
    /// Send one message twice.
    Double,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

/// What all workers did together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Messages delivered to instances, with those that ask for counts; where they are called elsewhere,
    /// answers as well.
    pub delivered: u64,
    /// Messages that instances sent from one worker to another.
    pub crossed: u64,
    /// Records that were discarded.
    pub discards: u64,
    /// How often all instances were asked for their counts.
    pub rounds: u64,
}

/// A run in which all counts were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub work: Work,
    /// From the first message until all counts were right.
    pub took: Duration,
}

/// Sends what is planned and compares every count with what is expected. Every worker sends its share;
/// worker 0 asks for the counts, and the outcome is returned there. Where something is wrong, all
/// workers fail alike.
///
/// With snapshots, a run goes on from one, and sends what that does not contain.
pub fn run(
    worker: &mut Worker,
    functions: Functions<TypedValue>,
    snapshots: Option<Snapshots<u64>>,
    plan: &Plan,
    expected: &Tracker,
    broken: Option<Break>,
) -> Result<Option<Outcome>, Failure> {
    let discards = Rc::new(Cell::new(0));
    let mut source =
        worker.dataflow(|scope| dataflow(scope, functions, snapshots.as_ref(), &discards));
    let began = Instant::now();
    let contained = snapshots.as_ref().map(|snapshots| snapshots.positions(MESSAGES));
    source.send(worker, plan, &contained.unwrap_or_default(), broken)?;
    // The others close, so that from here on it is worker 0 that says what time it is.
    let verdict = match worker.index() {
        0 => {
            if let Some(restored) = snapshots.as_ref().and_then(Snapshots::restored) {
                source.leave_behind(&restored.latest);
            }
            source.verify(worker, expected, patience(plan))?
        }
        _ => Ok(0),
    };
    let took = began.elapsed();

    // Delayed messages hold the dataflow open: after this, nothing can come any more.
    let Source { input, questions, handle, .. } = source;
    input.close();
    questions.close();
    handle.run(worker)?;
    let (stats, discards) = (handle.stats(), discards.get());
    let (delivered, crossed) = (stats.handled, stats.sent_away);
    let rounds = *verdict.as_ref().unwrap_or(&0);
    let work = gather(worker, (Work { delivered, crossed, discards, rounds }, verdict.err()))?;

    if snapshots.as_ref().is_some_and(|snapshots| snapshots.restored().is_some()) {
        // What happened before is in no count but those of the instances.
        return Ok((worker.index() == 0).then_some(Outcome { work, took }));
    }
    let told = work.delivered - work.rounds * plan.instances;
    // A call of a function elsewhere is about several messages, and not counted as that many.
    if plan.embedded && told != expected.told {
        return Err(Wrong::Told { expected: expected.told, actual: told }.into());
    }
    if work.discards != expected.discards {
        let (expected, actual) = (expected.discards, work.discards);
        return Err(Wrong::Discards { expected, actual }.into());
    }
    Ok((worker.index() == 0).then_some(Outcome { work, took }))
}

/// How long counts may stay as they are and too small.
fn patience(plan: &Plan) -> Duration {
    match plan.embedded {
        true => PATIENCE,
        false => PATIENCE + DELAY_ELSEWHERE * u32::try_from(plan.depth).unwrap_or(u32::MAX),
    }
}

/// Where messages enter, and what comes of them.
struct Source {
    input: InputHandleVec<u64, (u64, TypedValue)>,
    questions: InputHandleVec<u64, TypedValue>,
    handle: Handle<u64>,
    /// Up to which time all consequences are known, except for what is delayed.
    done: ProbeHandle<u64>,
    /// What was reported, on worker 0.
    reports: Rc<RefCell<Vec<VerificationResult>>>,
}

fn dataflow(
    scope: Scope<'_, u64>,
    functions: Functions<TypedValue>,
    snapshots: Option<&Snapshots<u64>>,
    discards: &Rc<Cell<u64>>,
) -> Source {
    let (input, messages) = scope.new_input::<Vec<(u64, TypedValue)>>();
    let messages = messages.map(|(number, message)| {
        // The number is the position within a partition as well: it rises.
        route(message).read_at(number % PARTITIONS, number)
    });
    let (questions, asked) = scope.new_input::<Vec<TypedValue>>();
    let asked = asked.map(route);
    let ingresses = match snapshots {
        // A question that is lost is asked again.
        Some(snapshots) => {
            [snapshots.replayed(MESSAGES, messages), snapshots.unreplayed(QUESTIONS, asked)]
        }
        None => [Ingress::from(messages), Ingress::from(asked)],
    };
    let egresses = ingresses.stateful_functions(functions);
    let egresses = egresses.expect("the function and its egresses are bound once each");
    let count = Rc::clone(discards);
    let discarded = egresses.stream(DISCARDS).expect("DISCARDS is bound");
    discarded.inspect(move |_| count.set(count.get() + 1));
    let reports = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&reports);
    let results = egresses.stream(RESULTS).expect("RESULTS is bound").exchange(|_| 0);
    let (done, _) = results.inspect(move |result| kept.borrow_mut().push(result.clone())).probe();
    Source { input, questions, handle: egresses.handle(), done, reports }
}

/// The message that a command from outside is for an instance.
fn route(message: TypedValue) -> Envelope<TypedValue> {
    let source: SourceCommand = message.read().expect("nothing else enters");
    INTERPRETER.message(source.target as u64, source.commands)
}

impl Source {
    /// Sends this worker's share of the messages.
    fn send(
        &mut self,
        worker: &mut Worker,
        plan: &Plan,
        contained: &Positions,
        broken: Option<Break>,
    ) -> Result<(), Stopped> {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        // One without which a count is wrong.
        let counts = |number: &u64| tracker::counts(&plan.message(*number).commands);
        let broken = broken.and_then(|how| Some((how, (0..plan.messages).find(counts)?)));
        let is_own = |number: &u64| number % PARTITIONS % peers == index;
        let is_contained = |number: &u64| {
            contained.get(&(number % PARTITIONS)).is_some_and(|position| number <= position)
        };
        // What a snapshot contains of later messages is skipped by the gates.
        for number in (0..plan.messages).filter(is_own).skip_while(is_contained) {
            let time = number / BATCH;
            if time > *self.input.time() {
                self.advance_to(time);
                self.handle.until_ready(worker)?;
            }
            let times = match broken {
                Some((Break::Lose, at)) if at == number => 0,
                Some((Break::Double, at)) if at == number => 2,
                _ => 1,
            };
            let message = TypedValue::of(&plan.message(number));
            (0..times).for_each(|_| self.input.send((number, message.clone())));
        }
        self.advance_to(plan.messages.div_ceil(BATCH));
        Ok(())
    }

    fn advance_to(&mut self, time: u64) {
        self.input.advance_to(time);
        self.questions.advance_to(time);
    }

    /// Goes on after the latest times of an earlier run. Its questions may be under way still, at their own
    /// times: what is waited for next includes their answers.
    fn leave_behind(&mut self, latest: &[u64]) {
        if let Some(latest) = latest.iter().max().filter(|latest| *latest >= self.input.time()) {
            self.advance_to(latest + 1);
        }
    }

    /// Asks all instances for their counts, again and again, until all are right; says how often.
    fn verify(
        &mut self,
        worker: &mut Worker,
        expected: &Tracker,
        patience: Duration,
    ) -> Result<Result<u64, Wrong>, Stopped> {
        let expected = &expected.counts;
        self.wait(worker)?;
        // Answers to questions of an earlier run.
        self.reports.take();
        let (mut before, mut since, mut same) = (Vec::new(), Instant::now(), 0);
        for round in 1.. {
            self.ask(expected);
            self.wait(worker)?;
            let counts = match verification::counts(expected, &self.reports.take()) {
                Ok(counts) => counts,
                Err(wrong) => return Ok(Err(wrong)),
            };
            if let Some(wrong) = verification::over(expected, &counts) {
                return Ok(Err(wrong));
            }
            let Some(wrong) = verification::under(expected, &counts) else { return Ok(Ok(round)) };
            if counts != before {
                (before, since, same) = (counts, Instant::now(), 0);
            } else if same >= PATIENCE_ROUNDS && since.elapsed() >= patience {
                return Ok(Err(wrong));
            }
            same += 1;
            let next = Instant::now() + PAUSE;
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                worker.step_or_park(Some(left));
            }
        }
        unreachable!("rounds have no end")
    }

    /// Asks every instance for its count, once.
    fn ask(&mut self, expected: &[i64]) {
        for (id, expected) in expected.iter().enumerate() {
            let commands = Commands(vec![Command::Verify { expected: *expected }]);
            let question = SourceCommand { target: id as i32, commands };
            self.questions.send(TypedValue::of(&question));
        }
        self.advance_to(*self.input.time() + 1);
    }

    /// Waits until everything that was sent has happened, except for what is delayed.
    fn wait(&mut self, worker: &mut Worker) -> Result<(), Stopped> {
        self.input.flush();
        self.questions.flush();
        let (handle, done, time) = (&self.handle, &self.done, self.input.time());
        handle.run_while(worker, || done.less_than(time))
    }
}

/// Tells every worker what all workers did together, or what is wrong.
fn gather(worker: &mut Worker, own: (Work, Option<Wrong>)) -> Result<Work, Wrong> {
    let all = Rc::new(RefCell::new((Work::default(), None)));
    let kept = Rc::clone(&all);
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, works) = scope.new_input::<Vec<(Work, Option<Wrong>)>>();
        let told = works.broadcast().inspect(move |(work, wrong)| {
            let (sum, first) = &mut *kept.borrow_mut();
            sum.delivered += work.delivered;
            sum.crossed += work.crossed;
            sum.discards += work.discards;
            sum.rounds += work.rounds;
            if wrong.is_some() {
                *first = wrong.clone();
            }
        });
        (input, told.probe().0)
    });
    input.send(own);
    input.close();
    while !probe.done() {
        worker.step_or_park(None);
    }
    let (work, wrong) = all.take();
    wrong.map_or(Ok(work), Err)
}
