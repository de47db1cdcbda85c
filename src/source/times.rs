//! At which times a source gives its records.

use std::fmt;
use std::time::Duration;

use timely::progress::Timestamp;

use crate::clock::Clock;

/// At which time a source gives what it gives, and how its frontier goes on while there is nothing to give.
///
/// A time is asked for whenever the source is looked at, and holds for all that it gives then. Times never go
/// back: one that is not at or after the one before is replaced by that.
///
/// Nothing of it is stored. After a restart a function that counts should begin where
/// [`SnapshotDone::latest`](crate::SnapshotDone::latest) says, if later records are to have later times.
///
/// ```
/// use timely_statefun::Clock;
/// use timely_statefun::source::Times;
///
/// // All in one: the frontier stays there until the source ends.
/// let times = Times::fixed(0_u64);
/// // The milliseconds of a clock, also while nothing comes.
/// let times = Times::clock(&Clock::system());
/// // Whatever a program says.
/// let mut count = 0_u32;
/// let times = Times::by(move || { count += 1; count });
/// # let _ = times;
/// ```
pub struct Times<T> {
    now: Box<dyn FnMut() -> T>,
    last: Option<T>,
    every: Option<Duration>,
    clock: Option<Clock>,
}

/// How often a source that has nothing to give asks for the time, unless it is [said](Times::every).
pub(crate) const EVERY: Duration = Duration::from_millis(100);

impl<T: Timestamp> Times<T> {
    /// Everything at one time. The frontier stays there until the source ends.
    pub fn fixed(time: T) -> Self {
        Times { now: Box::new(move || time.clone()), last: None, every: None, clock: None }
    }

    /// The times that `now` gives, which is asked whenever the source is looked at, and at least every 100 ms.
    pub fn by(now: impl FnMut() -> T + 'static) -> Self {
        Times { now: Box::new(now), last: None, every: Some(EVERY), clock: None }
    }

    /// Asks at least so often, whether something comes or not; at least every millisecond, if it is less. That is
    /// how long the frontier may lag behind. Default 100 ms; of no effect where there is one
    /// [time](Self::fixed).
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = self.every.map(|_| every.max(Duration::from_millis(1)));
        self
    }

    /// The time now.
    pub(crate) fn now(&mut self) -> T {
        let now = (self.now)();
        match &self.last {
            Some(last) if !last.less_equal(&now) => last.clone(),
            _ => {
                self.last = Some(now.clone());
                now
            }
        }
    }

    /// After how long to ask again, if nothing happens.
    pub(crate) fn look_after(&self) -> Option<Duration> {
        self.every
    }

    /// Says how to have the source look again, from any thread.
    pub(crate) fn connect(&self, wake: impl Fn() + Send + 'static) {
        if let Some(clock) = &self.clock {
            clock.on_turn(wake);
        }
    }
}

impl Times<u64> {
    /// The milliseconds that a clock shows, at least every 100 ms, and whenever one that is
    /// [turned](Clock::turned) is.
    pub fn clock(clock: &Clock) -> Self {
        let shown = clock.clone();
        Times { clock: Some(clock.clone()), ..Times::by(move || shown.now_ms()) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Times<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times")
            .field("last", &self.last)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_never_go_back() {
        let mut given = [3, 1, 4, 2, 5].into_iter();
        let mut times = Times::by(move || given.next().unwrap());
        assert_eq!([(); 5].map(|()| times.now()), [3, 3, 4, 4, 5]);
    }

    #[test]
    fn a_clock_is_asked_as_often_as_is_said_and_a_fixed_time_never() {
        let (clock, hands) = Clock::turned(7);
        let mut times = Times::clock(&clock).every(Duration::ZERO);
        assert_eq!((times.now(), times.look_after()), (7, Some(Duration::from_millis(1))));
        hands.advance(Duration::from_millis(2));
        assert_eq!(times.now(), 9);
        assert_eq!(Times::fixed(1_u64).every(EVERY).look_after(), None);
    }
}
