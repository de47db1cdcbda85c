//! A store in memory that fails in every way a store can, as a plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::time::{Instant, sleep};

use super::super::ground::Ground;
use super::super::store::{SnapshotOptions, SnapshotStore};

/// What is asked of the store.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Put,
    /// To read a file, or to look whether it is there.
    Get,
    List,
    Delete,
}

/// What goes wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    /// It fails and has no effect.
    Refused,
    /// It has its effect, and nobody is told.
    ReplyLost,
    /// It has its effect after this time, and the reply comes after as much again.
    Slow(Duration),
    /// It fails, and has its effect when [`Faulty::land`] is called: it was under way.
    Late,
    /// It has its effect, but for its name in its directory, which is not synced; and it fails.
    Unsynced,
    /// It shows files as they were so long ago.
    OldList(Duration),
}

type Plan = Box<dyn FnMut(What, &str) -> Fault + Send>;

/// The store. It loses what is not synced, as a local one, when [`Faulty::lose_power`] is called: a file is
/// synced when it is written, with its name in its directory, but not that directory's name in others.
pub(super) struct Faulty {
    world: Mutex<World>,
    plan: Mutex<Plan>,
    began: Instant,
}

#[derive(Default)]
struct World {
    files: BTreeMap<String, Bytes>,
    /// Directories, and what is in each: whether that would survive.
    names: BTreeMap<(String, String), bool>,
    /// Deleted, and would come back.
    undeleted: BTreeMap<String, Bytes>,
    late: Vec<(String, Bytes)>,
    /// Since when there were which files.
    history: Vec<(Duration, BTreeSet<String>)>,
    bytes_max: Option<usize>,
    syncs_fail: bool,
}

fn split(file: &str) -> (String, String) {
    let (above, name) = file.rsplit_once('/').unwrap_or(("", file));
    (above.to_owned(), name.to_owned())
}

impl World {
    fn put(&mut self, file: &str, bytes: Bytes, now: Duration) -> Result<()> {
        let stored: usize = self.files.values().map(Bytes::len).sum();
        if self.bytes_max.is_some_and(|most| stored + bytes.len() > most) {
            return Err(failed("no space left on device"));
        }
        if self.files.contains_key(file) {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(Error::AlreadyExists { path: file.to_owned(), source: source.into() });
        }
        self.files.insert(file.to_owned(), bytes);
        self.undeleted.remove(file);
        self.names.insert(split(file), true);
        let (mut directory, _) = split(file);
        while !directory.is_empty() {
            self.names.entry(split(&directory)).or_insert(false);
            (directory, _) = split(&directory);
        }
        self.remember(now);
        Ok(())
    }

    fn delete(&mut self, file: &str, now: Duration) {
        if let Some(bytes) = self.files.remove(file) {
            self.undeleted.insert(file.to_owned(), bytes);
            self.remember(now);
        }
    }

    fn remember(&mut self, now: Duration) {
        self.history.push((now, self.files.keys().cloned().collect()));
    }

    fn survives(&self, file: &str) -> bool {
        let mut path = file.to_owned();
        while !path.is_empty() {
            if !self.names.get(&split(&path)).copied().unwrap_or(false) {
                return false;
            }
            (path, _) = split(&path);
        }
        true
    }
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "faulty", source: why.into() }
}

impl Faulty {
    pub(super) fn new() -> Arc<Self> {
        let plan: Plan = Box::new(|_, _| Fault::Nothing);
        Arc::new(Faulty { world: Mutex::default(), plan: Mutex::new(plan), began: Instant::now() })
    }

    /// What goes wrong from now on.
    pub(super) fn plan(&self, plan: impl FnMut(What, &str) -> Fault + Send + 'static) {
        *self.plan.lock().unwrap() = Box::new(plan);
    }

    /// Nothing goes wrong from now on.
    pub(super) fn heal(&self) {
        self.plan(|_, _| Fault::Nothing);
        let mut world = self.world.lock().unwrap();
        (world.bytes_max, world.syncs_fail) = (None, false);
    }

    /// Each fault once, in turn, for what is asked of files that contain `of`; then nothing.
    pub(super) fn script<const N: usize>(&self, what: What, of: &'static str, faults: [Fault; N]) {
        let mut faults = faults.into_iter();
        self.plan(move |asked, file| {
            let meant = asked == what && file.contains(of);
            meant.then(|| faults.next()).flatten().unwrap_or(Fault::Nothing)
        });
    }

    /// It is out of space at so many bytes.
    pub(super) fn limit(&self, bytes_max: usize) {
        self.world.lock().unwrap().bytes_max = Some(bytes_max);
    }

    pub(super) fn fail_syncs(&self) {
        self.world.lock().unwrap().syncs_fail = true;
    }

    /// What was under way arrives.
    pub(super) fn land(&self) {
        let mut world = self.world.lock().unwrap();
        for (file, bytes) in std::mem::take(&mut world.late) {
            let _ = world.put(&file, bytes, self.began.elapsed());
        }
    }

    /// What is not synced is lost, and what is under way as well.
    pub(super) fn lose_power(&self) {
        let mut world = self.world.lock().unwrap();
        world.late.clear();
        let undeleted = std::mem::take(&mut world.undeleted);
        world.files.extend(undeleted);
        let files = std::mem::take(&mut world.files);
        let left = files.into_iter().filter(|(file, _)| world.survives(file)).collect();
        world.files = left;
        world.remember(self.began.elapsed());
    }

    pub(super) fn files(&self) -> BTreeMap<String, Bytes> {
        self.world.lock().unwrap().files.clone()
    }

    /// Puts other bytes in the place of a file's, or removes it.
    pub(super) fn damage(&self, file: &str, bytes: Option<Bytes>) {
        let mut world = self.world.lock().unwrap();
        match bytes {
            Some(bytes) => drop(world.files.insert(file.to_owned(), bytes)),
            None => drop(world.files.remove(file)),
        }
        world.remember(self.began.elapsed());
    }

    /// The store of snapshots on it.
    pub(super) fn store(self: &Arc<Self>, options: SnapshotOptions) -> SnapshotStore {
        let objects: Arc<dyn ObjectStore> = Arc::clone(self) as _;
        SnapshotStore::over("faulty:", objects, Path::default(), Arc::clone(self) as _, options)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What goes wrong with this; waits if it is slow.
    async fn begin(&self, what: What, file: &str) -> Result<Fault> {
        let fault = (self.plan.lock().unwrap())(what, file);
        match fault {
            Fault::Refused => return Err(failed("refused")),
            Fault::Slow(wait) => sleep(wait).await,
            _ => {}
        }
        Ok(fault)
    }

    async fn end<T>(&self, fault: Fault, result: Result<T>) -> Result<T> {
        match fault {
            Fault::ReplyLost => Err(failed("the reply is lost")),
            Fault::Slow(wait) => {
                sleep(wait).await;
                result
            }
            _ => result,
        }
    }

    fn listed(&self, prefix: &str, fault: Fault) -> Vec<ObjectMeta> {
        let world = self.world.lock().unwrap();
        let age = if let Fault::OldList(age) = fault { age } else { Duration::ZERO };
        let then = self.now().saturating_sub(age);
        let known = world.history.iter().rev().find(|(since, _)| *since <= then);
        let nothing = BTreeSet::new();
        let names = known.map_or(&nothing, |(_, names)| names);
        let within = |name: &&String| name.starts_with(&format!("{prefix}/"));
        names.iter().filter(within).map(|name| meta(name, 0)).collect()
    }
}

fn meta(file: &str, size: usize) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(file),
        last_modified: Default::default(),
        size: size as u64,
        e_tag: None,
        version: None,
    }
}

impl Ground for Faulty {
    fn sync(&self, directory: &str) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        if world.syncs_fail {
            return Err(io::Error::other("not synced"));
        }
        for ((above, _), durable) in &mut world.names {
            *durable |= above == directory;
        }
        world.undeleted.retain(|file, _| split(file).0 != directory);
        Ok(())
    }

    fn sweep(&self, _: &str) {}
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create, "nothing is ever overwritten");
        let file = location.as_ref();
        let fault = self.begin(What::Put, file).await?;
        let bytes = Bytes::from(payload);
        if fault == Fault::Late {
            self.world.lock().unwrap().late.push((file.to_owned(), bytes));
            return Err(failed("no reply"));
        }
        let put = self.world.lock().unwrap().put(file, bytes, self.now());
        let put =
            put.map(|()| PutResult { e_tag: None, version: None, extensions: Default::default() });
        if fault == Fault::Unsynced {
            self.world.lock().unwrap().names.insert(split(file), false);
            return Err(failed("not synced"));
        }
        self.end(fault, put).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let file = location.as_ref();
        let fault = self.begin(What::Get, file).await?;
        let found = self.world.lock().unwrap().files.get(file).cloned();
        let found = found.ok_or_else(|| {
            let source = io::Error::from(io::ErrorKind::NotFound);
            Error::NotFound { path: file.to_owned(), source: source.into() }
        });
        let found = found.map(|bytes| {
            assert!(options.range.is_none(), "files are read whole");
            let (meta, range) = (meta(file, bytes.len()), 0..bytes.len() as u64);
            let payload = stream::once(async move { Ok(bytes) }).boxed();
            let (attributes, extensions) = Default::default();
            let payload = GetResultPayload::Stream(payload);
            GetResult { payload, meta, range, attributes, extensions }
        });
        self.end(fault, found).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // The stream must not borrow this, so what goes wrong is known at once.
        let mut results = Vec::new();
        let mut locations = locations;
        while let Some(Some(location)) = futures_util::FutureExt::now_or_never(locations.next()) {
            let location = location.unwrap();
            let fault = (self.plan.lock().unwrap())(What::Delete, location.as_ref());
            if fault == Fault::Refused {
                results.push((fault, Err(failed("refused"))));
                break;
            }
            self.world.lock().unwrap().delete(location.as_ref(), self.now());
            let lost = fault == Fault::ReplyLost;
            results.push((fault, if lost { Err(failed("lost")) } else { Ok(location) }));
        }
        let slow = |(fault, result)| async move {
            if let Fault::Slow(wait) = fault {
                sleep(wait).await;
            }
            result
        };
        stream::iter(results).then(slow).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.expect("only directories are listed").to_string();
        let fault = (self.plan.lock().unwrap())(What::List, &prefix);
        let listed = match fault {
            Fault::Refused | Fault::ReplyLost => vec![Err(failed("refused"))],
            fault => self.listed(&prefix, fault).into_iter().map(Ok).collect(),
        };
        let slow = async move {
            if let Fault::Slow(wait) = fault {
                sleep(wait).await;
            }
            stream::iter(listed)
        };
        stream::once(slow).flatten().boxed()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("files are written whole")
    }

    async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        panic!("files are read whole")
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        panic!("directories are listed with all below")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("nothing is copied")
    }
}
