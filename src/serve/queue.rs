//! Requests that wait for a service thread to take them.
//!
//! Whichever thread has room takes the oldest. The queue does not know what a request asks.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::Refusal;

/// A request, and where its answer goes.
pub(super) struct Job {
    pub(super) request: Bytes,
    pub(super) answer: oneshot::Sender<Result<Bytes, Refusal>>,
}

/// The requests that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Told once for each request, and when there will be none.
    news: Notify,
    /// Told when there will be none.
    end: Notify,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    is_over: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, job: Job) {
        self.waiting().jobs.push_back(job);
        self.news.notify_one();
    }

    /// Ends it for all threads. What waits is not answered.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_over = true;
        let left = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        drop(left);
        self.news.notify_waiters();
        self.end.notify_waiters();
    }

    /// Waits until all is over.
    pub(super) async fn over(&self) {
        loop {
            let mut end = pin!(self.end.notified());
            end.as_mut().enable();
            if self.waiting().is_over {
                return;
            }
            end.await;
        }
    }

    /// The oldest request; `None` when all is over.
    pub(super) async fn next(&self) -> Option<Job> {
        loop {
            // Before looking: what comes in between is told as well.
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            {
                let mut waiting = self.waiting();
                if waiting.is_over {
                    return None;
                }
                if let Some(job) = waiting.jobs.pop_front() {
                    return Some(job);
                }
            }
            news.await;
        }
    }
}
