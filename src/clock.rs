//! What time it is, as a value that a program passes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

type Wake = Box<dyn Fn() + Send>;

/// What delayed messages, expiry and retries go by: the system's clock, or one that a test turns.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::Clock;
///
/// let (clock, hands) = Clock::turned(1_000);
/// assert_eq!(clock.now_ms(), 1_000);
/// hands.advance(Duration::from_secs(2));
/// assert_eq!(clock.now_ms(), 3_000);
/// ```
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System,
    Turned(Arc<Turned>),
}

struct Turned {
    now_ms: AtomicU64,
    /// Called after each turn.
    wake: Mutex<Vec<Wake>>,
}

impl Clock {
    /// The system's clock. Where it is set back, those who look at it here see it stand still.
    pub fn system() -> Self {
        Clock(Kind::System)
    }

    /// A clock that stands still but for its hands, and the hands. It begins `start_ms` milliseconds
    /// after the beginning of 1970.
    ///
    /// Turning it wakes the workers that wait for it, in this process.
    pub fn turned(start_ms: u64) -> (Self, ClockHands) {
        let (now_ms, wake) = (AtomicU64::new(start_ms), Mutex::default());
        let turned = Arc::new(Turned { now_ms, wake });
        (Clock(Kind::Turned(Arc::clone(&turned))), ClockHands(turned))
    }

    /// Milliseconds since the beginning of 1970.
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Kind::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Kind::Turned(turned) => turned.now_ms.load(Ordering::Acquire),
        }
    }

    /// How long a thread may sleep until the clock shows `due_ms`; `None` if that is until somebody turns
    /// the clock.
    pub(crate) fn until(&self, due_ms: u64) -> Option<Duration> {
        let left = Duration::from_millis(due_ms.saturating_sub(self.now_ms()));
        match &self.0 {
            Kind::System => Some(left),
            Kind::Turned(_) => left.is_zero().then_some(left),
        }
    }

    /// Has `wake` called whenever somebody turns the clock.
    pub(crate) fn on_turn(&self, wake: impl Fn() + Send + 'static) {
        if let Kind::Turned(turned) = &self.0 {
            turned.wake.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake));
        }
    }
}

/// Two are the same if they always show the same time.
impl PartialEq for Clock {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::System, Kind::System) => true,
            (Kind::Turned(one), Kind::Turned(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Clock {}

impl Default for Clock {
    fn default() -> Self {
        Clock::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Kind::System => "system",
            Kind::Turned(_) => "turned",
        };
        write!(f, "Clock({kind}, {} ms)", self.now_ms())
    }
}

/// Turns a [`Clock`] that does not go by itself.
#[derive(Clone)]
pub struct ClockHands(Arc<Turned>);

impl ClockHands {
    /// Turns the clock forward, and wakes those who wait for it.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let later = |now: u64| Some(now.saturating_add(by));
        let _ = self.0.now_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        for wake in self.0.wake.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }
}

impl fmt::Debug for ClockHands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClockHands({} ms)", self.0.now_ms.load(Ordering::Acquire))
    }
}
