//! Follows Collatz chains round a loop of two workers, and cuts it in the middle.
//!
//! Every number of a chain is a message for whoever that number belongs to: `n` becomes `n / 2` or
//! `3 n + 1` until it is 1. While the chains run, a cut is taken. Nothing stops for it, and yet what it
//! holds is every chain exactly once: finished, waiting, or on the way between the workers. What leaves
//! the loop is split into short and long chains by a demux.
//!
//! `cargo run --release -p timely-statefun-operators --example collatz`

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::{Input, Inspect};
use timely_statefun_operators::{
    Announcement, Demux, Handler, Ingress, LoopConfig, Outbox, Place, Verdict, keyed_loop,
};

const CHAINS_PER_WORKER: u64 = 20_000;
const LONG: u64 = 100;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chain {
    start: u64,
    now: u64,
    steps: u64,
}

/// What the cut holds, on all workers: the starts of the chains.
#[derive(Default)]
struct Cut {
    finished: Vec<u64>,
    waiting: Vec<u64>,
    /// Sent before the cut, and arrived after it.
    logged: Vec<u64>,
    admitted: u64,
    complete_on: usize,
}

/// One worker's chains.
struct Chains {
    /// The chains that ended here: all the state there is.
    finished: Vec<u64>,
    leaving: Vec<(u64, Chain)>,
    cut: Arc<Mutex<Cut>>,
}

impl Handler<u64> for Chains {
    type Message = Chain;
    type Output = Chain;
    type Failure = String;

    fn route(chain: &Chain) -> u64 {
        chain.now
    }

    fn handle(&mut self, chain: Chain, outbox: &mut Outbox<'_, u64, Chain>) -> Verdict<String> {
        let now = match chain.now {
            1 => {
                self.finished.push(chain.start);
                self.leaving.push((*outbox.time(), chain));
                return Verdict::Done;
            }
            n if n.is_multiple_of(2) => n / 2,
            n => match n.checked_mul(3).and_then(|n| n.checked_add(1)) {
                Some(n) => n,
                None => return Verdict::Stop(format!("the chain from {} overflows", chain.start)),
            },
        };
        outbox.send(Chain { now, steps: chain.steps + 1, ..chain });
        Verdict::Done
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&u64, Chain)) {
        for (time, chain) in self.leaving.drain(..) {
            emitter(&time, chain);
        }
    }

    fn take_cut(&mut self, _: u64, _: Option<&u64>) {
        // Few enough to be copied in one go. More would be written in slices, in `work_on_cut`.
        self.cut.lock().unwrap().finished.extend(&self.finished);
    }

    fn queued(&mut self, _: u64, _: Place<'_, u64>, chain: &Chain) {
        self.cut.lock().unwrap().waiting.push(chain.start);
    }

    fn log(&mut self, _: u64, _: Place<'_, u64>, chain: &Chain) {
        self.cut.lock().unwrap().logged.push(chain.start);
    }

    fn complete_cut(&mut self, _: u64, _: &[u64]) {
        self.cut.lock().unwrap().complete_on += 1;
    }
}

fn main() {
    let cut = Arc::new(Mutex::new(Cut::default()));
    let lengths = Arc::new(Mutex::new((0, 0)));
    let (shared, counted) = (Arc::clone(&cut), Arc::clone(&lengths));
    let workers = timely::execute(timely::Config::process(2), move |worker| {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let (mut starts, mut cuts, handle) = worker.dataflow(|scope| {
            let (starts, stream) = scope.new_input();
            let (cuts, announcements) = scope.new_input();
            let chains =
                Chains { finished: Vec::new(), leaving: Vec::new(), cut: Arc::clone(&shared) };
            let at_gate = Arc::clone(&shared);
            let ingress =
                Ingress::new("starts", stream, |start| Chain { start, now: start, steps: 0 })
                    .on_cut(move |at| at_gate.lock().unwrap().admitted += at.records);
            // A small budget, so that chains take turns with everything else.
            let config = LoopConfig { budget_messages: 256, ..LoopConfig::default() };
            let (ended, handle) = keyed_loop(
                scope,
                "collatz",
                vec![ingress],
                config,
                Some(announcements.into()),
                chains,
            );
            let is_long = |chain: &Chain| usize::from(chain.steps >= LONG);
            let mut parts = ended.demux("length", 2, is_long).into_iter();
            let (short, long) = (parts.next().unwrap(), parts.next().unwrap());
            let (count_short, count_long) = (Arc::clone(&counted), Arc::clone(&counted));
            short.inspect(move |chain| {
                assert!(chain.steps < LONG);
                count_short.lock().unwrap().0 += 1;
            });
            long.inspect(move |chain| {
                assert!(chain.steps >= LONG);
                count_long.lock().unwrap().1 += 1;
            });
            (starts, cuts, handle)
        });
        for number in 0..CHAINS_PER_WORKER {
            starts.send(1 + index + number * peers);
        }
        starts.close();
        if index == 0 {
            // Somewhere in the middle: a chain takes about a hundred steps.
            handle.run_while(worker, || handle.stats().handled < 20 * CHAINS_PER_WORKER).unwrap();
            cuts.send(Announcement::cut(1));
        }
        cuts.close();
        handle.run(worker).expect("no chain overflows");
        handle.stats()
    });
    let stats: Vec<_> = workers.unwrap().join().into_iter().map(|stats| stats.unwrap()).collect();
    let crossed: u64 = stats.iter().map(|stats| stats.sent_away).sum();

    let chains = 2 * CHAINS_PER_WORKER;
    let cut = cut.lock().unwrap();
    let (finished, waiting, logged) = (cut.finished.len(), cut.waiting.len(), cut.logged.len());
    println!("{chains} chains, {crossed} of their steps from one worker to the other");
    println!("in the cut: {finished} finished, {waiting} waiting, {logged} on the way");
    assert_eq!(cut.complete_on, 2);
    assert_eq!(cut.admitted, chains, "all chains had been let in by then");
    let parts = [&cut.finished, &cut.waiting, &cut.logged];
    let starts: Vec<u64> = parts.into_iter().flatten().copied().collect();
    assert_eq!(starts.len() as u64, chains, "no chain is in the cut twice");
    assert!(starts.into_iter().collect::<BTreeSet<_>>().into_iter().eq(1..=chains));
    assert!(crossed > 0 && finished > 0 && waiting + logged > 0, "the cut was not in the middle");

    let (short, long) = *lengths.lock().unwrap();
    println!("{short} chains of less than {LONG} steps, {long} of more");
    assert_eq!((short, long), by_hand(chains));
}

/// How many of the first chains are short and long, computed without a loop of workers.
fn by_hand(chains: u64) -> (u64, u64) {
    let steps = |start: u64| {
        let next = |n: &u64| (*n != 1).then(|| if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 });
        std::iter::successors(Some(start), next).count() as u64 - 1
    };
    let short = (1..=chains).filter(|start| steps(*start) < LONG).count() as u64;
    (short, chains - short)
}
