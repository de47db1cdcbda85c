//! Random executions, some of which are zombies, on a store that fails in every way at once, against a
//! model: what is committed is what is restored, always, and nothing newer is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::error::SnapshotError;
use super::super::restore::{Check, Which};
use super::super::savepoints::NAME;
use super::super::store::{SnapshotOptions, SnapshotStore};
use super::draws;
use super::execution::{Execution, Numbers, identity, options, read};
use super::savepoints::numbers_of;
use crate::testing::{FaultyStore, StoreCall, StoreFault};

const GRACE: Duration = Duration::from_secs(40);

/// What executions know to have happened, which no store tells.
#[derive(Default)]
struct Model {
    /// What each execution had at each of its cuts, whatever became of it.
    tried: BTreeMap<(u64, u64), Numbers>,
    /// Commits that were known to be durable: cut, execution, and its slot.
    committed: Vec<(u64, u64, u64)>,
    /// Claims: the number, and the slot of what was restored.
    claims: Vec<(u64, Option<u64>)>,
    /// Savepoints that are there: the execution, and the cut.
    savepoints: BTreeMap<String, (u64, u64)>,
    fenced: usize,
    failed: usize,
    lost: usize,
}

impl Model {
    fn note(&mut self, error: &SnapshotError) {
        let is_over = error.is_fenced() || error.is_overtaken();
        self.fenced += usize::from(is_over);
        self.failed += usize::from(error.is_unavailable());
        self.lost += usize::from(error.is_missing());
        let expected = is_over || error.is_unavailable() || error.is_missing();
        assert!(expected, "{error}");
    }

    /// The slots tell the order: each execution restored the last that was committed before it began,
    /// or one after it whose reply was lost, and older ones committed nothing after that.
    fn check(&self) {
        for &(execution, restored) in &self.claims {
            for &(cut, by, slot) in &self.committed {
                let before = slot < execution;
                assert_eq!(before, by < execution, "{execution}: cut {cut} of {by} in slot {slot}");
                assert!(
                    !before || restored.is_some_and(|restored| restored >= slot),
                    "execution {execution} restored {restored:?} and not cut {cut} in slot {slot}"
                );
            }
        }
        let mut by_slot = self.committed.clone();
        by_slot.sort_by_key(|(.., slot)| *slot);
        assert!(by_slot.is_sorted_by(|(one, ..), (other, ..)| one < other), "{by_slot:?}");
    }
}

/// One program that is started again and again, and falls asleep at times.
async fn program(store: SnapshotStore, model: Arc<Mutex<Model>>, seed: u64, began: Instant) {
    let mut draw = draws(seed);
    for _ in 0..4 {
        sleep(Duration::from_millis(draw(60_000))).await;
        let begun = async {
            let found = store.find(&identity(), Which::Newest, Check::Lengths).await?;
            // A listing may show what was deleted meanwhile: then somebody else has taken over.
            if let Some((_, error)) = found.skipped.first() {
                return Err(error.clone());
            }
            let snapshot = found.snapshot.as_ref();
            let log = Execution::begin_with(&store, &found, snapshot).await?;
            Ok((log, snapshot.map(|s| (s.header.slot, s.header.execution, s.cut()))))
        };
        let (mut execution, restored) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                model.lock().unwrap().note(&error);
                continue;
            }
        };
        {
            let mut model = model.lock().unwrap();
            model.claims.push((execution.log.execution(), restored.map(|(slot, ..)| slot)));
            match restored {
                Some((_, by, cut)) => assert_eq!(execution.numbers, model.tried[&(by, cut)]),
                None => assert!(execution.numbers.is_empty()),
            }
        }
        for _ in 0..draw(40) {
            for _ in 0..1 + draw(9) {
                execution.set(draw(40) as u32, draw(1 << 40));
            }
            execution.remove(draw(40) as u32);
            let by = execution.log.execution();
            let tried_cut = execution.next_cut;
            let tried = ((by, tried_cut), execution.numbers.clone());
            model.lock().unwrap().tried.extend([tried]);
            let mut prepared = execution.prepare().await;
            let name = (draw(6) == 0).then(|| format!("{by}-{tried_cut}"));
            if let (Some(name), Ok(cut)) = (&name, &mut prepared) {
                cut.notes.insert(NAME.to_owned(), name.clone().into());
            }
            if draw(30) == 0 {
                // Asleep for long enough that others delete what it has.
                sleep(GRACE * draw(9) as u32).await;
            }
            let done = match prepared {
                Ok(cut) => execution.commit(cut).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(done) => {
                    let mut model = model.lock().unwrap();
                    model.committed.push((done.cut, by, done.slot));
                    model.savepoints.extend(name.map(|name| (name, (by, done.cut))));
                }
                Err(error) => {
                    model.lock().unwrap().note(&error);
                    if error.is_fenced() {
                        break;
                    }
                }
            }
            execution.now_ms = began.elapsed().as_millis() as u64;
            let collects = draw(3) == 0;
            if collects && let Err(error) = execution.collect().await {
                model.lock().unwrap().note(&error);
                if error.is_fenced() {
                    break;
                }
            }
            if draw(12) == 0 {
                let first = model.lock().unwrap().savepoints.pop_first();
                // Where the reply is lost it may be there or not.
                if let Some((name, _)) = first
                    && let Err(error) = store.delete_savepoint(&name).await
                {
                    model.lock().unwrap().note(&error);
                }
            }
            sleep(Duration::from_millis(draw(4000))).await;
        }
    }
}

/// Everything that can go wrong, now and then.
fn plan(seed: u64) -> impl FnMut(StoreCall, &str) -> StoreFault + Send + 'static {
    let mut draw = draws(seed);
    move |what, _| match draw(40) {
        0 => StoreFault::Refused,
        1 => StoreFault::ReplyLost,
        2 if what == StoreCall::Put => StoreFault::Late,
        3..6 if what == StoreCall::List => {
            // Always younger than the grace period.
            StoreFault::OldList(Duration::from_millis(draw(GRACE.as_millis() as u64 * 3 / 4)))
        }
        6..16 => StoreFault::Slow(Duration::from_millis(draw(2000))),
        16 => StoreFault::Slow(Duration::from_millis(draw(9000))),
        _ => StoreFault::Nothing,
    }
}

async fn run(seed: u64) -> (usize, usize, usize, usize) {
    let mut draw = draws(seed);
    let faulty = FaultyStore::new();
    let began = Instant::now();
    let keep = 1 + draw(3) as usize;
    let options = SnapshotOptions { grace: GRACE, keep, ..options() };
    let store = faulty.store(options);
    let model = Arc::new(Mutex::new(Model::default()));
    faulty.plan(plan(draw(1 << 30)));
    let programs = (0..3).map(|_| {
        let program = program(store.clone(), Arc::clone(&model), draw(1 << 30), began);
        tokio::spawn(program)
    });
    let programs: Vec<_> = programs.collect();
    let landing = {
        let (faulty, mut draw) = (faulty.clone(), draws(draw(1 << 30)));
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(draw(60_000))).await;
                faulty.land();
            }
        })
    };
    for program in programs {
        program.await.unwrap();
    }
    landing.abort();
    faulty.heal();
    faulty.land();
    faulty.lose_power();
    let model = std::mem::take(&mut *model.lock().unwrap());
    model.check();
    // One that begins now has what was last committed, or what was last tried and its reply lost.
    let found = store.find(&identity(), Which::Newest, Check::Contents).await.unwrap();
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    let last = model.committed.iter().max_by_key(|(.., slot)| *slot);
    if let Some(snapshot) = &found.snapshot {
        let (by, cut, slot) = (snapshot.header.execution, snapshot.cut(), snapshot.header.slot);
        assert!(last.is_none_or(|last| slot >= last.2), "{slot}, and not {last:?}");
        assert_eq!(read(&store, snapshot).await.unwrap(), model.tried[&(by, cut)]);
    } else {
        assert!(last.is_none(), "{last:?} is lost");
    }
    for (name, at) in &model.savepoints {
        let numbers = numbers_of(&store, name).await;
        assert_eq!(numbers.unwrap_or_else(|error| panic!("{name}: {error}")), model.tried[at]);
    }
    (model.committed.len(), model.fenced, model.failed, model.lost)
}

#[test]
fn what_is_committed_is_restored_whatever_goes_wrong() {
    let mut sums = (0, 0, 0, 0);
    for seed in 0..150 {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        let ran =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed))));
        let (committed, fenced, failed, lost) = ran.unwrap_or_else(|_| panic!("with seed {seed}"));
        sums = (sums.0 + committed, sums.1 + fenced, sums.2 + failed, sums.3 + lost);
    }
    let (committed, fenced, failed, lost) = sums;
    assert!(committed > 1000 && fenced > 100 && failed > 100, "{sums:?}, {lost}");
}
