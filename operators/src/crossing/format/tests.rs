//! What was written is read, and nothing else.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Flags(bool, Option<Box<Shape>>),
    Small(u8, i8, u16, i16),
    Middle(u32, i32, char),
    Large { one: u64, two: i64, three: u128, four: i128 },
    Fractions(f32, f64),
    Text(String),
    Names(BTreeMap<String, u32>),
    Many(Vec<Shape>),
    Pairs([(u8, Unit); 3]),
    Named(Newtype),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(String);

struct Random(u64);

impl Random {
    fn any(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // Of all sizes, small and large.
        self.0 >> (self.0 % 64)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.any() ^ self.0 >> 33) % bound
    }

    fn text(&mut self) -> String {
        (0..self.below(12)).map(|_| ['a', 'ß', '中', '🜂'][self.below(4) as usize]).collect()
    }

    fn shape(&mut self, depth: u32) -> Shape {
        let more = if depth == 0 { 7 } else { 11 };
        match self.below(more) {
            0 => Shape::Nothing,
            1 => Shape::Small(self.any() as _, self.any() as _, self.any() as _, self.any() as _),
            2 => {
                let of = char::from_u32(self.below(0xd800) as u32).unwrap();
                Shape::Middle(self.any() as _, -(self.any() as i32 >> 1), of)
            }
            3 => Shape::Large {
                one: self.any(),
                two: -(self.any() as i64 >> 1),
                three: u128::from(self.any()) << 64,
                four: -i128::from(self.any()),
            },
            4 => Shape::Fractions(self.any() as f32, 1.0 / (1 + self.any()) as f64),
            5 => Shape::Text(self.text()),
            6 => Shape::Named(Newtype(self.text())),
            7 => Shape::Names((0..self.below(4)).map(|at| (self.text(), at as u32)).collect()),
            8 => Shape::Many((0..self.below(5)).map(|_| self.shape(depth - 1)).collect()),
            9 => Shape::Pairs([(); 3].map(|()| (self.any() as u8, Unit))),
            _ => {
                let inner = (self.below(2) == 0).then(|| Box::new(self.shape(depth - 1)));
                Shape::Flags(self.below(2) == 0, inner)
            }
        }
    }
}

fn bytes<V: Serialize + ?Sized>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(value, &mut bytes).unwrap();
    bytes
}

#[track_caller]
fn stays<V: Serialize + for<'a> Deserialize<'a> + PartialEq + Debug>(value: V) {
    let bytes = bytes(&value);
    assert_eq!(read::<V>(&bytes).unwrap(), value, "{bytes:x?}");
}

#[test]
fn values_of_every_kind_are_read_as_they_were_written() {
    for seed in 1..4000 {
        let value = Random(seed * 7_919).shape(3);
        let written = bytes(&value);
        assert_eq!(read::<Shape>(&written).unwrap(), value, "seed {seed}");
        for end in 0..written.len() {
            let part = read::<Shape>(&written[..end]);
            assert!(part.is_err(), "seed {seed}: {end} of {} bytes: {part:?}", written.len());
        }
        read::<Shape>(&[&written[..], &[0]].concat()).expect_err("one byte more");
    }
    [0, 1, 127, 128, 1 << 14, u32::MAX - 1, u32::MAX].into_iter().for_each(stays::<u32>);
    [0, -1, 63, 64, -64, -65, i32::MIN, i32::MAX].into_iter().for_each(stays::<i32>);
    ['\0', '\u{7f}', '\u{80}', char::MAX].into_iter().for_each(stays::<char>);
    stays(());
    stays("x".repeat(20_000));
    stays(Some(Some(())));
    stays::<Result<u8, String>>(Err("no".to_owned()));
    assert_eq!(bytes(&[7_u32, 1_000_000]), [7, 0xc0, 0x84, 0x3d]);
}

#[test]
fn any_bytes_are_a_value_or_refused() {
    for seed in 1..200_000 {
        let mut random = Random(seed * 7_919);
        let mut input = bytes(&random.shape(2));
        for _ in 0..1 + random.below(3) {
            let at = random.below(1 + input.len() as u64) as usize;
            match input.get_mut(at) {
                Some(byte) => *byte = random.any() as u8,
                None => input.push(random.any() as u8),
            }
        }
        if let Ok(value) = read::<Shape>(&input) {
            let again = bytes(&value);
            assert_eq!(bytes(&read::<Shape>(&again).unwrap()), again, "seed {seed}");
        }
    }
}

#[test]
fn what_is_no_value_is_refused_with_a_reason() {
    fn why<V: for<'a> Deserialize<'a> + Debug>(bytes: &[u8]) -> String {
        read::<V>(bytes).unwrap_err().to_string()
    }
    let large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(why::<u64>(&[0; 7]), "the bytes end within a value");
    assert_eq!(why::<u8>(&[0; 3]), "2 bytes are left over");
    assert_eq!(why::<u32>(&large), "a number that is too large");
    assert_eq!(why::<u32>(&[0xff; 12]), "a number that is too large");
    assert_eq!(why::<bool>(&[2]), "something else where yes or no is wanted");
    assert_eq!(why::<char>(&[0x80, 0xb0, 3]), "a number that is no character");
    assert_eq!(why::<String>(&[1, 0xff]), "a text that is not UTF-8");
    // However much it says it is, nothing is allocated for it.
    assert_eq!(why::<Vec<u64>>(&large), "the bytes end within a value");
    assert_eq!(why::<String>(&large), "the bytes end within a value");
    assert!(why::<Shape>(&[90]).contains("integer `90`"), "{}", why::<Shape>(&[90]));
    let mut to = Vec::new();
    let unsized_sequence = std::iter::repeat_n(1_u8, 3).filter(|x| *x > 0);
    let mut writer = Writer { to: &mut to, own: false };
    let error = ser::Serializer::collect_seq(&mut writer, unsized_sequence);
    assert_eq!(error.unwrap_err().to_string(), "a sequence that does not know its length");
}
