//! A store of snapshots by its URL, and what is in it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use tokio::runtime::Handle;
use url::Url;

use super::error::{Kind, SnapshotError};
use super::files::{Files, Patience};
use super::gc::{Collected, Garbage};
use super::ground::{Directory, Elsewhere, Ground};
use super::log::{Keeping, Log};
use super::manifest::{Commit, Entry, slot_file};
use super::part::PartReader;
use super::process::Processes;
use super::restore::{Check, Found, Looking, Which, find, parts, whole};
use super::savepoints::{NOTE, Named, given_up, given_up_file};
use super::survey::{Identity, Walk, slots};
use super::uploads::Uploads;
use crate::retry::Retry;

/// How a store of snapshots is used, each with its default.
///
/// ```
/// use timely_statefun::SnapshotOptions;
///
/// let options = SnapshotOptions { keep: 10, ..SnapshotOptions::default() };
/// assert_eq!(options.chain_max, 64);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotOptions {
    /// How many snapshots are kept. Default 3; at least 1.
    pub keep: usize,
    /// How many cuts one snapshot may consist of: a full one and increments upon it. The next is full
    /// again, also when the increments weigh more than what they build upon. Default 64; at least 1.
    pub chain_max: usize,
    /// How long something is not needed before it is deleted. Whoever reads a snapshot that is just
    /// given up has that long, and listings of the store may be that old. Default 5 minutes.
    pub grace: Duration,
    /// Bytes of snapshots that may wait for the store in a process before workers wait for it as well.
    /// Default 256 MiB.
    pub pending_bytes_max: u64,
    /// About how large one file is. Default 4 MiB.
    pub part_bytes: usize,
    /// Files that are written at a time. Default 8; at least 1.
    pub uploads_max: usize,
    /// Files that are read at a time. Default 8; at least 1.
    pub fetches_max: usize,
    /// How often each file is tried before a cut is given up. Default 8 times, after waits of 100 ms at
    /// first and 10 s at most.
    pub retry: Retry,
    /// How long one attempt may take. It counts as failed then. Default one minute.
    pub attempt_max: Duration,
    /// What a cloud's store must know, as `object_store` names it: `aws_region`, `azure_storage_use_emulator`
    /// and so on. They come before what the environment says (`AWS_*`, `GOOGLE_*`, `AZURE_*`). Default none.
    pub cloud: Vec<(String, String)>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions {
            keep: 3,
            chain_max: 64,
            grace: Duration::from_secs(300),
            pending_bytes_max: 256 << 20,
            part_bytes: 4 << 20,
            uploads_max: 8,
            fetches_max: 8,
            retry: Retry::attempts(8).longest(Duration::from_secs(10)),
            attempt_max: Duration::from_secs(60),
            cloud: Vec::new(),
        }
    }
}

/// A place where snapshots are. All clones are one.
///
/// ```
/// use timely_statefun::{SnapshotOptions, SnapshotStore};
///
/// let store = SnapshotStore::open("memory:", SnapshotOptions::default())?;
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// let snapshots = runtime.block_on(store.list())?;
/// assert!(snapshots.is_empty());
/// # Ok::<(), timely_statefun::SnapshotError>(())
/// ```
#[derive(Clone)]
pub struct SnapshotStore {
    url: String,
    files: Files,
    options: Arc<SnapshotOptions>,
    pub(super) processes: Arc<Processes>,
    /// Held while no worker may go on that has begun.
    #[cfg(feature = "testing")]
    pub(super) gate: Option<Arc<std::sync::Mutex<()>>>,
}

/// A snapshot, as its manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The number of the cut.
    pub cut: u64,
    /// The file of its manifest, from the root of the store.
    pub file: String,
    /// Where it stands in the log of the store.
    pub slot: u64,
    /// The execution that made it.
    pub execution: u64,
    /// The name of the program.
    pub program: String,
    /// Into how many bins its addresses are divided.
    pub bins: u32,
    /// When it was committed, in milliseconds since the beginning of 1970, by its program's clock.
    pub at_ms: u64,
    /// The cuts it consists of: a full one, increments upon it, and itself.
    pub chain: Vec<u64>,
    /// How many files it consists of, without its manifest.
    pub parts: usize,
    /// How many bytes these have.
    pub bytes: u64,
    /// The name that the program gave it, if it is a [savepoint](crate::Snapshots::savepoint).
    pub savepoint: Option<String>,
    /// What the program noted, with the length of each note in bytes.
    pub notes: Vec<(String, u64)>,
}

impl SnapshotInfo {
    pub(super) fn new(commit: &Commit, savepoint: Option<&Named>) -> Self {
        let note = |(name, note): (&String, &bytes::Bytes)| (name.clone(), note.len() as u64);
        SnapshotInfo {
            cut: commit.cut(),
            file: slot_file(commit.header.slot),
            slot: commit.header.slot,
            execution: commit.header.execution,
            program: commit.header.program.clone(),
            bins: commit.header.bins,
            at_ms: commit.header.at_ms,
            chain: commit.chain.iter().map(|link| link.cut).collect(),
            parts: commit.parts().count(),
            bytes: commit.parts().map(|part| part.bytes).sum(),
            savepoint: savepoint.map(|named| named.name.clone()),
            notes: commit.notes.iter().filter(|(name, _)| *name != NOTE).map(note).collect(),
        }
    }
}

impl SnapshotStore {
    /// Opens the store of a URL: `file:///directory` (made if it is not there), `memory:` (a new one,
    /// which its clones share), and with the Cargo features `s3`, `gcs` and `azure`
    /// `s3://bucket/path`, `gs://bucket/path` and `az://container/path`.
    ///
    /// A store in the cloud is not asked for anything yet.
    ///
    /// # Errors
    ///
    /// If the URL names none of these, or the directory cannot be made.
    pub fn open(url: &str, options: SnapshotOptions) -> Result<Self, SnapshotError> {
        let wrong = |why: String| SnapshotError::from(Kind::Url { url: url.to_owned(), why });
        let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        match parsed.scheme() {
            "file" => {
                let path = parsed.to_file_path();
                Self::directory(
                    path.map_err(|()| wrong("it names no directory".to_owned()))?,
                    options,
                )
            }
            "memory" => {
                let (objects, root) = (Arc::new(InMemory::new()), ObjectPath::default());
                Ok(Self::over(url, objects, root, Arc::new(Elsewhere), options))
            }
            _ => {
                let (objects, root) = cloud(&parsed, &options.cloud).map_err(wrong)?;
                Ok(Self::over(url, objects, root, Arc::new(Elsewhere), options))
            }
        }
    }

    /// Opens the store in a directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made.
    pub fn directory(
        path: impl AsRef<Path>,
        options: SnapshotOptions,
    ) -> Result<Self, SnapshotError> {
        let url = path.as_ref().display().to_string();
        let wrong = |why: String| Kind::Url { url: url.clone(), why };
        let ground = Directory::make(path.as_ref()).map_err(|error| wrong(error.to_string()))?;
        let objects = LocalFileSystem::new_with_prefix(ground.root());
        let objects = objects.map_err(|error| wrong(error.to_string()))?;
        let objects = Arc::new(objects.with_fsync(true).with_automatic_cleanup(true));
        Ok(Self::over(&url, objects, ObjectPath::default(), Arc::new(ground), options))
    }

    pub(crate) fn over(
        url: &str,
        objects: Arc<dyn ObjectStore>,
        root: ObjectPath,
        ground: Arc<dyn Ground>,
        options: SnapshotOptions,
    ) -> Self {
        let patience = Patience { retry: options.retry.clone(), attempt_max: options.attempt_max };
        let files = Files::new(objects, root, ground, patience);
        let (options, processes) = (Arc::new(options), Arc::default());
        SnapshotStore {
            url: url.to_owned(),
            files,
            options,
            processes,
            #[cfg(feature = "testing")]
            gate: None,
        }
    }

    /// The same, which needs no threads but those of the runtime, and workers that begin with it wait where
    /// somebody holds the gate.
    #[cfg(feature = "testing")]
    pub(crate) fn simulated(mut self, gate: Arc<std::sync::Mutex<()>>) -> Self {
        self.files.in_place = true;
        self.gate = Some(gate);
        self
    }

    /// The snapshots that count, newest first; in the place of one that cannot be read, why.
    ///
    /// Only manifests are read, so parts may be missing or damaged.
    ///
    /// # Errors
    ///
    /// If the store fails.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer, like all that is asynchronous here.
    pub async fn list(&self) -> Result<Vec<Result<SnapshotInfo, SnapshotError>>, SnapshotError> {
        let given_up = given_up(&self.files).await?;
        let mut walk = Walk::new(&self.files, slots(&self.files).await?);
        let mut list = Vec::new();
        while let Some(seen) = walk.next().await? {
            let savepoint = walk.savepoint(seen.slot).filter(|_| !given_up.contains(&seen.slot));
            match seen.entry {
                _ if !seen.counts => {}
                Ok(Entry::Claim(_)) => {}
                Ok(Entry::Commit(commit)) => list.push(Ok(SnapshotInfo::new(&commit, savepoint))),
                Err(error) => list.push(Err(error)),
            }
        }
        Ok(list)
    }

    /// Reads all of a snapshot, and describes it if it is whole.
    ///
    /// # Errors
    ///
    /// If the store fails, there is no snapshot of this cut, or a file of it is missing or damaged.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer.
    pub async fn inspect(&self, cut: u64) -> Result<SnapshotInfo, SnapshotError> {
        let given_up = given_up(&self.files).await?;
        let mut walk = Walk::new(&self.files, slots(&self.files).await?);
        while let Some(seen) = walk.next().await? {
            let savepoint = walk.savepoint(seen.slot).filter(|_| !given_up.contains(&seen.slot));
            let Ok(Entry::Commit(commit)) = seen.entry else { continue };
            if seen.counts && commit.cut() == cut {
                let fetches_max = self.options.fetches_max;
                whole(&self.files, &commit, Check::Contents, fetches_max).await?;
                return Ok(SnapshotInfo::new(&commit, savepoint));
            }
        }
        Err(Kind::NoSuchCut { cut }.into())
    }

    /// Gives up a [savepoint](crate::Snapshots::savepoint): it has no name any more, and is a snapshot like
    /// others, which is deleted as these are. Another may be given the name.
    ///
    /// Whatever program uses the store may go on meanwhile; none need. What is deleted then, is by the
    /// next execution that commits a snapshot, after [`grace`](SnapshotOptions::grace).
    ///
    /// # Errors
    ///
    /// If the store fails, or there is [no savepoint](SnapshotError::is_no_such_savepoint) of this name.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer.
    pub async fn delete_savepoint(&self, name: &str) -> Result<(), SnapshotError> {
        let given_up = given_up(&self.files).await?;
        let mut walk = Walk::new(&self.files, slots(&self.files).await?);
        while !walk.knows_savepoints() && walk.next().await?.is_some() {}
        let mut named = walk.savepoints().iter().filter(|named| named.name == name);
        match named.find(|named| !given_up.contains(&named.slot)) {
            None => Err(Kind::NoSuchSavepoint { name: name.to_owned() }.into()),
            Some(named) => {
                let file = given_up_file(named.slot);
                self.files.create(&file, named.name.clone().into()).await?;
                self.files.settle([file.as_str()]).await
            }
        }
    }

    /// Finds what is to be restored.
    pub(crate) async fn find(
        &self,
        identity: &Identity,
        which: Which,
        check: Check,
    ) -> Result<Found, SnapshotError> {
        let (keep, fetches_max) = (self.options.keep.max(1), self.options.fetches_max);
        find(&self.files, identity, which, Looking { check, keep, fetches_max }).await
    }

    /// The parts of a snapshot, in the order in which they build upon each other.
    pub(crate) fn parts(
        &self,
        commit: &Commit,
    ) -> impl Stream<Item = Result<PartReader, SnapshotError>> + Send + use<> {
        parts(&self.files, commit, self.options.fetches_max)
    }

    /// Claims the store for a new execution, which restores `restores`.
    pub(crate) async fn claim(
        &self,
        identity: &Identity,
        found: &Found,
        restores: Option<&Commit>,
        at_ms: u64,
    ) -> Result<Log, SnapshotError> {
        let SnapshotOptions { keep, chain_max, .. } = *self.options;
        let keeping = Keeping { snapshots: keep.max(1), chain_max: chain_max.max(1) };
        let files = self.files.clone();
        Log::claim(files, identity.clone(), keeping, &found.survey, restores, at_ms).await
    }

    /// Deletes what is not needed any more, after a commit of `log`.
    pub(crate) async fn collect(
        &self,
        garbage: &mut Garbage,
        log: &mut Log,
        now_ms: u64,
    ) -> Result<Collected, SnapshotError> {
        let grace_ms = u64::try_from(self.options.grace.as_millis()).unwrap_or(u64::MAX);
        garbage.collect(log, now_ms, grace_ms).await
    }

    /// The uploads of this process, which run on `runtime`.
    pub(crate) fn uploads(&self, runtime: Handle) -> Uploads {
        let SnapshotOptions { pending_bytes_max, uploads_max, .. } = *self.options;
        Uploads::new(self.files.clone(), runtime, pending_bytes_max, uploads_max)
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(crate) fn options(&self) -> &SnapshotOptions {
        &self.options
    }
}

impl fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SnapshotStore").field(&self.url).finish()
    }
}

type Cloud = (Arc<dyn ObjectStore>, ObjectPath);

/// The store of a URL in a cloud that this program is built for.
fn cloud(url: &Url, given: &[(String, String)]) -> Result<Cloud, String> {
    let (feature, on) = match url.scheme() {
        "s3" | "s3a" => ("s3", cfg!(feature = "s3")),
        "gs" => ("gcs", cfg!(feature = "gcs")),
        "az" | "adl" | "azure" | "abfs" | "abfss" => ("azure", cfg!(feature = "azure")),
        other => return Err(format!("there are no stores of scheme \"{other}\"")),
    };
    if !on {
        return Err(format!("this program is built without the feature \"{feature}\""));
    }
    let of_clouds = ["AWS_", "GOOGLE_", "AZURE_"];
    let environment = std::env::vars_os().filter_map(|(key, value)| {
        let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
        of_clouds.iter().any(|cloud| key.starts_with(cloud)).then_some((key, value))
    });
    // What comes later holds.
    let options = environment.chain(given.iter().cloned());
    let opened = object_store::parse_url_opts(url, options);
    let (objects, root) = opened.map_err(|error| error.to_string())?;
    Ok((Arc::from(objects), root))
}
