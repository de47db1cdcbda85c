//! A runtime whose tasks run, and whose time passes, only when a test says so.
//!
//! It has no thread of its own. It waits for nothing that is not its own: other threads and sockets are looked
//! at when its tasks run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

pub(super) struct TurnedRuntime {
    runtime: Runtime,
    /// Told when no task can go on.
    idle: Arc<Notify>,
    /// Told when time may have passed.
    passed: Arc<Notify>,
}

impl TurnedRuntime {
    pub(super) fn new() -> Self {
        Self::of(Builder::new_current_thread().enable_all())
    }

    /// The same without sockets.
    pub(super) fn offline() -> Self {
        Self::of(Builder::new_current_thread().enable_time())
    }

    fn of(builder: &mut Builder) -> Self {
        let (idle, passed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (on_park, on_unpark) = (Arc::clone(&idle), Arc::clone(&passed));
        let runtime = builder
            .start_paused(true)
            .on_thread_park(move || on_park.notify_one())
            .on_thread_unpark(move || on_unpark.notify_one())
            .build();
        TurnedRuntime { runtime: runtime.expect("there is a runtime"), idle, passed }
    }

    pub(super) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Has all tasks go on as far as they can while no time passes.
    pub(super) fn settle(&self) {
        forget(&self.idle);
        // Whoever is woken while the runtime is about to wait keeps its paused time from going on.
        self.runtime.block_on(self.idle.notified());
    }

    /// Whether no task is ready that has not been looked at.
    pub(super) fn is_idle(&self) -> bool {
        self.runtime.metrics().global_queue_depth() == 0
    }

    /// Whether there is a task that has not come to its end.
    pub(super) fn has_tasks(&self) -> bool {
        self.runtime.metrics().num_alive_tasks() > 0
    }

    /// Lets so much time pass at once, and all tasks go on as far as they can.
    pub(super) fn advance(&self, by: Duration) {
        self.runtime.block_on(tokio::time::advance(by));
        self.settle();
    }

    /// Lets time pass until something is due, or for less, but no more than this. Gives how much has passed,
    /// which may be none.
    pub(super) fn pass(&self, most: Duration) -> Duration {
        forget(&self.passed);
        self.runtime.block_on(async {
            let began = Instant::now();
            // Where nothing is due before, it is when this is over.
            let _ = timeout(most, self.passed.notified()).await;
            began.elapsed().min(most)
        })
    }
}

/// Forgets what was told before.
fn forget(told: &Notify) {
    while told.notified().now_or_never().is_some() {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Also what becomes due by what was due before happens at its own time.
    #[test]
    fn time_passes_from_one_thing_that_is_due_to_the_next() {
        let runtime = TurnedRuntime::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for ms in [300_u64, 100] {
            let seen = Arc::clone(&seen);
            runtime.handle().spawn(async move {
                for turn in 1..=2 {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    for _ in 0..1000 {
                        tokio::task::yield_now().await;
                    }
                    seen.lock().unwrap().push(turn * ms);
                }
            });
        }
        runtime.settle();
        let mut left = Duration::from_millis(350);
        let mut stops = Vec::new();
        while !left.is_zero() {
            let passed = runtime.pass(left);
            left -= passed;
            runtime.settle();
            // Time may stop in between as well.
            let seen = seen.lock().unwrap().clone();
            if stops.last().is_none_or(|(_, before)| *before != seen) && !seen.is_empty() {
                stops.push((350 - left.as_millis() as u64, seen));
            }
        }
        let seen = [vec![100], vec![100, 200], vec![100, 200, 300]];
        assert_eq!(stops, [100, 200, 300].into_iter().zip(seen).collect::<Vec<_>>());
    }
}
