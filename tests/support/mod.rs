//! What several of these tests need: chance with a seed, and timely programs that give back what
//! each worker returns.

use std::time::{Duration, Instant};

use timely::worker::Worker;

/// Scatters the bits of a number.
#[allow(dead_code)]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Numbers that depend on nothing but a seed (SplitMix64).
#[allow(dead_code)]
pub struct Random(pub u64);

#[allow(dead_code)]
impl Random {
    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }
}

/// Says, if the test fails meanwhile, with what it ran.
#[allow(dead_code)]
pub struct Running(pub String);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this happened with {}", self.0);
        }
    }
}

/// Runs a program on this many workers of one process, and gives what each of them returned.
///
/// # Panics
///
/// If a worker panicked.
#[allow(dead_code)]
pub fn on_workers<R: Send + 'static>(
    workers: usize,
    program: impl Fn(&mut Worker) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let guards = timely::execute(timely::Config::process(workers), program).unwrap();
    let ends = guards.join().into_iter();
    ends.map(|end| end.expect("the worker's own message is above")).collect()
}

/// Longer than anything takes that is waited for here.
#[allow(dead_code)]
pub const LIMIT: Duration = Duration::from_secs(20);

/// Steps a worker until something holds.
///
/// # Panics
///
/// If it does not hold within [`LIMIT`].
#[allow(dead_code)]
#[track_caller]
pub fn until(worker: &mut Worker, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "it never came that {what}");
        worker.step_or_park(Some(Duration::from_micros(500)));
    }
}
