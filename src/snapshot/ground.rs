//! What a local store stands on: directories, whose entries are durable only once they are synced.
//!
//! `object_store` syncs a file that it writes, the directory it is in, and directories that it made
//! itself for it. It does not sync directories that somebody else has just made, nor deletions, and
//! does not list what a write that was cut short has left. That is done here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where files are, as far as the store itself does not see to it.
pub(crate) trait Ground: Send + Sync {
    /// Whether there is anything to do here.
    fn needs_syncing(&self) -> bool {
        true
    }

    /// Makes the entries of this directory durable; it is named from the root, which is "". One that
    /// is not there has no entries.
    fn sync(&self, directory: &str) -> io::Result<()>;

    /// Removes from this directory what writes that were cut short have left, and directories that are
    /// empty then. What cannot be removed stays.
    fn sweep(&self, directory: &str);
}

/// A store that sees to everything.
pub(super) struct Elsewhere;

impl Ground for Elsewhere {
    fn needs_syncing(&self) -> bool {
        false
    }

    fn sync(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sweep(&self, _: &str) {}
}

/// A directory of this machine.
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Makes the directory if it is not there, with those above it, all of them durably.
    pub(super) fn make(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let there = |path: &&Path| path.is_dir();
        let first = root.ancestors().find(there).unwrap_or(&root).to_owned();
        fs::create_dir_all(&root)?;
        for directory in root.ancestors() {
            sync(directory)?;
            if directory == first {
                break;
            }
        }
        Ok(Directory { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

impl Ground for Directory {
    fn sync(&self, directory: &str) -> io::Result<()> {
        match sync(&self.root.join(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }

    fn sweep(&self, directory: &str) {
        let directory = self.root.join(directory);
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| is_left_over(path)) {
            let _ = fs::remove_file(path);
        }
        // Also those above, if nothing is left in them. Whoever needs one makes it.
        for directory in directory.ancestors().take_while(|above| **above != self.root) {
            if fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }
}

/// Whether `object_store` writes a file under this name before it gives it its own.
fn is_left_over(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Elsewhere than on Unix directories cannot be synced.
#[cfg(unix)]
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync(directory: &Path) -> io::Result<()> {
    let _: fn(&Path) -> io::Result<File> = |path| File::open(path);
    fs::metadata(directory).map(drop)
}
