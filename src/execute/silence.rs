//! After how long without a sign from another process it counts as lost.
//!
//! The operating system sees to it. A connection on which nothing is sent is probed (`SO_KEEPALIVE`
//! and its times). One on which something is sent that nobody acknowledges, or takes, is given up after
//! as long where the system can be told so (`TCP_USER_TIMEOUT`, on Linux and Android); elsewhere the
//! system has a time of its own for that. Nothing here asks whether the other process makes progress.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Shorter times than this leave no room for a probe that is lost: systems count in whole seconds.
const MIN: Duration = Duration::from_secs(3);
/// Systems count probes and seconds in small numbers.
const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long another process may be silent.
#[derive(Copy, Clone, Debug)]
pub(super) struct Silence {
    max: Duration,
}

impl Silence {
    /// At most this long.
    pub(super) fn of_at_most(max: Duration) -> Result<Self, String> {
        if max < MIN || MAX < max {
            return Err(format!(
                "peer_silence_max is {max:?}, and not between {MIN:?} and {MAX:?}"
            ));
        }
        Ok(Silence { max })
    }

    pub(super) fn max(self) -> Duration {
        self.max
    }

    /// Seconds until the first probe, between probes, and how many of them nobody answers.
    fn probes(self) -> (u64, u64, u32) {
        let seconds = self.max.as_secs() + u64::from(self.max.subsec_nanos() > 0);
        let (first, between) = (seconds / 3, (seconds / 6).max(1));
        let unanswered = (seconds - first) / between;
        (first, between, u32::try_from(unanswered).expect("there are few"))
    }

    /// Has the system look after a connection.
    pub(super) fn watch(self, stream: &TcpStream) -> io::Result<()> {
        let (first, between, unanswered) = self.probes();
        let probes = TcpKeepalive::new().with_time(Duration::from_secs(first));
        #[cfg(any(
            target_os = "android",
            target_os = "dragonfly",
            target_os = "freebsd",
            target_os = "illumos",
            target_os = "ios",
            target_os = "linux",
            target_os = "macos",
            target_os = "netbsd",
            target_os = "windows",
        ))]
        let probes = probes.with_interval(Duration::from_secs(between)).with_retries(unanswered);
        let _ = (between, unanswered);
        let socket = SockRef::from(stream);
        socket.set_tcp_keepalive(&probes)?;
        #[cfg(any(target_os = "android", target_os = "linux"))]
        socket.set_tcp_user_timeout(Some(self.max))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_take_as_long_as_the_silence_may() {
        for seconds in (3..200).chain([3600, 86_399, 86_400]) {
            let max = Duration::from_secs(seconds);
            let (first, between, unanswered) = Silence::of_at_most(max).unwrap().probes();
            let taken = first + between * u64::from(unanswered);
            assert!(taken <= seconds && seconds - taken < between, "{taken} of {seconds} seconds");
            assert!(
                first > 0 && (2..=8).contains(&unanswered),
                "{unanswered} in {seconds} seconds"
            );
        }
        let rounded = Silence::of_at_most(Duration::from_millis(5001)).unwrap().probes();
        assert_eq!(rounded, Silence::of_at_most(Duration::from_secs(6)).unwrap().probes());
    }

    #[test]
    fn a_silence_that_no_system_can_count_is_an_error() {
        for max in [Duration::ZERO, MIN - Duration::from_nanos(1), MAX + Duration::from_nanos(1)] {
            Silence::of_at_most(max).unwrap_err();
        }
        let text = Silence::of_at_most(Duration::from_millis(5)).unwrap_err();
        assert_eq!(text, "peer_silence_max is 5ms, and not between 3s and 86400s");
    }

    /// The system has what it was told, up to the longest time.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for max in [MIN, Duration::from_millis(29_500), MAX] {
            Silence::of_at_most(max).unwrap().watch(&stream).unwrap();
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap());
            let (first, between, unanswered) = Silence::of_at_most(max).unwrap().probes();
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(first));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(between));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), unanswered);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(max));
        }
    }
}
