//! Bytes that nobody wrote, for the tests of whatever reads bytes: valid inputs, of which parts are
//! changed, taken away, repeated or exchanged, in an order that depends on nothing but a seed.
//!
//! A *body* is what a test does with an input. It says whether it is one, and panics if what must hold of
//! every input does not hold of this one. Bodies stand beside what they read. Here is never known what
//! an input means.
//!
//! | environment | what it does |
//! |---|---|
//! | `STATEFUN_FUZZ` | how many times as long each of these tests takes; 1 if it is not set |
//! | `STATEFUN_FUZZ_SEED` | the seed, instead of the one that a test has always |
//! | `STATEFUN_FUZZ_INPUT` | an input, in hexadecimal as a failure tells it, instead of all others |

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What an error needs, and what other threads of the test program may take meanwhile.
const SLACK: usize = 32 << 10;

/// How often reading is measured at most. Other threads take memory as well, but seldom in that moment.
const MEASURED_MAX: usize = 1000;

/// Inputs are not longer than this.
const BYTES_MAX: usize = 1 << 14;

/// Numbers that depend on nothing but a seed (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.any() % bound as u64) as usize
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of the items.
    pub(crate) fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A number such as often makes trouble, a small one, or any.
    pub(crate) fn number(&mut self) -> u64 {
        let edge = 1_u64.checked_shl(self.below(65) as u32).unwrap_or(0);
        match self.below(4) {
            0 => edge,
            1 => edge.wrapping_sub(1),
            2 => self.any() % 300,
            _ => self.any() >> self.below(64),
        }
    }

    /// Text: often none, often short, at times long, and not only ASCII.
    pub(crate) fn text(&mut self) -> String {
        let some = ["", "", "a", "7", "007", "18446744073709551615", "žlutý/🐎 #?", "\0", "a/b"];
        match self.below(8) {
            0 => "long ".repeat(self.below(60)),
            _ => (*self.one_of(&some)).to_owned(),
        }
    }

    /// Bytes, as many as [`text`](Self::text) has, and not only UTF-8.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = self.text().into_bytes();
        bytes.iter_mut().for_each(|byte| *byte ^= self.any() as u8);
        bytes
    }

    /// One of the inputs, changed in some places.
    fn mutated(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.one_of(inputs).clone();
        for _ in 0..1 + self.below(3) {
            self.mutate(&mut bytes, inputs);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(12) + 1);
        match self.below(11) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = *self.one_of(&[0, 1, 2, 3, 0x7f, 0x80, 0xff]),
            2 if at < bytes.len() => {
                bytes[at] = bytes[at].wrapping_add(self.below(5) as u8).wrapping_sub(2)
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => bytes.extend((0..1 + self.below(9)).map(|_| self.any() as u8)),
            6 => {
                let repeated = bytes[at..end].repeat(1 + self.below(20));
                bytes.splice(at..at, repeated).for_each(drop);
            }
            7 => {
                let other = self.one_of(inputs);
                let from = self.below(other.len() + 1);
                bytes.splice(at..end, other[from..].iter().copied()).for_each(drop);
            }
            // Two places are exchanged.
            8 if end < bytes.len() => {
                let from = end + self.below(bytes.len() - end);
                let both = [&bytes[end..from], &bytes[at..end]].concat();
                bytes[at..from].copy_from_slice(&both);
            }
            // A varint that is as large as can be, or too large.
            9 => {
                let mut large = vec![0xff; self.below(10)];
                large.push(*self.one_of(&[0, 1, 2, 0x7f]));
                bytes.splice(at..end, large).for_each(drop);
            }
            // A number of fixed width, whichever byte comes first.
            _ => {
                let width = *self.one_of(&[2, 4, 8]);
                let number = self.number();
                let mut number = match self.once_in(2) {
                    true => number.to_le_bytes()[..width].to_vec(),
                    false => number.to_be_bytes()[8 - width..].to_vec(),
                };
                number.truncate(bytes.len() - at);
                bytes[at..][..number.len()].copy_from_slice(&number);
            }
        }
    }
}

/// Tries a body with the inputs, all of which must be ones, and then so many times with one that is changed.
/// A failure tells the input.
///
/// The changes are worth something only if they leave some inputs what they should be, and not too
/// many: a hundredth at least of each.
#[track_caller]
pub(crate) fn fuzz(
    name: &str,
    rounds: usize,
    inputs: &[Vec<u8>],
    mut body: impl FnMut(&[u8]) -> bool,
) {
    if let Ok(input) = env::var("STATEFUN_FUZZ_INPUT") {
        println!("{name}: {}", body(&bytes_of(&input)));
        return;
    }
    let number = |name, otherwise| match env::var(name) {
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{name} is no number")),
        Err(_) => otherwise,
    };
    let seed = number("STATEFUN_FUZZ_SEED", name.bytes().map(u64::from).sum());
    let rounds = rounds * number("STATEFUN_FUZZ", 1) as usize;
    let mut tried = |input: &[u8]| {
        catch_unwind(AssertUnwindSafe(|| body(input))).unwrap_or_else(|panic| {
            eprintln!("{name} with seed {seed}: STATEFUN_FUZZ_INPUT={}", hex_of(input));
            resume_unwind(panic)
        })
    };
    for input in inputs {
        assert!(tried(input), "{name}: {} is to be one", hex_of(input));
    }
    let mut random = Random(seed);
    let accepted = (0..rounds).filter(|_| tried(&random.mutated(inputs))).count();
    println!("{name}: {accepted} of {rounds} inputs were ones, with seed {seed}");
    let few = rounds / 100;
    assert!((few..rounds - few).contains(&accepted), "{name}: {accepted} of {rounds} inputs");
}

/// Runs `read`, which may take this much memory at a time, and a little more.
#[track_caller]
pub(crate) fn within<R>(bytes: usize, mut read: impl FnMut() -> R) -> R {
    measured(bytes, &mut read).unwrap_or_else(|taken| {
        panic!("took {taken} bytes, and not at most {bytes} or a little more")
    })
}

/// The same, or how much memory it takes.
fn measured<R>(bytes: usize, read: &mut impl FnMut() -> R) -> Result<R, usize> {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut least = usize::MAX;
    for _ in 0..MEASURED_MAX {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let result = read();
        let taken = MEMORY.peak_usage().saturating_sub(before);
        if taken <= bytes + SLACK {
            return Ok(result);
        }
        least = least.min(taken);
        std::thread::yield_now();
    }
    Err(least)
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("digits are hexadecimal") as u8;
    assert!(hex.len().is_multiple_of(2), "a byte has two digits");
    hex.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
}

/// What SDKs in other languages wrote, which is recorded in hexadecimal under names that end like this.
pub(crate) fn recorded(end: &str) -> Vec<Vec<u8>> {
    let files = [
        include_str!("../tests/vectors/js-greeter.json"),
        include_str!("../tests/vectors/python-actions.json"),
        include_str!("../tests/vectors/python-greeter.json"),
        include_str!("../tests/vectors/python-noncanonical.json"),
        include_str!("../tests/vectors/python-nostate.json"),
        include_str!("../tests/vectors/python-values.json"),
    ];
    let begins = format!("{end}\": \"");
    let mut found = Vec::new();
    for file in files {
        let after = file.split(&begins).skip(1);
        found.extend(after.map(|hex| bytes_of(hex.split('"').next().expect("it ends"))));
    }
    found.sort();
    found.dedup();
    assert!(found.len() > 20, "{} recordings of {end}", found.len());
    found
}

#[test]
fn a_failure_tells_an_input_that_fails_again() {
    let input = [0, 0x7f, 0xff, 0x0a];
    assert_eq!((hex_of(&input).as_str(), bytes_of("007fff0a")), ("007fff0a", input.to_vec()));
}

/// What the bounds on memory rest on.
#[test]
fn memory_that_is_taken_is_measured() {
    let taken = |bytes: usize| measured(1 << 20, &mut || Vec::<u8>::with_capacity(bytes)).err();
    assert_eq!(taken(1 << 19), None);
    // More than any other test gives back in that moment.
    assert!(taken(1 << 28).is_some());
}

/// Each kind of change comes up, and with the same seed the same ones do.
#[test]
fn changes_depend_on_the_seed_alone() {
    let inputs = [(0..40).collect::<Vec<u8>>(), vec![0xaa; 9], Vec::new()];
    let all = |seed| {
        let mut random = Random(seed);
        (0..2000).map(|_| random.mutated(&inputs)).collect::<Vec<_>>()
    };
    let mutated = all(7);
    assert_eq!(mutated, all(7));
    assert_ne!(mutated, all(8));
    assert!(mutated.iter().any(|bytes| bytes.len() > 100));
    assert!(mutated.iter().any(|bytes| bytes.windows(9).any(|nine| nine == [0xff; 9])));
    assert!(
        mutated.iter().any(|bytes| bytes.starts_with(&[0, 1, 2, 3]) && bytes.ends_with(&[0xaa]))
    );
}
