//! Random programs on some workers, which are cut again and again, restored, and go on.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::functions::{Chance, Errand};
use super::worker::{Content, File, Travelling, Worker};
use super::*;
use crate::dispatch::calls::{CallDelayed, RemoteState};
use crate::dispatch::cuts::Without;
use crate::dispatch::{CallAnswer, CallEffects, CallFailure, CutError, Place};
use crate::expiration::Expiration;
use crate::{Envelope, TypedValue};

/// What happened, so that a test can tell that enough did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) full_cuts: u64,
    pub(super) deltas: u64,
    pub(super) abandoned: u64,
    /// Full cuts that had to be, since too much went; and deltas that failed for it.
    pub(super) wanted: u64,
    pub(super) failed: u64,
    pub(super) restarts: u64,
    /// Messages that stood for a batch, or were on their way to another attempt, at a cut.
    pub(super) again: u64,
    pub(super) logged: u64,
    pub(super) popped: u64,
    pub(super) walked: u64,
    /// Records, by kind.
    pub(super) records: [u64; 8],
}

/// A cut that was announced.
struct Announced {
    cut: u64,
    is_delta: bool,
}

struct World {
    chance: Chance,
    without: Option<Without>,
    execution: u64,
    workers: Vec<Worker>,
    /// Between workers, by sender and receiver.
    channels: BTreeMap<(usize, usize), VecDeque<Travelling>>,
    now_ms: u64,
    now: u32,
    announced: Option<Announced>,
    cut: u64,
    /// What is committed: a full cut and the deltas on top of it.
    chain: Vec<Vec<File>>,
    /// Whether the program comes to its end.
    ends: bool,
    seen: Seen,
}

/// Runs a program, and says what its first cut was that was not restored as it was.
pub(super) fn run(seed: u64, without: Option<Without>) -> Result<Seen, Failed> {
    let mut world = World::new(seed, without);
    for _ in 0..3000 {
        world.step()?;
    }
    world.end()?;
    Ok(world.seen)
}

/// What a program has committed: a full cut, and some deltas that follow it.
pub(super) fn chain(seed: u64) -> Vec<Vec<File>> {
    let mut world = World::new(seed, None);
    while world.chain.len() < 2 + seed as usize % 3 {
        world.step().unwrap();
    }
    world.chain
}

/// Restores a chain, and goes on for a while.
pub(super) fn go_on(chain: &[Vec<File>], seed: u64) -> Result<(), Failed> {
    let mut world = World::new(seed, None);
    world.workers = world.restored(chain, 1, 1 << 40)?;
    world.workers[0].flush();
    world.execution = 1 << 40;
    for _ in 0..100 {
        world.step()?;
    }
    Ok(())
}

impl World {
    fn new(seed: u64, without: Option<Without>) -> Self {
        let chance = Chance::new(seed);
        let mut world = World {
            workers: Vec::new(),
            chance,
            without,
            execution: 1,
            channels: BTreeMap::new(),
            now_ms: 1_700_000_000_000,
            now: 1,
            announced: None,
            cut: 0,
            chain: Vec::new(),
            ends: false,
            seen: Seen::default(),
        };
        let peers = 1 + world.chance.draw(3) as usize;
        world.workers = (0..peers).map(|number| world.worker(number, peers, 1)).collect();
        world
    }

    fn worker(&self, number: usize, peers: usize, execution: u64) -> Worker {
        let mut worker = Worker::new(number, peers, &self.chance, execution, self.without);
        worker.now = self.now;
        worker.cuts = self.cut;
        worker
    }

    fn step(&mut self) -> Result<(), Failed> {
        let at = self.chance.draw(self.workers.len() as u64) as usize;
        match self.chance.draw(40) {
            0..8 => (0..4).for_each(|_| self.admit(at)),
            8..16 => {
                for _ in 0..1 + self.chance.draw(6) {
                    let handled = self.workers[at].handle();
                    self.note(handled)?;
                }
                self.workers[at].flush();
            }
            16..22 => self.receive()?,
            22..25 => self.poll(at),
            25 => self.end_operation(at),
            26..28 => self.end_call(at),
            33 if !self.chain.is_empty() && self.chance.one_in(8) && !self.ends => {
                self.restart()?
            }
            33 => {
                let most = [3, 30, 600][self.chance.draw(3) as usize];
                self.now_ms += self.chance.draw(most);
                self.now += self.chance.draw(2) as u32;
                let now = self.now;
                self.workers.iter_mut().for_each(|worker| worker.now = now);
            }
            _ => self.cut(at)?,
        }
        self.ship();
        for worker in &mut self.workers {
            let (noted, found) = worker.dispatcher.state_bytes();
            assert_eq!(noted, found, "memory is accounted for");
            worker.dispatcher.check_counts();
        }
        Ok(())
    }

    /// Lets a record of ingress in, if there is not much to do.
    fn admit(&mut self, at: usize) {
        let waiting: usize = self.workers.iter().map(Worker::busy).sum();
        if self.ends || waiting > 200 {
            return;
        }
        let target = self.chance.address();
        let mut envelope = Envelope::new(target, Errand::new(self.chance.draw(1000), 3));
        if self.chance.one_in(2) {
            envelope = envelope.with_caller(self.chance.address());
        }
        let worker = &mut self.workers[at];
        let routed = worker.names.route(envelope);
        let time = self.now + self.chance.draw(3) as u32;
        let place = Place { time, depth: 0, record: true };
        let home = worker.home(&routed.head);
        worker.away.push((home, Travelling { cuts: worker.cuts, place, routed }));
    }

    /// Puts what workers have for others on its way.
    fn ship(&mut self) {
        for worker in &mut self.workers {
            for (home, travelling) in worker.away.drain(..) {
                self.channels.entry((worker.number, home)).or_default().push_back(travelling);
            }
        }
    }

    /// Has some messages arrive. Who has not taken a cut takes it before what was sent after it.
    fn receive(&mut self) -> Result<(), Failed> {
        let ways: Vec<_> = self.channels.keys().copied().collect();
        if ways.is_empty() {
            return Ok(());
        }
        let way = ways[self.chance.draw(ways.len() as u64) as usize];
        for _ in 0..1 + self.chance.draw(6) {
            let channel = self.channels.get_mut(&way).expect("there is one");
            let Some(travelling) = channel.pop_front() else { break };
            let worker = &mut self.workers[way.1];
            if travelling.cuts > worker.cuts {
                let Some(Announced { cut, is_delta }) = self.announced else {
                    panic!("somebody took a cut that was not announced")
                };
                assert_eq!(cut, travelling.cuts);
                worker.take_cut(cut, is_delta);
            }
            let is_white = worker.taken.as_ref().is_some_and(|taken| taken.cut > travelling.cuts);
            self.seen.logged += u64::from(is_white);
            let received = worker.receive(travelling);
            self.note(received)?;
        }
        Ok(())
    }

    fn poll(&mut self, at: usize) {
        let room = self.chance.draw(8) as usize;
        self.workers[at].poll(self.now_ms, room);
    }

    fn end_operation(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.operations.is_empty() {
            return;
        }
        let at = self.chance.draw(worker.operations.len() as u64) as usize;
        let task: Pin<_> = worker.operations[at].1.as_mut();
        let Poll::Ready(Ok(outcome)) = task.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("it is ready at once")
        };
        worker.end_operation(at, outcome);
        worker.flush();
    }

    fn end_call(&mut self, at: usize) {
        let chance = self.chance.clone();
        let worker = &mut self.workers[at];
        if worker.calls.is_empty() {
            return;
        }
        let at = chance.draw(worker.calls.len() as u64) as usize;
        let answer = match chance.draw(12) {
            0 | 1 if !self.ends => Err(CallFailure {
                reason: crate::Reason::Call("no".to_owned()),
                is_of_messages: chance.one_in(2),
            }),
            2 if !self.ends => Ok(CallAnswer::Incomplete(vec![RemoteState {
                name: format!("state-{}", chance.draw(3)),
                type_name: "test/anything".to_owned(),
                expiration: Expiration::never(),
            }])),
            _ => Ok(CallAnswer::Done(effects(&chance, self.ends))),
        };
        worker.end_call(at, answer);
    }

    /// What to do where a cut cannot be written: nothing but a delta that would have to be full.
    fn note(&mut self, result: Result<(), CutError>) -> Result<(), Failed> {
        match result {
            Ok(()) => Ok(()),
            Err(CutError::StateWantsFull(_) | CutError::DelayedWantFull) => {
                self.seen.failed += 1;
                self.abandon();
                Ok(())
            }
            Err(error) => Err(Failed(error.to_string())),
        }
    }

    fn abandon(&mut self) {
        self.announced = None;
        let taken = self.workers.iter_mut().filter(|worker| worker.taken.is_some());
        taken.for_each(Worker::abandon);
        // Whoever had not taken it never will.
        self.ship();
        let cut = self.cut;
        self.channels.values_mut().flatten().for_each(|travelling| {
            travelling.cuts = travelling.cuts.min(cut - 1);
        });
        self.workers.iter_mut().for_each(|worker| worker.cuts = cut - 1);
        self.seen.abandoned += 1;
    }

    /// Announces a cut, or goes on with the one that was announced.
    fn cut(&mut self, at: usize) -> Result<(), Failed> {
        let Some(Announced { cut, is_delta }) = self.announced else {
            self.cut += 1;
            // Somebody may come to want a full one before it takes the cut, or not be asked.
            let wants_full = self.workers.iter().any(|worker| worker.dispatcher.wants_full());
            self.seen.wanted += u64::from(wants_full);
            let wants_full = wants_full && !self.chance.one_in(8);
            let is_delta = !self.chain.is_empty() && !wants_full && !self.chance.one_in(5);
            self.announced = Some(Announced { cut: self.cut, is_delta });
            return Ok(());
        };
        if self.chance.one_in(120) && !self.ends {
            self.abandon();
            return Ok(());
        }
        let worker = &mut self.workers[at];
        if worker.cuts < cut {
            worker.take_cut(cut, is_delta);
            return Ok(());
        }
        let most = [3, 10, 40][self.chance.draw(3) as usize];
        let units = 1 + self.chance.draw(most) as usize;
        let bytes = [ALL.bytes, ALL.bytes, 1, 100][self.chance.draw(4) as usize];
        let written = worker.write(Budget { units, bytes }, self.chance.one_in(6));
        self.note(written)?;
        let is_white = |travelling: &Travelling| travelling.cuts < cut;
        let is_complete = self.announced.is_some()
            && self.workers.iter().all(Worker::is_written)
            && !self.channels.values().flatten().any(is_white);
        if is_complete { self.complete(is_delta) } else { Ok(()) }
    }

    /// Compares what was written of a cut with what there was.
    fn complete(&mut self, is_delta: bool) -> Result<(), Failed> {
        self.announced = None;
        let (mut was, mut by_worker) = (Content::new(), Vec::new());
        for worker in &mut self.workers {
            self.seen.again += std::mem::take(&mut worker.again) as u64;
            self.seen.popped += std::mem::take(&mut worker.popped) as u64;
            self.seen.walked += std::mem::take(&mut worker.walked) as u64;
            let (content, files) = worker.complete();
            merge(&mut was, content);
            by_worker.push(VecDeque::from(files));
        }
        // Files of one worker keep their order, whatever those of others do.
        let mut files = Vec::new();
        while by_worker.iter().any(|files| !files.is_empty()) {
            let at = self.chance.draw(by_worker.len() as u64) as usize;
            files.extend(by_worker[at].pop_front());
        }
        for written in files.iter().flat_map(|file: &File| &file.records) {
            self.seen.records[written.kind.number() as usize] += 1;
        }
        let mut chain = if is_delta { self.chain.clone() } else { Vec::new() };
        *if is_delta { &mut self.seen.deltas } else { &mut self.seen.full_cuts } += 1;
        chain.push(files);
        let peers = 1 + self.chance.draw(4) as usize;
        let mut found = Content::new();
        for worker in self.restored(&chain, peers, u64::MAX)? {
            worker.check_heads();
            merge(&mut found, worker.content(true));
        }
        same(&found, &was)?;
        if self.chance.one_in(5) {
            self.workers.iter_mut().for_each(|worker| worker.dispatcher.abandon_cut());
        } else {
            self.workers.iter_mut().for_each(|worker| worker.dispatcher.commit_cut());
            self.chain = chain;
        }
        Ok(())
    }

    fn restored(
        &self,
        chain: &[Vec<File>],
        peers: usize,
        execution: u64,
    ) -> Result<Vec<Worker>, Failed> {
        let restored = (0..peers).map(|number| {
            let mut worker = self.worker(number, peers, execution);
            worker.restore(chain, self.now_ms)?;
            Ok(worker)
        });
        restored.collect()
    }

    /// Loses everything and goes on with what is committed, on some number of workers.
    fn restart(&mut self) -> Result<(), Failed> {
        self.seen.restarts += 1;
        (self.announced, self.execution) = (None, self.execution + 1);
        self.channels.clear();
        let peers = 1 + self.chance.draw(3) as usize;
        self.workers = self.restored(&self.chain, peers, self.execution)?;
        for worker in &mut self.workers {
            worker.flush();
            let busy = worker.dispatcher.calls.list().count();
            assert_eq!(worker.calls.len(), busy, "whoever waits for a call is called");
        }
        Ok(())
    }

    /// Has everything come to its end: no time is held any more, and nothing waits.
    fn end(&mut self) -> Result<(), Failed> {
        self.ends = true;
        for round in 0..100_000 {
            self.now_ms += 20;
            self.step()?;
            let is_over = |worker: &Worker| {
                worker.waiting() == 0
                    && !worker.dispatcher.awaits_events()
                    && worker.alive.get() == 0
            };
            if self.channels.values().all(VecDeque::is_empty) && self.workers.iter().all(is_over) {
                for worker in &self.workers {
                    assert!(worker.dispatcher.mailboxes.list().next().is_none());
                    assert!(worker.dispatcher.calls.list().next().is_none());
                    assert!(worker.dispatcher.operations.list().next().is_none());
                }
                return Ok(());
            }
            // Everybody has its turn.
            let at = round % self.workers.len();
            self.poll(at);
            self.end_operation(at);
            self.end_call(at);
        }
        panic!("it never comes to an end");
    }
}

/// Whatever a remote function may do.
fn effects(chance: &Chance, ends: bool) -> CallEffects {
    let mut effects = CallEffects::default();
    let value = |number| TypedValue::of(&Errand::new(number, 1));
    for _ in 0..if ends { 0 } else { chance.draw(4) } {
        let number = chance.draw(1000);
        let token = format!("token {}", number % 3);
        match chance.draw(6) {
            0 | 1 => effects.sent.push((chance.address(), value(number))),
            2 => effects.delayed.push(CallDelayed::Send {
                delay_ms: chance.draw(500),
                // One that is in use makes the whole answer fail.
                token: chance.one_in(2).then_some(token),
                target: chance.address(),
                message: value(number),
            }),
            3 => effects.delayed.push(CallDelayed::Cancel(token)),
            _ => {
                let state = TypedValue::new("test/anything", number.to_string()).unwrap();
                let state = (!chance.one_in(3)).then_some(state);
                effects.states.push((format!("state-{}", number % 3), state));
            }
        }
    }
    effects
}

fn merge(into: &mut Content, other: Content) {
    for (list, lines) in other {
        let known = into.entry(list).or_default();
        known.extend(lines);
    }
    if let Some(events) = into.get_mut("events") {
        events.sort();
    }
}

/// Whether both are the same.
fn same(found: &Content, was: &Content) -> Result<(), Failed> {
    let missing = was.iter().find(|(list, lines)| found.get(*list) != Some(lines));
    if let Some((list, lines)) = missing {
        let became = found.get(list);
        return Err(Failed(format!("{list}: {lines:#?} became {became:#?}")));
    }
    let extra = found.iter().find(|(list, _)| !was.contains_key(*list));
    extra.map_or(Ok(()), |extra| Err(Failed(format!("there should not be {extra:#?}"))))
}
