//! What becomes of records that were sent: how many of them have been let in, how many are durable, and who
//! waits for which.
//!
//! Records are let in in the order in which they were sent. So two numbers say all there is to know of them, and
//! whoever waits is woken when a number has passed the record it waits for, and not before.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::lock;

/// Why a record is not, and will not be, what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The program ended, or stopped, before. Whether the record had effects is not known: an execution that goes
    /// on from a snapshot may have it, if it was let in and a snapshot became durable of which this process did
    /// not hear.
    #[error("the program is over, and was not heard to have it")]
    Ended,
    /// The program takes no snapshots, or none that the source takes part in: nothing is ever durable.
    #[error("the source takes part in no snapshots")]
    NoSnapshots,
}

/// What becomes of one record that was sent into a [channel](super::channel()). It may be dropped.
///
/// Waiting can be given up at any time, and begun again.
pub struct Receipt {
    ledger: Arc<Ledger>,
    /// How many were sent before it.
    number: u64,
}

impl Receipt {
    pub(super) fn new(ledger: &Arc<Ledger>, number: u64) -> Self {
        Receipt { ledger: Arc::clone(ledger), number }
    }

    /// How many records were sent into the channel before this one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until the functions have let the record in: it counts against their room, and every snapshot from
    /// here on contains it. Of a source that is given as a [stream](super::Source::stream): until that has it.
    ///
    /// # Errors
    ///
    /// If the program ended or stopped before.
    pub async fn admitted(&mut self) -> Result<(), Lost> {
        self.wait(Stage::Admitted).await
    }

    /// Waits until a snapshot is durable that contains the record: what it caused, or the record itself. However
    /// the program ends from then on, one that goes on from its newest snapshot has it.
    ///
    /// # Errors
    ///
    /// If the program ended or stopped before, or takes [no snapshots](Lost::NoSnapshots), which is told at once.
    pub async fn durable(self) -> Result<(), Lost> {
        self.wait(Stage::Durable).await
    }

    async fn wait(&self, stage: Stage) -> Result<(), Lost> {
        let key = lock(&self.ledger.state).key();
        let waiting = Waiting { receipt: self, stage, key: (self.number, key) };
        poll_fn(|context| self.ledger.poll(stage, waiting.key, context)).await
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Forgets who waited, when they do not wait any more.
struct Waiting<'a> {
    receipt: &'a Receipt,
    stage: Stage,
    key: (u64, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.receipt.ledger.state);
        state.of(self.stage).waiting.remove(&self.key);
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Admitted,
    Durable,
}

/// How far the records of a channel are.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    admitted: Passed,
    durable: Passed,
    is_over: bool,
    /// Whether nothing will ever be durable.
    no_snapshots: bool,
    keys: u64,
}

/// How many have passed a stage, and by number and a key who waits for one to.
#[derive(Debug, Default)]
struct Passed {
    records: u64,
    waiting: BTreeMap<(u64, u64), Waker>,
}

impl Passed {
    /// So many have passed. Those who need not wait any more are to be woken.
    fn pass(&mut self, records: u64) -> BTreeMap<(u64, u64), Waker> {
        self.records = records.max(self.records);
        let waiting = self.waiting.split_off(&(self.records, 0));
        std::mem::replace(&mut self.waiting, waiting)
    }
}

impl State {
    fn key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    fn of(&mut self, stage: Stage) -> &mut Passed {
        match stage {
            Stage::Admitted => &mut self.admitted,
            Stage::Durable => &mut self.durable,
        }
    }
}

impl Ledger {
    /// The first so many records have been let in.
    pub(crate) fn admitted(&self, records: u64) {
        self.pass(Stage::Admitted, records);
    }

    /// The first so many records are in a durable snapshot.
    pub(crate) fn durable(&self, records: u64) {
        // What is durable was let in, whoever is heard of first.
        self.pass(Stage::Admitted, records);
        self.pass(Stage::Durable, records);
    }

    /// Nothing will ever be durable.
    pub(crate) fn without_snapshots(&self) {
        let mut state = lock(&self.state);
        state.no_snapshots = true;
        let woken = std::mem::take(&mut state.durable.waiting);
        drop(state);
        wake(woken);
    }

    /// Nothing becomes of any record any more.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.is_over = true;
        let (admitted, durable) = {
            let State { admitted, durable, .. } = &mut *state;
            (std::mem::take(&mut admitted.waiting), std::mem::take(&mut durable.waiting))
        };
        drop(state);
        wake(admitted);
        wake(durable);
    }

    /// How many were let in, and how many are durable.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.admitted.records, state.durable.records)
    }

    fn pass(&self, stage: Stage, records: u64) {
        let woken = lock(&self.state).of(stage).pass(records);
        wake(woken);
    }

    fn poll(
        &self,
        stage: Stage,
        key: (u64, u64),
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        let mut state = lock(&self.state);
        if key.0 < state.of(stage).records {
            return Poll::Ready(Ok(()));
        }
        if matches!(stage, Stage::Durable) && state.no_snapshots {
            return Poll::Ready(Err(Lost::NoSnapshots));
        }
        if state.is_over {
            return Poll::Ready(Err(Lost::Ended));
        }
        state.of(stage).waiting.insert(key, context.waker().clone());
        Poll::Pending
    }
}

/// Not while the state is locked: whoever is woken may ask at once.
fn wake(woken: BTreeMap<(u64, u64), Waker>) {
    woken.into_values().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_when_the_record_has_passed_and_not_before() {
        let ledger = Arc::<Ledger>::default();
        let counted = Arc::<Counted>::default();
        let waker = Waker::from(Arc::clone(&counted));
        let mut context = Context::from_waker(&waker);
        let receipts = [0, 1, 2].map(|number| Receipt::new(&ledger, number));
        let [first, mut second, third] = receipts;
        let mut durable = pin!(first.durable());
        assert!(durable.as_mut().poll(&mut context).is_pending());
        {
            let mut admitted = pin!(second.admitted());
            assert!(admitted.as_mut().poll(&mut context).is_pending());
            ledger.admitted(1);
            assert_eq!(counted.0.load(Ordering::Relaxed), 0);
            ledger.admitted(2);
            assert_eq!(counted.0.load(Ordering::Relaxed), 1);
            assert_eq!(admitted.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        }
        ledger.durable(1);
        assert_eq!(counted.0.load(Ordering::Relaxed), 2);
        assert_eq!(durable.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        let mut durable = pin!(third.durable());
        assert!(durable.as_mut().poll(&mut context).is_pending());
        ledger.end();
        assert_eq!(durable.as_mut().poll(&mut context), Poll::Ready(Err(Lost::Ended)));
        // What had passed has passed.
        let mut durable = pin!(second.durable());
        assert_eq!(durable.as_mut().poll(&mut context), Poll::Ready(Err(Lost::Ended)));
    }

    #[test]
    fn who_gives_up_waiting_is_forgotten() {
        let ledger = Arc::<Ledger>::default();
        let mut receipt = Receipt::new(&ledger, 0);
        for _ in 0..2 {
            let mut admitted = Box::pin(receipt.admitted());
            let mut context = Context::from_waker(Waker::noop());
            assert!(admitted.as_mut().poll(&mut context).is_pending());
            assert_eq!(lock(&ledger.state).admitted.waiting.len(), 1);
            drop(admitted);
            assert!(lock(&ledger.state).admitted.waiting.is_empty());
        }
    }

    #[test]
    fn without_snapshots_nothing_is_waited_for() {
        let ledger = Arc::<Ledger>::default();
        let mut durable = pin!(Receipt::new(&ledger, 0).durable());
        let mut context = Context::from_waker(Waker::noop());
        assert!(durable.as_mut().poll(&mut context).is_pending());
        ledger.without_snapshots();
        assert_eq!(durable.as_mut().poll(&mut context), Poll::Ready(Err(Lost::NoSnapshots)));
    }
}
