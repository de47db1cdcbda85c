//! The function types that records refer to: their numbers there, their names, and the states that were
//! known of each when the cut was taken.
//!
//! A table of them stands beside the records of a file. It is how many there are, varint, and then for
//! each: its number, varint; its name, with its length; a byte, 1 if a function was bound to it, else 0;
//! how many states it had, varint; and a [header](crate::state) for each of these.
//! [`records`](crate::records) has varints.

use std::rc::Rc;

use super::TypeIndex;
use crate::address::TypeName;
use crate::records::{Damage, Reader, put_text, put_varint};
use crate::state::StateHeader;

/// A function type as records of a cut refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CutType {
    /// Its number on the worker that wrote the records.
    pub(crate) number: TypeIndex,
    pub(crate) name: TypeName,
    /// Whether a function was bound to it.
    pub(crate) is_bound: bool,
    /// Its states, by their numbers in records.
    pub(crate) states: Rc<[StateHeader]>,
}

impl CutType {
    /// The bytes of a table.
    pub(crate) fn table<'a>(types: impl ExactSizeIterator<Item = &'a CutType>) -> Vec<u8> {
        let mut table = Vec::new();
        put_varint(&mut table, types.len() as u64);
        for CutType { number, name, is_bound, states } in types {
            put_varint(&mut table, u64::from(*number));
            put_text(&mut table, name.as_str());
            table.push(u8::from(*is_bound));
            put_varint(&mut table, states.len() as u64);
            states.iter().for_each(|state| state.put(&mut table));
        }
        table
    }

    /// Reads a table.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub(crate) fn read_table(table: &[u8]) -> Result<Vec<CutType>, Damage> {
        let mut reader = Reader::new(table);
        let mut types = Vec::new();
        // Nothing is made for what is only announced.
        for _ in 0..reader.varint()? {
            types.push(Self::read(&mut reader)?);
        }
        match reader.is_empty() {
            true => Ok(types),
            false => Err("it goes on after its end"),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<CutType, Damage> {
        let number = reader.small()?;
        let name =
            TypeName::new(reader.text()?).map_err(|_| "a function type has no valid name")?;
        let is_bound = reader.flag()?;
        let mut states = Vec::new();
        for _ in 0..reader.varint()? {
            states.push(StateHeader::read(reader)?);
        }
        Ok(CutType { number, name, is_bound, states: states.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, within};
    use crate::state::{Declared, FunctionState};
    use crate::{TableSpec, ValueSpec};

    fn types() -> Vec<CutType> {
        let declared = [
            Declared::new(ValueSpec::<u64>::new("value")),
            Declared::new(TableSpec::<String, u64>::new("table")),
        ];
        let states = FunctionState::new(&declared, None).declared_states();
        let of = |number, name: &str, is_bound, states: &Rc<[StateHeader]>| {
            let name = TypeName::new(name).unwrap();
            CutType { number, name, is_bound, states: Rc::clone(states) }
        };
        let none = Rc::default();
        vec![
            of(0, "a/b", true, &states),
            of(7, "c/d", false, &none),
            of(u32::MAX, "ä/e", true, &none),
        ]
    }

    #[test]
    fn tables_are_read_as_they_were_written() {
        for count in 0..=3 {
            let types = &types()[..count];
            let table = CutType::table(types.iter());
            assert_eq!(CutType::read_table(&table).as_deref(), Ok(types));
        }
    }

    /// What was stored once is read for ever.
    #[test]
    fn tables_have_the_bytes_they_always_had() {
        let value = [5, b'v', b'a', b'l', b'u', b'e', 1, 0, 8];
        let table = [5, b't', b'a', b'b', b'l', b'e', 2, 24];
        let bytes = [
            &[2, 0, 3][..],
            b"a/b",
            &[1, 2],
            &value,
            b"rust/u64",
            &[0, 0],
            &table,
            b"io.statefun.types/string",
            &[8],
            b"rust/u64",
            &[0, 0],
            &[7, 3],
            b"c/d",
            &[0, 0],
        ];
        assert_eq!(CutType::table(types()[..2].iter()), bytes.concat());
    }

    /// A header has six bytes at least, and an owner of three texts is made of it.
    const BYTES_PER_BYTE: usize = 64;

    #[test]
    fn any_bytes_are_a_table_or_damage_and_are_written_in_one_way() {
        let tables: Vec<_> = (0..=3).map(|count| CutType::table(types()[..count].iter())).collect();
        fuzz("types", 150_000, &tables, |input| {
            let read = within(BYTES_PER_BYTE * input.len(), || CutType::read_table(input));
            let Ok(types) = read else { return false };
            let table = CutType::table(types.iter());
            assert!(table.len() <= input.len());
            assert_eq!(CutType::read_table(&table), Ok(types));
            true
        });
    }

    #[test]
    fn damaged_tables_are_errors_or_other_tables() {
        let table = CutType::table(types().iter());
        for end in 0..table.len() {
            CutType::read_table(&table[..end]).expect_err("it is cut short");
        }
        let longer = [&table[..], &[0]].concat();
        CutType::read_table(&longer).expect_err("it is too long");
        let mut errors = 0;
        for at in 0..table.len() {
            for value in 0..=255 {
                let mut damaged = table.clone();
                damaged[at] = value;
                errors += u32::from(CutType::read_table(&damaged).is_err());
            }
        }
        assert!(errors as usize > table.len() * 64, "{errors}");
        let mut announced = Vec::new();
        put_varint(&mut announced, u64::MAX);
        CutType::read_table(&announced).expect_err("it announces more than it has");
    }
}
