//! Workers hear what others tell them, in order, and the dataflow lasts until all have left; a bulletin says
//! what it is given, and its frontier is where it is put.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/pair.rs"]
mod pair;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pair::Pair;
use timely::dataflow::operators::{Inspect, Probe};
use timely::worker::Worker;
use timely_statefun_operators::{Bulletin, Council, bulletin, council};

const NEWS: u64 = 300;

#[track_caller]
fn until(worker: &mut Worker, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "this never comes to be");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

fn until_over(worker: &mut Worker) {
    let began = Instant::now();
    while !worker.installed_dataflows().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never ends");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

/// Every worker tells every other numbers that rise, and hears all of theirs.
fn tell_and_hear(worker: &mut Worker) {
    let (index, peers) = (worker.index() as u64, worker.peers());
    let council: Council<(u64, u64)> = worker.dataflow::<u64, _, _>(|scope| council(scope, "test"));
    let called = Rc::new(Cell::new(0));
    let counted = Rc::clone(&called);
    council.on_news(move || counted.set(counted.get() + 1));
    let mut last = vec![0; peers];
    let mut hear = |council: &Council<(u64, u64)>| {
        while let Some((from, (sender, number))) = council.heard() {
            assert_eq!((from as u64, number), (sender, last[from] + 1), "from {from}");
            last[from] = number;
        }
        last.iter().all(|last| *last == NEWS)
    };
    for number in 1..=NEWS {
        if number % 3 == 0 {
            council.tell_all((index, number));
        } else {
            (0..peers).for_each(|to| council.tell(to, (index, number)));
        }
        if number % 7 == 0 {
            worker.step();
            hear(&council);
        }
    }
    until(worker, || hear(&council));
    assert!(called.get() > 0, "nobody was told that there is news");
    assert_eq!(worker.installed_dataflows().len(), 1, "it lasts until all have left");
    drop(council);
    until_over(worker);
}

#[test]
fn everybody_hears_everybody_in_order() {
    for workers in [1, 2, 4] {
        let guards = timely::execute(timely::Config::process(workers), tell_and_hear).unwrap();
        guards.join().into_iter().for_each(|end| end.unwrap());
    }
}

#[test]
fn everybody_hears_everybody_in_two_processes() {
    if let Some(config) = cluster::member() {
        timely::execute(config, tell_and_hear).unwrap().join().into_iter().for_each(|end| {
            end.unwrap();
            cluster::report("heard");
        });
        return;
    }
    let outcomes = cluster::run("everybody_hears_everybody_in_two_processes", 2, 2);
    for outcome in outcomes {
        assert!(outcome.success && outcome.lines.len() == 2, "{}", outcome.output);
    }
}

/// One that has left still hears, and one that has not still tells.
#[test]
fn who_has_left_hears_until_all_have() {
    let guards = timely::execute(timely::Config::process(2), |worker| {
        let council: Council<u64> = worker.dataflow::<u64, _, _>(|scope| council(scope, "test"));
        if worker.index() == 0 {
            council.leave();
            let mut heard = None;
            until(worker, || {
                heard = council.heard();
                heard.is_some()
            });
            assert_eq!(heard, Some((1, 7)));
        } else {
            for _ in 0..100 {
                worker.step();
            }
            council.tell(0, 7);
            council.leave();
        }
        // Neither is dropped.
        until_over(worker);
        drop(council);
    });
    guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
}

#[test]
#[should_panic(expected = "says no more")]
fn who_has_left_cannot_tell() {
    timely::execute_directly(|worker| {
        let council: Council<u64> = worker.dataflow::<u64, _, _>(|scope| council(scope, "test"));
        council.leave();
        council.tell(0, 1);
    });
}

/// A frontier, a record at the least time in `Ord`, and the end.
#[test]
fn a_bulletin_says_what_it_is_given_and_is_where_it_is_put() {
    timely::execute_directly(|worker| {
        let seen: Rc<RefCell<Vec<(Pair, u64)>>> = Rc::default();
        let kept = Rc::clone(&seen);
        let (bulletin, probe) = worker.dataflow::<Pair, _, _>(|scope| {
            let (bulletin, stream): (Bulletin<_, u64>, _) = bulletin(scope, "test");
            let stream = stream.inspect_batch(move |time, said| {
                kept.borrow_mut().extend(said.iter().map(|said| (*time, *said)));
            });
            (bulletin, stream.probe().0)
        });
        bulletin.say(1);
        bulletin.advance(&[Pair(0, 5), Pair(3, 0)]);
        bulletin.say(2);
        bulletin.say(3);
        until(worker, || seen.borrow().len() == 3);
        assert!(probe.less_equal(&Pair(0, 5)) && probe.less_equal(&Pair(3, 0)));
        // Neither is at or before it.
        until(worker, || !probe.less_equal(&Pair(2, 4)));
        bulletin.advance(&[Pair(3, 1)]);
        bulletin.say(4);
        until(worker, || seen.borrow().len() == 4);
        until(worker, || !probe.less_equal(&Pair(0, 9)));
        assert!(probe.less_equal(&Pair(3, 1)));
        let least = Pair(0, 5).min(Pair(3, 0));
        assert_eq!(*seen.borrow(), [(Pair(0, 0), 1), (least, 2), (least, 3), (Pair(3, 1), 4)]);
        drop(bulletin);
        until(worker, || probe.done());
    });
}

#[test]
#[should_panic(expected = "cannot go to")]
fn a_bulletin_does_not_go_back() {
    timely::execute_directly(|worker| {
        let bulletin: Bulletin<u64, u64> = worker.dataflow(|scope| bulletin(scope, "test").0);
        bulletin.advance(&[7]);
        bulletin.advance(&[6]);
        worker.step();
    });
}

/// Other workers' bulletins are waited for.
#[test]
fn the_frontier_is_that_of_all_workers() {
    let looked = AtomicBool::new(false);
    let guards = timely::execute(timely::Config::process(2), move |worker| {
        let (bulletin, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (bulletin, stream): (Bulletin<_, u64>, _) = bulletin(scope, "test");
            (bulletin, stream.probe().0)
        });
        if worker.index() == 0 {
            bulletin.advance(&[9]);
            for _ in 0..200 {
                worker.step();
            }
            assert!(probe.less_equal(&8), "the other has said nothing");
            looked.store(true, SeqCst);
        } else {
            until(worker, || looked.load(SeqCst));
            bulletin.advance(&[8]);
        }
        until(worker, || !probe.less_equal(&7));
        drop(bulletin);
        until(worker, || probe.done());
    });
    guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
}
