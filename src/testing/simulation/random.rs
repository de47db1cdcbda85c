//! Chance that a seed decides.

/// Numbers that a seed decides: the same seed gives the same numbers, on every machine and for ever.
///
/// ```
/// use timely_statefun::testing::Random;
///
/// let mut random = Random::new(7);
/// let drawn = [random.below(10), random.below(10)];
/// let mut again = Random::new(7);
/// assert_eq!(drawn, [again.below(10), again.below(10)]);
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Random(mix(seed))
    }

    /// Other numbers of the same seed, which do not change with what is drawn here.
    pub(super) fn branch(seed: u64, of: u64) -> Self {
        Random(mix(mix(seed) ^ of.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    ///
    /// # Panics
    ///
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "no number is below 0");
        ((u128::from(self.number()) * u128::from(end)) >> 64) as u64
    }

    /// Whether something happens that does so once in `times`.
    ///
    /// # Panics
    ///
    /// If `times` is 0.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of some things.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn pick<'a, X>(&mut self, of: &'a [X]) -> &'a X {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// SplitMix64's mixing of bits.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
