//! Files: what was written is read, what was damaged is noticed, and old versions are read for ever.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::super::encoding::{HELD_VERSION, VERSION, checksum};
use super::super::manifest::{Claim, Commit, Entry, Header, Link, slot_file, slot_of};
use super::super::part::{Gathered, Part, PartName, PartReader, PartWriter, Section};
use super::super::savepoints::{self, Named};
use super::super::{SnapshotError, error::Kind};
use super::draws;

fn name(execution: u64, cut: u64, worker: u32, index: u32) -> PartName {
    PartName { execution, cut, worker, index }
}

/// A part with these sections, of kind, bin and bytes.
fn part(name: PartName, sections: &[(u16, u32, &[u8])]) -> Part {
    let mut writer = PartWriter::new(name, 1 << 20);
    for (kind, bin, bytes) in sections {
        writer.append(*kind, *bin, |section| section.extend(*bytes));
    }
    writer.take().unwrap().part()
}

fn read_all(name: PartName, bytes: &Bytes) -> Result<Vec<Section>, SnapshotError> {
    PartReader::new(name, bytes.clone())?.sections(|_, _| true).collect()
}

/// What an entry of the first execution of a small store says.
fn header(slot: u64) -> Header {
    Header {
        slot,
        execution: 1,
        nonce: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        program: "golden".to_owned(),
        bins: 4096,
        floor: 0,
        at_ms: 1_700_000_000_000 + slot,
    }
}

/// The files of a small store, as version 1 writes them.
fn version_1() -> Vec<(String, Bytes)> {
    let full = [
        part(
            name(1, 1, 0, 0),
            &[(1, 0, b"state of bin 0"), (1, 7, b"state of bin 7"), (2, 0, b"")],
        ),
        part(name(1, 1, 0, 1), &[(3, 4095, b"the last bin")]),
        part(name(1, 1, 1, 0), &[(1, 8, &[0, 255, 10, 13])]),
    ];
    let delta = [part(name(1, 2, 0, 0), &[(1, 7, b"bin 7 has changed")])];
    let header = |slot| Header { floor: if slot == 3 { 2 } else { 0 }, ..header(slot) };
    let link = |cut, parts: &[Part]| Link {
        execution: 1,
        cut,
        parts: parts.iter().map(|part| part.entry).collect(),
    };
    let notes = |position: &'static [u8]| {
        let position = ("positions".to_owned(), Bytes::from_static(position));
        BTreeMap::from([position, ("empty".to_owned(), Bytes::new())])
    };
    let entries = [
        Entry::Claim(Claim { header: header(1), restores: None, first_cut: 1 }),
        Entry::Commit(Commit {
            header: header(2),
            chain: vec![link(1, &full)],
            notes: notes(b"17"),
            held: Vec::new(),
        }),
        Entry::Commit(Commit {
            header: header(3),
            chain: vec![link(1, &full), link(2, &delta)],
            notes: notes(b"23"),
            held: Vec::new(),
        }),
        Entry::Claim(Claim {
            header: Header { slot: 4, execution: 4, ..header(4) },
            restores: Some((3, 2)),
            first_cut: 3,
        }),
    ];
    let parts = full.iter().chain(&delta);
    let parts = parts.map(|part| (part.entry.name.to_string(), part.bytes.clone()));
    let entries = entries.iter().map(|entry| (slot_file(entry.header().slot), entry.bytes()));
    parts.chain(entries).collect()
}

/// Manifests as version 2 writes them: with held egress, and with a savepoint. A part with held egress is what
/// other parts are.
fn version_2() -> Vec<(String, Bytes)> {
    let state = part(name(1, 5, 0, 0), &[(1, 7, b"state of bin 7")]);
    let held = part(name(1, 5, 0, PartName::HELD), &[(8, 7, b"what is held of bin 7")]);
    let link = |part: &Part| Link { execution: 1, cut: 5, parts: vec![part.entry] };
    let positions = ("positions".to_owned(), Bytes::from_static(b"17"));
    let named = Named { slot: 3, cut: 5, name: "before the upgrade".to_owned() };
    let savepoints = Named::note(&[named]).map(|note| (savepoints::NOTE.to_owned(), note));
    let commit = |slot, savepoints, held| {
        let notes = [positions.clone()].into_iter().chain(savepoints).collect();
        Entry::Commit(Commit { header: header(slot), chain: vec![link(&state)], notes, held })
    };
    let entries = [commit(2, None, vec![link(&held)]), commit(3, savepoints, Vec::new())];
    let entries = entries.iter().map(|entry| (slot_file(entry.header().slot), entry.bytes()));
    let parts = [&state, &held].map(|part| (part.entry.name.to_string(), part.bytes.clone()));
    parts.into_iter().chain(entries).collect()
}

/// Reads a file as what its name says it is, all of it.
fn read(file: &str, bytes: &Bytes) -> Result<(), SnapshotError> {
    match (PartName::of(file), slot_of(file)) {
        (Some(name), None) => read_all(name, bytes).map(drop),
        (None, Some(slot)) => match Entry::read(slot, bytes)? {
            Entry::Commit(commit) => Named::all_of(&commit).map(drop),
            Entry::Claim(_) => Ok(()),
        },
        other => panic!("\"{file}\" is {other:?}"),
    }
}

/// The files are never written again: without them, what version 1 wrote may be lost.
#[test]
fn what_versions_1_and_2_wrote_is_read_for_ever() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let of = |version: &str, files: Vec<(String, Bytes)>| {
        let root = root.join(version);
        files.into_iter().map(move |(file, expected)| (root.join(&file), file, expected))
    };
    for (path, file, expected) in of("v1", version_1()).chain(of("v2", version_2())) {
        let found = Bytes::from(std::fs::read(path).unwrap());
        read(&file, &found).unwrap();
        // As long as these are the versions that are written.
        assert_eq!((VERSION, HELD_VERSION), (1, 2));
        assert_eq!(found, expected, "{file} would be written in another way");
        if let Some(slot) = slot_of(&file) {
            assert_eq!(Entry::read(slot, &found).unwrap().bytes(), found, "{file}");
        }
    }
}

#[test]
fn a_part_gives_back_what_was_gathered_by_kind_and_bin() {
    let mut draw = draws(3);
    for round in 0..50 {
        let mut writer = PartWriter::new(name(9, round, 2, 0), 300);
        let (mut model, mut parts) = (BTreeMap::<_, Vec<u8>>::new(), Vec::new());
        for _ in 0..draw(60) {
            let (kind, bin) = (draw(3) as u16, draw(9) as u32 * 500);
            let record = vec![draw(256) as u8; draw(30) as usize];
            writer.append(kind, bin, |section| section.extend(&record));
            model.entry((kind, bin)).or_default().extend(&record);
            if writer.is_full() {
                parts.extend(writer.take().map(Gathered::part));
            }
        }
        parts.extend(writer.take().map(Gathered::part));
        assert!(writer.take().is_none());
        let mut found = BTreeMap::<_, Vec<u8>>::new();
        let mut of_bin = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            assert_eq!(part.entry.name, name(9, round, 2, index as u32));
            let reader = PartReader::new(part.entry.name, part.bytes.clone()).unwrap();
            assert_eq!(reader.entry, part.entry);
            for section in reader.sections(|_, _| true).map(Result::unwrap) {
                found.entry((section.kind, section.bin)).or_default().extend(&section.bytes);
            }
            let sections = reader.sections(|kind, bin| (kind, bin) == (1, 1000));
            of_bin.extend(sections.flat_map(|section| section.unwrap().bytes));
        }
        assert_eq!(found, model);
        assert_eq!(of_bin, model.remove(&(1, 1000)).unwrap_or_default());
    }
}

#[test]
fn every_cut_and_every_flip_of_a_file_is_noticed() {
    for (file, bytes) in version_1() {
        read(&file, &bytes).unwrap();
        for length in 0..bytes.len() {
            let error = read(&file, &bytes.slice(..length)).unwrap_err();
            assert!(error.is_damaged(), "{length} bytes of {file}: {error}");
            assert!(error.to_string().contains(&file), "{error}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                let error = read(&file, &flipped.into()).unwrap_err();
                assert!(error.is_damaged(), "bit {bit} of byte {at} of {file}: {error}");
                assert!(error.to_string().contains(&file), "{error}");
            }
        }
        for more in [&b"\0"[..], b"more", &bytes] {
            let longer = [&bytes, more].concat();
            assert!(read(&file, &longer.into()).unwrap_err().is_damaged(), "{file}");
        }
    }
}

#[test]
fn a_file_in_the_place_of_another_is_noticed() {
    let files = version_1();
    for (file, _) in &files {
        for (other, bytes) in files.iter().filter(|(other, _)| other != file) {
            let error = read(file, bytes).unwrap_err();
            assert!(error.is_damaged(), "{other} as {file}: {error}");
        }
    }
    // Its beginning from one part and its end from another.
    let one = part(name(1, 1, 0, 0), &[(1, 5, b"one content")]);
    let other = part(name(1, 1, 0, 0), &[(1, 5, b"two content")]);
    let mixed = [&one.bytes[..30], &other.bytes[30..]].concat();
    assert!(read_all(one.entry.name, &mixed.into()).unwrap_err().is_damaged());
    assert_ne!(one.entry.checksum, other.entry.checksum);
}

/// Bytes whose checksums are right may say anything.
#[test]
fn whatever_is_read_there_is_no_panic() {
    let mut draw = draws(11);
    let mut read_well = 0;
    for _ in 0..200 {
        for (file, bytes) in version_1() {
            let mut bytes = bytes.to_vec();
            let length = bytes.len();
            for _ in 0..draw(3) {
                let at = 16 + draw(length as u64 - 16) as usize;
                bytes[at] = [0, 1, 2, 255][draw(4) as usize];
            }
            let start = if slot_of(&file).is_some() {
                0
            } else {
                let footer = u32::from_le_bytes(bytes[length - 12..length - 8].try_into().unwrap());
                (length - 12).saturating_sub(footer as usize)
            };
            let sum = checksum(&bytes[start..length - 8]).to_le_bytes();
            bytes[length - 8..].copy_from_slice(&sum);
            read_well += u64::from(read(&file, &bytes.into()).is_ok());
        }
    }
    assert!(read_well > 100, "{read_well}");
}

#[test]
fn a_newer_version_is_refused_by_name() {
    for (file, bytes) in version_1() {
        let mut newer = bytes.to_vec();
        newer[8..12].copy_from_slice(&7u32.to_le_bytes());
        let sum = checksum(&newer[..12]) as u32;
        newer[12..16].copy_from_slice(&sum.to_le_bytes());
        let error = read(&file, &newer.into()).unwrap_err();
        assert!(error.is_newer_version(), "{error}");
        // Manifests may name held egress.
        let known = if slot_of(&file).is_some() { HELD_VERSION } else { VERSION };
        assert!(matches!(&error.kind, Kind::NewerVersion { found: 7, .. }));
        assert_eq!(
            error.to_string(),
            format!("\"{file}\" has format version 7, and this program reads up to {known}")
        );
    }
}

#[test]
fn names_of_files_are_read_back_and_only_those() {
    let name = name(12, 3, 4, 5);
    assert_eq!(PartName::of(&name.to_string()), Some(name));
    assert_eq!(slot_of(&slot_file(1 << 60)), Some(1 << 60));
    for other in [
        "part/12/3/4-5",
        "part/00000000000000000012/00000000000000000003/000004-000005/6",
        "part/00000000000000000012/00000000000000000003/000004-000005#1",
        "part/+0000000000000000012/00000000000000000003/000004-000005",
        "manifest/1",
        "manifest/00000000000000000001.old",
        "manifest/18446744073709551615",
        "",
    ] {
        assert_eq!((PartName::of(other), slot_of(other)), (None, None), "{other}");
    }
}
