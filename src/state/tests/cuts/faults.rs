//! Types that cannot be written or read, and records that are damaged.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::*;

const TEXT: ValueSpec<String> = ValueSpec::new("text").expiring(after_write(100));

fn state(declared: &[Declared]) -> FunctionState {
    let mut state = FunctionState::new(declared, None);
    state.keep_cuts(1 << 20);
    state
}

/// A type that does not do as it should, by its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Odd(u8);

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            1 => Err(S::Error::custom("there is no form for it")),
            2 => panic!("written in vain"),
            number => number.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            3 => Err(D::Error::custom("it has another form")),
            4 => panic!("read in vain"),
            number => Ok(Odd(number)),
        }
    }
}

const ODD: ValueSpec<Odd> = ValueSpec::typed("odd", "test/odd");
const ODD_TABLE: TableSpec<Odd, u8> = TableSpec::typed("odd-table", "test/odd", "rust/u8");
const ODD_BUFFER: BufferSpec<Odd> = BufferSpec::typed("odd-buffer", "test/odd");

#[test]
fn what_cannot_be_written_or_not_be_read_again_is_named_at_the_first_snapshot() {
    for (number, why) in [
        (1, "cannot be written: there is no form for it"),
        (2, "cannot be written: it panicked: written in vain"),
        (3, "can be written, but not be read again: it has another form"),
        (4, "can be written, but not be read again: it panicked: read in vain"),
    ] {
        for (kind, name) in ["odd", "odd-table", "odd-buffer"].into_iter().enumerate() {
            // What is written while the walk has not come to it fails as well.
            for overtaken in [false, true] {
                let declared =
                    [Declared::new(ODD), Declared::new(ODD_TABLE), Declared::new(ODD_BUFFER)];
                let mut state = state(&declared);
                let id = Id::new("x");
                let act = |state: &mut FunctionState, clears: bool| {
                    let mut cursor = seek(state, &id);
                    match kind {
                        0 => {
                            let odd = (!clears).then_some(Odd(number));
                            state.put(&mut cursor, &id, ODD, odd).unwrap();
                        }
                        1 => {
                            let mut table = state.table(&mut cursor, &id, ODD_TABLE).unwrap();
                            match clears {
                                true => _ = table.remove(&Odd(number)),
                                false => _ = table.insert(Odd(number), 0),
                            }
                        }
                        _ => {
                            let mut buffer = state.buffer(&mut cursor, &id, ODD_BUFFER).unwrap();
                            match clears {
                                true => buffer.clear(),
                                false => buffer.append(Odd(number)),
                            }
                        }
                    }
                    state.commit(cursor);
                };
                act(&mut state, false);
                let error = match overtaken {
                    true => {
                        let cut = state.take_cut(None);
                        act(&mut state, true);
                        let error = state.walk(&mut { ALL }, &mut Part::default()).unwrap_err();
                        assert!(
                            !state.walk(&mut { ALL }, &mut Part::default()).unwrap(),
                            "all is not well"
                        );
                        state.abandoned(cut);
                        error
                    }
                    false => try_to_store(&mut state, None).err().unwrap(),
                };
                assert_eq!(error.to_string(), format!("state \"{name}\" of \"x\" {why}"));
                if overtaken {
                    assert_eq!(store(&mut state, None).records.len(), 0, "life goes on");
                }
            }
        }
    }
}

/// Whatever it is, it is not a panic.
#[test]
fn damaged_records_are_errors_or_other_records() {
    let declared = [
        Declared::new(COUNT),
        Declared::new(TEXT),
        Declared::new(TableSpec::<String, u64>::new("table").expiring(after_use(160))),
        Declared::new(BufferSpec::<u64>::new("buffer").expiring(after_use(160))),
        Declared::new(BufferSpec::<String>::new("texts")),
    ];
    let mut first = state(&declared);
    for number in 0..20_u64 {
        let id = if number % 2 == 0 { Id::from(number) } else { Id::new("some long id") };
        let mut cursor = seek_at(&first, &id, number);
        first.put(&mut cursor, &id, COUNT, Some(number)).unwrap();
        first.put(&mut cursor, &id, TEXT, Some(number.to_string())).unwrap();
        let spec = TableSpec::<String, u64>::new("table").expiring(after_use(160));
        first.table(&mut cursor, &id, spec).unwrap().insert(number.to_string(), number);
        let spec = BufferSpec::<u64>::new("buffer").expiring(after_use(160));
        first.buffer(&mut cursor, &id, spec).unwrap().extend(0..number);
        let spec = BufferSpec::<String>::new("texts");
        first.buffer(&mut cursor, &id, spec).unwrap().append(number.to_string());
        first.commit(cursor);
    }
    let full = store(&mut first, None);
    for number in 0..9_u64 {
        let id = Id::from(number * 2);
        let mut cursor = seek_at(&first, &id, 30);
        first.put(&mut cursor, &id, COUNT, None).unwrap();
        let spec = TableSpec::<String, u64>::new("table").expiring(after_use(160));
        first.table(&mut cursor, &id, spec).unwrap().remove(&(number * 2).to_string());
        first.commit(cursor);
    }
    let delta = store(&mut first, Some(1));
    let records = || full.records.iter().chain(&delta.records);
    let (mut errors, mut draw) = (0, draws(1));
    for _ in 0..20_000 {
        let mut damaged = state(&declared);
        let restoring = damaged.restore(&full.headers, &Conversions::default(), 0).unwrap();
        let from = draw(records().count() as u64) as usize;
        for (bin, record) in records().skip(from).take(3) {
            let mut record = record.clone();
            match draw(4) {
                0 => record.truncate(draw(record.len() as u64) as usize),
                1 => {
                    let at = draw(record.len() as u64) as usize;
                    record[at] = draw(256) as u8;
                }
                2 => {
                    let at = draw(record.len() as u64) as usize;
                    record.splice(at..at, [0xff; 9].into_iter().take(draw(10) as usize));
                }
                _ => {}
            }
            match restoring.apply(&mut damaged, *bin, &record) {
                Ok(()) => {}
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    errors += 1;
                    break;
                }
            }
        }
        // Whatever came of it, it is state like any other.
        expire_all(&mut damaged, u64::MAX);
        let mut part = Part::default();
        damaged.take_cut(None);
        assert!(damaged.walk(&mut { ALL }, &mut part).unwrap());
    }
    assert!(errors > 5_000, "{errors}");
}
