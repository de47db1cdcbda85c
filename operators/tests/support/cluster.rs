//! Runs a test's body in several processes that are workers of one timely program.
//!
//! The test starts its own binary again, once per process, and reads what each prints. Every
//! process ends with the test that started it, whatever happens.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The variables that say which member a process is, and with which words, and what all are given.
pub const MEMBER: &str = "TIMELY_STATEFUN_TEST_MEMBER";
pub const GIVEN: &str = "TIMELY_STATEFUN_TEST_GIVEN";
const PREFIX: &str = "member: ";

/// The configuration of this process, if it was started by [`run`].
#[allow(dead_code)]
pub fn member() -> Option<timely::Config> {
    let member = std::env::var(MEMBER).ok()?;
    let mut parts = member.split(' ');
    let process: usize = parts.next().unwrap().parse().unwrap();
    let threads: usize = parts.next().unwrap().parse().unwrap();
    let addresses: Vec<String> = parts.map(str::to_owned).collect();
    let communication = timely::CommunicationConfig::Cluster {
        threads,
        process,
        addresses,
        report: false,
        zerocopy: false,
    };
    Some(timely::Config { communication, worker: timely::WorkerConfig::default() })
}

/// What the test that started this process gave to all members.
#[allow(dead_code)]
pub fn given() -> Option<String> {
    std::env::var(GIVEN).ok()
}

/// Reports a line to the test that started this process.
#[allow(dead_code)]
pub fn report(line: impl std::fmt::Display) {
    println!("\n{PREFIX}{line}");
}

/// Addresses nobody else uses: the system chooses the ports, on a loopback address of our own, so
/// that no other program is given them in the moment between choosing and using.
pub fn addresses(processes: usize) -> Vec<String> {
    let host = if cfg!(target_os = "linux") {
        let pid = std::process::id();
        format!("127.{}.{}.{}", 1 + (pid >> 16) % 250, (pid >> 8) & 0xff, 1 + (pid & 0xff) % 250)
    } else {
        "127.0.0.1".to_owned()
    };
    let listeners: Vec<TcpListener> =
        (0..processes).map(|_| TcpListener::bind((host.as_str(), 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

struct Members(Vec<Child>);

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What one process did.
pub struct Outcome {
    /// Whether it ended without a failure.
    #[allow(dead_code)]
    pub success: bool,
    /// The lines it [reported](report).
    #[allow(dead_code)]
    pub lines: Vec<String>,
    /// Everything it wrote.
    #[allow(dead_code)]
    pub output: String,
}

/// Runs test `name` of this binary in `processes` processes of `threads` workers each.
#[allow(dead_code)]
pub fn run(name: &str, processes: usize, threads: usize) -> Vec<Outcome> {
    run_with(name, processes, threads, None)
}

/// The same with something for [`given`].
#[allow(dead_code)]
pub fn run_with(name: &str, processes: usize, threads: usize, given: Option<&str>) -> Vec<Outcome> {
    run_command(processes, |process, addresses| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(MEMBER, format!("{process} {threads} {}", addresses.join(" ")));
        command.envs(given.map(|given| (GIVEN, given)));
        command
    })
}

/// Runs `processes` commands that are members of one program, and waits for all of them.
pub fn run_command(
    processes: usize,
    command: impl Fn(usize, &[String]) -> Command,
) -> Vec<Outcome> {
    let addresses = addresses(processes);
    let spawn = |process| {
        let mut command = command(process, &addresses);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut members = Members((0..processes).map(spawn).collect());
    let readers: Vec<_> = members
        .0
        .iter_mut()
        .map(|child| {
            let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
            (std::thread::spawn(move || read(out)), std::thread::spawn(move || read(err)))
        })
        .collect();
    // Far beyond what a run takes; it only keeps a hang from lasting for ever.
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut hung = false;
    let statuses: Vec<bool> = (0..processes)
        .map(|at| {
            loop {
                if let Some(status) = members.0[at].try_wait().unwrap() {
                    return status.success();
                }
                if Instant::now() > deadline {
                    hung = true;
                    let _ = members.0[at].kill();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        })
        .collect();
    let outcomes: Vec<Outcome> = readers
        .into_iter()
        .zip(statuses)
        .map(|((out, err), success)| {
            let out = out.join().unwrap();
            let lines = out.lines().filter_map(|line| line.strip_prefix(PREFIX));
            let lines = lines.map(str::to_owned).collect();
            Outcome { success, lines, output: out + &err.join().unwrap() }
        })
        .collect();
    if hung {
        let outputs: Vec<_> = outcomes.iter().map(|o| o.output.as_str()).collect();
        panic!("a process did not end; they wrote:\n{}", outputs.join("\n--\n"));
    }
    outcomes
}

fn read(mut from: impl Read) -> String {
    let mut text = Vec::new();
    from.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}
