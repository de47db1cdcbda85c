//! How long single activations were busy with a cut.

use std::time::Duration;

/// Buckets for each doubling: what is told is at most an eighth too long.
const STEPS: u32 = 8;
const BUCKETS: usize = (STEPS * 62) as usize;

/// How long single activations of a loop were busy with a cut: with taking it, and with writing a slice of it.
///
/// Percentiles are told by buckets, and are up to an eighth too long.
#[derive(Clone)]
pub struct CutTimes {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    longest: Duration,
}

impl CutTimes {
    /// How many activations were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest time of all.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The time that this share of them, from 0 to 1, did not take longer than; zero if there were none.
    pub fn percentile(&self, share: f64) -> Duration {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return Duration::from_nanos(end_of(bucket)).min(self.longest);
            }
        }
        self.longest
    }

    pub(crate) fn note(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)] += 1;
        self.count += 1;
        self.longest = self.longest.max(time);
    }
}

impl Default for CutTimes {
    fn default() -> Self {
        CutTimes { buckets: Box::new([0; BUCKETS]), count: 0, longest: Duration::ZERO }
    }
}

impl std::fmt::Debug for CutTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CutTimes")
            .field("count", &self.count)
            .field("p999", &self.percentile(0.999))
            .field("longest", &self.longest)
            .finish()
    }
}

/// The bucket of a time: eight of them between two powers of two.
fn bucket_of(nanos: u64) -> usize {
    let Some(log) = nanos.checked_ilog2().filter(|log| *log >= 3) else { return nanos as usize };
    let step = (nanos >> (log - 3)) as usize & 7;
    ((log - 2) * STEPS) as usize + step
}

/// The longest time of a bucket.
fn end_of(bucket: usize) -> u64 {
    if bucket < STEPS as usize {
        return bucket as u64;
    }
    let (log, step) = (bucket as u32 / STEPS + 2, bucket as u64 % 8);
    let step_ns = 1_u64 << (log - 3);
    (8 + step) * step_ns + (step_ns - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_a_bucket_that_is_at_most_an_eighth_too_long() {
        let powers = (0..64).map(|bits| 1_u64 << bits);
        let near = powers
            .flat_map(|power| [power.saturating_sub(1), power, power.saturating_add(power / 3)]);
        for nanos in near.chain(0..1000).chain([u64::MAX]) {
            let end = end_of(bucket_of(nanos));
            assert!(end >= nanos && end - nanos <= nanos / 8, "{nanos}: {end}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_noted() {
        let mut times = CutTimes::default();
        assert_eq!((times.count(), times.percentile(0.5)), (0, Duration::ZERO));
        (1..=1000).for_each(|micros| times.note(Duration::from_micros(micros)));
        let near = |share, micros: u64| {
            let (told, real) = (times.percentile(share), Duration::from_micros(micros));
            assert!(told >= real && told <= real * 9 / 8, "{told:?} for {real:?}");
        };
        near(0.5, 500);
        near(0.99, 990);
        near(0.0, 1);
        assert_eq!(times.percentile(1.0), Duration::from_millis(1));
        assert_eq!((times.longest(), times.count()), (Duration::from_millis(1), 1000));
    }
}
