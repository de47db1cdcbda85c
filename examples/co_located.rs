//! Each process of a program has functions of its own beside it: a process that serves them over a Unix socket, and
//! ends with it. Nothing that is called leaves the machine, and functions are replaced without the program.
//!
//! `cargo run --release --example co_located`
//!
//! Real calls become messages for the phones that placed them, whose function adds up for how long they have called. Two
//! worker processes share the phones; the functions of each are called by nobody else, and the sums are right.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::serve::{ServedFunctions, Server};
use timely_statefun::{
    Context, Egress, Endpoint, Envelope, Function, FunctionResult, FunctionType, Functions,
    StatefulFunctions, TypedValue, ValueSpec,
};

const PHONE: FunctionType<i64> = FunctionType::new("example/phone");
const SECONDS: ValueSpec<i64> = ValueSpec::new("seconds");
/// A phone, its seconds so far, and the process of the function that said so.
const SUMS: Egress<String> = Egress::new("example/sums");
const CALLS: &str = include_str!("data/calls.txt");
const PROCESSES: usize = 2;
/// Calls that have the same ingress time: those for one phone travel together.
const CALLS_AT_A_TIME: u64 = 1000;

fn add(context: &mut Context<'_, TypedValue>, duration: &i64) -> FunctionResult {
    let sum = context.update(SECONDS, |seconds| *seconds += duration);
    let (phone, process) = (context.id().clone(), std::process::id());
    context.emit(SUMS, format!("{phone} {sum} {process}"));
    Ok(())
}

/// The phones that called, and for how many seconds.
fn calls() -> impl Iterator<Item = (u64, i64)> {
    CALLS.lines().map(|line| {
        let mut words = line.split(' ');
        let mut number = |at| words.nth(at).and_then(|word| word.parse().ok());
        let (phone, seconds) = (number(0), number(2));
        let phone = phone.and_then(|phone| u64::try_from(phone).ok());
        phone.zip(seconds).expect("a line is a call")
    })
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((task, rest)) if task == "serve" => serve(rest[0].as_ref()),
        Some((task, rest)) if task == "work" => work(&rest[0], rest[1].parse()?, &rest[2..]),
        Some((task, _)) => Err(format!("unexpected argument \"{task}\"").into()),
        None => start(),
    }
}

/// Serves the functions at a path until the standard input ends: whoever started this is gone then.
#[cfg(unix)]
fn serve(path: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let functions = || {
        let phone = Function::new(add).value(SECONDS);
        Functions::<TypedValue>::new().embedded(PHONE, phone).typed_egress(SUMS)
    };
    let serving =
        runtime.block_on(Server::new(ServedFunctions::new(functions)?).bind_unix(path))?;
    println!("{}", serving.url());
    io::stdout().flush()?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    runtime.block_on(serving.shutdown());
    Ok(())
}

#[cfg(not(unix))]
fn serve(_: &Path) -> Result<(), Failure> {
    Err("this needs Unix sockets".into())
}

/// A process of this program that has begun, and is ended with this.
struct Started {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
    _input: ChildStdin,
}

impl Started {
    fn new(arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let said = process.stdout.take().map(BufReader::new).expect("it is a pipe");
        let input = process.stdin.take().expect("it is a pipe");
        Ok(Started { process, said, _input: input })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One of the worker processes, which starts the functions that it calls.
fn work(directory: &str, process: usize, addresses: &[String]) -> Result<(), Failure> {
    let socket = Path::new(directory).join(format!("functions-{process}.sock"));
    let mut functions = Started::new(&["serve", &socket.to_string_lossy()])?;
    let mut url = String::new();
    functions.said.read_line(&mut url)?;
    let (endpoint, own) = (Endpoint::at(format!("{}/", url.trim())), functions.process.id());

    let runtime = tokio::runtime::Runtime::new()?;
    let handle = runtime.handle().clone();
    let communication = timely::CommunicationConfig::Cluster {
        threads: 1,
        process,
        addresses: addresses.to_vec(),
        report: false,
        zerocopy: false,
    };
    let config = timely::Config { communication, worker: timely::WorkerConfig::default() };
    let sums = Arc::new(Mutex::new(BTreeMap::new()));
    let all = Arc::clone(&sums);
    let workers = timely_statefun::execute(config, move |worker| {
        let (mut input, loops) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let functions = Functions::new().remote(PHONE, endpoint.clone()).typed_egress(SUMS);
            let functions = functions.runtime(handle.clone());
            let egresses = stream.stateful_functions(functions).expect("bound once each");
            let sums = Arc::clone(&sums);
            egresses.stream(SUMS).expect("it is bound").inspect(move |line| {
                let words: Vec<&str> = line.split(' ').collect();
                let number = |at: usize| words[at].parse::<u64>().expect("it is a number");
                assert_eq!(number(2), u64::from(own), "the functions of this process were called");
                // A sum comes after those that are smaller.
                sums.lock().unwrap().insert(number(0), number(1));
            });
            (input, egresses.handle())
        });
        let (index, peers) = (worker.index(), worker.peers());
        for (number, (phone, seconds)) in calls().enumerate().skip(index).step_by(peers) {
            while !loops.ready() {
                worker.step();
            }
            input.send(PHONE.message(phone, seconds));
            input.advance_to(number as u64 / CALLS_AT_A_TIME);
        }
        input.close();
        loops.run(worker).map_err(|stopped| stopped.to_string())
    });
    for worker in workers? {
        worker?;
    }
    let mut out = io::stdout().lock();
    for (phone, seconds) in &*all.lock().unwrap() {
        writeln!(out, "{phone} {seconds}")?;
    }
    Ok(())
}

/// A directory that is gone with this.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the worker processes, and looks at what they have found.
fn start() -> Result<(), Failure> {
    let directory = std::env::temp_dir().join(format!("co-located-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let directory = Directory(directory);
    let listeners: Vec<TcpListener> =
        (0..PROCESSES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses = listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string()));
    let addresses: Vec<String> = addresses.collect::<io::Result<_>>()?;
    // The system gives nobody else these ports for a while.
    drop(listeners);
    let workers = (0..PROCESSES).map(|process| {
        let (directory, process) = (directory.0.to_string_lossy(), process.to_string());
        let mut arguments = vec!["work", &*directory, &*process];
        arguments.extend(addresses.iter().map(String::as_str));
        Started::new(&arguments)
    });
    let workers: Vec<Started> = workers.collect::<Result<_, _>>()?;
    let (mut found, mut shares) = (BTreeMap::new(), Vec::new());
    for mut worker in workers {
        let mut said = String::new();
        worker.said.read_to_string(&mut said)?;
        if !worker.process.wait()?.success() {
            return Err("a worker process failed".into());
        }
        let lines = said.lines().filter_map(|line| line.split_once(' '));
        let sums: Vec<(u64, i64)> = lines
            .map(|(phone, sum)| Ok((phone.parse()?, sum.parse()?)))
            .collect::<Result<_, Failure>>()?;
        shares.push(sums.len());
        found.extend(sums);
    }
    let mut expected = BTreeMap::new();
    calls().for_each(|(phone, seconds)| *expected.entry(phone).or_insert(0) += seconds);
    assert_eq!(found, expected, "the sums of all calls");
    let phones: BTreeSet<_> = found.keys().collect();
    assert_eq!(shares.iter().sum::<usize>(), phones.len(), "each phone is at one process");
    let seconds: i64 = found.values().sum();
    println!(
        "{shares:?} phones at {PROCESSES} processes have called for {seconds} s, as they should have"
    );
    Ok(())
}
