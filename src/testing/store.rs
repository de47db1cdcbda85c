//! A store of snapshots in memory that fails in every way a store can, when a test says so.
//!
//! It never fails by chance: which call fails, and how, is the test's plan.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::pending;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::time::{Instant, sleep};

use crate::snapshot::{Ground, SnapshotOptions, SnapshotStore};

/// How far back it is known which files there were, for [`StoreFault::OldList`].
const HISTORY: Duration = Duration::from_secs(24 * 3600);

/// What is asked of a store.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoreCall {
    /// To make a file that is not there yet.
    Put,
    /// To read a file, or to look whether it is there.
    Get,
    /// To list a directory.
    List,
    /// To delete a file.
    Delete,
}

/// What goes wrong with a call of a [`FaultyStore`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFault {
    /// Nothing.
    Nothing,
    /// It fails and has no effect.
    Refused,
    /// It has its effect, and fails nevertheless: nobody is told.
    ReplyLost,
    /// It has its effect after this time, and the reply comes after as much again; a list or a deletion has
    /// it at once.
    Slow(Duration),
    /// It has no effect, and there is never a reply. Whoever waits gives up after
    /// [`attempt_max`](SnapshotOptions::attempt_max).
    Stalled,
    /// A put fails, and has its effect when [`FaultyStore::land`] is called: it was under way.
    Late,
    /// A put has its effect, but for the name in its directory, which is not synced; and it fails.
    Unsynced,
    /// A put that there is never a reply to. When [power is lost](FaultyStore::lose_power) before another
    /// one has made the file, the first so many bytes of it are there.
    Torn(usize),
    /// A put seems to be well. When [power is lost](FaultyStore::lose_power), no more than the first so many
    /// bytes of the file are left: a disk that says more than it has done.
    Unflushed(usize),
    /// A list shows files as they were so long ago, at most a day.
    OldList(Duration),
}

type Plan = Box<dyn FnMut(StoreCall, &str) -> StoreFault + Send>;

/// A store of snapshots in memory that fails when, and as, it is told to. All clones are one.
///
/// A file is durable when it is written, and so is its name in its directory; that directory's name in others,
/// and that a file is deleted, are when a program has synced them. What is not durable is lost when
/// [power is](Self::lose_power).
///
/// Waiting goes by tokio's clock, so it can be [paused](tokio::time::pause).
///
/// ```
/// use timely_statefun::testing::{FaultyStore, StoreCall, StoreFault, TestProgram};
/// use timely_statefun::{
///     Egress, Function, FunctionType, Functions, RestoreFrom, SnapshotOptions, ValueSpec,
/// };
///
/// const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
/// const SUMS: Egress<u64> = Egress::new("example/sums");
/// const SUM: ValueSpec<u64> = ValueSpec::new("sum");
///
/// let counters = || {
///     let counter = Function::new(|context, number: &u64| {
///         context.update(SUM, |sum| *sum += number);
///         let sum = *context.get(SUM).expect("it was just set");
///         context.emit(SUMS, sum);
///         Ok(())
///     });
///     Functions::<u64>::new().embedded(COUNTER, counter.value(SUM)).egress(SUMS)
/// };
/// let faulty = FaultyStore::new();
/// let store = faulty.store(SnapshotOptions::default());
/// let mut program = TestProgram::with_store(counters, store);
/// program.send(COUNTER.message("a", 1));
/// program.run();
/// program.snapshot();
/// program.send(COUNTER.message("a", 2));
/// program.run();
/// // The disk says that it has written the manifest, and has not.
/// faulty.fail_nth(StoreCall::Put, "manifest", 1, StoreFault::Unflushed(10));
/// program.snapshot();
/// faulty.lose_power();
/// let damaged = program.restart(RestoreFrom::Newest).unwrap_err();
/// assert_eq!(damaged.offered(), Some(1));
/// program.restart(RestoreFrom::Cut(1)).unwrap();
/// program.run();
/// assert_eq!(program.take(SUMS), [(0, 3)]);
/// ```
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<Inner>,
}

struct Inner {
    world: Mutex<World>,
    faults: Mutex<Faults>,
}

/// What goes wrong, and when.
struct Faults {
    /// How often each call was made.
    calls: BTreeMap<StoreCall, u64>,
    single: Vec<Single>,
    plan: Plan,
}

/// One call that fails.
struct Single {
    call: StoreCall,
    of: String,
    /// How many such calls it is away.
    left: u64,
    fault: StoreFault,
}

impl Faults {
    fn next(&mut self, call: StoreCall, file: &str) -> StoreFault {
        *self.calls.entry(call).or_default() += 1;
        let mut due = None;
        self.single.retain_mut(|single| {
            if single.call != call || !file.contains(&single.of) {
                return true;
            }
            single.left -= 1;
            if single.left == 0 {
                due.get_or_insert(single.fault);
            }
            single.left > 0
        });
        due.unwrap_or_else(|| (self.plan)(call, file))
    }
}

#[derive(Default)]
struct World {
    files: BTreeMap<String, Bytes>,
    /// Directories, and what is in each: whether that would survive.
    names: BTreeMap<(String, String), bool>,
    /// Deleted, and would come back.
    undeleted: BTreeMap<String, Bytes>,
    late: Vec<(String, Bytes)>,
    /// What would be there of files that are not.
    torn: BTreeMap<String, Bytes>,
    /// How much would be left of files.
    unflushed: BTreeMap<String, usize>,
    /// Which files came or, with `false`, went, and when.
    history: VecDeque<(Instant, String, bool)>,
    bytes_max: Option<usize>,
    syncs_fail: bool,
}

fn split(file: &str) -> (String, String) {
    let (above, name) = file.rsplit_once('/').unwrap_or(("", file));
    (above.to_owned(), name.to_owned())
}

impl World {
    fn put(&mut self, file: &str, bytes: Bytes) -> Result<()> {
        if let Some(most) = self.bytes_max {
            let stored: usize = self.files.values().map(Bytes::len).sum();
            if stored + bytes.len() > most {
                return Err(failed("no space left on device"));
            }
        }
        if self.files.contains_key(file) {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(Error::AlreadyExists { path: file.to_owned(), source: source.into() });
        }
        self.files.insert(file.to_owned(), bytes);
        self.undeleted.remove(file);
        self.torn.remove(file);
        self.name(file);
        self.note(file, true);
        Ok(())
    }

    /// Has a file's name in its directory, and that directory's in those above, which are not synced.
    fn name(&mut self, file: &str) {
        self.names.insert(split(file), true);
        let (mut directory, _) = split(file);
        while !directory.is_empty() {
            self.names.entry(split(&directory)).or_insert(false);
            (directory, _) = split(&directory);
        }
    }

    fn delete(&mut self, file: &str) {
        if let Some(mut bytes) = self.files.remove(file) {
            if let Some(left) = self.unflushed.remove(file) {
                bytes.truncate(left);
            }
            self.undeleted.insert(file.to_owned(), bytes);
            self.note(file, false);
        }
    }

    /// Puts all files in the place of those that are there.
    fn replace(&mut self, files: BTreeMap<String, Bytes>) {
        let before = std::mem::replace(&mut self.files, files);
        let gone = before.keys().filter(|file| !self.files.contains_key(*file));
        let come = self.files.keys().filter(|file| !before.contains_key(*file));
        let (gone, come): (Vec<_>, Vec<_>) = (gone.cloned().collect(), come.cloned().collect());
        gone.iter().for_each(|file| self.note(file, false));
        come.iter().for_each(|file| self.note(file, true));
    }

    fn note(&mut self, file: &str, is_there: bool) {
        let now = Instant::now();
        let is_old = |(when, ..): &(Instant, String, bool)| now.duration_since(*when) > HISTORY;
        while self.history.front().is_some_and(is_old) {
            self.history.pop_front();
        }
        self.history.push_back((now, file.to_owned(), is_there));
    }

    /// The names of the files as they were so long ago.
    fn names_before(&self, age: Duration) -> BTreeSet<&str> {
        let mut names: BTreeSet<&str> = self.files.keys().map(String::as_str).collect();
        let now = Instant::now();
        let since = |when: &Instant| now.duration_since(*when) < age;
        let after = self.history.iter().rev().take_while(|(when, ..)| since(when));
        for (_, file, is_there) in after {
            match is_there {
                true => names.remove(file.as_str()),
                false => names.insert(file),
            };
        }
        names
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

    fn lose_power(&mut self) {
        self.late.clear();
        let mut files = self.files.clone();
        files.extend(std::mem::take(&mut self.undeleted));
        for (file, bytes) in std::mem::take(&mut self.torn) {
            self.name(&file);
            files.entry(file).or_insert(bytes);
        }
        for (file, left) in std::mem::take(&mut self.unflushed) {
            if let Some(bytes) = files.get_mut(&file) {
                bytes.truncate(left);
            }
        }
        files.retain(|file, _| self.survives(file));
        self.replace(files);
    }
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "faulty", source: why.into() }
}

/// What snapshots have no use for.
fn never(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "FaultyStore".to_owned() }
}

impl FaultyStore {
    /// An empty store, with which nothing goes wrong.
    pub fn new() -> Self {
        let plan: Plan = Box::new(|_, _| StoreFault::Nothing);
        let faults = Faults { calls: BTreeMap::new(), single: Vec::new(), plan };
        let inner = Inner { world: Mutex::default(), faults: Mutex::new(faults) };
        FaultyStore { inner: Arc::new(inner) }
    }

    /// The store of snapshots on it: what a program is given.
    pub fn store(&self, options: SnapshotOptions) -> SnapshotStore {
        let objects: Arc<dyn ObjectStore> = Arc::clone(&self.inner) as _;
        let ground = Arc::clone(&self.inner) as _;
        SnapshotStore::over("faulty:", objects, Path::default(), ground, options)
    }

    /// Has one call go wrong: the `n`th from now on, counted from 1, of those of this kind for files whose
    /// names contain `of`. An attempt that follows a failed one is a call of its own.
    ///
    /// The names of manifests begin with `manifest/`, those of parts with `part/`.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[track_caller]
    pub fn fail_nth(&self, call: StoreCall, of: &str, n: u64, fault: StoreFault) {
        assert!(n > 0, "calls are counted from 1");
        let single = Single { call, of: of.to_owned(), left: n, fault };
        self.faults().single.push(single);
    }

    /// Has the next calls go wrong, each with its fault: [`fail_nth`](Self::fail_nth) for the first, the second
    /// and so on.
    pub fn fail_next(
        &self,
        call: StoreCall,
        of: &str,
        faults: impl IntoIterator<Item = StoreFault>,
    ) {
        for (n, fault) in (1..).zip(faults) {
            self.fail_nth(call, of, n, fault);
        }
    }

    /// Decides from now on what goes wrong with each call: what is asked, and the name of the file or of
    /// the directory. Calls that were [said to fail](Self::fail_nth) go wrong as was said.
    ///
    /// It may look at the [files](Self::files) and have [late](StoreFault::Late) ones arrive. It must not plan
    /// anew, say what is to fail or ask for the calls: that waits for the plan itself.
    pub fn plan(&self, plan: impl FnMut(StoreCall, &str) -> StoreFault + Send + 'static) {
        self.faults().plan = Box::new(plan);
    }

    /// How many calls of a kind were made.
    pub fn calls(&self, call: StoreCall) -> u64 {
        self.faults().calls.get(&call).copied().unwrap_or(0)
    }

    /// Has it be out of space at so many bytes.
    pub fn limit(&self, bytes_max: usize) {
        self.inner.world().bytes_max = Some(bytes_max);
    }

    /// Has everything fail that makes directories, or that files are deleted, durable.
    pub fn fail_syncs(&self) {
        self.inner.world().syncs_fail = true;
    }

    /// Nothing goes wrong any more. What has gone wrong stays so.
    pub fn heal(&self) {
        let mut faults = self.faults();
        faults.single.clear();
        faults.plan = Box::new(|_, _| StoreFault::Nothing);
        let mut world = self.inner.world();
        (world.bytes_max, world.syncs_fail) = (None, false);
    }

    /// What was [under way](StoreFault::Late) arrives.
    pub fn land(&self) {
        let mut world = self.inner.world();
        for (file, bytes) in std::mem::take(&mut world.late) {
            // Whoever was first has the name.
            let _ = world.put(&file, bytes);
        }
    }

    /// What is not durable is lost: files whose directories are not synced, what is under way, and the rest of
    /// what is [torn](StoreFault::Torn) or [not flushed](StoreFault::Unflushed). What was deleted and not
    /// synced is there again.
    pub fn lose_power(&self) {
        self.inner.world().lose_power();
    }

    /// All files, by name.
    pub fn files(&self) -> BTreeMap<String, Bytes> {
        self.inner.world().files.clone()
    }

    /// Puts other bytes in the place of a file's, or removes it.
    pub fn damage(&self, file: &str, bytes: Option<Bytes>) {
        let mut world = self.inner.world();
        let mut files = world.files.clone();
        match bytes {
            Some(bytes) => files.insert(file.to_owned(), bytes),
            None => files.remove(file),
        };
        world.replace(files);
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.inner.faults()
    }
}

impl Default for FaultyStore {
    fn default() -> Self {
        FaultyStore::new()
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.inner.world().files.len();
        f.debug_struct("FaultyStore").field("files", &files).finish_non_exhaustive()
    }
}

impl Inner {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, call: StoreCall, file: &str) -> StoreFault {
        self.faults().next(call, file)
    }

    /// What goes wrong with this; waits if it is slow.
    async fn begin(&self, call: StoreCall, file: &str) -> Result<StoreFault> {
        let fault = self.next(call, file);
        match fault {
            StoreFault::Refused => return Err(failed("refused")),
            StoreFault::Slow(wait) => sleep(wait).await,
            StoreFault::Stalled => pending().await,
            _ => {}
        }
        Ok(fault)
    }

    async fn end<T>(&self, fault: StoreFault, result: Result<T>) -> Result<T> {
        match fault {
            StoreFault::ReplyLost => Err(failed("the reply is lost")),
            StoreFault::Slow(wait) => {
                sleep(wait).await;
                result
            }
            _ => result,
        }
    }

    fn listed(&self, prefix: &str, fault: StoreFault) -> Vec<ObjectMeta> {
        let world = self.world();
        let age = if let StoreFault::OldList(age) = fault { age } else { Duration::ZERO };
        let names = world.names_before(age).into_iter();
        let within = |name: &&str| {
            let rest = name.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.is_empty() || rest.starts_with('/'))
        };
        names.filter(within).map(|name| meta(name, 0)).collect()
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

impl Ground for Inner {
    fn sync(&self, directory: &str) -> io::Result<()> {
        let mut world = self.world();
        if world.syncs_fail {
            return Err(io::Error::other("not synced"));
        }
        for ((above, _), durable) in &mut world.names {
            *durable |= above == directory;
        }
        let world = &mut *world;
        world.undeleted.retain(|file, _| {
            let name = split(file);
            let stays = name.0 != directory;
            if !stays {
                world.names.remove(&name);
            }
            stays
        });
        Ok(())
    }

    fn sweep(&self, _: &str) {}
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for Inner {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create, "nothing is ever overwritten");
        let file = location.as_ref();
        let fault = self.begin(StoreCall::Put, file).await?;
        let mut bytes = Bytes::from(payload);
        match fault {
            StoreFault::Late => {
                self.world().late.push((file.to_owned(), bytes));
                return Err(failed("no reply"));
            }
            StoreFault::Torn(left) => {
                bytes.truncate(left);
                self.world().torn.insert(file.to_owned(), bytes);
                return pending().await;
            }
            _ => {}
        }
        let put = self.world().put(file, bytes);
        let put =
            put.map(|()| PutResult { e_tag: None, version: None, extensions: Default::default() });
        match fault {
            StoreFault::Unsynced if put.is_ok() => {
                self.world().names.insert(split(file), false);
                return Err(failed("not synced"));
            }
            StoreFault::Unflushed(left) if put.is_ok() => {
                self.world().unflushed.insert(file.to_owned(), left);
            }
            _ => {}
        }
        self.end(fault, put).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let file = location.as_ref();
        let fault = self.begin(StoreCall::Get, file).await?;
        let found = self.world().files.get(file).cloned();
        let found = found.ok_or_else(|| {
            let source = io::Error::from(io::ErrorKind::NotFound);
            Error::NotFound { path: file.to_owned(), source: source.into() }
        });
        let found = found.and_then(|bytes| {
            let (meta, all) = (meta(file, bytes.len()), 0..bytes.len() as u64);
            let range = match &options.range {
                None => all,
                Some(range) => range.as_range(all.end).map_err(|_| failed("not as long"))?,
            };
            let bytes = bytes.slice(range.start as usize..range.end as usize);
            let payload = stream::once(async move { Ok(bytes) }).boxed();
            let (attributes, extensions) = Default::default();
            let payload = GetResultPayload::Stream(payload);
            Ok(GetResult { payload, meta, range, attributes, extensions })
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
        while let Some(Some(location)) = locations.next().now_or_never() {
            let location = match location {
                Ok(location) => location,
                Err(error) => {
                    results.push((StoreFault::Nothing, Err(error)));
                    break;
                }
            };
            let fault = self.next(StoreCall::Delete, location.as_ref());
            let failed = match fault {
                StoreFault::Refused => Some(Err(failed("refused"))),
                StoreFault::Stalled => Some(Ok(location.clone())),
                _ => None,
            };
            if let Some(failed) = failed {
                results.push((fault, failed));
                break;
            }
            self.world().delete(location.as_ref());
            let lost = fault == StoreFault::ReplyLost;
            results.push((fault, if lost { Err(self::failed("lost")) } else { Ok(location) }));
        }
        let slow = |(fault, result)| async move {
            wait(fault).await;
            result
        };
        stream::iter(results).then(slow).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.map(Path::to_string).unwrap_or_default();
        let fault = self.next(StoreCall::List, &prefix);
        let listed = match fault {
            StoreFault::Refused | StoreFault::ReplyLost => vec![Err(failed("refused"))],
            fault => self.listed(&prefix, fault).into_iter().map(Ok).collect(),
        };
        let slow = async move {
            wait(fault).await;
            stream::iter(listed)
        };
        stream::once(slow).flatten().boxed()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(never("put in several parts"))
    }

    async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Err(never("get ranges"))
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(never("list one directory"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(never("copy"))
    }
}

/// The time until the reply to a call that had its effect at once.
async fn wait(fault: StoreFault) {
    match fault {
        StoreFault::Slow(wait) => sleep(wait).await,
        StoreFault::Stalled => pending().await,
        _ => {}
    }
}
