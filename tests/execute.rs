//! A program of several workers and processes ends when the first of them fails, and says why.
//!
//! Where it is enough, the processes of a program are threads of this one, each of which calls what a
//! process calls. Where one of them is killed or stopped, they are processes.

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::worker::Worker;
use timely::{CommunicationConfig, Config, WorkerConfig};
use timely_statefun::{ExecuteOptions, ExecutionError, execute, execute_from_args, execute_with};

/// Far beyond what anything takes here; it only keeps a hang from lasting for ever.
const DEADLINE: Duration = Duration::from_secs(200);

/// The one kind that an error is of.
fn kind(error: &ExecutionError) -> &'static str {
    let kinds = [
        ("panic", error.is_panic()),
        ("peer lost", error.is_peer_lost()),
        ("not connected", error.is_not_connected()),
        ("invalid config", error.is_invalid_config()),
        ("system", error.is_system()),
    ];
    let mut kinds = kinds.into_iter().filter(|(_, is)| *is);
    let kind = kinds.next().expect("every error is of a kind").0;
    assert_eq!(kinds.next(), None, "and of one only");
    kind
}

fn within(communication: CommunicationConfig) -> Config {
    Config { communication, worker: WorkerConfig::default() }
}

/// Process number `process` of those at `addresses`.
fn member(process: usize, threads: usize, addresses: &[String], zerocopy: bool) -> Config {
    let addresses = addresses.to_vec();
    let report = false;
    within(CommunicationConfig::Cluster { threads, process, addresses, report, zerocopy })
}

/// What a thread that stands for a process comes to.
type Process<R> = JoinHandle<Result<Vec<R>, ExecutionError>>;

/// Runs a process in a thread of its own.
fn start<R: Debug + Send + 'static>(
    config: Config,
    options: ExecuteOptions,
    program: impl Fn(&mut Worker) -> R + Send + Sync + 'static,
) -> Process<R> {
    thread::spawn(move || execute_with(config, options, program))
}

/// What it comes to, which must be soon enough.
fn end<T: Send + 'static>(thread: JoinHandle<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    while !thread.is_finished() {
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(1));
    }
    thread.join().unwrap()
}

fn connecting_for(connect_max: Duration) -> ExecuteOptions {
    ExecuteOptions { connect_max, ..ExecuteOptions::default() }
}

/// Long enough for processes that do come, on any machine.
fn patient() -> ExecuteOptions {
    connecting_for(DEADLINE)
}

/// Sends records to all workers, round after round, while `more` says so of the number of records
/// that have arrived here. No worker is ahead of another by many rounds.
fn traffic(worker: &mut Worker, more: impl Fn(u64) -> bool, arrived: impl Fn(u64) + 'static) {
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<u64>>();
        let stream = stream.exchange(|number| *number).inspect(move |_| {
            count.set(count.get() + 1);
            arrived(count.get());
        });
        (input, stream.probe().0)
    });
    for round in 0.. {
        if !more(counted.get()) {
            break;
        }
        (0..64).for_each(|number| input.send(number));
        input.advance_to(round + 1);
        worker.step_or_park_while(None, || probe.less_than(&round.saturating_sub(8)));
    }
}

/// Sums what all workers send to each; every worker must wait for all others.
fn sum(worker: &mut Worker) -> (usize, usize, u64) {
    let (index, peers) = (worker.index(), worker.peers());
    let sum = Rc::new(Cell::new(0));
    let summed = Rc::clone(&sum);
    let mut input = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<u64>>();
        stream.exchange(|x| *x).inspect(move |x| summed.set(summed.get() + *x));
        input
    });
    (0..1000).for_each(|x| input.send(x));
    input.close();
    while worker.has_dataflows() {
        worker.step_or_park(None);
    }
    (index, peers, sum.get())
}

/// What worker `index` of so many must return.
fn summed(index: usize, peers: usize) -> (usize, usize, u64) {
    let mine = (0..1000).filter(|x| x % peers as u64 == index as u64);
    (index, peers, mine.sum::<u64>() * peers as u64)
}

#[test]
fn results_come_in_the_order_of_the_workers() {
    let alone = cluster::addresses(1);
    for (config, workers) in [
        (Config::thread(), 1),
        (Config::process(1), 1),
        (Config::process(2), 2),
        (Config::process(4), 4),
        (within(CommunicationConfig::ProcessBinary(2)), 2),
        (member(0, 2, &alone, false), 2),
        (member(0, 2, &alone, true), 2),
    ] {
        let results = execute(config, sum).unwrap();
        let expected: Vec<_> = (0..workers).map(|index| summed(index, workers)).collect();
        assert_eq!(results, expected);
    }
}

#[test]
fn each_process_has_the_results_of_its_own_workers() {
    for (processes, threads, zerocopy) in [(2, 1, false), (2, 2, false), (2, 2, true), (3, 1, true)]
    {
        let addresses = cluster::addresses(processes);
        let started: Vec<_> = (0..processes)
            .map(|at| start(member(at, threads, &addresses, zerocopy), patient(), sum))
            .collect();
        for (at, process) in started.into_iter().enumerate() {
            let own = at * threads..(at + 1) * threads;
            let expected: Vec<_> = own.map(|index| summed(index, processes * threads)).collect();
            assert_eq!(end(process).unwrap(), expected);
        }
    }
}

#[test]
fn two_processes_end_well_and_say_nothing() {
    let name = "two_processes_end_well_and_say_nothing";
    if let Some(config) = cluster::member() {
        for result in execute(config, sum).unwrap() {
            cluster::report(format!("{result:?}"));
        }
        return;
    }
    for (process, outcome) in cluster::run(name, 2, 2).iter().enumerate() {
        let own = 2 * process..2 * process + 2;
        let expected: Vec<_> = own.map(|index| format!("{:?}", summed(index, 4))).collect();
        assert!(outcome.success && outcome.lines == expected, "{}", outcome.output);
        assert!(!outcome.output.contains("connect"), "{}", outcome.output);
    }
}

/// A task may call it, which timely allows, although connecting needs a runtime of its own.
#[test]
fn it_can_be_called_by_a_task() {
    let addresses = cluster::addresses(2);
    let [one, other] = [0, 1].map(|at| member(at, 1, &addresses, false));
    let other = start(other, patient(), sum);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let one = runtime.block_on(async { execute_with(one, patient(), sum) });
    assert_eq!((one.unwrap(), end(other).unwrap()), (vec![summed(0, 2)], vec![summed(1, 2)]));
}

/// Waits for what only a worker that has panicked could send.
fn wait_for_ever(worker: &mut Worker) {
    let (_input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<u64>>();
        (input, stream.exchange(|x| *x).probe().0)
    });
    worker.step_or_park_while(None, || !probe.done());
}

#[test]
fn a_panic_of_a_worker_ends_the_program_with_its_message() {
    type Panic = fn(&mut Worker);
    let panics: [(Panic, &str); 4] = [
        (|_| panic!("a text"), "a text"),
        (|worker| panic!("a text of {}", worker.peers()), "a text of"),
        (|_| std::panic::panic_any(7), "(something that is not text)"),
        // In an operator, while the program holds what has not been sent.
        (|worker| traffic(worker, |_| true, |count| assert!(count < 10_000, "enough")), "enough"),
    ];
    for (panic, text) in panics {
        for config in [
            Config::thread(),
            Config::process(2),
            Config::process(4),
            within(CommunicationConfig::ProcessBinary(2)),
        ] {
            let process = start(config, patient(), move |worker| {
                if worker.index() + 1 == worker.peers() {
                    panic(worker);
                } else if text == "enough" {
                    traffic(worker, |_| true, |_| ());
                } else {
                    wait_for_ever(worker);
                }
            });
            let error = end(process).unwrap_err();
            assert_eq!(kind(&error), "panic");
            let (worker, said) = (error.worker().unwrap(), error.to_string());
            assert!(said.starts_with(&format!("worker {worker} panicked: {text}")), "{said}");
            assert!(error.peers().is_empty());
        }
    }
}

/// What a member reports of an error.
fn report(error: &ExecutionError) {
    cluster::report(format!("{}|{}|{error}", kind(error), error.peers().join(" ")));
}

/// The kind of error, the addresses and the text that a member reported.
fn reported(outcome: &cluster::Outcome) -> (&str, &str, &str) {
    let [line] = &outcome.lines[..] else { panic!("one line in {}", outcome.output) };
    let mut parts = line.splitn(3, '|');
    let mut next = || parts.next().unwrap();
    (next(), next(), next())
}

/// How often something panicked in a process, as far as it wrote so.
fn panics(outcome: &cluster::Outcome) -> usize {
    outcome.output.matches("panicked at").count()
}

#[test]
fn a_panic_of_a_worker_ends_every_process_with_its_message() {
    let name = "a_panic_of_a_worker_ends_every_process_with_its_message";
    if let Some(config) = cluster::member() {
        let error = execute_with(config, patient(), |worker| {
            let panics = worker.index() == 3;
            let arrived = move |count| assert!(!panics || count < 20_000, "enough is enough");
            traffic(worker, |_| true, arrived);
        });
        return report(&error.unwrap_err());
    }
    let outcomes = cluster::run(name, 3, 2);
    for (process, outcome) in outcomes.iter().enumerate() {
        let (kind, peers, text) = reported(outcome);
        assert!(outcome.success, "{}", outcome.output);
        assert!(text.contains("worker 3 panicked: enough is enough"), "{}", outcome.output);
        let expected = if process == 1 { ("panic", true, 1) } else { ("peer lost", false, 0) };
        assert_eq!((kind, peers.is_empty(), panics(outcome)), expected, "{}", outcome.output);
        assert!(!outcome.output.contains("abort"), "{}", outcome.output);
    }
}

/// Sends a signal to a process.
#[cfg(unix)]
fn signal(name: &str, process: u32) {
    let kill = format!("kill -{name} {process}");
    let status = std::process::Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// Runs traffic in three processes, of which one ends in a way of its own in the midst of it; the
/// others must say that they lost it.
fn one_of_three_ends(name: &str, leave: fn()) {
    if let Some(config) = cluster::member() {
        let error = execute_with(config, patient(), move |worker| {
            let leaves = worker.index() == 2;
            let arrived = move |count| {
                if leaves && count == 20_000 {
                    leave();
                }
            };
            traffic(worker, |_| true, arrived);
        });
        return report(&error.unwrap_err());
    }
    let outcomes = cluster::run(name, 3, 2);
    assert!(!outcomes[1].success && outcomes[1].lines.is_empty(), "{}", outcomes[1].output);
    for outcome in [&outcomes[0], &outcomes[2]] {
        let (kind, peers, text) = reported(outcome);
        assert!(outcome.success, "{}", outcome.output);
        assert_eq!((kind, panics(outcome)), ("peer lost", 0), "{}", outcome.output);
        // A process may hear of it from the other one before it sees it.
        assert!(text.contains("lost process 1 at \""), "{}", outcome.output);
        assert!(!peers.is_empty() && text.contains(peers), "{}", outcome.output);
    }
}

#[cfg(unix)]
#[test]
fn a_process_that_is_killed_is_missed_by_all_others() {
    let name = "a_process_that_is_killed_is_missed_by_all_others";
    one_of_three_ends(name, || signal("KILL", std::process::id()));
}

#[test]
fn a_process_that_exits_without_a_word_is_missed_by_all_others() {
    let name = "a_process_that_exits_without_a_word_is_missed_by_all_others";
    one_of_three_ends(name, || std::process::exit(3));
}

/// Its workers have ended, but those of another process have not, and now never will.
#[test]
fn a_process_that_has_done_its_part_misses_one_that_has_not() {
    let addresses = cluster::addresses(2);
    let one = start(member(0, 1, &addresses, false), patient(), |_| ());
    let other = start(member(1, 1, &addresses, false), patient(), |_| panic!("too early"));
    let error = end(one).unwrap_err();
    let text =
        format!("lost process 1 at \"{}\": it gave up: worker 1 panicked: too early", addresses[1]);
    assert_eq!((kind(&error), error.to_string()), ("peer lost", text));
    assert_eq!((error.peers(), error.worker()), (vec![addresses[1].as_str()], None));
    assert_eq!(kind(&end(other).unwrap_err()), "panic");
}

/// Says that a thread has ended, when all else in it has.
struct AtEnd(Sender<()>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

thread_local! {
    static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

/// One process ends while another still works, and even sends.
#[test]
fn a_process_may_end_long_before_another() {
    let addresses = cluster::addresses(2);
    let (ended, hears) = channel();
    let (ended, hears) = (Mutex::new(ended), Mutex::new(Some(hears)));
    let early = start(member(0, 1, &addresses, false), patient(), move |worker| {
        let ended = ended.lock().unwrap().clone();
        AT_END.set(Some(AtEnd(ended)));
        sum(worker)
    });
    let late = start(member(1, 1, &addresses, false), patient(), move |worker| {
        let sum = sum(worker);
        hears.lock().unwrap().take().unwrap().recv().expect("the other worker has ended");
        // Progress of this dataflow is sent to the worker that is not there any more.
        let index = worker.next_dataflow_index();
        let mut input = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<u64>>();
            stream.inspect(|_| ()).probe();
            input
        });
        for time in 0..1000 {
            input.send(time);
            input.advance_to(time + 1);
            worker.step();
        }
        worker.drop_dataflow(index);
        sum
    });
    assert_eq!(end(early).unwrap(), [summed(0, 2)]);
    assert_eq!(end(late).unwrap(), [summed(1, 2)]);
}

/// Its system answers for it, but takes no more when its buffers are full.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_takes_nothing_any_more_counts_as_silent() {
    let name = "a_process_that_takes_nothing_any_more_counts_as_silent";
    if let Some(config) = cluster::member() {
        let stopped = Arc::new(Mutex::new(None));
        let known = Arc::clone(&stopped);
        let options = ExecuteOptions { peer_silence_max: Duration::from_secs(3), ..patient() };
        let error = execute_with(config, options, move |worker| {
            let here = worker.index() as u64;
            let hears = Arc::clone(&known);
            let mut input = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<(u32, Vec<u8>)>>();
                let stream = stream.exchange(move |_| 1 - here);
                stream.inspect(move |(process, _)| match here {
                    0 => *hears.lock().unwrap() = Some(*process),
                    _ => signal("STOP", std::process::id()),
                });
                input
            });
            if here == 1 {
                input.send((std::process::id(), Vec::new()));
                input.advance_to(1);
            } else {
                while known.lock().unwrap().is_none() {
                    worker.step_or_park(None);
                }
                for time in 0..64 {
                    input.send((0, vec![0; 1 << 20]));
                    input.advance_to(time + 1);
                }
            }
            loop {
                worker.step_or_park(None);
            }
        });
        let error: Result<Vec<()>, _> = error;
        let stopped = stopped.lock().unwrap().expect("it said who it is");
        signal("KILL", stopped);
        return report(&error.unwrap_err());
    }
    let outcomes = cluster::run(name, 2, 1);
    let (kind, _, text) = reported(&outcomes[0]);
    assert_eq!(kind, "peer lost", "{}", outcomes[0].output);
    assert!(text.ends_with("it was silent for 3s"), "{}", outcomes[0].output);
    assert!(!outcomes[1].success && outcomes[1].lines.is_empty(), "{}", outcomes[1].output);
}

#[test]
fn a_process_that_never_comes_is_named() {
    let addresses = cluster::addresses(3);
    let brief = || connecting_for(Duration::from_millis(300));
    // One is there, until its own time is up; which of the two others it names depends on that.
    let two = addresses[..2].to_vec();
    for (process, missing) in [(0, 1), (1, 0)] {
        let began = Instant::now();
        let error = execute_with(member(process, 1, &two, false), brief(), sum).unwrap_err();
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!((kind(&error), error.peers()), ("not connected", vec![two[missing].as_str()]));
        let named = format!("process {missing} at \"{}\" (", two[missing]);
        let text = error.to_string();
        assert!(
            text.starts_with("not connected within 300ms: ") && text.contains(&named),
            "{text}"
        );
    }
    let error = execute_with(member(1, 1, &addresses, false), brief(), sum).unwrap_err();
    assert_eq!(error.peers(), [addresses[0].as_str(), addresses[2].as_str()]);
}

/// Tries to be a process until only the processes in `missing` are.
fn come_and_go(config: impl Fn() -> Config, missing: &[&str]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let brief = connecting_for(Duration::from_millis(300));
        let error = execute_with(config(), brief, sum).unwrap_err();
        assert_eq!(kind(&error), "not connected", "{error}");
        if error.peers() == missing {
            return;
        }
        assert!(Instant::now() < deadline, "{error}");
    }
}

/// Until all are there, each may be started again: the others only see that it comes late.
#[test]
fn a_process_that_goes_away_before_all_are_there_may_come_back() {
    let addresses = cluster::addresses(4);
    let config = |at| member(at, 1, &addresses, false);
    // The first and the third stay. The second dials the first, and is dialed by the third.
    let (first, third) = (start(config(0), patient(), sum), start(config(2), patient(), sum));
    for _ in 0..2 {
        come_and_go(|| config(1), &[&addresses[3]]);
    }
    let (second, fourth) = (start(config(1), patient(), sum), start(config(3), patient(), sum));
    for (at, process) in [first, second, third, fourth].into_iter().enumerate() {
        assert_eq!(end(process).unwrap(), [summed(at, 4)]);
    }
}

/// One process is connected with two others, which cannot reach each other.
#[test]
fn a_process_that_cannot_reach_all_others_says_so_to_those_it_reaches() {
    let addresses = cluster::addresses(4);
    let lines = |lines: [usize; 3]| lines.map(|at| addresses[at].clone());
    let config = |at, known| member(at, 1, &lines(known), false);
    let first = start(config(0, [0, 1, 2]), patient(), |_| ());
    let over = Arc::new(AtomicBool::new(false));
    // The third looks for the second where nobody is.
    let others = [(1, [0, 1, 2]), (2, [0, 3, 2])].map(|(at, known)| {
        let (config, is_over) = (config(at, known), Arc::clone(&over));
        let again = move || loop {
            let brief = connecting_for(Duration::from_secs(1));
            let error = execute_with(config.clone(), brief, |_| ()).unwrap_err();
            assert_eq!(kind(&error), "not connected", "{error}");
            if is_over.load(SeqCst) {
                return;
            }
        };
        thread::spawn(again)
    });
    let error = end(first).unwrap_err();
    over.store(true, SeqCst);
    others.into_iter().for_each(end);
    let text = error.to_string();
    assert_eq!(kind(&error), "peer lost");
    assert!(text.contains("it gave up: not connected within 1s: process "), "{text}");
}

/// Connects with an address as soon as somebody listens there.
fn dial(address: &str) -> TcpStream {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn whoever_else_comes_by_is_no_process() {
    let addresses = cluster::addresses(2);
    let first = start(member(0, 1, &addresses, false), patient(), sum);
    drop(dial(&addresses[0]));
    let _silent = dial(&addresses[0]);
    // What a process of plain timely says first: its number.
    let mut plain = dial(&addresses[0]);
    plain.write_all(&1u64.to_be_bytes()).unwrap();
    let mut browser = dial(&addresses[0]);
    browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // It is sent away. What it said too much may make that a reset.
    let _ = browser.read_to_end(&mut answer);
    assert!(answer.is_empty());
    let second = start(member(1, 1, &addresses, false), patient(), sum);
    assert_eq!(
        (end(first).unwrap(), end(second).unwrap()),
        (vec![summed(0, 2)], vec![summed(1, 2)])
    );
}

#[test]
fn whoever_else_listens_is_no_process() {
    let addresses = cluster::addresses(2);
    let listener = TcpListener::bind(addresses[0].as_str()).unwrap();
    let answers = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[b'x'; 56]).unwrap();
    });
    let process = start(member(1, 1, &addresses, false), connecting_for(DEADLINE / 100), sum);
    let error = end(process).unwrap_err();
    end(answers);
    assert_eq!((kind(&error), error.peers()), ("not connected", vec![addresses[0].as_str()]));
}

/// Both processes must find that they do not fit, with these texts.
fn assert_misfit(configs: [Config; 2], texts: [&str; 2]) {
    assert_misfit_with(configs.map(|config| (config, patient())), texts);
}

/// The same of processes with options.
fn assert_misfit_with(configs: [(Config, ExecuteOptions); 2], texts: [&str; 2]) {
    let processes = configs.map(|(config, options)| start(config, options, sum));
    for (process, text) in processes.into_iter().zip(texts) {
        let error = end(process).unwrap_err();
        assert_eq!(kind(&error), "invalid config", "{error}");
        // Of whoever dialed, the address is that of its end of the connection.
        let said = error.to_string();
        let (before, after) = text.split_once("...").unwrap();
        assert!(said.starts_with(before) && said.ends_with(after), "{said}");
    }
}

#[test]
fn processes_that_do_not_fit_together_find_out() {
    let addresses = cluster::addresses(3);
    let own = |at: usize, threads| member(at, threads, &addresses[..2], false);
    assert_misfit(
        [own(0, 1), own(1, 2)],
        [
            "process 1 at \"...\" has 2 workers, and process 0 has 1 worker",
            "process 0 at \"...\" has 1 worker, and process 1 has 2 workers",
        ],
    );
    assert_misfit(
        [own(0, 1), member(1, 1, &addresses, false)],
        [
            "process 1 at \"...\" knows of 3 processes, and process 0 of 2",
            "process 0 at \"...\" knows of 2 processes, and process 1 of 3",
        ],
    );
    // Two hosts files with the lines in another order.
    let order = |lines: [usize; 3]| lines.map(|at| addresses[at].clone());
    let (one, other) = (order([0, 1, 2]), order([1, 0, 2]));
    assert_misfit(
        [member(1, 1, &one, false), member(2, 1, &other, false)],
        [
            "process 2 at \"...\" takes this for process 0, and not for 1",
            "process 1 is at \"...\", and not 0",
        ],
    );
}

#[test]
fn processes_with_different_fingerprints_do_not_connect() {
    let addresses = cluster::addresses(2);
    let own = |at: usize, fingerprint| {
        (member(at, 1, &addresses, false), ExecuteOptions { fingerprint, ..patient() })
    };
    assert_misfit_with(
        [own(0, 0xab), own(1, 0xcd)],
        [
            "process 1 at \"...\" has the fingerprint 00000000000000cd, and process 0 has 00000000000000ab",
            "process 0 at \"...\" has the fingerprint 00000000000000ab, and process 1 has 00000000000000cd",
        ],
    );
    let processes = [own(0, 7), own(1, 7)].map(|(config, options)| start(config, options, sum));
    for (at, process) in processes.into_iter().enumerate() {
        assert_eq!(end(process).unwrap(), [summed(at, 2)]);
    }
}

/// Says what process 1 of three with a worker each says to process 0, and hears whether it is welcome.
fn say_hello(mut stream: &TcpStream) -> bool {
    let numbers = |welcome: u64, from: u64, to: u64| [welcome, from, to, 3, 1, 0];
    let bytes = |numbers: [u64; 6]| {
        let magic = u64::from_be_bytes(*b"tstatef2");
        let all = [magic].into_iter().chain(numbers);
        all.flat_map(u64::to_be_bytes).collect::<Vec<u8>>()
    };
    stream.write_all(&bytes(numbers(1, 1, 0))).unwrap();
    let mut answer = [0; 56];
    stream.read_exact(&mut answer).unwrap();
    let welcome = u64::from(answer[15]);
    assert_eq!(answer[..], bytes(numbers(welcome, 0, 1)));
    welcome == 1
}

#[test]
fn of_two_processes_with_one_number_the_second_is_not_let_in() {
    let addresses = cluster::addresses(4);
    let config =
        |at, lines: [usize; 3]| member(at, 1, &lines.map(|at| addresses[at].clone()), false);
    let first = start(config(0, [0, 1, 2]), patient(), sum);
    let is_there = dial(&addresses[0]);
    assert!(say_hello(&is_there));
    assert!(!say_hello(&dial(&addresses[0])));
    let mut said = String::new();
    let deadline = Instant::now() + DEADLINE;
    while !said.contains("(another process 1 is connected to it)") {
        let brief = connecting_for(Duration::from_millis(300));
        let error = end(start(config(1, [0, 3, 2]), brief, sum)).unwrap_err();
        assert_eq!(kind(&error), "not connected");
        said = error.to_string();
        assert!(Instant::now() < deadline, "{said}");
    }
    // When it has gone, another one may come.
    drop(is_there);
    let others = [1, 2].map(|at| start(config(at, [0, 1, 2]), patient(), sum));
    for (at, process) in [first].into_iter().chain(others).enumerate() {
        assert_eq!(end(process).unwrap(), [summed(at, 3)]);
    }
}

/// The error of a configuration that is wrong, or does not work here.
fn invalid(config: Config, options: ExecuteOptions) -> String {
    let error = execute_with(config, options, sum).unwrap_err();
    assert_eq!(kind(&error), "invalid config", "{error}");
    error.to_string()
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let addresses = cluster::addresses(2);
    let _taken = TcpListener::bind(addresses[0].as_str()).unwrap();
    let brief = connecting_for(Duration::from_millis(300));
    let text = invalid(member(0, 1, &addresses, false), brief);
    let start = format!("process 0 cannot listen on \"{}\": ", addresses[0]);
    assert!(text.starts_with(&start), "{text}");
}

/// A process may be started again while the one before it has not quite ended.
#[test]
fn an_address_that_is_taken_for_a_moment_is_waited_for() {
    let addresses = cluster::addresses(2);
    let taken = TcpListener::bind(addresses[0].as_str()).unwrap();
    let second = start(member(1, 1, &addresses, false), patient(), sum);
    let first = start(member(0, 1, &addresses, false), patient(), sum);
    // The second one dials again and again, so that the first one has time to find the address taken.
    (0..3).for_each(|_| drop(taken.accept().unwrap()));
    drop(taken);
    assert_eq!(
        (end(first).unwrap(), end(second).unwrap()),
        (vec![summed(0, 2)], vec![summed(1, 2)])
    );
}

#[test]
fn a_configuration_that_means_nothing_is_an_error() {
    let none = "a process has at least one worker";
    assert_eq!(invalid(Config::process(0), patient()), none);
    assert_eq!(invalid(within(CommunicationConfig::ProcessBinary(0)), patient()), none);
    let addresses = cluster::addresses(2);
    assert_eq!(invalid(member(0, 0, &addresses, false), patient()), none);
    assert_eq!(invalid(member(0, 1, &[], false), patient()), "there are no processes");
    let text = "there is no process 2: they are 0 to 1";
    assert_eq!(invalid(member(2, 1, &addresses, false), patient()), text);

    let text = "connect_max is zero, and connecting takes some time";
    assert_eq!(invalid(Config::thread(), connecting_for(Duration::ZERO)), text);
    for (peer_silence_max, shown) in [(Duration::from_secs(2), "2s"), (Duration::MAX, "18446744")] {
        let text = invalid(Config::thread(), ExecuteOptions { peer_silence_max, ..patient() });
        assert!(text.starts_with(&format!("peer_silence_max is {shown}")), "{text}");
    }
    // For ever is long, but means something.
    assert_eq!(
        execute_with(Config::thread(), connecting_for(Duration::MAX), sum).unwrap().len(),
        1
    );
}

/// A hosts file, which goes with this.
struct Hosts(PathBuf);

impl Hosts {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("timely-statefun-hosts-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Hosts(path)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn with_arguments(arguments: &[&str]) -> Result<Vec<(usize, usize, u64)>, ExecutionError> {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    execute_from_args(["program".to_owned()].into_iter().chain(arguments), sum)
}

#[test]
fn a_hosts_file_that_is_wrong_is_an_error() {
    for (name, text, expected) in [
        ("short", "host:1\n", "could only read 1 addresses from"),
        ("empty", "", "could only read 0 addresses from"),
        ("no-port", "host:1\nother\n", "the address \"other\" of process 1 is not \"host:port\""),
        (
            "bad-port",
            "host:1\nb:http\n",
            "the address \"b:http\" of process 1 is not \"host:port\"",
        ),
        ("zero", "host:0\nb:1\n", "the address \"host:0\" of process 0 is not \"host:port\""),
        ("no-host", "host:1\n:2\n", "the address \":2\" of process 1 is not \"host:port\""),
        ("blank", "host:1\n \nb:2\n", "process 1 has no address"),
        ("twice", "a:1 c:1\nc:1\n", "the address \"c:1\" is that of process 0 and of process 1"),
        ("huge", "host:1\nb:65536\n", "the address \"b:65536\" of process 1 is not \"host:port\""),
    ] {
        let hosts = Hosts::new(name, text);
        let path = hosts.0.to_str().unwrap();
        let error = with_arguments(&["-n", "2", "-p", "0", "-h", path]).unwrap_err();
        assert_eq!(kind(&error), "invalid config");
        let text = error.to_string();
        assert!(text.starts_with(expected), "{text}");
    }
    for arguments in [
        &["-n", "2", "-h", "there-is-no-such-file"][..],
        &["-w", "many"],
        &["--progress-mode", "x"],
        &["--no-such-option"],
        &["-n", "2", "-p", "2"],
    ] {
        assert_eq!(kind(&with_arguments(arguments).unwrap_err()), "invalid config");
    }
}

#[test]
fn arguments_say_how_many_workers_there_are() {
    let expected = |workers| (0..workers).map(|at| summed(at, workers)).collect::<Vec<_>>();
    assert_eq!(with_arguments(&[]).unwrap(), expected(1));
    assert_eq!(with_arguments(&["-w", "3", "rest"]).unwrap(), expected(3));
    assert_eq!(with_arguments(&["-w", "2", "-z"]).unwrap(), expected(2));
    let hosts = Hosts::new("good", &(cluster::addresses(2).join("\n") + "\n"));
    let path = hosts.0.to_str().unwrap().to_owned();
    let first = path.clone();
    let first = thread::spawn(move || with_arguments(&["-n", "2", "-p", "0", "-h", &first]));
    assert_eq!(with_arguments(&["-n", "2", "-p", "1", "-h", &path]).unwrap(), [summed(1, 2)]);
    assert_eq!(end(first).unwrap(), [summed(0, 2)]);
}
