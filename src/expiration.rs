//! How long state lives without being written, or without being used.

use std::fmt;
use std::time::Duration;

/// How long a piece of state lives: for ever, which is the default, or for some time after it was
/// last written or last used.
///
/// It counts for each value, each entry of a table and each element of a buffer by itself. State
/// that has expired is never seen again, and its memory is given back although nobody touches it.
/// An address whose last state expires takes no memory, like one that never had any.
///
/// Time is that of the program's [clock](crate::Functions::clock), in whole milliseconds; durations
/// are rounded up to them. Zero, and what does not fit into 64 bits of milliseconds, is an error
/// where the state is declared.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::{Expiration, ValueSpec};
///
/// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// const CART: ValueSpec<String> =
///     ValueSpec::new("cart").expiring(Expiration::after_read_or_write(DAY));
/// assert_eq!(CART.expiration().duration(), Some(DAY));
/// assert_eq!(ValueSpec::<u64>::new("total").expiration(), Expiration::never());
/// ```
#[derive(Copy, Clone, Default, PartialEq, Eq)]
pub struct Expiration {
    after: After,
    /// Milliseconds; 0 if it never expires. `MAX` stands for too many.
    lifetime_ms: u64,
}

#[derive(Copy, Clone, Default, PartialEq, Eq)]
enum After {
    #[default]
    Never,
    Write,
    ReadOrWrite,
}

impl Expiration {
    /// State lives until it is removed.
    pub const fn never() -> Self {
        Expiration { after: After::Never, lifetime_ms: 0 }
    }

    /// State written at some time is seen before that time plus `lifetime`, and not from then on.
    pub const fn after_write(lifetime: Duration) -> Self {
        Expiration { after: After::Write, lifetime_ms: millis(lifetime) }
    }

    /// State that is read or written at some time is seen before that time plus `lifetime`.
    ///
    /// It is gone a sixteenth of `lifetime` and a millisecond later: reading it again while it has
    /// more than `lifetime` left changes nothing, so that reads are not writes.
    pub const fn after_read_or_write(lifetime: Duration) -> Self {
        Expiration { after: After::ReadOrWrite, lifetime_ms: millis(lifetime) }
    }

    /// How long state lives at least after it was last written, or used, in whole milliseconds;
    /// `None` if it never expires.
    pub const fn duration(&self) -> Option<Duration> {
        match self.after {
            After::Never => None,
            After::Write | After::ReadOrWrite => Some(Duration::from_millis(self.lifetime_ms)),
        }
    }

    /// What is wrong with it, if something is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match (self.after, self.lifetime_ms) {
            (After::Never, _) => None,
            (_, 0) => Some("it is zero"),
            (_, u64::MAX) => Some("it does not fit into 64 bits of milliseconds"),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn is_never(&self) -> bool {
        self.after == After::Never
    }

    /// The milliseconds that something lives, and whether it lives on when it is read. 0 is for ever.
    pub(crate) fn of(lifetime_ms: u64, counts_reads: bool) -> Self {
        let after = match (lifetime_ms, counts_reads) {
            (0, _) => After::Never,
            (_, true) => After::ReadOrWrite,
            (_, false) => After::Write,
        };
        Expiration { after, lifetime_ms }
    }

    /// What [`of`](Self::of) makes this of.
    pub(crate) fn lifetime_ms(&self) -> u64 {
        self.lifetime_ms
    }

    /// Whether something lives on when it is read.
    pub(crate) fn counts_reads(&self) -> bool {
        self.after == After::ReadOrWrite
    }

    /// The time from which on something is not seen that is written now.
    #[inline]
    pub(crate) fn written(&self, now_ms: u64) -> u64 {
        match self.after {
            After::Never => u64::MAX,
            After::Write => now_ms.saturating_add(self.lifetime_ms),
            After::ReadOrWrite => self.with_slack(now_ms.saturating_add(self.lifetime_ms)),
        }
    }

    /// The same for something that is read now and would not be seen from `deadline` on; `None` if
    /// that stays as it is.
    ///
    /// A deadline that moves is moved by a sixteenth more than it must be, and so moves at most that
    /// often: state that is read all the time is written only then.
    #[inline]
    pub(crate) fn read(&self, deadline_ms: u64, now_ms: u64) -> Option<u64> {
        let wanted = now_ms.saturating_add(self.lifetime_ms);
        (self.after == After::ReadOrWrite && deadline_ms < wanted).then(|| self.with_slack(wanted))
    }

    fn with_slack(&self, deadline_ms: u64) -> u64 {
        deadline_ms.saturating_add(self.lifetime_ms / 16)
    }
}

/// Whole milliseconds, rounded up.
const fn millis(duration: Duration) -> u64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    if millis < u64::MAX as u128 { millis as u64 } else { u64::MAX }
}

impl fmt::Debug for Expiration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            After::Never => write!(f, "never"),
            After::Write => write!(f, "{} ms after write", self.lifetime_ms),
            After::ReadOrWrite => write!(f, "{} ms after read or write", self.lifetime_ms),
        }
    }
}

/// For tests in rooms that do not know what a duration is.
#[cfg(test)]
pub(crate) const fn after_write(lifetime_ms: u64) -> Expiration {
    Expiration::after_write(Duration::from_millis(lifetime_ms))
}

/// The same for state that lives on when it is read.
#[cfg(test)]
pub(crate) const fn after_use(lifetime_ms: u64) -> Expiration {
    Expiration::after_read_or_write(Duration::from_millis(lifetime_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_and_those_that_mean_nothing_are_faults() {
        let after = Expiration::after_write;
        assert_eq!(after(Duration::from_nanos(1)), after(Duration::from_millis(1)));
        assert_eq!(after(Duration::from_micros(1001)), after(Duration::from_millis(2)));
        assert_eq!(after(Duration::from_millis(7)).duration(), Some(Duration::from_millis(7)));
        assert_eq!(Expiration::never().duration(), None);
        for bad in [Duration::ZERO, Duration::MAX, Duration::from_millis(u64::MAX)] {
            assert!(after(bad).fault().is_some(), "{bad:?}");
            assert!(Expiration::after_read_or_write(bad).fault().is_some(), "{bad:?}");
        }
        let most = Duration::from_millis(u64::MAX - 1);
        assert_eq!(after(most).fault(), None);
        assert_eq!(Expiration::never().fault(), None);
    }

    #[test]
    fn reads_move_a_deadline_seldom_and_never_too_late() {
        let expiration = Expiration::after_read_or_write(Duration::from_millis(1600));
        let mut deadline = expiration.written(0);
        let mut moved = 0;
        for now in 0..16_000 {
            if let Some(later) = expiration.read(deadline, now) {
                assert!(later > deadline + 100, "at {now}: from {deadline} to {later}");
                (deadline, moved) = (later, moved + 1);
            }
            assert!((now + 1600..=now + 1700).contains(&deadline), "at {now}: {deadline}");
        }
        assert!((150..160).contains(&moved), "{moved}");
        assert_eq!(Expiration::after_write(Duration::from_millis(5)).read(0, 100), None);
        assert_eq!(Expiration::never().read(0, 100), None);
    }
}
