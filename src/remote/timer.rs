//! The time that a call has, and each step of it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// One timer for a call and all its steps. To move a timer on costs next to nothing, to make one
/// does.
pub(super) struct Timer<'a> {
    sleep: Pin<&'a mut Sleep>,
    /// When the whole call is over.
    ends: Instant,
}

impl<'a> Timer<'a> {
    /// A timer of a call that may sleep so long in all.
    pub(super) fn new(sleep: Pin<&'a mut Sleep>) -> Self {
        let ends = sleep.deadline();
        Timer { sleep, ends }
    }

    /// How much of the call's time is left.
    #[cfg(feature = "grpc")]
    pub(super) fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Whether the whole call is over.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// What a step comes to, if that is within its limit and before the whole call is over.
    pub(super) async fn within<F: Future>(
        &mut self,
        limit: Duration,
        mut step: Pin<&mut F>,
    ) -> Option<F::Output> {
        // A limit beyond what an instant can tell is none.
        let deadline = Instant::now().checked_add(limit);
        let deadline = deadline.map_or(self.ends, |deadline| deadline.min(self.ends));
        let mut is_set = false;
        poll_fn(|context| {
            if let Poll::Ready(output) = step.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if !is_set {
                self.sleep.as_mut().reset(deadline);
                is_set = true;
            }
            self.sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}
