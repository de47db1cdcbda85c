//! What waits in each topic, and of which cuts all was taken.
//!
//! Records come from workers, cut by cut, and go one at a time to whoever asks. It is told what happens, and never waits.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// Records by topic, and what is known of the cuts that released them.
#[derive(Debug)]
pub(super) struct Shelves {
    /// By topic, what waits: by cut and worker, in the order in which it came.
    waiting: BTreeMap<String, BTreeMap<(u64, usize), VecDeque<Bytes>>>,
    workers: BTreeMap<usize, BTreeMap<u64, Cut>>,
    taken: u64,
}

/// What there is of a cut of one worker.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    waiting: usize,
    has_ended: bool,
}

impl Shelves {
    pub(super) fn new(topics: impl IntoIterator<Item = String>) -> Self {
        let waiting = topics.into_iter().map(|topic| (topic, BTreeMap::new())).collect();
        Shelves { waiting, workers: BTreeMap::new(), taken: 0 }
    }

    /// A record has come. Gives it back if there is no such topic; then it does not wait.
    pub(super) fn put(
        &mut self,
        worker: usize,
        cut: u64,
        topic: &str,
        payload: Bytes,
    ) -> Result<(), Bytes> {
        let Some(waiting) = self.waiting.get_mut(topic) else { return Err(payload) };
        waiting.entry((cut, worker)).or_default().push_back(payload);
        self.workers.entry(worker).or_default().entry(cut).or_default().waiting += 1;
        Ok(())
    }

    /// All that a worker has of a cut has come.
    pub(super) fn end(&mut self, worker: usize, cut: u64) {
        self.workers.entry(worker).or_default().entry(cut).or_default().has_ended = true;
    }

    /// The next record of a topic, with the worker that it came from: of the oldest cut.
    pub(super) fn take(&mut self, topic: &str) -> Option<(Bytes, usize)> {
        let mut first = self.waiting.get_mut(topic)?.first_entry()?;
        let (cut, worker) = *first.key();
        let payload = first.get_mut().pop_front().expect("what is empty is not kept");
        if first.get().is_empty() {
            first.remove();
        }
        let cuts = self.workers.get_mut(&worker).expect("a record has come from it");
        cuts.get_mut(&cut).expect("a record of it waits").waiting -= 1;
        self.taken += 1;
        Some((payload, worker))
    }

    /// The last cut of a worker up to which all was taken, if that is more than when this was last asked.
    pub(super) fn finished(&mut self, worker: usize) -> Option<u64> {
        let cuts = self.workers.get_mut(&worker)?;
        let mut finished = None;
        while let Some(first) = cuts.first_entry() {
            let Cut { waiting, has_ended } = *first.get();
            if waiting > 0 || !has_ended {
                break;
            }
            finished = Some(*first.key());
            first.remove();
        }
        finished
    }

    /// Whether a worker waits for nothing to be taken.
    pub(super) fn is_done(&self, worker: usize) -> bool {
        self.workers.get(&worker).is_none_or(BTreeMap::is_empty)
    }

    /// Forgets what waits of a worker that is gone: it comes again, from whoever goes on.
    pub(super) fn leave(&mut self, worker: usize) {
        self.workers.remove(&worker);
        self.waiting
            .values_mut()
            .for_each(|waiting| waiting.retain(|(_, from), _| *from != worker));
    }

    /// How many records wait in each topic.
    pub(super) fn waiting(&self) -> BTreeMap<String, usize> {
        let waiting = self.waiting.iter();
        waiting
            .map(|(topic, cuts)| (topic.clone(), cuts.values().map(VecDeque::len).sum()))
            .collect()
    }

    /// How many records were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelves() -> Shelves {
        Shelves::new(["a".to_owned(), "b".to_owned()])
    }

    fn put(shelves: &mut Shelves, worker: usize, cut: u64, topic: &str, payload: &'static str) {
        shelves.put(worker, cut, topic, payload.into()).unwrap();
    }

    #[track_caller]
    fn takes(shelves: &mut Shelves, topic: &str, payload: &'static str, from: usize) {
        assert_eq!(shelves.take(topic), Some((payload.into(), from)));
    }

    #[test]
    fn records_leave_in_the_order_of_cuts_and_then_as_they_came() {
        let mut shelves = shelves();
        put(&mut shelves, 1, 4, "a", "3");
        put(&mut shelves, 1, 4, "a", "4");
        put(&mut shelves, 0, 3, "a", "1");
        put(&mut shelves, 0, 4, "a", "2");
        assert_eq!(shelves.put(0, 4, "c", "x".into()), Err("x".into()));
        assert_eq!(shelves.take("b"), None);
        for (payload, from) in [("1", 0), ("2", 0), ("3", 1), ("4", 1)] {
            takes(&mut shelves, "a", payload, from);
        }
        assert_eq!((shelves.take("a"), shelves.take("c"), shelves.taken()), (None, None, 4));
    }

    #[test]
    fn a_cut_is_finished_when_it_has_ended_and_all_before_it_was_taken() {
        let mut shelves = shelves();
        put(&mut shelves, 0, 3, "a", "1");
        put(&mut shelves, 0, 3, "b", "2");
        takes(&mut shelves, "a", "1", 0);
        takes(&mut shelves, "b", "2", 0);
        assert_eq!(shelves.finished(0), None, "more may come of it");
        put(&mut shelves, 0, 3, "b", "3");
        shelves.end(0, 3);
        put(&mut shelves, 0, 5, "a", "4");
        shelves.end(0, 5);
        put(&mut shelves, 1, 4, "a", "5");
        shelves.end(1, 4);
        takes(&mut shelves, "a", "5", 1);
        assert_eq!((shelves.finished(1), shelves.finished(1)), (Some(4), None));
        takes(&mut shelves, "a", "4", 0);
        assert_eq!(
            (shelves.finished(0), shelves.is_done(0)),
            (None, false),
            "a record of cut 3 waits"
        );
        takes(&mut shelves, "b", "3", 0);
        assert_eq!((shelves.finished(0), shelves.is_done(0)), (Some(5), true));
    }

    #[test]
    fn what_waits_of_a_worker_that_is_gone_is_forgotten() {
        let mut shelves = shelves();
        put(&mut shelves, 0, 3, "a", "1");
        put(&mut shelves, 1, 3, "a", "2");
        put(&mut shelves, 1, 4, "b", "3");
        shelves.leave(1);
        assert_eq!(shelves.waiting(), BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 0)]));
        assert!(shelves.is_done(1) && !shelves.is_done(0));
        takes(&mut shelves, "a", "1", 0);
    }
}
