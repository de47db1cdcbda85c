//! The capabilities an operator of the loop keeps: one per output and minimal live time.
//!
//! All stand at one [`Turn`], the highest the worker has met, so that what is sent at one ingress
//! time travels in one batch. A turn never goes back: hop counts of different workers would
//! otherwise drift apart, and batches with them.
//!
//! Nothing outside this file decides when a capability is made or dropped.

use timely::dataflow::operators::{Capability, InputCapability};
use timely::order::Product;
use timely::progress::Timestamp;

use crate::turn::Turn;

struct Hold<T: Timestamp, const PORTS: usize> {
    time: T,
    capabilities: [Capability<Product<T, Turn>>; PORTS],
}

/// Capabilities for `PORTS` outputs at the minimal times an operator still works for.
pub(crate) struct Holdings<T: Timestamp, const PORTS: usize> {
    turn: Turn,
    held: Vec<Hold<T, PORTS>>,
}

impl<T: Timestamp, const PORTS: usize> Holdings<T, PORTS> {
    /// Holds what an operator is born with.
    pub(crate) fn born(capabilities: Vec<Capability<Product<T, Turn>>>) -> Self {
        let capabilities = capabilities.try_into().unwrap_or_else(|found: Vec<_>| {
            panic!("{} capabilities for {PORTS} outputs", found.len())
        });
        let hold = Hold { time: T::minimum(), capabilities };
        Holdings { turn: Turn::default(), held: vec![hold] }
    }

    /// Whether one capability serves every record.
    pub(crate) fn only_one(&self) -> bool {
        self.held.len() == 1
    }

    /// Keeps a received batch's right to send. `turn` is the earliest turn it allows.
    pub(crate) fn receive(&mut self, from: &InputCapability<Product<T, Turn>>, turn: Turn) {
        self.turn = self.turn.max(turn);
        let time = &from.time().outer;
        if self.position(time).is_none() {
            let now = Product::new(time.clone(), self.turn);
            let capabilities = std::array::from_fn(|port| from.delayed(&now, port));
            self.held.push(Hold { time: time.clone(), capabilities });
        }
    }

    /// Moves everything held to the worker's turn, or to a later one.
    pub(crate) fn raise(&mut self, turn: Turn) {
        self.turn = self.turn.max(turn);
        for hold in &mut self.held {
            if hold.capabilities[0].time().inner < self.turn {
                let now = Product::new(hold.time.clone(), self.turn);
                for capability in &mut hold.capabilities {
                    capability.downgrade(&now);
                }
            }
        }
    }

    /// Holds for exactly `times`, an antichain; each must be at or after a time held so far.
    pub(crate) fn follow(&mut self, times: &[T]) {
        let same = self.held.len() == times.len()
            && times.iter().all(|time| self.held.iter().any(|hold| hold.time == *time));
        if same {
            return;
        }
        let next = times
            .iter()
            .map(|time| {
                let hold = self.covering(time);
                let now = Product::new(time.clone(), self.turn);
                let capabilities =
                    std::array::from_fn(|port| hold.capabilities[port].delayed(&now));
                Hold { time: time.clone(), capabilities }
            })
            .collect();
        self.held = next;
    }

    /// The right to send at `time` on `port`.
    pub(crate) fn exactly(&self, time: &T, port: usize) -> Capability<Product<T, Turn>> {
        let now = Product::new(time.clone(), self.turn);
        self.covering(time).capabilities[port].delayed(&now)
    }

    /// The capability a record of this time may travel under, kept while it still fits the
    /// capability `before` it: changing it would split the batch.
    pub(crate) fn travelling(&self, time: &T, before: Option<usize>) -> usize {
        match before {
            Some(at) if self.held[at].time.less_equal(time) => at,
            _ => self.position(time).unwrap_or_else(|| self.uncovered(time)),
        }
    }

    /// The capability at a position that [`travelling`](Self::travelling) gave.
    pub(crate) fn capability(&self, at: usize, port: usize) -> &Capability<Product<T, Turn>> {
        &self.held[at].capabilities[port]
    }

    fn position(&self, time: &T) -> Option<usize> {
        self.held.iter().position(|hold| hold.time.less_equal(time))
    }

    fn covering(&self, time: &T) -> &Hold<T, PORTS> {
        match self.position(time) {
            Some(at) => &self.held[at],
            None => self.uncovered(time),
        }
    }

    #[cold]
    fn uncovered(&self, time: &T) -> ! {
        let held: Vec<&T> = self.held.iter().map(|hold| &hold.time).collect();
        panic!("nothing is held at or before {time:?}; held: {held:?}")
    }
}
