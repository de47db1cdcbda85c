//! Where a simulated program's held egresses are stored: a sink in memory that is slow at times and keeps what it
//! was given, whoever ends.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::dataflow::{Acknowledge, Egresses, Released};
use crate::egress::Egress;

/// A held egress as workers see it, and what is stored of it.
pub(super) trait Shelf<M>: Send + Sync {
    /// Takes the egress on a worker.
    ///
    /// # Errors
    ///
    /// If it cannot be taken.
    fn take(&self, egresses: &Egresses<'_, u64, M>) -> Result<Box<dyn Outlet>, String>;

    /// Stores what all workers have of some cuts, each with its number. What is stored stays as it is.
    ///
    /// # Errors
    ///
    /// If a cut was stored before and was something else.
    fn store(&self, of_workers: Vec<Box<dyn Any + Send>>) -> Result<(), String>;

    /// Of what is stored, how many records each cut has.
    fn counts(&self) -> Vec<(u64, usize)>;

    fn as_any(&self) -> &dyn Any;
    /// The same, with nothing in it.
    fn fresh(&self) -> Arc<dyn Shelf<M>>;
}

/// A held egress on one worker.
pub(super) trait Outlet {
    /// The last cut of which all has come.
    fn ended(&self) -> u64;
    /// What has come up to a cut that has ended, and was not taken.
    fn take(&self, cut: u64) -> Box<dyn Any + Send>;
    /// Everything up to a cut is stored.
    fn acknowledge(&self, cut: u64);
}

/// Records by the cut that released them.
type ByCut<E> = BTreeMap<u64, Vec<E>>;

/// What is stored of an egress.
pub(super) struct Stored<E> {
    egress: Egress<E>,
    cuts: Mutex<ByCut<E>>,
}

impl<E> Stored<E> {
    pub(super) fn of(egress: Egress<E>) -> Self {
        Stored { egress, cuts: Mutex::default() }
    }

    fn cuts(&self) -> MutexGuard<'_, ByCut<E>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All records, cut by cut.
    pub(super) fn all(&self) -> Vec<E>
    where
        E: Clone,
    {
        self.cuts().values().flatten().cloned().collect()
    }
}

impl<E: Clone + Ord + Debug> Stored<E> {
    fn store_cut(&self, cut: u64, mut records: Vec<E>) -> Result<(), String> {
        let mut cuts = self.cuts();
        let last = cuts.keys().next_back().copied().unwrap_or(0);
        if cut > last {
            cuts.insert(cut, records);
            return Ok(());
        }
        let mut before = cuts.get(&cut).cloned().unwrap_or_default();
        before.sort();
        records.sort();
        if before != records {
            return Err(format!(
                "cut {cut} of \"{}\" was released with {before:?}, and again with {records:?}",
                self.egress.name()
            ));
        }
        Ok(())
    }
}

impl<M: 'static, E: Clone + Ord + Debug + Send + 'static> Shelf<M> for Stored<E> {
    fn take(&self, egresses: &Egresses<'_, u64, M>) -> Result<Box<dyn Outlet>, String> {
        let held = egresses.held(self.egress).map_err(|error| error.to_string())?;
        let (released, acknowledge) = held.stream();
        let come = Rc::<RefCell<ByCut<E>>>::default();
        let comes = Rc::clone(&come);
        // Not `inspect`, which sorts what it finds by time.
        released.sink(Pipeline, "Store", move |(input, _)| {
            input.for_each(|_, released| {
                let mut come = comes.borrow_mut();
                for released in released.drain(..) {
                    if let Released::Record { cut, record, .. } = released {
                        come.entry(cut).or_default().push(record);
                    }
                }
            });
        });
        Ok(Box::new(Taken { come, acknowledge }))
    }

    fn store(&self, of_workers: Vec<Box<dyn Any + Send>>) -> Result<(), String> {
        let mut all = ByCut::<E>::new();
        for of_worker in of_workers {
            let of_worker = of_worker.downcast::<ByCut<E>>().expect("it is of this egress");
            for (cut, records) in *of_worker {
                all.entry(cut).or_default().extend(records);
            }
        }
        all.into_iter().try_for_each(|(cut, records)| self.store_cut(cut, records))
    }

    fn counts(&self) -> Vec<(u64, usize)> {
        self.cuts().iter().map(|(cut, records)| (*cut, records.len())).collect()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fresh(&self) -> Arc<dyn Shelf<M>> {
        Arc::new(Stored::of(self.egress))
    }
}

struct Taken<E> {
    come: Rc<RefCell<ByCut<E>>>,
    acknowledge: Acknowledge,
}

impl<E: Send + 'static> Outlet for Taken<E> {
    fn ended(&self) -> u64 {
        self.acknowledge.ended()
    }

    fn take(&self, cut: u64) -> Box<dyn Any + Send> {
        let mut come = self.come.borrow_mut();
        let later = come.split_off(&(cut + 1));
        Box::new(std::mem::replace(&mut *come, later))
    }

    fn acknowledge(&self, cut: u64) {
        self.acknowledge.acknowledge(cut);
    }
}
