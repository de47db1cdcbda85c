//! What leaves a loop is kept until its cut is released, and then it goes whole, once, in order, at its times.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, Stream};
use timely::worker::Worker;
use timely_statefun_operators::{
    CutControl, Cuts, Decider, Handler, Hold, HoldControl, Ingress, LoopConfig, LoopHandle, Outbox,
    Verdict, Work, holding_loop,
};

/// A message for a worker is passed on once, to the next worker, and then emitted there.
type Message = (u64, u64, bool);

#[derive(Default)]
struct Shared {
    control: CutControl<u64>,
    emitted: AtomicU64,
    complete: Mutex<Vec<u64>>,
    released_on: AtomicU64,
}

struct Echo {
    shared: Arc<Shared>,
    leaving: Vec<(u64, (u64, u64))>,
}

impl Handler<u64> for Echo {
    type Message = Message;
    /// The cut that released it, and the number of the message.
    type Output = (u64, u64);
    type Failure = String;

    fn route(message: &Message) -> u64 {
        message.0
    }

    fn handle(
        &mut self,
        (to, number, passed): Message,
        outbox: &mut Outbox<'_, u64, Message>,
    ) -> Verdict<String> {
        if passed {
            self.leaving.push((*outbox.time(), (0, number)));
            self.shared.emitted.fetch_add(1, SeqCst);
        } else {
            outbox.send((to + 1, number, true));
        }
        Verdict::Done
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&u64, (u64, u64))) {
        self.leaving.drain(..).for_each(|(time, output)| emitter(&time, output));
    }

    fn complete_cut(&mut self, cut: u64, _: &[u64]) {
        self.shared.complete.lock().unwrap().push(cut);
    }
}

/// Time, cut and number of records, in order.
type Seen = Rc<RefCell<Vec<(u64, u64, u64)>>>;

struct Program {
    input: InputHandleVec<u64, Message>,
    probe: ProbeHandle<u64>,
    handle: LoopHandle<u64, String>,
    hold: HoldControl,
    /// What was handed over for cuts, and what has come out.
    written: Seen,
    seen: Seen,
    /// What was not kept, and its frontier.
    free: Seen,
    free_probe: ProbeHandle<u64>,
}

/// The cut, time and records of a batch that a restored cut held.
type Restored = (u64, u64, Vec<(u64, u64)>);

fn build(
    worker: &mut Worker,
    shared: &Arc<Shared>,
    config: LoopConfig,
    restored: Vec<Restored>,
) -> Program {
    let mut restored = restored.into_iter();
    build_with(worker, shared, config, move |hold| {
        hold.restored(move |go| match restored.next() {
            Some((cut, time, records)) => {
                go(cut, &time, records);
                Work::More
            }
            None => Work::Done,
        })
    })
}

fn build_with(
    worker: &mut Worker,
    shared: &Arc<Shared>,
    config: LoopConfig,
    more: impl FnOnce(Hold<u64, (u64, u64)>) -> Hold<u64, (u64, u64)>,
) -> Program {
    let hold = HoldControl::new();
    let (written, seen, free) = (Seen::default(), Seen::default(), Seen::default());
    let write = Rc::clone(&written);
    let echo = Echo { shared: Arc::clone(shared), leaving: Vec::new() };
    let holding = Hold::new(&hold).stamp(|cut, output: &mut (u64, u64)| output.0 = cut).on_cut(
        move |batch| {
            let records = batch.records.iter().map(|(_, number)| (*batch.time, batch.cut, *number));
            write.borrow_mut().extend(records);
        },
    );
    let holding = more(holding);
    let decider = Decider::new(&shared.control);
    worker.dataflow(|scope| {
        let (input, stream) = scope.new_input::<Vec<Message>>();
        let ingress = vec![Ingress::new("echo", stream, |message| message)];
        let cuts = Cuts::from(decider);
        let (out, handle) = holding_loop(scope, "echo", ingress, config, cuts, holding, echo);
        let probe = see(out.kept, &seen).probe().0;
        let free_probe = see(out.free, &free).probe().0;
        Program { input, probe, handle, hold, written, seen, free, free_probe }
    })
}

/// Notes all that comes. Not `inspect`, which sorts what it finds by time.
fn see<'scope>(
    out: Stream<'scope, u64, Vec<(u64, u64)>>,
    seen: &Seen,
) -> Stream<'scope, u64, Vec<()>> {
    let see = Rc::clone(seen);
    out.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "see", |_, _| {
        move |input, _| {
            input.for_each(|at, data| {
                let records = data.drain(..).map(|(cut, number)| (*at.time(), cut, number));
                see.borrow_mut().extend(records);
            });
        }
    })
}

#[track_caller]
fn until(worker: &mut Worker, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "this never came to be: {what}");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

fn complete_on(shared: &Shared, cut: u64) -> usize {
    shared.complete.lock().unwrap().iter().filter(|complete| **complete == cut).count()
}

/// Commits, on worker 0, each cut that is complete everywhere, until the dataflow has ended: the last are
/// taken when the loop is over, and nothing is kept then.
fn commit_to_the_end(worker: &mut Worker, shared: &Shared) {
    let began = Instant::now();
    while !worker.installed_dataflows().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "the dataflow did not end");
        if worker.index() == 0
            && let Some(open) = shared.control.open()
            && complete_on(shared, open) == worker.peers()
        {
            shared.control.committed(open);
        }
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

const ROUNDS: u64 = 5;
const RECORDS: u64 = 30;
/// A cut that is given up.
const ABANDONED: u64 = 3;

#[test]
fn what_left_before_a_cut_goes_when_it_is_released_and_no_frontier_before() {
    for workers in [1, 2, 3] {
        let shared = Arc::new(Shared::default());
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let (index, peers) = (worker.index() as u64, worker.peers() as u64);
            let config = LoopConfig { cut_slice: 4, ..LoopConfig::default() };
            let Program { mut input, probe, handle, hold, written, seen, free, .. } =
                build(worker, &shared, config, Vec::new());
            let mut expected = Vec::new();
            let mut handed_over = Vec::new();
            // The times of a round: later records are not of later times.
            let time = |round: u64, number: u64| round * 10 + number * 3 / RECORDS;
            // What comes out on this worker was sent by the one before it.
            let sender = (index + peers - 1) % peers;
            for round in 1..=ROUNDS {
                for number in 0..RECORDS {
                    input.advance_to(time(round, number));
                    input.send((index, index * 1_000_000 + round * 1000 + number, false));
                }
                input.advance_to(round * 10 + 9);
                until(worker, "all were emitted", || {
                    shared.emitted.load(SeqCst) == round * RECORDS * peers
                });
                for _ in 0..20 {
                    worker.step();
                }
                let first = if round == ABANDONED + 1 { round - 1 } else { round };
                assert_eq!(seen.borrow().len(), expected.len(), "nothing new was released");
                assert!(probe.less_equal(&time(first, 0)), "a frontier passed what is kept");
                if index == 0 {
                    shared.control.request();
                }
                until(worker, "the cut is complete", || {
                    complete_on(&shared, round) == peers as usize
                });
                assert_eq!(seen.borrow().len(), expected.len(), "complete is not released");
                let kept = (first..=round).flat_map(|round| {
                    let number = sender * 1_000_000 + round * 1000;
                    (0..RECORDS).map(move |n| (time(round, n), number + n))
                });
                let kept: Vec<_> = kept.collect();
                assert_eq!(hold.held(), kept.len());
                handed_over.extend(kept.iter().map(|(time, number)| (*time, round, *number)));
                assert_eq!(*written.borrow(), handed_over);
                if round == ABANDONED {
                    if index == 0 {
                        shared.control.abandoned(round);
                    }
                    continue;
                }
                expected.extend(kept.iter().map(|(time, number)| (*time, round, *number)));
                // From another thread, as whoever stores it would.
                let control = hold.clone();
                std::thread::spawn(move || control.release(round)).join().unwrap();
                until(worker, "it was released", || seen.borrow().len() == expected.len());
                assert_eq!(*seen.borrow(), expected, "whole, and in order");
                assert_eq!((hold.released(), hold.held()), (round, 0));
                until(worker, "the times are over", || !probe.less_than(&(round * 10 + 9)));
                let releases = round - u64::from(round > ABANDONED);
                shared.released_on.fetch_add(1, SeqCst);
                until(worker, "it was released everywhere", || {
                    shared.released_on.load(SeqCst) >= releases * peers
                });
                if index == 0 {
                    shared.control.committed(round);
                }
            }
            input.close();
            commit_to_the_end(worker, &shared);
            assert!(probe.done());
            assert_eq!(*seen.borrow(), expected);
            assert!(free.borrow().is_empty(), "all is kept");
            assert_eq!(
                handle.stats().cuts_complete,
                shared.complete.lock().unwrap().len() as u64 / peers
            );
        });
        guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    }
}

#[test]
fn what_a_restored_cut_held_goes_first_and_at_its_times() {
    for workers in [1, 2] {
        let shared = Arc::new(Shared::default());
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let (index, peers) = (worker.index() as u64, worker.peers() as u64);
            let restored = vec![(7, 5, vec![(0, 1), (0, 2)]), (7, 3, vec![(0, 3)])];
            let config = LoopConfig { cuts_before: 7, ..LoopConfig::default() };
            let Program { mut input, probe, hold, seen, .. } =
                build(worker, &shared, config, restored);
            input.send((index, 100, false));
            input.advance_to(1);
            let back = [(5, 7, 1), (5, 7, 2), (3, 7, 3)];
            until(worker, "all were emitted", || shared.emitted.load(SeqCst) == peers);
            until(worker, "what was held comes back", || seen.borrow().len() == 3);
            assert_eq!(*seen.borrow(), back);
            assert_eq!(hold.released(), 7);
            assert!(probe.less_equal(&0), "the other is kept");
            if index == 0 {
                shared.control.request();
            }
            until(worker, "the cut is complete", || complete_on(&shared, 8) == peers as usize);
            hold.release(8);
            until(worker, "it was released", || seen.borrow().len() == 4);
            assert_eq!(seen.borrow()[3], (0, 8, 100));
            input.close();
            shared.released_on.fetch_add(1, SeqCst);
            until(worker, "it was released everywhere", || {
                shared.released_on.load(SeqCst) == peers
            });
            commit_to_the_end(worker, &shared);
            assert!(probe.done());
        });
        guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    }
}

/// Those with an even number are kept.
#[test]
fn what_is_not_kept_leaves_at_once_and_its_frontier_waits_for_nothing_that_is() {
    for workers in [1, 2, 3] {
        let shared = Arc::new(Shared::default());
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let (index, peers) = (worker.index() as u64, worker.peers() as u64);
            let config = LoopConfig { cut_slice: 4, ..LoopConfig::default() };
            let Program { mut input, probe, hold, written, seen, free, free_probe, .. } =
                build_with(worker, &shared, config, |hold| hold.keeps(|(_, n)| n % 2 == 0));
            let sender = (index + peers - 1) % peers;
            let (mut all_free, mut all_kept) = (Vec::new(), Vec::new());
            for round in 1..=ROUNDS {
                let time = |number: u64| round * 10 + number * 3 / RECORDS;
                for number in 0..RECORDS {
                    input.advance_to(time(number));
                    input.send((index, index * 1_000_000 + round * 1000 + number, false));
                }
                input.advance_to(round * 10 + 9);
                let (even, odd): (Vec<_>, Vec<_>) = (0..RECORDS)
                    .map(|number| (time(number), sender * 1_000_000 + round * 1000 + number))
                    .partition(|(_, number)| number % 2 == 0);
                all_free.extend(odd.into_iter().map(|(time, number)| (time, 0, number)));
                until(worker, "what is not kept has left, and its times are over", || {
                    !free_probe.less_than(&(round * 10 + 9))
                });
                assert_eq!(*free.borrow(), all_free, "in order, and not stamped");
                assert_eq!((seen.borrow().len(), hold.held()), (all_kept.len(), even.len()));
                assert!(probe.less_equal(&(round * 10)), "passed what is kept");
                // Nobody asks for a cut before all have looked.
                shared.released_on.fetch_add(1, SeqCst);
                until(worker, "all have looked", || {
                    shared.released_on.load(SeqCst) >= (2 * round - 1) * peers
                });
                if index == 0 {
                    shared.control.request();
                }
                until(worker, "the cut is complete", || {
                    complete_on(&shared, round) == peers as usize
                });
                all_kept.extend(even.into_iter().map(|(time, number)| (time, round, number)));
                assert_eq!(*written.borrow(), all_kept);
                hold.release(round);
                until(worker, "it was released", || seen.borrow().len() == all_kept.len());
                assert_eq!(*seen.borrow(), all_kept);
                shared.released_on.fetch_add(1, SeqCst);
                until(worker, "it was released everywhere", || {
                    shared.released_on.load(SeqCst) >= 2 * round * peers
                });
                if index == 0 {
                    shared.control.committed(round);
                }
            }
            input.close();
            commit_to_the_end(worker, &shared);
            assert!(probe.done() && free_probe.done());
            assert_eq!((*free.borrow()).len(), all_free.len());
        });
        guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    }
}

/// Who brings back what is kept may have to wait for it.
#[test]
fn what_is_not_kept_does_not_wait_for_what_is_brought_back() {
    timely::execute_directly(|worker| {
        let shared = Arc::new(Shared::default());
        let config = LoopConfig { cuts_before: 7, ..LoopConfig::default() };
        let there = Rc::new(Cell::new(false));
        let is_there = Rc::clone(&there);
        let Program { mut input, probe, hold, seen, free, free_probe, .. } =
            build_with(worker, &shared, config, |hold| {
                hold.keeps(|(_, n)| n % 2 == 0).restored(move |go| {
                    if !is_there.get() {
                        return Work::Waiting;
                    }
                    go(7, &3, vec![(0, 1000)]);
                    Work::Done
                })
            });
        (1..=4).for_each(|number| input.send((0, number, false)));
        input.advance_to(5);
        until(worker, "what is not kept has left", || !free_probe.less_than(&5));
        assert_eq!(*free.borrow(), [(0, 0, 1), (0, 0, 3)]);
        assert_eq!((hold.held(), seen.borrow().len()), (2, 0));
        assert!(probe.less_equal(&0), "something earlier may be brought back");
        there.set(true);
        hold.wake();
        until(worker, "it is brought back", || seen.borrow().len() == 1);
        assert_eq!((seen.borrow()[0], hold.held()), ((3, 7, 1000), 2));
        assert!(probe.less_equal(&0), "others are kept");
        shared.control.request();
        until(worker, "the cut is complete", || complete_on(&shared, 8) == 1);
        hold.release(8);
        until(worker, "it was released", || !probe.less_than(&5));
        assert_eq!(seen.borrow()[1..], [(0, 8, 2), (0, 8, 4)]);
        input.close();
        commit_to_the_end(worker, &shared);
        assert!(probe.done());
    });
}
