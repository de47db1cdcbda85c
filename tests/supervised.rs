//! The example `checkpointed` as it is operated: it is stopped at a savepoint and started again from that on
//! other workers and processes, and it is killed and comes back by itself. It always ends with the line of a
//! run that nothing disturbs.
//!
//! `cargo test` builds the example before it runs tests; before `cargo test --test supervised`, run `cargo build
//! --example checkpointed`.
#![cfg(unix)]

#[path = "../operators/tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A directory that is gone with this.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("supervised-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Directory(directory)
    }

    fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// How many files of the log there are.
    fn manifests(&self) -> usize {
        std::fs::read_dir(self.snapshots().join("manifest")).map_or(0, Iterator::count)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("checkpointed{}", std::env::consts::EXE_SUFFIX);
    let program = profile.join("examples").join(name);
    let missing = "is not built: run `cargo build --example checkpointed` first";
    assert!(program.exists(), "{} {missing}", program.display());
    program
}

/// A part of the calls, so that a run takes a second.
fn input() -> PathBuf {
    static INPUT: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let calls = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/calls.txt");
        let calls = std::fs::read_to_string(calls).unwrap();
        let some: String = calls.split_inclusive('\n').take(12_000).collect();
        let path = std::env::temp_dir().join(format!("supervised-calls-{}", std::process::id()));
        std::fs::write(&path, some).unwrap();
        path
    };
    INPUT.get_or_init(make).clone()
}

fn options(command: &mut Command, directory: &Directory, workers: usize) {
    command.arg("--snapshots").arg(directory.snapshots()).arg("--input").arg(input());
    command.args(["-w", &workers.to_string(), "--interval", "5"]);
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
}

fn run(directory: &Directory, workers: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    options(&mut command, directory, workers);
    command.args(arguments).output().unwrap()
}

/// The same in two processes, of the first of which the lines are given.
fn run_two(directory: &Directory, arguments: &[&str]) -> String {
    let hosts = directory.0.join("hosts");
    let outcomes = cluster::run_command(2, |process, addresses| {
        // Before the first of them is started, and not while it reads.
        if process == 0 {
            std::fs::write(&hosts, addresses.join("\n")).unwrap();
        }
        let mut command = Command::new(program());
        options(&mut command, directory, 1);
        command.args(["-n", "2", "-p", &process.to_string(), "-h"]).arg(&hosts);
        command.args(arguments);
        command
    });
    outcomes.iter().for_each(|outcome| assert!(outcome.success, "{}", outcome.output));
    assert!(!outcomes[1].output.contains("stopped at"), "the first says it for all");
    outcomes[0].output.clone()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn last(lines: &str) -> &str {
    lines.lines().rfind(|line| line.starts_with("links ")).unwrap_or("nothing")
}

/// What a run says that nothing disturbs.
fn undisturbed() -> &'static str {
    static LAST: OnceLock<String> = OnceLock::new();
    LAST.get_or_init(|| {
        let directory = Directory::new("undisturbed");
        let lines = out(&run(&directory, 1, &[]));
        assert_ne!(last(&lines), "nothing");
        last(&lines).to_owned()
    })
}

#[test]
fn stopped_at_a_savepoint_and_started_from_it_on_others_it_ends_with_the_same_line() {
    let began = Instant::now();
    const STOP: [&str; 4] = ["--savepoint", "middle", "--stop-at", "6000"];
    for workers in [1, 2, 0] {
        // 0 are two processes of one worker each.
        let directory = Directory::new(&format!("stop-{workers}"));
        let stopped = match workers {
            0 => run_two(&directory, &STOP),
            workers => out(&run(&directory, workers, &STOP)),
        };
        assert!(stopped.contains("stopped at savepoint middle, which is cut"), "{stopped}");
        assert_eq!(last(&stopped), "nothing", "{stopped}");
        // The first of them takes many more snapshots, and then it is begun with again.
        let on = if workers == 1 { 2 } else { 1 };
        let from = ["--from", "middle"];
        for lines in [
            out(&run(&directory, on, &from)),
            run_two(&directory, &from),
            out(&run(&directory, 3, &from)),
        ] {
            assert!(lines.contains("resumed from cut"), "{lines}");
            assert_eq!(last(&lines), undisturbed(), "{workers}: {lines}");
        }
    }
    println!("stopped and started twelve times in {:?}", began.elapsed());
}

#[test]
fn a_savepoint_on_the_way_changes_nothing_and_wrong_names_are_errors() {
    let directory = Directory::new("way");
    let lines = out(&run(&directory, 2, &["--savepoint", "half"]));
    assert!(lines.contains("savepoint half is cut"), "{lines}");
    assert_eq!(last(&lines), undisturbed());
    assert_eq!(last(&out(&run(&directory, 1, &["--from", "half"]))), undisturbed());
    for (wrong, status, why) in [
        (&["--from", "nothing"][..], 1, "there is no savepoint \"nothing\""),
        (&["--from", "half", "--savepoint", "half"], 1, "already"),
        (&["--from", "half", "--savepoint", "a b"], 1, "white space"),
        (&["--stop-at", "7"], 2, "--savepoint"),
    ] {
        let output = run(&directory, 1, wrong);
        assert_eq!(output.status.code(), Some(status), "{wrong:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(why), "{wrong:?}: {errors}");
    }
}

/// A supervisor, and what it and its program write.
struct Supervisor {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Supervisor {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let told = tell.clone();
        std::thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| told.send(line))
        });
        std::thread::spawn(move || {
            BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(line))
        });
        Supervisor { child, lines, seen: Vec::new() }
    }

    /// The number of the program's process, when it is started next.
    fn next_process(&mut self) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("it starts one");
            self.seen.push(line.clone());
            if let Some(rest) = line.strip_prefix("supervise: process ") {
                return rest.split(' ').next().unwrap().to_owned();
            }
        }
    }

    fn end(mut self) -> (ExitStatus, String) {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > LIMIT => panic!("it goes on: {:?}", self.seen),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        self.seen.extend(self.lines.iter());
        (status, std::mem::take(&mut self.seen).join("\n"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        signal("-TERM", &self.child.id().to_string());
        let _ = self.child.wait();
    }
}

fn signal(signal: &str, process: &str) {
    let mut kill = Command::new("kill");
    let _ = kill.args([signal, process]).stderr(Stdio::null()).status().unwrap();
}

fn supervise() -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/checkpointed/supervise.sh");
    let mut command = Command::new("sh");
    command.arg(script).env("WAIT_S_FIRST", "0").env("FAILURES_MAX", "5");
    command
}

#[test]
fn a_process_that_is_killed_comes_back_with_its_peers_and_ends_with_the_same_line() {
    let expected = undisturbed();
    let directory = Directory::new("killed");
    let hosts = directory.0.join("hosts");
    std::fs::write(&hosts, cluster::addresses(2).join("\n")).unwrap();
    let start = |process: usize| {
        let mut command = supervise();
        options(command.arg(program()), &directory, 1);
        // Slowly, so that it is not over before it is killed.
        command.args(["--rate", "6000", "-n", "2", "-p", &process.to_string(), "-h"]).arg(&hosts);
        Supervisor::start(&mut command)
    };
    let mut supervisors = [start(0), start(1)];
    let processes = supervisors.each_mut().map(Supervisor::next_process);
    let began = Instant::now();
    while directory.manifests() < 4 {
        assert!(began.elapsed() < LIMIT, "no snapshot is taken");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal("-KILL", &processes[1]);
    let again = supervisors.each_mut().map(Supervisor::next_process);
    assert!(again[0] != processes[0] && again[1] != processes[1], "both were started again");
    let [(first, lines), (second, others)] = supervisors.map(Supervisor::end);
    assert!(first.success() && second.success(), "{lines}\n{others}");
    assert!(lines.contains("resumed from cut"), "{lines}");
    assert!(others.contains("status 137"), "{others}");
    assert_eq!(last(&lines), expected);
}

#[test]
fn what_fails_again_and_again_is_given_up_with_its_last_error_and_wrong_calls_at_once() {
    let mut failing = supervise();
    failing.args(["sh", "-c", "echo first >&2; echo 'the disk is full' >&2; exit 7"]);
    let (status, lines) = Supervisor::start(&mut failing).end();
    assert_eq!(status.code(), Some(7));
    let gave_up = "supervise: gave up after 5 failures in a row, the last one with status 7: the disk is full";
    assert!(lines.lines().any(|line| line == gave_up), "{lines}");
    assert_eq!(lines.matches("first").count(), 5);

    let mut wrong = supervise();
    wrong.arg(program()).arg("--nonsense");
    let (status, lines) = Supervisor::start(&mut wrong).end();
    assert_eq!(status.code(), Some(2));
    assert!(
        lines.contains("supervise: it was called wrongly, status 2: checkpointed: "),
        "{lines}"
    );
    assert_eq!(lines.matches(" runs").count(), 1);
}

#[test]
fn whoever_ends_the_supervisor_ends_the_program() {
    let mut sleeping = supervise();
    sleeping.args(["sleep", "600"]);
    let mut supervisor = Supervisor::start(&mut sleeping);
    supervisor.next_process();
    signal("-TERM", &supervisor.child.id().to_string());
    let (status, lines) = supervisor.end();
    assert_eq!(status.code(), Some(143));
    assert!(lines.contains("supervise: stopped, status 143"), "{lines}");
}
