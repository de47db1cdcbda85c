//! More than fits into memory, in order: sorted runs in temporary files, which are merged.
//!
//! Files have no names, so nothing is left of them however the program ends.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Runs that are merged at a time: each takes a buffer and an open file.
const RUNS_MAX: usize = 128;
const BUFFER: usize = 64 << 10;
/// The lengths of a key and of what it is for.
const LENGTHS: usize = 8;

/// Gathers entries, which come in any order.
pub(super) struct Sorter {
    directory: PathBuf,
    memory_max: usize,
    gathered: Vec<u8>,
    /// Where entries begin.
    starts: Vec<usize>,
    runs: Vec<File>,
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// The key of the entry at a place, and what it is for.
fn entry(gathered: &[u8], start: usize) -> (&[u8], &[u8]) {
    let (key, body) = (word(gathered, start), word(gathered, start + 4));
    gathered[start + LENGTHS..start + LENGTHS + key + body].split_at(key)
}

impl Sorter {
    /// Gathers about so many bytes before they become a run in this directory.
    pub(super) fn new(directory: PathBuf, memory_max: usize) -> Self {
        Sorter { directory, memory_max, gathered: Vec::new(), starts: Vec::new(), runs: Vec::new() }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds an entry. No other has the same key.
    ///
    /// # Errors
    ///
    /// If a run cannot be written.
    pub(super) fn push(&mut self, key: &[u8], body: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::other("a record has more than 4 GiB");
        let lengths = [key.len(), body.len()];
        let needed = LENGTHS + key.len() + body.len();
        let taken = self.gathered.len() + (self.starts.len() + 1) * size_of::<usize>();
        if taken + needed > self.memory_max && !self.starts.is_empty() {
            self.write_run()?;
        }
        // Doubling would take half as much again.
        if self.gathered.capacity() - self.gathered.len() < needed {
            let most = self.memory_max.saturating_sub(self.gathered.len()).max(needed);
            self.gathered.reserve_exact(most.min(self.gathered.len().max(needed).max(BUFFER)));
        }
        self.starts.push(self.gathered.len());
        for length in lengths {
            self.gathered.extend(u32::try_from(length).map_err(too_long)?.to_le_bytes());
        }
        self.gathered.extend_from_slice(key);
        self.gathered.extend_from_slice(body);
        Ok(())
    }

    fn sort(&mut self) {
        let gathered = &self.gathered;
        self.starts
            .sort_unstable_by(|one, other| entry(gathered, *one).0.cmp(entry(gathered, *other).0));
    }

    fn write_run(&mut self) -> io::Result<()> {
        self.sort();
        let mut run = BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(&self.directory)?);
        for start in &self.starts {
            let (key, body) = entry(&self.gathered, *start);
            run.write_all(&self.gathered[*start..start + LENGTHS + key.len() + body.len()])?;
        }
        self.runs.push(run.into_inner().map_err(io::IntoInnerError::into_error)?);
        self.gathered.clear();
        self.starts.clear();
        if self.runs.len() == RUNS_MAX {
            self.merge_runs()?;
        }
        Ok(())
    }

    /// Makes one run of all.
    fn merge_runs(&mut self) -> io::Result<()> {
        let mut run = BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(&self.directory)?);
        let mut merged = Merged::of(std::mem::take(&mut self.runs))?;
        while let Some((key, body)) = merged.next()? {
            for length in [key.len(), body.len()] {
                run.write_all(&(length as u32).to_le_bytes())?;
            }
            run.write_all(key)?;
            run.write_all(body)?;
        }
        self.runs.push(run.into_inner().map_err(io::IntoInnerError::into_error)?);
        Ok(())
    }

    /// All entries, in the order of their keys.
    ///
    /// # Errors
    ///
    /// If a run cannot be written or read.
    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        if self.runs.is_empty() {
            self.sort();
            let Sorter { gathered, starts, .. } = self;
            return Ok(Sorted::Gathered { gathered, starts: starts.into_iter() });
        }
        if !self.starts.is_empty() {
            self.write_run()?;
        }
        Merged::of(self.runs).map(Sorted::Merged)
    }
}

/// Entries in their order.
pub(super) enum Sorted {
    Gathered { gathered: Vec<u8>, starts: std::vec::IntoIter<usize> },
    Merged(Merged),
}

impl Sorted {
    /// The next key, and what it is for.
    ///
    /// # Errors
    ///
    /// If a run cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        match self {
            Sorted::Gathered { gathered, starts } => {
                Ok(starts.next().map(|start| entry(gathered, start)))
            }
            Sorted::Merged(merged) => merged.next(),
        }
    }
}

/// Runs that are read at the same time.
pub(super) struct Merged {
    heads: BinaryHeap<Head>,
    /// Whether the first of the heads was given away.
    is_given: bool,
}

/// The next entry of a run.
struct Head {
    key: Vec<u8>,
    body: Vec<u8>,
    run: BufReader<File>,
}

impl Head {
    /// Goes to the next entry, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        let mut lengths = [0; LENGTHS];
        if self.run.read(&mut lengths[..1])? == 0 {
            return Ok(false);
        }
        self.run.read_exact(&mut lengths[1..])?;
        self.key.resize(word(&lengths, 0), 0);
        self.body.resize(word(&lengths, 4), 0);
        self.run.read_exact(&mut self.key)?;
        self.run.read_exact(&mut self.body)?;
        Ok(true)
    }
}

/// The least key is the greatest head.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Head {}

impl Merged {
    fn of(runs: Vec<File>) -> io::Result<Self> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for mut run in runs {
            run.rewind()?;
            let run = BufReader::with_capacity(BUFFER, run);
            let mut head = Head { key: Vec::new(), body: Vec::new(), run };
            if head.advance()? {
                heads.push(head);
            }
        }
        Ok(Merged { heads, is_given: false })
    }

    fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        if std::mem::replace(&mut self.is_given, true)
            && let Some(mut head) = self.heads.peek_mut()
            && !head.advance()?
        {
            PeekMut::pop(head);
        }
        Ok(self.heads.peek().map(|head| (&*head.key, &*head.body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Random;

    #[test]
    fn entries_come_in_order_however_many_runs_they_were_in() {
        for (seed, count, memory_max) in
            [(1, 0, 100), (2, 50, 1 << 20), (3, 3000, 900), (4, 20_000, 2000)]
        {
            let mut random = Random(seed);
            let mut sorter = Sorter::new(std::env::temp_dir(), memory_max);
            let mut expected = std::collections::BTreeMap::new();
            let mut runs_most = 0;
            for number in 0..count {
                let key = [&random.bytes()[..], &u32::to_be_bytes(number)].concat();
                let body = random.bytes();
                sorter.push(&key, &body).unwrap();
                runs_most = runs_most.max(sorter.runs.len());
                assert!(sorter.gathered.capacity() <= memory_max.max(BUFFER), "{seed}");
                expected.insert(key, body);
            }
            assert_eq!(count > 50, runs_most == RUNS_MAX - 1, "seed {seed}: {runs_most}");
            let mut sorted = sorter.finish().unwrap();
            for (key, body) in &expected {
                assert_eq!(sorted.next().unwrap(), Some((&key[..], &body[..])), "seed {seed}");
            }
            assert_eq!(sorted.next().unwrap(), None);
        }
    }
}
