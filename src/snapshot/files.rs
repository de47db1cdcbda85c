//! The one door to files: create, read, list and delete them in a store, patiently.
//!
//! Nothing is ever overwritten. What fails in passing is tried again; what takes too long counts as
//! failed, and may happen nevertheless.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use tokio::task::{JoinError, spawn_blocking};

use super::error::{Cause, Kind, SnapshotError};
use super::ground::Ground;
use crate::retry::Retry;

/// How hard is tried.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    pub(super) retry: Retry,
    /// How long one attempt may take.
    pub(super) attempt_max: Duration,
}

/// The files of one store, below its root. All clones are one.
#[derive(Clone)]
pub(super) struct Files {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    ground: Arc<dyn Ground>,
    patience: Patience,
    /// What failed last, and was not followed by a cut that became durable.
    trouble: Arc<Mutex<Option<SnapshotError>>>,
    /// Whether what would take a thread is done where it is asked for.
    pub(super) in_place: bool,
}

/// What became of a file that was to be created.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Created {
    New,
    /// There is a file of this name. It may be our own: its reply was lost.
    Exists,
}

impl Files {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        root: Path,
        ground: Arc<dyn Ground>,
        patience: Patience,
    ) -> Self {
        Files { objects, root, ground, patience, trouble: Arc::default(), in_place: false }
    }

    /// Does what may take long, and waits for no store, where it delays nothing else. An error if the
    /// runtime shuts down meanwhile.
    pub(super) async fn apart<X: Send + 'static>(
        &self,
        work: impl FnOnce() -> X + Send + 'static,
    ) -> Result<X, JoinError> {
        match self.in_place {
            true => Ok(work()),
            false => spawn_blocking(work).await,
        }
    }

    fn path(&self, file: &str) -> Path {
        file.split('/').fold(self.root.clone(), |path, step| path.join(step))
    }

    /// What failed last, if no cut has become durable since. That something else works says nothing: what is
    /// listed or deleted may work where nothing can be stored.
    pub(super) fn trouble(&self) -> Option<SnapshotError> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A cut has become durable.
    pub(super) fn committed(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Creates a file. When this is `New`, its bytes are as durable as the store makes them; so is its
    /// name, after [`settle`](Self::settle).
    pub(super) async fn create(&self, file: &str, bytes: Bytes) -> Result<Created, SnapshotError> {
        let path = self.path(file);
        self.patiently("create", file, || async {
            let put = self.objects.put_opts(&path, bytes.clone().into(), PutMode::Create.into());
            match put.await {
                Ok(_) => Ok(Created::New),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Exists),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Reads a file of at most so many bytes. `None`: there is none.
    pub(super) async fn read(
        &self,
        file: &str,
        bytes_max: u64,
    ) -> Result<Option<Bytes>, SnapshotError> {
        let path = self.path(file);
        let read = self.patiently("read", file, || async {
            let found = match self.objects.get(&path).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let size = found.meta.size;
            if size > bytes_max {
                return Ok(Some(Err(size)));
            }
            match found.bytes().await {
                Ok(bytes) => Ok(Some(Ok(bytes))),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        match read.await? {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(size)) => {
                let why = format!("it has {size} bytes, and {bytes_max} at most are expected");
                Err(SnapshotError::damaged(file, why))
            }
        }
    }

    /// Reads some bytes of a file, which has them. `None`: there is no such file.
    pub(super) async fn read_range(
        &self,
        file: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, SnapshotError> {
        let path = self.path(file);
        let wanted = range.end - range.start;
        let read = self.patiently("read", file, || async {
            match self.objects.get_range(&path, range.clone()).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        match read.await? {
            Some(bytes) if bytes.len() as u64 != wanted => {
                let why = format!("it ends before byte {}", range.end);
                Err(SnapshotError::damaged(file, why))
            }
            read => Ok(read),
        }
    }

    /// How long a file is. `None`: there is none.
    pub(super) async fn length(&self, file: &str) -> Result<Option<u64>, SnapshotError> {
        let path = self.path(file);
        self.patiently("look at", file, || async {
            match self.objects.head(&path).await {
                Ok(found) => Ok(Some(found.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The files in a directory and below it, in the order of their names.
    pub(super) async fn list(&self, directory: &str) -> Result<Vec<String>, SnapshotError> {
        let path = self.path(directory);
        let root = self.root.as_ref();
        self.patiently("list", directory, || async {
            let found: Vec<_> = self.objects.list(Some(&path)).try_collect().await?;
            let files = found.iter().filter_map(|found| {
                let file = found.location.as_ref().strip_prefix(root)?;
                Some(file.strip_prefix('/').unwrap_or(file).to_owned())
            });
            let mut files: Vec<_> = files.collect();
            files.sort();
            Ok(files)
        })
        .await
    }

    /// Deletes files, those that are gone already included, and makes sure that they stay deleted.
    pub(super) async fn delete(&self, files: &[String]) -> Result<(), SnapshotError> {
        let Some(first) = files.first() else { return Ok(()) };
        self.patiently("delete", first, || async {
            let paths: Vec<_> = files.iter().map(|file| Ok(self.path(file))).collect();
            let mut deleted = self.objects.delete_stream(stream::iter(paths).boxed());
            while let Some(deleted) = deleted.next().await {
                match deleted {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
        .await?;
        self.settle(files.iter().map(String::as_str)).await
    }

    /// Makes sure that the names of these files, or that they are gone, survive a loss of power.
    pub(super) async fn settle(
        &self,
        files: impl IntoIterator<Item = &str>,
    ) -> Result<(), SnapshotError> {
        // A directory is an entry of another one, which may be new as well.
        let mut directories = BTreeSet::from([String::new()]);
        for file in files {
            let above = file.match_indices('/').map(|(at, _)| file[..at].to_owned());
            directories.extend(above);
        }
        let directories = Arc::new(directories);
        self.patiently("sync the directories of", "", || async {
            let (ground, directories) = (Arc::clone(&self.ground), Arc::clone(&directories));
            if !ground.needs_syncing() {
                return Ok(());
            }
            let synced = self.apart(move || {
                // What lies deeper first, so that nothing is reached that is not there.
                directories.iter().rev().try_for_each(|directory| ground.sync(directory))
            });
            let generic = |source| object_store::Error::Generic { store: "directory", source };
            synced.await?.map_err(|error| generic(Box::new(error)))
        })
        .await
    }

    /// Removes what writes that were cut short have left, of the directories that are named.
    pub(super) async fn sweep(&self, directories: HashSet<String>) -> Result<(), SnapshotError> {
        let ground = Arc::clone(&self.ground);
        if !ground.needs_syncing() || directories.is_empty() {
            return Ok(());
        }
        let swept = self.apart(move || {
            directories.iter().for_each(|directory| ground.sweep(directory));
        });
        swept.await.map_err(|error| failed("sweep", "", error.into()))
    }

    /// Tries until it works, is hopeless, or was tried often enough.
    async fn patiently<T, F>(
        &self,
        what: &'static str,
        file: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, SnapshotError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let Patience { retry, attempt_max } = &self.patience;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match tokio::time::timeout(*attempt_max, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => failed(what, file, error),
                Err(elapsed) => failed(
                    what,
                    file,
                    object_store::Error::Generic { store: "slow", source: Box::new(elapsed) },
                ),
            };
            let again = error.is_passing() && retry.again_after(attempts);
            tracing::debug!(%error, attempts, again, "a store of snapshots failed");
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            if !again {
                return Err(error);
            }
            let wait_ms = retry.wait_ms(attempts, chance());
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

/// A number that nobody else draws: the standard library seeds its hashers from the system.
pub(super) fn chance() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

fn failed(what: &'static str, file: &str, error: object_store::Error) -> SnapshotError {
    use object_store::Error::{InvalidPath, NotImplemented, NotSupported, UnknownConfigurationKey};
    let hopeless = matches!(
        error,
        InvalidPath { .. }
            | NotImplemented { .. }
            | NotSupported { .. }
            | UnknownConfigurationKey { .. }
    );
    let (what, file) = (what.to_owned(), file.to_owned());
    Kind::Store { what, file, passing: !hopeless, source: Cause::of(&error) }.into()
}
