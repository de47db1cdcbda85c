//! The smoke test counts exactly however often it is killed, whenever that is, and on whatever workers it goes
//! on.
//!
//! The program is started with snapshots, killed with SIGKILL at a random moment and started again on
//! another number of workers or in two processes, until it has come to its end; then it begins anew with
//! other commands. Every run that comes to its end checks the count of every instance. Where there are
//! few messages and many instances, it is mostly asking for counts that is killed.
//!
//! `cargo test --test crash -- --rounds 1000 --seed 7` for more of it. The program itself is built by `cargo
//! test`; before `cargo test --test crash`, run `cargo build --example smoke`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[allow(dead_code)]
#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "support/mod.rs"]
mod support;

use support::Random;

/// Restarts of which this share must have gone on from a cut with messages on their way.
const ON_THEIR_WAY_OF_FIFTY: usize = 40;
/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let option = |name: &str| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
        arguments.next().map(|value| value.parse::<u64>().expect("a whole number"))
    };
    let rounds = option("--rounds").unwrap_or(50) as usize;
    let seed = option("--seed").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    println!("crash: {rounds} rounds, --seed {seed}");
    let counting = Size { messages: 60_000, instances: 300, cuts: 3 };
    let mut crash = Crash { random: Random(seed), size: counting, totals: Totals::default() };
    let plans = crash.run(rounds);
    let Totals { kills, ends, cuts, on_their_way, found, .. } = &crash.totals;
    println!("crash: {kills} kills in {plans} runs, {ends} of which ended, exactly");
    println!(
        "crash: {cuts} restarts went on from a cut, {on_their_way} with messages on their way"
    );
    for (what, (times, messages)) in found {
        println!("crash: {what}: in {times} of these cuts, {messages} in all");
    }
    assert!(*cuts > 0 && on_their_way * 50 >= cuts * ON_THEIR_WAY_OF_FIFTY, "too few were");
    for what in ["logged", "operations", "delayed"] {
        assert!(found.get(what).is_some_and(|(times, _)| *times > 0), "no cut had any {what}");
    }
    let asking = Size { messages: 1000, instances: 4000, cuts: 1 };
    let mut crash = Crash { random: crash.random, size: asking, totals: Totals::default() };
    let plans = crash.run(rounds);
    let Totals { kills, ends, cuts, .. } = &crash.totals;
    println!("crash: asking: {kills} kills in {plans} runs, {ends} of which ended, exactly");
    println!("crash: asking: {cuts} restarts went on from a cut");
    assert!(*cuts > 0, "none went on from a cut");
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Totals {
    kills: usize,
    ends: usize,
    /// Restarts from a cut, and those of them whose cut had messages on their way.
    cuts: usize,
    on_their_way: usize,
    /// By what it was, how many of those cuts had some, and how many.
    found: BTreeMap<String, (usize, u64)>,
}

/// How large a plan is, and when it may be killed.
#[derive(Clone, Copy)]
struct Size {
    messages: u64,
    instances: u64,
    /// At least so many cuts come first, most often.
    cuts: usize,
}

struct Crash {
    random: Random,
    size: Size,
    totals: Totals,
}

/// A directory that is gone with this.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The processes of a program, which end with this.
struct Processes {
    children: Vec<Child>,
    lines: Receiver<String>,
    hosts: Option<PathBuf>,
    /// Whether they have written something, which they do together.
    have_met: bool,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.hosts.iter().for_each(|hosts| drop(std::fs::remove_file(hosts)));
    }
}

impl Crash {
    /// Runs plans until so many are killed, and says how many it ran.
    fn run(&mut self, rounds: usize) -> usize {
        let mut plans = 0;
        while self.totals.kills < rounds {
            plans += 1;
            self.run_plan(rounds);
        }
        plans
    }

    /// Runs one plan until it has come to its end.
    fn run_plan(&mut self, rounds: usize) {
        let name = format!("crash-{}-{}", std::process::id(), self.random.any());
        // In memory where there is such a place: nothing is lost here but programs, and cuts are more.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = Directory(place.join(name));
        let plan_seed = self.random.below(1 << 30);
        let (mut layout, mut began) = (usize::MAX, Instant::now());
        loop {
            // Always another layout than before.
            layout = match self.random.below(4) as usize {
                same if same == layout => (same + 1) % 4,
                other => other,
            };
            let mut processes = self.start(layout, plan_seed, &directory.0);
            let is_enough = self.totals.kills >= rounds;
            if !is_enough && !self.wait_to_kill(&mut processes, &directory.0) {
                self.totals.kills += 1;
                began = Instant::now();
                // Whichever process is killed, the others end as well; at once, where all have met.
                let victim = self.random.below(processes.children.len() as u64) as usize;
                processes.children[victim].kill().unwrap();
                if !processes.have_met {
                    processes.children.iter_mut().for_each(|child| child.kill().unwrap());
                }
                for child in &mut processes.children {
                    wait(child);
                }
                self.read(&processes);
                continue;
            }
            let ends: Vec<_> = processes.children.iter_mut().map(wait).collect();
            self.read(&processes);
            assert!(ends.iter().all(|end| *end), "layout {layout}, plan {plan_seed}: it failed");
            assert!(began.elapsed() < LIMIT, "it takes too long");
            self.totals.ends += 1;
            return;
        }
    }

    fn start(&mut self, layout: usize, plan_seed: u64, directory: &Path) -> Processes {
        let (workers, process_count) = [(1, 1), (2, 1), (4, 1), (1, 2)][layout];
        let hosts = (process_count > 1).then(|| {
            let hosts = directory.with_extension("hosts");
            std::fs::write(&hosts, cluster::addresses(process_count).join("\n")).unwrap();
            hosts
        });
        let (tell, lines) = channel();
        let children = (0..process_count).map(|process| {
            let mut command = program();
            let Size { messages, instances, .. } = self.size;
            command.args(["--seed", &plan_seed.to_string(), "--messages", &messages.to_string()]);
            command.args(["--instances", &instances.to_string(), "--interval", "5"]);
            command.arg("--snapshots");
            command.arg(directory).args(["-w", &workers.to_string()]);
            if let Some(hosts) = &hosts {
                let (n, p) = (process_count.to_string(), process.to_string());
                command.args(["-n", &n, "-p", &p, "-h"]).arg(hosts);
            }
            command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
            forward(out, tell.clone());
            forward(err, tell.clone());
            child
        });
        Processes { children: children.collect(), lines, hosts, have_met: false }
    }

    /// Waits for a moment to kill; true if the program ended before.
    fn wait_to_kill(&mut self, processes: &mut Processes, directory: &Path) -> bool {
        let manifests = || std::fs::read_dir(directory.join("manifest")).map_or(0, Iterator::count);
        // Most often some cuts come first, or nothing would ever be done: after the claim, and a cut of
        // which most is what was restored, one of what has happened since.
        let cuts = if self.random.below(20) == 0 {
            0
        } else {
            self.size.cuts + self.random.below(3) as usize
        };
        let (before, began) = (manifests(), Instant::now());
        let more = Duration::from_micros(self.random.below(100_000));
        let mut since = None;
        loop {
            if processes.children.iter_mut().any(|child| child.try_wait().unwrap().is_some()) {
                return true;
            }
            assert!(began.elapsed() < LIMIT, "no cut is taken");
            processes.have_met |= manifests() != before;
            if since.is_none() && (manifests() >= before + cuts || manifests() < before) {
                since = Some(Instant::now());
            }
            if since.is_some_and(|since| since.elapsed() >= more) {
                return false;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Reads what the processes said of what they went on from.
    fn read(&mut self, processes: &Processes) {
        for line in processes.lines.try_iter() {
            let Some(resumed) = line.strip_prefix("resumed from cut ") else {
                if line.starts_with("smoke: ") && !line.contains("all counts exact") {
                    println!("{line}");
                }
                continue;
            };
            let Totals { cuts, on_their_way, found, .. } = &mut self.totals;
            *cuts += 1;
            let (_, counts) = resumed.split_once(": ").unwrap();
            let mut any = false;
            for count in counts.split(", ") {
                let (number, what) = count.split_once(' ').unwrap();
                let number: u64 = number.parse().unwrap();
                let what = what.strip_prefix("messages ").unwrap_or(what);
                let (times, messages) = found.entry(what.to_owned()).or_default();
                *times += usize::from(number > 0);
                *messages += number;
                any |= number > 0 && ["logged", "in flight", "delayed"].contains(&what);
            }
            *on_their_way += usize::from(any);
        }
    }
}

/// Whether a process ended well.
fn wait(child: &mut Child) -> bool {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        assert!(began.elapsed() < LIMIT, "a process does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn forward(from: impl Read + Send + 'static, tell: std::sync::mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            drop(tell.send(line));
        }
    });
}

/// The example, which `cargo test` builds before it runs tests.
fn program() -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join(format!("smoke{}", std::env::consts::EXE_SUFFIX));
    let missing = "is not built: run `cargo build --example smoke` first";
    assert!(program.exists(), "{} {missing}", program.display());
    Command::new(program)
}
