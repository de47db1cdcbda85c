//! A sink that makes a file of each cut.
//!
//! ```text
//! directory/sink                        whose directory it is, and how many shards there are
//! directory/0000-00000000000000000017   what shard 0 has of cut 17
//! directory/tmp-...                     what was being written when a program ended; removed by the next
//! ```
//!
//! A file is written under another name, synced, and renamed, and the directory is synced before the cut
//! counts. So a file that has its name is whole, and the names tell which cuts are stored. This is a door to
//! files beside that of the snapshots, and knows nothing of those.

use std::fmt::{self, Display, Write as _};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::{Sink, SinkError};

/// The file that says whose directory it is.
const MARK: &str = "sink";
const TEMPORARY: &str = "tmp-";

type Encode<E> = Box<dyn Fn(&E, &mut Vec<u8>) -> Result<(), SinkError> + Send + Sync>;

/// A [sink](Sink) that makes a file of each cut of each shard, in a directory of its own.
///
/// A file appears whole or not at all, under a name that sorts by shard and cut: `{shard}-{cut}`, with four and
/// twenty digits. It is never changed. Whoever reads the directory can move files away or delete them when
/// they are read, but not the last of each shard: it tells which cuts are stored. What is not named like
/// this is being written.
///
/// The directory is made if it is not there, and says in a file `sink` whose it is. That of another sink, or
/// with another number of shards, is [refused](SinkError::is_refused), and so is one with other files.
///
/// ```
/// use timely_statefun::sink::{FileSink, Sink};
///
/// let directory = std::env::temp_dir().join(format!("file-sink-{}", std::process::id()));
/// let sink = FileSink::lines(&directory, "greetings");
/// sink.write(0, 3, &["hello".to_owned(), "hello again".to_owned()])?;
/// assert_eq!(sink.last(0)?, Some(3));
/// let file = directory.join("0000-00000000000000000003");
/// assert_eq!(std::fs::read_to_string(file)?, "hello\nhello again\n");
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), timely_statefun::sink::SinkError>(())
/// ```
pub struct FileSink<E> {
    directory: PathBuf,
    name: String,
    shards: u32,
    encode: Encode<E>,
    /// Whether the directory is known to be this sink's.
    is_own: Mutex<bool>,
}

impl<E: Display + 'static> FileSink<E> {
    /// A sink whose files have a line for each record: what the record displays. One that would be several
    /// lines is refused.
    pub fn lines(directory: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        FileSink::new(directory, name, |record: &E, to| {
            let mut line = String::new();
            write!(line, "{record}")?;
            if line.contains('\n') {
                return Err(SinkError::refused(format!("record {line:?} is no line")));
            }
            line.push('\n');
            to.extend_from_slice(line.as_bytes());
            Ok(())
        })
    }
}

impl<E: 'static> FileSink<E> {
    /// A sink of this name, whose files are what `encode` adds for each record.
    pub fn new(
        directory: impl Into<PathBuf>,
        name: impl Into<String>,
        encode: impl Fn(&E, &mut Vec<u8>) -> Result<(), SinkError> + Send + Sync + 'static,
    ) -> Self {
        FileSink {
            directory: directory.into(),
            name: name.into(),
            shards: 1,
            encode: Box::new(encode),
            is_own: Mutex::new(false),
        }
    }

    /// Divides records among so many files, at most 10,000. Default 1. It belongs to the directory, and can
    /// never be changed.
    #[must_use]
    pub fn divided(mut self, shards: u32) -> Self {
        self.shards = shards.clamp(1, 10_000);
        self
    }

    /// Makes the directory this sink's, or finds that it is.
    fn prepare(&self) -> Result<(), SinkError> {
        let mut is_own = self.is_own.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_own {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let shown = self.directory.display();
        let mark = self.directory.join(MARK);
        let (name, shards) = (&self.name, self.shards);
        let own = format!("timely-statefun file sink 1\nname {name:?}\nshards {shards}\n");
        if read(&mark)?.is_none() {
            self.refuse_others()?;
            let marked = self.put(MARK, own.as_bytes());
            // Another process that marked it first may have taken away what this one was writing.
            if read(&mark)?.is_none() {
                marked?;
            }
            sync_directory(self.directory.parent().unwrap_or(Path::new("")))?;
        }
        match read(&mark)? {
            Some(found) if found == own => *is_own = true,
            Some(found) => {
                let why = format!(
                    "directory \"{shown}\" is that of another sink: it says {found:?}, not {own:?}"
                );
                return Err(SinkError::refused(why));
            }
            None => return Err(SinkError::failed(format!("directory \"{shown}\" lost its mark"))),
        }
        Ok(())
    }

    /// Refuses a directory that has files and no mark. One that got its mark since it was looked for is that of
    /// a sink, and what else is there may be that one's.
    fn refuse_others(&self) -> Result<(), SinkError> {
        for entry in fs::read_dir(&self.directory)? {
            let file = entry?.file_name();
            let is_others = !file.to_string_lossy().starts_with(TEMPORARY);
            if is_others && read(&self.directory.join(MARK))?.is_none() {
                let shown = self.directory.display();
                let why = format!("directory \"{shown}\" has other files than a sink's: {file:?}");
                return Err(SinkError::refused(why));
            }
        }
        Ok(())
    }

    /// Has a file appear, whole.
    fn put(&self, name: &str, content: &[u8]) -> Result<(), SinkError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let temporary = self.directory.join(format!("{TEMPORARY}{name}-{process}-{number}"));
        let written = File::create_new(&temporary).and_then(|mut file| {
            #[cfg(statefun_planted)]
            crate::planted::reach("sink-file-begun");
            file.write_all(content)?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| {
            #[cfg(statefun_planted)]
            crate::planted::reach("sink-file-written");
            fs::rename(&temporary, self.directory.join(name))
        });
        if let Err(error) = renamed {
            // What is left of it is removed by the next program otherwise.
            drop(fs::remove_file(&temporary));
            return Err(error.into());
        }
        #[cfg(statefun_planted)]
        crate::planted::reach("sink-file-renamed");
        Ok(sync_directory(&self.directory)?)
    }

    /// The last cut of a shard. What was being written of it when a program ended is removed, if it is asked
    /// to, and with that of the first shard what was being written of the mark.
    fn look(&self, shard: u32, clean: bool) -> Result<Option<u64>, SinkError> {
        let mut last = None;
        let begins = format!("{TEMPORARY}{shard:04}-");
        let mark_begins = format!("{TEMPORARY}{MARK}-");
        let is_left =
            |name: &str| name.starts_with(&begins) || shard == 0 && name.starts_with(&mark_begins);
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(cut) = cut_of(name, shard) {
                last = last.max(Some(cut));
            } else if clean && is_left(name) {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        Ok(last)
    }
}

/// The name of the file of a cut.
fn file_of(shard: u32, cut: u64) -> String {
    format!("{shard:04}-{cut:020}")
}

/// The cut whose file this is, if it is one of a shard.
fn cut_of(name: &str, shard: u32) -> Option<u64> {
    let (of, cut) = name.split_once('-')?;
    let cut = cut.parse().ok()?;
    (of.parse() == Ok(shard) && file_of(shard, cut) == name).then_some(cut)
}

fn read(file: &Path) -> Result<Option<String>, SinkError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Has the names in a directory survive a loss of power, where a system can be told so.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let here = Path::new(".");
        let directory = if directory.as_os_str().is_empty() { here } else { directory };
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

impl<E: 'static> Sink<E> for FileSink<E> {
    fn shards(&self) -> u32 {
        self.shards
    }

    fn last(&self, shard: u32) -> Result<Option<u64>, SinkError> {
        self.prepare()?;
        self.look(shard, true)
    }

    fn write(&self, shard: u32, cut: u64, records: &[E]) -> Result<(), SinkError> {
        self.prepare()?;
        if self.look(shard, false)?.is_some_and(|last| last >= cut) {
            // It may have its name and that not be synced: whoever gave it the name may be gone.
            return Ok(sync_directory(&self.directory)?);
        }
        let mut content = Vec::new();
        records.iter().try_for_each(|record| (self.encode)(record, &mut content))?;
        self.put(&file_of(shard, cut), &content)
    }
}

impl<E> fmt::Debug for FileSink<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSink")
            .field("directory", &self.directory)
            .field("name", &self.name)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is gone with this.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("statefun-sink-{name}-{}", std::process::id());
            let place = std::env::temp_dir().join(name);
            drop(fs::remove_dir_all(&place));
            Place(place)
        }

        fn sink(&self, name: &str) -> FileSink<u64> {
            FileSink::lines(&self.0, name)
        }

        fn files(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_cut_is_stored_once_and_an_older_one_never_after_it() {
        let place = Place::new("once");
        let sink = place.sink("numbers").divided(2);
        assert_eq!((Sink::<u64>::shards(&sink), sink.last(0).unwrap()), (2, None));
        sink.write(0, 7, &[1, 2]).unwrap();
        sink.write(0, 7, &[9]).unwrap();
        sink.write(0, 6, &[9]).unwrap();
        sink.write(1, 5, &[3]).unwrap();
        assert_eq!((sink.last(0).unwrap(), sink.last(1).unwrap()), (Some(7), Some(5)));
        let files = place.files();
        assert_eq!(files, [file_of(0, 7), file_of(1, 5), MARK.to_owned()]);
        assert_eq!(fs::read_to_string(place.0.join(&files[0])).unwrap(), "1\n2\n");
    }

    #[test]
    fn what_was_being_written_is_removed_and_does_not_count() {
        let place = Place::new("left");
        place.sink("numbers").write(0, 7, &[1]).unwrap();
        for left in ["tmp-0000-00000000000000000008-1-1", "tmp-0001-00000000000000000008-1-1"] {
            fs::write(place.0.join(left), "half").unwrap();
        }
        fs::write(place.0.join("tmp-sink-1-1"), "half a mark").unwrap();
        assert_eq!(place.sink("numbers").last(0).unwrap(), Some(7));
        let left = "tmp-0001-00000000000000000008-1-1".to_owned();
        assert_eq!(
            place.files(),
            [file_of(0, 7), MARK.to_owned(), left],
            "that of another shard stays"
        );
    }

    #[test]
    fn a_program_that_ended_while_it_marked_its_directory_leaves_nothing() {
        let place = Place::new("marked");
        fs::create_dir_all(&place.0).unwrap();
        fs::write(place.0.join("tmp-sink-1-1"), "half").unwrap();
        assert_eq!(place.sink("numbers").last(0).unwrap(), None);
        assert_eq!(place.files(), [MARK]);
    }

    /// Each process of a program has a sink value of its own, and all begin at once.
    #[test]
    fn a_directory_can_be_marked_by_several_at_once() {
        for round in 0..200 {
            let place = Place::new(&format!("several-{round}"));
            let ready = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for shard in 0..4 {
                    let (sink, ready) = (place.sink("numbers").divided(4), &ready);
                    scope.spawn(move || {
                        ready.wait();
                        assert_eq!(sink.last(shard).unwrap(), None);
                        sink.write(shard, 1, &[1]).unwrap();
                    });
                }
            });
            assert_eq!(place.files().len(), 5, "one of each, and the mark");
        }
    }

    #[test]
    fn a_directory_that_was_marked_meanwhile_is_not_that_of_others() {
        let place = Place::new("meanwhile");
        place.sink("numbers").write(0, 7, &[1]).unwrap();
        place.sink("numbers").refuse_others().unwrap();
        fs::remove_file(place.0.join(MARK)).unwrap();
        assert!(place.sink("numbers").refuse_others().unwrap_err().is_refused());
    }

    #[test]
    fn a_directory_belongs_to_one_sink() {
        let place = Place::new("whose");
        place.sink("numbers").write(0, 7, &[1]).unwrap();
        for other in [place.sink("letters"), place.sink("numbers").divided(2)] {
            let refused = other.last(0).unwrap_err();
            assert!(
                refused.is_refused() && refused.to_string().contains("another sink"),
                "{refused}"
            );
            assert!(other.write(0, 9, &[1]).unwrap_err().is_refused());
        }
        let full = Place::new("full");
        fs::create_dir_all(&full.0).unwrap();
        fs::write(full.0.join("letter.txt"), "dear").unwrap();
        let refused = full.sink("numbers").last(0).unwrap_err();
        assert!(refused.is_refused() && refused.to_string().contains("letter.txt"), "{refused}");
        assert_eq!(full.files(), ["letter.txt"]);
    }

    #[test]
    fn a_record_that_is_no_line_is_refused_and_nothing_of_its_cut_is_stored() {
        let place = Place::new("line");
        let sink = FileSink::<String>::lines(&place.0, "lines");
        let refused = sink.write(0, 1, &["one".to_owned(), "t\nwo".to_owned()]).unwrap_err();
        assert!(refused.is_refused(), "{refused}");
        assert_eq!(sink.last(0).unwrap(), None);
    }
}
