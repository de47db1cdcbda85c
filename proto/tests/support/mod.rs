//! What several of these tests need: chance with a seed, the wire by hand, and messages of any content.

pub mod samples;
pub mod wire;

/// Numbers that depend on nothing but a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.any() % bound as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of the items.
    pub fn one_of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// A number such as often makes trouble, or any.
    pub fn number(&mut self) -> u64 {
        let edges = [0, 0, 1, 127, 128, 1 << 31, (1 << 31) - 1, u64::MAX, 1 << 63, (1 << 63) - 1];
        if self.once_in(3) { self.any() } else { self.one_of(&edges) }
    }

    /// Text: often none, often short, at times long, and not only ASCII.
    pub fn text(&mut self) -> String {
        let long = "long ".repeat(40);
        let some = ["", "", "a", "io.statefun.types/int", "žlutý/🐎 #?", "\0", &long];
        self.one_of(&some).to_owned()
    }

    /// Bytes, as many as [`text`](Self::text) has, and not only UTF-8.
    pub fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = self.text().into_bytes();
        bytes.iter_mut().for_each(|byte| *byte ^= self.any() as u8);
        bytes
    }
}

/// Says, if the test fails meanwhile, which seed it had.
pub struct Seeded(pub u64);

impl Drop for Seeded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this happened with the seed {:#x}", self.0);
        }
    }
}
