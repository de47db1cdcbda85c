//! How far long work has come, on one line of a terminal; nowhere else.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two updates of the line.
const EVERY: Duration = Duration::from_millis(200);
/// Records between two looks at the clock.
const LOOK_EVERY: u64 = 1024;

pub struct Progress {
    what: &'static str,
    is_shown: bool,
    last: Instant,
    records: u64,
    has_line: bool,
}

impl Progress {
    pub fn of(what: &'static str) -> Self {
        let is_shown = std::io::stderr().is_terminal();
        Progress { what, is_shown, last: Instant::now(), records: 0, has_line: false }
    }

    /// One more record is done. `bytes` says how many bytes are, of how many if that is known.
    pub fn record(&mut self, bytes: impl FnOnce() -> (u64, Option<u64>)) {
        self.records += 1;
        if !self.is_shown || !self.records.is_multiple_of(LOOK_EVERY) || self.last.elapsed() < EVERY
        {
            return;
        }
        let (done, of) = bytes();
        let share = |of: u64| format!(" of {} ({} %)", megabytes(of), 100 * done / of.max(1));
        let share = of.map_or_else(String::new, share);
        self.line(&format!("{}: {} records, {}{share}", self.what, self.records, megabytes(done)));
    }

    /// So many records are done, of so many.
    pub fn records(&mut self, done: u64, of: u64) {
        if self.is_shown && (self.last.elapsed() >= EVERY || done == of) {
            let share = 100 * done / of.max(1);
            self.line(&format!("{}: {done} of {of} records ({share} %)", self.what));
        }
    }

    fn line(&mut self, line: &str) {
        (self.last, self.has_line) = (Instant::now(), true);
        // Who looks at nothing misses nothing.
        let _ = write!(std::io::stderr(), "\r{line:<78}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.has_line {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
