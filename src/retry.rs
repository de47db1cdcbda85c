//! How often, and after how long, a message that failed is tried again.

use std::time::Duration;

/// How often a function is tried on a message, and how long to wait in between.
///
/// The wait begins at [`first`](Self::first) and doubles with each attempt, up to
/// [`longest`](Self::longest). Chance takes off up to [`jitter`](Self::jitter) of it, so that what
/// failed together is not tried together.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::Retry;
///
/// let retry = Retry::attempts(5).first(Duration::from_millis(20)).jitter(0.2);
/// # let _ = retry;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    attempts_max: u32,
    first: Duration,
    longest: Duration,
    jitter: f64,
}

impl Retry {
    /// Tries a function so often, the first time included; 0 counts as 1. Waits 100 ms at first and a
    /// minute at most, of which chance takes off up to half.
    pub const fn attempts(attempts_max: u32) -> Self {
        Retry {
            attempts_max,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(60),
            jitter: 0.5,
        }
    }

    /// Sets the wait after the first failure. Counted in milliseconds.
    #[must_use]
    pub const fn first(mut self, wait: Duration) -> Self {
        self.first = wait;
        self
    }

    /// Sets the longest wait.
    #[must_use]
    pub const fn longest(mut self, wait: Duration) -> Self {
        self.longest = wait;
        self
    }

    /// Sets the part of each wait that chance may take off, from 0 (none) to 1 (all of it).
    #[must_use]
    pub const fn jitter(mut self, part: f64) -> Self {
        self.jitter = part;
        self
    }

    /// Whether there is another attempt after so many.
    pub(crate) fn again_after(&self, attempts: u32) -> bool {
        attempts < self.attempts_max
    }

    /// Milliseconds to wait after so many attempts. `chance` is any number.
    pub(crate) fn wait_ms(&self, attempts: u32, chance: u64) -> u64 {
        let doublings = attempts.saturating_sub(1).min(31);
        let wait = self.first.saturating_mul(1 << doublings).min(self.longest).as_millis() as f64;
        let mixed = (chance ^ chance >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let drawn = (mixed >> 11) as f64 / (1u64 << 53) as f64;
        (wait * (1.0 - self.jitter.clamp(0.0, 1.0) * drawn)).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry::attempts(9).jitter(0.0).longest(Duration::from_millis(1500));
        let waits: Vec<u64> = (1..8).map(|attempts| retry.wait_ms(attempts, 7)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1500, 1500, 1500]);
        assert_eq!(retry.wait_ms(u32::MAX, 7), 1500);
        assert!(retry.again_after(8) && !retry.again_after(9));
    }

    #[test]
    fn chance_takes_off_no_more_than_it_may() {
        let retry = Retry::attempts(2).first(Duration::from_secs(1)).jitter(0.25);
        let waits: Vec<u64> = (0..1000).map(|chance| retry.wait_ms(1, chance * 77)).collect();
        assert!(waits.iter().all(|wait| (750..=1000).contains(wait)));
        assert!(waits.iter().min() < Some(&770) && waits.iter().max() > Some(&980));
    }
}
