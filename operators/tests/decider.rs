//! A decider takes cuts when they are due, one at a time, and lets a program end after the last.
//!
//! Nothing commits cuts here by itself: a handler tells the test when a cut is complete on its worker, and the
//! test tells the decider's control what became of it.

#[path = "support/pair.rs"]
mod pair;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pair::Pair;
use serde::{Deserialize, Serialize};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Input, Probe};
use timely::progress::Timestamp;
use timely::worker::Worker;
use timely_statefun_operators::{
    CutControl, Cuts, Decider, Handler, Ingress, LoopConfig, LoopHandle, Outbox, Verdict,
    keyed_loop,
};

/// A message goes to the worker of its number, and round and round while it is told to.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    Rest(u64),
    Round(u64),
    Fail,
}

/// What all workers of a program share.
#[derive(Default)]
struct Shared<T = u64> {
    going_round: AtomicBool,
    taken: Mutex<Vec<(u64, usize)>>,
    /// The same, once for each gate.
    taken_by_gates: Mutex<Vec<(u64, usize)>>,
    complete: Mutex<Vec<u64>>,
    abandoned: Mutex<Vec<u64>>,
    control: CutControl<T>,
}

impl<T> Shared<T> {
    /// How many workers have completed a cut.
    fn complete_on(&self, cut: u64) -> usize {
        self.complete.lock().unwrap().iter().filter(|complete| **complete == cut).count()
    }

    /// The numbers of the cuts that a worker has taken.
    fn taken_by(&self, worker: usize) -> Vec<u64> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(_, by)| *by == worker).map(|(cut, _)| *cut).collect()
    }
}

struct Walkers<T> {
    worker: usize,
    gates: usize,
    shared: Arc<Shared<T>>,
}

impl<T: Timestamp> Handler<T> for Walkers<T> {
    type Message = Message;
    type Output = u64;
    type Failure = String;

    fn route(message: &Message) -> u64 {
        match message {
            Message::Rest(number) | Message::Round(number) => *number,
            Message::Fail => 0,
        }
    }

    fn handle(&mut self, message: Message, outbox: &mut Outbox<'_, T, Message>) -> Verdict<String> {
        match message {
            Message::Rest(_) => {}
            Message::Round(number) => {
                if self.shared.going_round.load(SeqCst) {
                    outbox.send(Message::Round(number + 1));
                }
            }
            Message::Fail => return Verdict::Stop("as it was told".to_owned()),
        }
        Verdict::Done
    }

    fn take_cut(&mut self, cut: u64, _: Option<&T>) {
        self.shared.taken.lock().unwrap().push((cut, self.worker));
    }

    fn complete_cut(&mut self, cut: u64, _: &[T]) {
        // Whoever stores the cut would otherwise not know yet what the gates had let in.
        let taken = self.shared.taken_by_gates.lock().unwrap();
        let gates = taken.iter().filter(|taken| **taken == (cut, self.worker)).count();
        assert_eq!(gates, self.gates, "cut {cut} is complete before the gates have taken it");
        self.shared.complete.lock().unwrap().push(cut);
    }

    fn abandon_cut(&mut self, cut: u64) {
        self.shared.abandoned.lock().unwrap().push(cut);
    }
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

/// Far more steps than a loop needs for what it has to do.
fn steps(worker: &mut Worker) {
    for _ in 0..100 {
        worker.step();
    }
}

struct Program {
    inputs: Vec<InputHandleVec<u64, Message>>,
    probe: ProbeHandle<u64>,
    handle: LoopHandle<u64, String>,
}

fn build(
    worker: &mut Worker,
    ingresses: usize,
    shared: &Arc<Shared>,
    decider: impl FnOnce(Decider<u64>) -> Decider<u64>,
) -> Program {
    let worker_index = worker.index();
    let walkers = Walkers { worker: worker_index, gates: ingresses, shared: Arc::clone(shared) };
    let decider = decider(Decider::new(&shared.control));
    worker.dataflow(|scope| {
        let mut inputs = Vec::new();
        let ingresses = (0..ingresses).map(|number| {
            let (input, stream) = scope.new_input::<Vec<Message>>();
            inputs.push(input);
            let noted = Arc::clone(shared);
            Ingress::new(format!("{number}"), stream, |message| message).on_cut(move |at| {
                noted.taken_by_gates.lock().unwrap().push((at.cut, worker_index));
            })
        });
        let ingresses: Vec<_> = ingresses.collect();
        let config = LoopConfig::default();
        let cuts = Cuts::from(decider);
        let (out, handle) = keyed_loop(scope, "walkers", ingresses, config, Some(cuts), walkers);
        Program { inputs, probe: out.probe().0, handle }
    })
}

/// Runs on every worker of programs of several numbers of workers.
fn everywhere<T: Timestamp + Default>(
    run: impl Fn(&mut Worker, &Arc<Shared<T>>) + Send + Sync + Clone + 'static,
) {
    for workers in [1, 2, 3] {
        let (run, shared) = (run.clone(), Arc::new(Shared::default()));
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            run(worker, &shared);
        });
        guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    }
}

fn is_running(worker: &Worker) -> bool {
    !worker.installed_dataflows().is_empty()
}

/// Commits, on worker 0, each cut that is complete everywhere, until the dataflow has ended.
fn commit_to_the_end<T>(worker: &mut Worker, shared: &Shared<T>) {
    let began = Instant::now();
    while is_running(worker) {
        assert!(began.elapsed() < LIMIT, "the dataflow did not end");
        if worker.index() == 0
            && let Some(open) = shared.control.open()
            && shared.complete_on(open) == worker.peers()
        {
            shared.control.committed(open);
        }
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

#[test]
fn a_cut_is_taken_on_request_and_the_next_when_it_is_committed() {
    everywhere(|worker, shared| {
        let Program { mut inputs, probe, .. } = build(worker, 1, shared, |decider| decider);
        let peers = worker.peers();
        let number = worker.index() as u64;
        inputs[0].send(Message::Rest(number));
        inputs[0].advance_to(1);
        until(worker, "time 0 is over", || !probe.less_than(&1));
        assert!(shared.taken_by(worker.index()).iter().all(|cut| *cut == 1), "nobody asked twice");
        if worker.index() == 0 {
            shared.control.request();
        }
        until(worker, "the first is complete", || shared.complete_on(1) == peers);
        if worker.index() == 0 {
            assert_eq!(shared.control.open(), Some(1));
            shared.control.request();
            shared.control.request();
            shared.control.committed(7);
            steps(worker);
            assert_eq!(shared.taken_by(0), [1], "the first is open");
            shared.control.committed(1);
        }
        until(worker, "the second is complete", || shared.complete_on(2) == peers);
        if worker.index() == 0 {
            shared.control.committed(2);
            steps(worker);
            assert_eq!((shared.taken_by(0), shared.control.open()), (vec![1, 2], None));
        }
        drop(inputs);
        commit_to_the_end(worker, shared);
        assert!(shared.abandoned.lock().unwrap().is_empty());
    });
}

#[test]
fn cuts_come_on_the_interval_from_a_number_on_while_others_wait_for_nothing() {
    everywhere(|worker, shared| {
        let interval = Duration::from_millis(1);
        let Program { mut inputs, probe, .. } =
            build(worker, 1, shared, |decider| decider.interval(interval).first(5));
        let (index, peers) = (worker.index(), worker.peers());
        let mut next = 1;
        let began = Instant::now();
        while shared.complete_on(9) < peers {
            assert!(began.elapsed() < LIMIT, "there were no five cuts");
            inputs[0].send(Message::Rest(next));
            inputs[0].advance_to(next);
            next += 1;
            if index == 0
                && let Some(open) = shared.control.open()
                && shared.complete_on(open) == peers
            {
                shared.control.committed(open);
            }
            worker.step();
        }
        drop(inputs);
        commit_to_the_end(worker, shared);
        assert!(probe.done());
        let taken = shared.taken_by(index);
        assert!(
            taken.len() >= 5 && taken.iter().copied().eq(5..5 + taken.len() as u64),
            "{taken:?}"
        );
        assert!(shared.abandoned.lock().unwrap().is_empty());
    });
}

/// No frontier of the program waits for the last cut, but the dataflow does.
#[test]
fn the_program_ends_when_the_last_cut_is_committed() {
    everywhere(|worker, shared| {
        let Program { mut inputs, probe, handle, .. } = build(worker, 2, shared, |decider| decider);
        let (index, peers) = (worker.index(), worker.peers());
        let number = index as u64;
        inputs[0].send(Message::Rest(number));
        inputs[1].send(Message::Rest(number + 1));
        // One is closed early.
        inputs.remove(0).close();
        inputs[0].advance_to(3);
        until(worker, "time 0 is over", || !probe.less_than(&3));
        steps(worker);
        assert!(shared.taken.lock().unwrap().is_empty(), "nobody asked for a cut");
        inputs.remove(0).close();
        until(worker, "all is over", || probe.done() && handle.admitted().done());
        until(worker, "the first is complete", || shared.complete_on(1) == peers);
        steps(worker);
        // Who could commit it is still here.
        assert!(index > 0 || is_running(worker), "the cut is not committed");
        commit_to_the_end(worker, shared);
        // There is another if the loop was not over, or not known to be, when the first was decided.
        let taken = shared.taken_by(index);
        assert!(taken == [1] || taken == [1, 2], "{taken:?}");
    });
}

#[test]
fn a_loop_that_goes_on_after_ingress_closed_has_a_cut_then_and_one_at_the_end() {
    everywhere(|worker, shared| {
        let (index, peers) = (worker.index(), worker.peers());
        shared.going_round.store(true, SeqCst);
        let Program { mut inputs, probe, .. } = build(worker, 1, shared, |decider| decider);
        if index == 0 {
            inputs[0].send(Message::Round(0));
        }
        drop(inputs);
        until(worker, "a cut was complete", || shared.complete_on(1) == peers);
        if index == 0 {
            assert!(probe.less_equal(&0), "a message goes round");
            shared.control.committed(1);
            steps(worker);
            assert_eq!(shared.control.open(), None, "nothing new happened that needs a cut");
            shared.going_round.store(false, SeqCst);
        }
        until(worker, "the last cut was complete", || shared.complete_on(2) == peers);
        assert!(index > 0 || is_running(worker));
        commit_to_the_end(worker, shared);
        assert!(probe.done());
        assert_eq!(shared.taken_by(index), [1, 2]);
    });
}

#[test]
fn a_cut_that_is_given_up_or_too_late_is_followed_by_another() {
    everywhere(|worker, shared| {
        let (index, peers) = (worker.index(), worker.peers());
        let Program { inputs, .. } = build(worker, 1, shared, |decider| decider);
        if index == 0 {
            shared.control.request();
        }
        until(worker, "the first is complete", || shared.complete_on(1) == peers);
        if index == 0 {
            shared.control.request();
            shared.control.abandoned(1);
        }
        until(worker, "the second is complete", || shared.complete_on(2) == peers);
        drop(inputs);
        commit_to_the_end(worker, shared);
    });
    // Nobody ever says anything: the deadline is all there is.
    everywhere(|worker, shared| {
        let deadline = Duration::from_millis(5);
        let Program { inputs, handle, .. } =
            build(worker, 1, shared, |decider| decider.deadline(deadline));
        if worker.index() == 0 {
            shared.control.request();
            until(worker, "the first is open", || shared.control.open() == Some(1));
            until(worker, "its time is up", || shared.control.open().is_none());
            shared.control.committed(1);
        }
        drop(inputs);
        handle.run(worker).unwrap();
        assert!(shared.taken_by(worker.index()).len() >= 2);
    });
}

#[test]
fn a_loop_that_stops_waits_for_no_cut() {
    everywhere(|worker, shared| {
        let Program { mut inputs, handle, .. } = build(worker, 1, shared, |decider| decider);
        if worker.index() == 0 {
            shared.control.request();
            inputs[0].send(Message::Fail);
        }
        drop(inputs);
        assert_eq!(handle.run(worker), Err("as it was told".to_owned()));
        assert!(!is_running(worker));
    });
}

/// Ingress at times of which neither is before the other.
#[test]
fn ingress_times_play_no_part() {
    everywhere(|worker, shared| {
        let (index, peers) = (worker.index(), worker.peers());
        let walkers = Walkers { worker: index, gates: 1, shared: Arc::clone(shared) };
        let noted = Arc::clone(shared);
        let decider = Decider::new(&shared.control);
        let ((mut input, now), probe) = worker.dataflow::<Pair, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input::<Message>();
            let ingress = Ingress::new("pairs", stream, |message| message).on_cut(move |at| {
                noted.taken_by_gates.lock().unwrap().push((at.cut, index));
            });
            let ingress = vec![ingress];
            let config = LoopConfig::default();
            let cuts = Some(Cuts::from(decider));
            let (out, _) = keyed_loop(scope, "pairs", ingress, config, cuts, walkers);
            (input, out.probe().0)
        });
        let number = index as u64;
        let (one, other) = (now.delayed(&Pair(0, 5)), now.delayed(&Pair(5, 0)));
        drop(now);
        input.activate().session(&one).give(Message::Rest(number));
        input.activate().session(&other).give(Message::Rest(number + 1));
        for cut in 1..=2 {
            if index == 0 {
                shared.control.request();
            }
            until(worker, "it is complete", || shared.complete_on(cut) == peers);
            assert!(probe.less_equal(&Pair(0, 5)) && probe.less_equal(&Pair(5, 0)));
            if index == 0 {
                shared.control.committed(cut);
            }
        }
        drop((input, one, other));
        commit_to_the_end(worker, shared);
        assert!(probe.done());
    });
}
