//! Files that are whole, and say what no snapshot says.

use std::collections::BTreeMap;

use super::{Archive, Description, Kind};
use crate::dataflow::{SnapshotCounts, TABLE, put_framed, section};
use crate::dispatch::{CutType, RecordKind};
use crate::fuzz::fuzz;
use crate::placement::BINS;
use crate::records::{put_text, put_varint};
use crate::snapshot::{
    Check, Cut, Gathered, Identity, PartName, PartWriter, SnapshotOptions, SnapshotStore, Which,
};
use crate::state::StateHeader;
use crate::{TypeName, archive};

/// An archive of one snapshot, whose only part these sections are.
fn snapshot_of(sections: &[(u16, u32, &[u8])]) -> Archive {
    let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
    let archive = Archive::of(&store).unwrap();
    let identity = Identity { program: "test".to_owned(), bins: BINS as u32 };
    let found = archive.wait(store.find(&identity, Which::Newest, Check::Lengths)).unwrap();
    let mut log = archive.wait(store.claim(&identity, &found, None, 0)).unwrap();
    let name = PartName { execution: log.execution(), cut: 1, worker: 0, index: 0 };
    let mut writer = PartWriter::new(name, 1 << 20);
    for (kind, bin, bytes) in sections {
        writer.append(*kind, *bin, |section| section.extend_from_slice(bytes));
    }
    let part = writer.take().map(Gathered::part).unwrap();
    let parts = vec![archive.wait(store.store_part(part)).unwrap()];
    let description = Description::beginning("test", &0u64).unwrap();
    let note = description.note(1, SnapshotCounts::default(), 0).unwrap();
    let notes = BTreeMap::from([note]);
    let cut = Cut { cut: 1, base: None, parts, held: Vec::new(), notes, at_ms: 0 };
    archive.wait(log.commit(cut)).unwrap();
    archive
}

/// A table of one type with one value.
fn table() -> Vec<u8> {
    let header = StateHeader {
        name: "sum".to_owned(),
        kind: crate::state::Kind::Value,
        key_type: String::new(),
        type_name: "rust/u8".to_owned(),
        lifetime_ms: 0,
        counts_reads: false,
    };
    let name = TypeName::new("a/b").unwrap();
    let of = CutType { number: 3, name, is_bound: true, states: [header].into() };
    let mut table = Vec::new();
    put_framed(&mut table, |to| {
        put_text(to, "functions");
        to.extend(CutType::table([&of].into_iter()));
    });
    table
}

fn framed(records: &[&[u8]]) -> Vec<u8> {
    let mut framed = Vec::new();
    for record in records {
        put_varint(&mut framed, record.len() as u64);
        framed.extend_from_slice(record);
    }
    framed
}

#[test]
fn a_record_that_is_none_is_named_with_its_file_and_byte() {
    let bin = crate::placement::bin(crate::placement::hash(&crate::Id::from(7))) as u32;
    let state = section(0, RecordKind::State.number());
    // Of type 3, a value, of state 0, of id 7.
    let right: &[u8] = &[3, 1, 0, 1, 7, 42];
    let read = |sections: &[(u16, u32, &[u8])]| {
        let archive = snapshot_of(sections);
        let snapshot = archive.newest()?;
        snapshot.records().collect::<Result<Vec<_>, _>>()
    };
    let table = table();
    let whole = read(&[(TABLE, 0, &table), (state, bin, &framed(&[right]))]).unwrap();
    assert_eq!((whole.len(), whole[0].kind()), (1, Kind::Value));
    let wrong: [(&[u8], &str); 5] = [
        (&[4, 1, 0, 1, 7, 42], "it is of a type not listed"),
        (&[3, 1, 1, 1, 7, 42], "it is of a state that is not listed"),
        (&[3, 9, 0, 1, 7, 42], "it says something that no record says"),
        (&[3, 2, 0, 1, 7, 0, 42], "it is of another kind than its state"),
        (&[3, 1, 0, 1, 8, 42], "it is of another bin"),
    ];
    for (record, why) in wrong {
        let error = read(&[(TABLE, 0, &table), (state, bin, &framed(&[right, record]))]);
        let error = error.unwrap_err();
        // The preamble, the table, and one record with its length.
        let at = 16 + table.len() + 1 + right.len();
        let file = "part/00000000000000000001/00000000000000000001/000000-000000";
        let message =
            format!("\"{file}\" is damaged at byte {at}: record 2 of state of bin {bin}: {why}");
        assert_eq!(error.to_string(), message);
        assert!(error.is_damaged());
    }
    let records = framed(&[right]);
    for (sections, why) in [
        (vec![(TABLE, 0, &table[..]), (state, 4096, &records[..])], "it has bin 4096"),
        (vec![(state, bin, &records[..])], "functions that it does not name"),
        (vec![(TABLE, 0, &table[1..])], "a table of function types"),
        (vec![(TABLE, 0, &table[..]), (99, bin, &records[..])], "it is of an unknown kind"),
    ] {
        let error = read(&sections).unwrap_err();
        assert!(error.to_string().contains(why) && error.is_damaged(), "{error}");
    }
}

#[test]
fn any_sections_are_records_or_damage() {
    let table = table();
    let inputs: Vec<Vec<u8>> = (0..9)
        .map(|more| framed(&vec![&[3, 1, 0, 1, 7, 42, more][..]; 1 + more as usize]))
        .collect();
    fuzz("archive", 1_000, &inputs, |input| {
        let bin = crate::placement::bin(crate::placement::hash(&crate::Id::from(7))) as u32;
        let mut is_state = false;
        for kind in RecordKind::ALL {
            let of_state = kind == RecordKind::State;
            let kind = section(0, kind.number());
            let archive = snapshot_of(&[(TABLE, 0, &table), (kind, bin, input)]);
            let snapshot = archive.newest().unwrap();
            let read: Result<Vec<archive::Record>, _> = snapshot.records().collect();
            match read {
                Ok(_) => is_state |= of_state,
                Err(error) => assert!(error.is_damaged(), "{error}"),
            }
        }
        is_state
    });
}
