//! Files that nobody wrote. What is not as it was written is damaged; and where checksums fit, a file is
//! read as exactly what would be written so, or is damaged as well.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::SnapshotError;
use super::super::encoding::{PREAMBLE, checksum};
use super::super::manifest::{Claim, Commit, Entry, Header, Link};
use super::super::part::{Gathered, Part, PartEntry, PartName, PartReader, PartWriter};
use super::super::store::SnapshotInfo;
use super::super::survey::{Seen, Survey};
use super::execution::identity;
use crate::fuzz::{Random, fuzz, within};

/// A list in a manifest takes at least sixteen bytes for each of its elements.
const BYTES_PER_BYTE: usize = 16;

fn any_part(random: &mut Random) -> Part {
    let name = PartName {
        execution: random.number(),
        cut: random.number(),
        worker: random.number() as u32,
        index: random.number() as u32 >> 1,
    };
    let mut writer = PartWriter::new(name, 1 << 20);
    for _ in 0..1 + random.below(9) {
        let (kind, bin) = (random.below(3) as u16, random.below(5) as u32 * 1000);
        let bytes = random.bytes();
        writer.append(kind, bin, |section| section.extend(bytes));
    }
    writer.take().map(Gathered::part).expect("there is something")
}

/// An entry such as some program may write.
fn any_entry(random: &mut Random) -> Entry {
    let slot = 1 + random.number() % (1 << 60);
    let mut header = Header {
        slot,
        execution: slot,
        nonce: u128::from(random.any()) << 64 | u128::from(random.any()),
        program: random.text(),
        bins: random.number() as u32,
        floor: random.number() % slot,
        at_ms: random.number(),
    };
    let mut cut = random.number() % (1 << 60);
    if random.once_in(3) {
        let restores = random.once_in(2).then(|| (random.number(), random.number()));
        return Entry::Claim(Claim { header, restores, first_cut: cut });
    }
    header.execution = random.number() % slot;
    let mut executions = vec![header.execution; 1 + random.below(3)];
    let last = executions.len() - 1;
    executions[..last].iter_mut().for_each(|of| *of = random.number() % (*of + 1));
    executions.sort();
    let mut link = |execution| {
        cut += 1 + random.number() % (1 << 40);
        let names: BTreeSet<_> = (0..random.below(4))
            .map(|_| (random.number() as u32, random.number() as u32))
            .map(|(worker, index)| PartName { execution, cut, worker, index })
            .collect();
        let parts = names.into_iter().map(|name| {
            let (bytes, checksum) = (random.number() % (1 << 50), random.any());
            PartEntry { name, bytes, checksum }
        });
        Link { execution, cut, parts: parts.collect() }
    };
    let chain: Vec<Link> = executions.into_iter().map(&mut link).collect();
    let notes = (0..random.below(4)).map(|_| (random.text(), random.bytes().into())).collect();
    let held = |of: &Link| {
        let parts = of.parts.iter().filter(|part| part.name.index < 1 << 30).map(|part| {
            let name = PartName { index: part.name.index + PartName::HELD, ..part.name };
            PartEntry { name, ..*part }
        });
        Link::held(of.execution, of.cut, &parts.collect::<Vec<_>>())
    };
    let held = chain.iter().filter_map(held).collect();
    Entry::Commit(Commit { header, chain, notes, held })
}

/// Has the checksums of a manifest, whatever is in it, fit.
fn seal_entry(bytes: &mut [u8]) {
    seal_preamble(bytes);
    seal(bytes, 0);
}

fn seal_preamble(bytes: &mut [u8]) {
    if bytes.len() >= PREAMBLE {
        let sum = checksum(&bytes[..12]) as u32;
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    }
}

fn seal(bytes: &mut [u8], from: usize) {
    if let Some(body) = bytes.len().checked_sub(8).filter(|body| from <= *body) {
        let sum = checksum(&bytes[from..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The number of so many bytes at a place; 0 if it is too short.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(found) = bytes.get(at..at.saturating_add(N)) {
        number[..N].copy_from_slice(found);
    }
    u64::from_le_bytes(number)
}

/// The same of a part, whose name is returned as well.
fn seal_part(bytes: &mut [u8]) -> PartName {
    seal_preamble(bytes);
    let body = bytes.len().saturating_sub(12);
    let footer = body.saturating_sub(number::<4>(bytes, body) as usize);
    let name = PartName {
        execution: number::<8>(bytes, footer),
        cut: number::<8>(bytes, footer + 8),
        worker: number::<4>(bytes, footer + 16) as u32,
        index: number::<4>(bytes, footer + 20) as u32,
    };
    let mut at = footer + 28;
    while at + 30 <= body {
        let (from, length) = (number::<8>(bytes, at + 6), number::<8>(bytes, at + 14));
        let end = usize::try_from(from.saturating_add(length)).unwrap_or(usize::MAX);
        if let Some(sum) = bytes.get(from as usize..end).map(checksum) {
            bytes[at + 22..at + 30].copy_from_slice(&sum.to_le_bytes());
        }
        at += 30;
    }
    seal(bytes, footer);
    name
}

fn check_error(error: &SnapshotError) {
    assert!(error.is_damaged() || error.is_newer_version(), "{error}");
}

/// Reads any bytes as the entry of the slot that they say.
fn read_entry(input: &[u8]) -> Result<Entry, SnapshotError> {
    let bytes = Bytes::copy_from_slice(input);
    let slot = number::<8>(input, PREAMBLE + 1);
    let read = within(BYTES_PER_BYTE * input.len(), || Entry::read(slot, &bytes));
    read.inspect_err(check_error)
}

/// Everything that a part says of itself, and all that is in it, in the order in which it is there.
type Contents = Vec<(u16, u32, Bytes)>;

fn read_part(name: PartName, input: &[u8]) -> Result<(PartEntry, Contents), SnapshotError> {
    let bytes = Bytes::copy_from_slice(input);
    let read = within(BYTES_PER_BYTE * input.len(), || {
        let reader = PartReader::new(name, bytes.clone())?;
        let sections = reader.sections(|_, _| true);
        let sections = sections.map(|section| section.map(|one| (one.kind, one.bin, one.bytes)));
        Ok((reader.entry, sections.collect::<Result<_, _>>()?))
    });
    read.inspect_err(check_error)
}

/// A commit where a bit makes two names one, or exchanges them.
fn small_commit() -> Vec<u8> {
    let (slot, execution, program) = (9, 8, String::new());
    let header = Header { slot, execution, nonce: 7, program, bins: 1, floor: 1, at_ms: 0 };
    let name = |index| PartName { execution, cut: 3, worker: 0, index };
    let parts = [2, 3, 4].map(|index| PartEntry { name: name(index), bytes: 1, checksum: 1 });
    let chain = vec![Link { execution, cut: 3, parts: parts.to_vec() }];
    let notes = ["a", "b", "c"].map(|name| (name.to_owned(), Bytes::new())).into();
    Entry::Commit(Commit { header, chain, notes, held: Vec::new() }).bytes().to_vec()
}

#[test]
fn notes_that_are_twice_there_or_in_disorder_are_damage() {
    let mut bytes = small_commit();
    let at = bytes.iter().rposition(|byte| *byte == b'b').expect("a note has this name");
    for (name, is_read) in [(b'b', true), (b'a', false), (b'c', false), (b'd', false)] {
        bytes[at] = name;
        seal_entry(&mut bytes);
        assert_eq!(read_entry(&bytes).is_ok(), is_read, "{}", char::from(name));
    }
}

#[test]
fn any_entry_is_read_as_it_was_written() {
    for seed in 0..3000 {
        let entry = any_entry(&mut Random(seed));
        let bytes = entry.bytes();
        let read = Entry::read(entry.header().slot, &bytes);
        assert_eq!(read.unwrap(), entry, "seed {seed}");
        Entry::read(entry.header().slot + 1, &bytes).expect_err("it is of another slot");
    }
}

#[test]
fn any_bytes_are_the_entry_that_would_be_written_so_or_damaged() {
    let mut random = Random(1);
    let mut inputs: Vec<_> = (0..60).map(|_| any_entry(&mut random).bytes().to_vec()).collect();
    inputs.push(small_commit());
    let written: BTreeSet<_> = inputs.iter().cloned().collect();
    fuzz("manifests", 30_000, &inputs, |input| {
        assert_eq!(read_entry(input).is_ok(), written.contains(input), "nobody wrote that");
        let mut sealed = input.to_vec();
        seal_entry(&mut sealed);
        let Ok(entry) = read_entry(&sealed) else { return false };
        assert_eq!(entry.bytes(), sealed);
        // Whoever surveys the log, and whoever lists it, can do with it what they do with any.
        if let Entry::Commit(commit) = &entry {
            assert!(commit.chain.is_sorted_by(|one, next| one.cut < next.cut));
            for link in &commit.chain {
                assert!(link.parts.is_sorted_by(|one, next| one.name < next.name));
            }
            let info = SnapshotInfo::new(commit, None);
            let links = commit.chain.iter().chain(&commit.held);
            let links: u64 = links.map(Link::bytes).sum();
            assert_eq!((info.bytes, info.cut), (links, commit.cut()));
        }
        let mut survey = Survey::default();
        let last = match &entry {
            Entry::Commit(commit) => commit.cut(),
            Entry::Claim(claim) => claim.first_cut.saturating_sub(1),
        };
        let slot = entry.header().slot;
        survey.see(&identity(), &Seen { slot, entry: Ok(entry), counts: true }, 3);
        assert!(survey.first_cut() > last, "cuts go on above it");
        true
    });
}

/// Whoever lists snapshots adds up the bytes of their parts, and whoever begins counts on from the last cut.
/// Both went beyond the numbers there are: a program without optimization panicked, and any other began
/// anew with cut 1, below all that its sinks had stored.
#[test]
fn numbers_that_nobody_can_count_on_from_are_damage() {
    let read = |cut, lengths: [u64; 2]| {
        let (slot, execution) = (2, 1);
        let name = |index| PartName { execution, cut, worker: 0, index };
        let parts = [0, 1].map(|index| PartEntry {
            name: name(index),
            bytes: lengths[index as usize],
            checksum: 0,
        });
        let program = "numbers".to_owned();
        let header = Header { slot, execution, nonce: 0, program, bins: 64, floor: 0, at_ms: 0 };
        let chain = vec![Link { execution, cut, parts: parts.to_vec() }];
        let claim = Header { slot: 1, ..header.clone() };
        let claim = Claim { header: claim, restores: None, first_cut: cut };
        let commit = Commit { header, chain, notes: BTreeMap::new(), held: Vec::new() };
        let claimed = Entry::read(1, &Entry::Claim(claim).bytes());
        let committed = Entry::read(slot, &Entry::Commit(commit).bytes());
        [claimed, committed].map(|read| read.inspect_err(check_error).is_ok())
    };
    assert_eq!(read(1 << 62, [1 << 61, 1 << 61]), [true, true]);
    assert_eq!(read(1 << 62, [1 << 61, 1 << 61 | 1]), [true, false]);
    assert_eq!(read(1, [u64::MAX, u64::MAX]), [true, false]);
    assert_eq!(read(1 << 62 | 1, [1, 1]), [false, false]);
    assert_eq!(read(u64::MAX, [1, 1]), [false, false]);
}

#[test]
fn any_bytes_are_the_part_that_would_be_written_so_or_damaged() {
    let mut random = Random(2);
    let inputs: Vec<_> = (0..60).map(|_| any_part(&mut random).bytes.to_vec()).collect();
    let written: BTreeSet<_> = inputs.iter().cloned().collect();
    fuzz("parts", 30_000, &inputs, |input| {
        let mut sealed = input.to_vec();
        let name = seal_part(&mut sealed);
        assert_eq!(read_part(name, input).is_ok(), written.contains(input), "nobody wrote that");
        let Ok((entry, contents)) = read_part(name, &sealed) else { return false };
        assert_eq!((entry.name, entry.bytes), (name, sealed.len() as u64));
        let other = PartName { cut: name.cut ^ 1, ..name };
        read_part(other, &sealed).expect_err("it is another part");
        // What is in it would be written in the same way, or in order.
        let mut writer = PartWriter::new(name, 1 << 20);
        let mut model = BTreeMap::<_, Vec<u8>>::new();
        for (kind, bin, bytes) in &contents {
            writer.append(*kind, *bin, |section| section.extend(bytes));
            model.entry((*kind, *bin)).or_default().extend(bytes);
        }
        if name.index == u32::MAX {
            return true;
        }
        let Some(again) = writer.take().map(Gathered::part) else { return contents.is_empty() };
        if contents.is_sorted_by_key(|(kind, bin, _)| (*kind, *bin))
            && model.len() == contents.len()
        {
            assert_eq!((again.bytes.to_vec(), again.entry), (sealed, entry));
        }
        let (_, found) = read_part(name, &again.bytes).unwrap();
        let found: BTreeMap<_, _> =
            found.into_iter().map(|(kind, bin, bytes)| ((kind, bin), bytes.to_vec())).collect();
        assert_eq!(found, model);
        true
    });
}
