//! Activates a loop from any thread, and after some time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use timely::scheduling::{Activator, SyncActivator};

/// Activates a loop from any thread. Many calls before the loop comes to its turn cost little more
/// than one.
#[derive(Clone, Debug)]
pub struct Waker {
    activator: SyncActivator,
    /// Whether the loop has been activated since it last looked.
    woken: Arc<AtomicBool>,
}

impl Waker {
    pub(crate) fn new(activator: SyncActivator) -> Self {
        Waker { activator, woken: Arc::default() }
    }

    /// Activates the loop, which then polls its handler. What was done before is visible to it.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // A worker that has ended needs no waking.
            let _ = self.activator.activate();
        }
    }

    /// Forgets that it was woken. To be called *before* looking for what there is: a wake-up that
    /// comes in between would otherwise be lost.
    pub(crate) fn clear(&self) {
        self.woken.swap(false, Ordering::AcqRel);
    }
}

/// Activates a loop after some time.
pub(crate) struct Alarm {
    activator: Activator,
    /// When the next activation comes that was asked for and is not over.
    rings: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new(activator: Activator) -> Self {
        Alarm { activator, rings: None }
    }

    /// Has the loop activated after this long, at the latest.
    pub(crate) fn set(&mut self, after: Option<Duration>) {
        let Some(after) = after else { return };
        if after.is_zero() {
            return self.activator.activate();
        }
        // Timely forgets no activation that it was asked for: one for each earlier time is enough.
        let now = Instant::now();
        let wanted = now + after.min(LONGEST);
        if self.rings.is_none_or(|rings| rings <= now || wanted < rings) {
            self.activator.activate_after(wanted - now);
            self.rings = Some(wanted);
        }
    }
}

/// The longest time to sleep without looking again.
const LONGEST: Duration = Duration::from_secs(3600);
