//! StateFun's smoke test against an interpreter in another language, by the example `smoke`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take. The slowest SDK needs a minute.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn all_counts_are_exact(url: &str) {
    // This program is DIRECTORY/PROFILE/deps/interop-HASH.
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap();
    let smoke = target.join("release/examples/smoke");
    let mut child = Command::new(&smoke)
        .args(["--remote", url, "--messages", "100000", "--instances", "128"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; build the example", smoke.display()));
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it has not ended within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // What it prints is a few lines, for which a pipe has room.
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("all counts exact"), "{said}");
    println!("    {last}");
}
