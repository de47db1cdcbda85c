//! One file, read record by record from a byte on: the one door to files of this source.

use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::error::{FileError, FileErrorKind};
use super::framing::Framing;

/// Bytes that are asked for at once.
const BUFFER_BYTES: usize = 64 << 10;
/// Of a file whose first bytes say that it is UTF-8, these are no text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record, the first of the file or not.
    Record { first: bool },
    /// Nothing now, and perhaps later.
    NotYet,
    /// Nothing.
    End,
}

/// A file on its way from one byte to its end.
pub(super) struct Reading {
    path: PathBuf,
    pub(super) partition: u64,
    framing: Framing,
    record_bytes_max: usize,
    file: Option<BufReader<File>>,
    /// The byte at which to begin, but for names of fields.
    from: u64,
    /// Where the record begins that was read last, and where it ends.
    record: (u64, u64),
    /// What there is of the next record, and how many bytes were read for it.
    partial: Vec<u8>,
    partial_bytes: u64,
    /// Whether the next record is known to be too long.
    is_too_long: bool,
    /// Whether the end of the file was met and there was something before it.
    is_over: bool,
    /// A byte, and the line that it is on.
    counted: (u64, u64),
}

impl Reading {
    pub(super) fn new(
        path: PathBuf,
        partition: u64,
        framing: Framing,
        record_bytes_max: usize,
    ) -> Self {
        Reading {
            path,
            partition,
            framing,
            record_bytes_max,
            file: None,
            from: 0,
            record: (0, 0),
            partial: Vec::new(),
            partial_bytes: 0,
            is_too_long: false,
            is_over: false,
            counted: (0, 1),
        }
    }

    /// Begins at a byte.
    pub(super) fn begin(&mut self, from: u64) {
        self.from = from;
        // The first record may say what all others mean, so it is read again.
        let start = if self.framing.has_header { 0 } else { from };
        self.record = (start, start);
    }

    /// The byte at which the record ends that was read last.
    pub(super) fn position(&self) -> u64 {
        self.record.1
    }

    /// Something is wrong with the record that was read last.
    pub(super) fn record_error(&mut self, kind: FileErrorKind) -> FileError {
        self.error(self.record.0, kind)
    }

    fn error(&mut self, offset: u64, kind: FileErrorKind) -> FileError {
        let line = self.line_of(offset);
        FileError { path: self.path.clone(), line, offset, kind }
    }

    /// The line that a byte is on. Only asked where something is wrong: nobody counts otherwise.
    fn line_of(&mut self, offset: u64) -> Option<u64> {
        let (from, mut line) = if self.counted.0 <= offset { self.counted } else { (0, 1) };
        let mut file = File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut before = BufReader::with_capacity(BUFFER_BYTES, file.take(offset - from));
        let mut bytes = 0;
        loop {
            let some = before.fill_buf().ok()?;
            if some.is_empty() {
                break;
            }
            line += some.iter().filter(|byte| **byte == b'\n').count() as u64;
            let read = some.len();
            bytes += read as u64;
            before.consume(read);
        }
        if from + bytes < offset {
            return None;
        }
        self.counted = (offset, line);
        Some(line)
    }

    fn failed(&mut self, error: &std::io::Error) -> FileError {
        let kind = match error.kind() {
            ErrorKind::NotFound => FileErrorKind::Missing,
            _ => FileErrorKind::Unreadable(error.to_string()),
        };
        let offset = self.record.1.max(self.from);
        FileError { path: self.path.clone(), line: None, offset, kind }
    }

    /// Opens the file where it is to be read on.
    fn open(&mut self) -> Result<BufReader<File>, FileError> {
        let opened = File::open(&self.path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, mut file) = opened.map_err(|error| self.failed(&error))?;
        if metadata.is_dir() {
            let kind = FileErrorKind::Unreadable("it is a directory".to_owned());
            return Err(FileError { path: self.path.clone(), line: None, offset: 0, kind });
        }
        let bytes = metadata.len();
        if bytes < self.from {
            return Err(self.error(self.from, FileErrorKind::Shrank { bytes }));
        }
        // What was read ended here. In the same file something ends here still.
        if self.from > 0 && self.from < bytes {
            let mut before = [0];
            let read = file.seek(SeekFrom::Start(self.from - 1));
            let read = read.and_then(|_| file.read_exact(&mut before));
            read.map_err(|error| self.failed(&error))?;
            if before != *b"\n" {
                return Err(self.error(self.from, FileErrorKind::Replaced));
            }
        }
        let sought = file.seek(SeekFrom::Start(self.record.1));
        sought.map_err(|error| self.failed(&error))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    /// Puts the next record into `to`, without what ends it. `follows`: what has no end may get one.
    pub(super) fn next(&mut self, to: &mut Vec<u8>, follows: bool) -> Result<Next, FileError> {
        if self.is_over {
            return Ok(Next::End);
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let next = self.next_of(&mut file, to, follows);
        self.file = Some(file);
        next
    }

    fn next_of(
        &mut self,
        file: &mut BufReader<File>,
        to: &mut Vec<u8>,
        follows: bool,
    ) -> Result<Next, FileError> {
        if 0 < self.record.1 && self.record.1 < self.from {
            // The names of the fields are read, and what comes between is known.
            let sought = file.seek(SeekFrom::Start(self.from));
            sought.map_err(|error| self.failed(&error))?;
            self.record = (self.from, self.from);
        }
        loop {
            let bytes = file.fill_buf();
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(&error)),
            };
            if bytes.is_empty() {
                if follows {
                    self.look(file.get_ref())?;
                    return Ok(Next::NotYet);
                }
                self.is_over = true;
                return match self.partial_bytes {
                    0 => Ok(Next::End),
                    _ => self.finish(to),
                };
            }
            let end = if self.is_too_long {
                // Whatever it may be, the next line is another record.
                bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
            } else {
                self.framing.end(bytes)
            };
            let read = end.unwrap_or(bytes.len());
            self.partial_bytes += read as u64;
            if !self.is_too_long {
                // Two more are what may end it.
                let room =
                    (self.record_bytes_max + 2 + MARK.len()).saturating_sub(self.partial.len());
                self.partial.extend_from_slice(&bytes[..read.min(room)]);
                self.is_too_long = read > room;
            }
            file.consume(read);
            if end.is_some() {
                return self.finish(to);
            }
        }
    }

    /// The next record is there, as far as it goes.
    fn finish(&mut self, to: &mut Vec<u8>) -> Result<Next, FileError> {
        let begins = self.record.1;
        self.record = (begins, begins + std::mem::take(&mut self.partial_bytes));
        self.framing.restart();
        to.clear();
        let partial = std::mem::take(&mut self.partial);
        let text = partial.strip_suffix(b"\n").unwrap_or(&partial);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = if begins == 0 { text.strip_prefix(MARK).unwrap_or(text) } else { text };
        to.extend_from_slice(text);
        let is_long = text.len() > self.record_bytes_max;
        self.partial = partial;
        self.partial.clear();
        if std::mem::take(&mut self.is_too_long) || is_long {
            let bytes_max = self.record_bytes_max;
            return Err(self.error(begins, FileErrorKind::TooLong { bytes_max }));
        }
        Ok(Next::Record { first: begins == 0 })
    }

    /// Looks whether a file whose end was met is still the one that it was.
    fn look(&mut self, file: &File) -> Result<(), FileError> {
        let read = self.record.1 + self.partial_bytes;
        let (own, there) = match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(own), Ok(there)) => (own, there),
            (Err(error), _) | (_, Err(error)) => return Err(self.failed(&error)),
        };
        if !is_same(&own, &there) {
            return Err(self.error(read, FileErrorKind::Replaced));
        }
        if own.len() < read {
            return Err(self.error(read, FileErrorKind::Shrank { bytes: own.len() }));
        }
        Ok(())
    }
}

/// Whether two are of the same file, where a system says so.
#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long it is, and whether it ever ends.
    #[test]
    fn a_record_that_is_too_long_takes_no_more_memory_than_one_may() {
        let path = std::env::temp_dir().join(format!("statefun-too-long-{}", std::process::id()));
        fs::write(&path, [vec![b'x'; 1 << 20], b"\nshort\n".into(), vec![b'y'; 1 << 20]].concat())
            .unwrap();
        let mut reading = Reading::new(path.clone(), 0, Framing::lines(), 10);
        let mut record = Vec::new();
        let too_long = FileErrorKind::TooLong { bytes_max: 10 };
        let error = reading.next(&mut record, false).unwrap_err();
        assert_eq!((error.kind, error.line, error.offset), (too_long.clone(), Some(1), 0));
        assert_eq!(reading.next(&mut record, false), Ok(Next::Record { first: false }));
        assert_eq!((&record[..], reading.position()), (&b"short"[..], (1 << 20) + 7));
        let error = reading.next(&mut record, false).unwrap_err();
        assert_eq!((error.kind, error.line, error.offset), (too_long, Some(3), (1 << 20) + 7));
        assert_eq!(reading.next(&mut record, false), Ok(Next::End));
        let room = reading.partial.capacity().max(record.capacity());
        assert!(room < 100, "{room} bytes are kept");
        fs::remove_file(path).unwrap();
    }
}
