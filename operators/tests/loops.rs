//! Several loops take the cuts of one decider together, until all of them are over.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, Scope, Stream};
use timely::progress::Antichain;
use timely::worker::Worker;
use timely_statefun_operators::{
    CutControl, Cuts, Decider, Handler, Inbox, Ingress, LoopConfig, LoopHandle, Outbox, Verdict,
    Waker, keyed_loop,
};

/// A message goes to the worker of its number, and round and round while it is told to.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    Rest(u64),
    Round(u64),
    Fail,
}

#[derive(Default)]
struct Shared {
    going_round: AtomicBool,
    /// Whether the handler of the last worker fails when it is polled.
    failing: AtomicBool,
    /// Cuts that were taken and complete: by loop and worker, in order.
    taken: Mutex<Vec<(usize, usize, u64)>>,
    complete: Mutex<Vec<(usize, usize, u64)>>,
    control: CutControl<u64>,
}

impl Shared {
    fn taken_by(&self, of: usize, worker: usize) -> Vec<u64> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(l, w, _)| (*l, *w) == (of, worker)).map(|(.., cut)| *cut).collect()
    }

    /// On how many workers, of all loops, a cut is complete.
    fn complete(&self, cut: u64) -> usize {
        self.complete.lock().unwrap().iter().filter(|(.., complete)| *complete == cut).count()
    }
}

struct Walkers {
    number: usize,
    worker: usize,
    peers: usize,
    shared: Arc<Shared>,
    waker: Arc<Mutex<Option<Waker>>>,
    emitted: Vec<(u64, Message)>,
}

impl Handler<u64> for Walkers {
    type Message = Message;
    type Output = Message;
    type Failure = String;

    fn route(message: &Message) -> u64 {
        match message {
            Message::Rest(number) | Message::Round(number) => *number,
            Message::Fail => 0,
        }
    }

    fn connect(&mut self, waker: Waker) {
        self.waker.lock().unwrap().replace(waker);
    }

    fn handle(
        &mut self,
        message: Message,
        outbox: &mut Outbox<'_, u64, Message>,
    ) -> Verdict<String> {
        match message {
            Message::Rest(number) => self.emitted.push((*outbox.time(), Message::Rest(number + 1))),
            Message::Round(number) => {
                if self.shared.going_round.load(SeqCst) {
                    outbox.send(Message::Round(number + 1));
                }
            }
            Message::Fail => return Verdict::Stop("as it was told".to_owned()),
        }
        Verdict::Done
    }

    fn poll(&mut self, _: &mut Inbox<'_, u64, Message>) -> Result<(), String> {
        match self.worker + 1 == self.peers && self.shared.failing.load(SeqCst) {
            true => Err("too late".to_owned()),
            false => Ok(()),
        }
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&u64, Message)) {
        self.emitted.drain(..).for_each(|(time, message)| emitter(&time, message));
    }

    fn take_cut(&mut self, cut: u64, _: Option<&u64>) {
        self.shared.taken.lock().unwrap().push((self.number, self.worker, cut));
    }

    fn complete_cut(&mut self, cut: u64, _: &[u64]) {
        self.shared.complete.lock().unwrap().push((self.number, self.worker, cut));
    }
}

/// One of the loops of a program.
struct Loop {
    probe: ProbeHandle<u64>,
    handle: LoopHandle<u64, String>,
    waker: Arc<Mutex<Option<Waker>>>,
}

fn build_loop<'scope>(
    scope: Scope<'scope, u64>,
    number: usize,
    stream: Stream<'scope, u64, Vec<Message>>,
    cuts: Cuts<'scope, u64>,
    cuts_before: u64,
    shared: &Arc<Shared>,
) -> (Stream<'scope, u64, Vec<Message>>, Loop) {
    let waker = Arc::default();
    let walkers = Walkers {
        number,
        worker: scope.index(),
        peers: scope.peers(),
        shared: Arc::clone(shared),
        waker: Arc::clone(&waker),
        emitted: Vec::new(),
    };
    let ingress = vec![Ingress::new("messages", stream, |message| message)];
    let config = LoopConfig { cuts_before, ..LoopConfig::default() };
    let (out, handle) = keyed_loop(scope, "walkers", ingress, config, Some(cuts), walkers);
    let (probe, out) = out.probe();
    (out, Loop { probe, handle, waker })
}

/// A loop and its input.
type Fed = (InputHandleVec<u64, Message>, Loop);

/// Two loops that have nothing to do with each other.
fn build(worker: &mut Worker, before: [u64; 2], shared: &Arc<Shared>) -> [Fed; 2] {
    worker.dataflow(|scope| {
        let cuts = Cuts::from(Decider::new(&shared.control));
        [0, 1].map(|number| {
            let (input, stream) = scope.new_input::<Vec<Message>>();
            let cuts = cuts.clone();
            (input, build_loop(scope, number, stream, cuts, before[number], shared).1)
        })
    })
}

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

#[track_caller]
fn until(worker: &mut Worker, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "this never came to be: {what}");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

fn steps(worker: &mut Worker) {
    for _ in 0..100 {
        worker.step();
    }
}

fn everywhere(run: impl Fn(&mut Worker, &Arc<Shared>) + Send + Sync + Clone + 'static) {
    for workers in [1, 2, 3] {
        let (run, shared) = (run.clone(), Arc::new(Shared::default()));
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            run(worker, &shared);
        });
        guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    }
}

/// Commits, on worker 0, each cut that is complete in both loops everywhere, until the dataflow has ended.
fn commit_to_the_end(worker: &mut Worker, shared: &Shared) {
    let began = Instant::now();
    while worker.has_dataflows() {
        let Shared { taken, complete, control, .. } = shared;
        assert!(began.elapsed() < LIMIT, "no end: {control:?} {taken:?} {complete:?}");
        if worker.index() == 0
            && let Some(open) = shared.control.open()
            && shared.complete(open) == 2 * worker.peers()
        {
            shared.control.committed(open);
        }
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

#[test]
fn loops_take_the_same_cuts_and_the_last_when_all_are_over() {
    everywhere(|worker, shared| {
        let [(mut one, first), (mut other, second)] = build(worker, [0, 0], shared);
        let (index, peers) = (worker.index(), worker.peers());
        one.send(Message::Rest(index as u64));
        other.send(Message::Rest(index as u64));
        if index == 0 {
            shared.control.request();
        }
        until(worker, "both have a cut", || shared.complete(1) == 2 * peers);
        if index == 0 {
            shared.control.committed(1);
        }
        one.close();
        until(worker, "one is over", || first.probe.done());
        if index == 0 {
            steps(worker);
            assert_eq!(shared.control.open(), None, "the other has not closed");
        }
        other.advance_to(1);
        until(worker, "the other goes on", || !second.probe.less_than(&1));
        other.close();
        commit_to_the_end(worker, shared);
        assert!(second.probe.done());
        // One when ingress had closed, and one at the end, if that was later.
        let taken = shared.taken_by(0, index);
        assert!(taken == [1, 2] || taken == [1, 2, 3], "{taken:?}");
        assert_eq!(shared.taken_by(1, index), taken);
    });
}

/// What the first lets out is the ingress of the second, which is not closed before the first is over.
#[test]
fn a_loop_behind_another_is_waited_for() {
    everywhere(|worker, shared| {
        let (mut input, last) = worker.dataflow(|scope| {
            let cuts = Cuts::from(Decider::new(&shared.control));
            let (input, stream) = scope.new_input::<Vec<Message>>();
            let (out, _) = build_loop(scope, 0, stream, cuts.clone(), 0, shared);
            (input, build_loop(scope, 1, out, cuts, 0, shared).1)
        });
        let (index, peers) = (worker.index(), worker.peers());
        input.send(Message::Rest(index as u64));
        if index == 0 {
            // Not on a worker that may come late, when it has been told to stop.
            shared.going_round.store(true, SeqCst);
            input.send(Message::Round(0));
        }
        input.close();
        until(worker, "some came through both", || last.handle.stats().handled > 0);
        if index == 0 {
            steps(worker);
            assert!(last.probe.less_equal(&0));
            assert_eq!(shared.control.open(), None, "a message goes round");
            shared.going_round.store(false, SeqCst);
        }
        commit_to_the_end(worker, shared);
        let taken = shared.taken_by(0, index);
        assert!(taken == [1] || taken == [1, 2], "{taken:?}");
        assert_eq!(shared.taken_by(1, index), taken);
        assert_eq!(shared.complete(taken.len() as u64), 2 * peers);
    });
}

#[test]
fn cuts_are_numbered_above_all_that_any_loop_has_taken() {
    everywhere(|worker, shared| {
        let loops = build(worker, [8, 3], shared);
        let (index, peers) = (worker.index(), worker.peers());
        if index == 0 {
            shared.control.request();
        }
        until(worker, "the first is complete", || shared.complete(9) == 2 * peers);
        drop(loops);
        commit_to_the_end(worker, shared);
        assert_eq!(shared.taken_by(0, index)[0], 9);
        assert_eq!(shared.taken_by(1, index)[0], 9);
    });
}

#[test]
fn when_one_loop_stops_nothing_more_is_announced() {
    everywhere(|worker, shared| {
        let [(mut one, first), (other, second)] = build(worker, [0, 0], shared);
        let index = worker.index();
        if index == 0 {
            one.send(Message::Fail);
        }
        one.advance_to(1);
        until(worker, "one has stopped", || first.handle.stopped().is_some());
        if index == 0 {
            steps(worker);
            shared.control.request();
        }
        steps(worker);
        assert!(shared.taken_by(1, index).is_empty(), "nothing comes of a cut any more");
        assert_eq!(second.handle.stopped(), None);
        drop((one, other));
        assert_eq!(first.handle.run(worker), Err("as it was told".to_owned()));
    });
}

/// The loops are over, and what is left to do is to write the last cut.
#[test]
fn a_handler_that_fails_at_the_last_cut_stops_its_loop_on_every_worker() {
    everywhere(|worker, shared| {
        let [(one, first), (other, second)] = build(worker, [0, 0], shared);
        let peers = worker.peers();
        drop((one, other));
        until(worker, "both are over", || first.probe.done() && second.probe.done());
        until(worker, "the last is open", || shared.control.open().is_some());
        until(worker, "the first is complete", || shared.complete(1) == 2 * peers);
        if worker.index() + 1 == peers {
            shared.failing.store(true, SeqCst);
            first.waker.lock().unwrap().as_ref().unwrap().wake();
        }
        until(worker, "the loop has stopped", || first.handle.stopped().is_some());
        assert_eq!(first.handle.run(worker), Err("too late".to_owned()));
    });
}

/// A loop of a dataflow of its own, which is built while another's cut is open.
#[test]
fn a_loop_that_is_built_later_takes_the_open_cut_and_is_waited_for() {
    everywhere(|worker, shared| {
        let (index, peers) = (worker.index(), worker.peers());
        let decider = Decider::new(&shared.control);
        let alone = |worker: &mut Worker, number| {
            let decider = decider.clone();
            worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<Message>>();
                (input, build_loop(scope, number, stream, decider.into(), 0, shared).1)
            })
        };
        let (one, first) = alone(worker, 0);
        if index == 0 {
            shared.control.request();
        }
        until(worker, "the first has a cut", || shared.complete(1) == peers);
        let (other, second) = alone(worker, 1);
        until(worker, "the second has it too", || shared.complete(1) == 2 * peers);
        drop(one);
        until(worker, "the first is over", || first.probe.done());
        if index == 0 {
            shared.control.committed(1);
            steps(worker);
            assert_eq!(shared.control.open(), None, "the second has not closed");
        }
        assert_eq!(worker.installed_dataflows().len(), 2, "the first is kept");
        drop(other);
        commit_to_the_end(worker, shared);
        assert!(second.probe.done());
        assert_eq!(shared.taken_by(0, index), shared.taken_by(1, index));
        let taken = shared.taken_by(0, index);
        assert!(taken == [1, 2] || taken == [1, 2, 3], "{taken:?}");
        // After the last, there is nothing that a loop waits for.
        let (late, third) = alone(worker, 2);
        drop(late);
        until_ended(worker);
        assert!(third.probe.done());
        assert!(shared.taken_by(2, index).is_empty());
    });
}

/// An alignment that is under way holds for a loop that comes later.
#[test]
fn a_loop_that_is_built_later_keeps_to_an_alignment() {
    everywhere(|worker, shared| {
        let (index, peers) = (worker.index(), worker.peers());
        let decider = Decider::new(&shared.control);
        let alone = |worker: &mut Worker, number| {
            let decider = decider.clone();
            worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<Message>>();
                (input, build_loop(scope, number, stream, decider.into(), 0, shared).1)
            })
        };
        let (mut one, _first) = alone(worker, 0);
        if index == 0 {
            shared.control.request_aligned(Antichain::from_elem(5));
            shared.control.request();
        }
        until(worker, "the first has a cut, and heard of the other", || {
            shared.complete(1) == peers
        });
        let (mut other, second) = alone(worker, 1);
        until(worker, "the second has it too", || shared.complete(1) == 2 * peers);
        if index == 0 {
            shared.control.committed(1);
        }
        one.advance_to(7);
        other.advance_to(4);
        other.send(Message::Rest(0));
        other.advance_to(6);
        other.send(Message::Rest(1));
        other.flush();
        until(worker, "one came through", || !second.probe.less_than(&5));
        until(worker, "both have the aligned one", || shared.complete(2) == 2 * peers);
        if index == 0 {
            shared.control.committed(2);
        }
        until(worker, "the other came through", || !second.probe.less_than(&6));
        drop((one, other));
        commit_to_the_end(worker, shared);
    });
}

/// Its dataflow is dropped, not ended: the others do not wait for it.
#[test]
fn a_loop_that_is_dropped_ends_the_deciding() {
    everywhere(|worker, shared| {
        let decider = Decider::new(&shared.control);
        let alone = |worker: &mut Worker, number| {
            let decider = decider.clone();
            worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<Message>>();
                (input, build_loop(scope, number, stream, decider.into(), 0, shared).1)
            })
        };
        let (one, _) = alone(worker, 0);
        let (other, second) = alone(worker, 1);
        steps(worker);
        let dropped = worker.installed_dataflows().into_iter().min().unwrap();
        worker.drop_dataflow(dropped);
        drop((one, other));
        until_ended(worker);
        assert!(second.probe.done());
    });
}

fn until_ended(worker: &mut Worker) {
    let began = Instant::now();
    while worker.has_dataflows() {
        assert!(began.elapsed() < LIMIT, "the dataflow did not end");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}
