//! The capabilities an operator of the loop keeps: one per output and minimal live time.
//!
//! All stand at one [`Turn`], the highest the worker has met, so that what is sent at one ingress
//! time travels in one batch. A turn never goes back: hop counts of different workers would
//! otherwise drift apart, and batches with them. Where messages are handled in the order of time, hops
//! are exact instead: there is a capability for each minimal [`Stage`].
//!
//! Nothing outside this file decides when a capability is made or dropped.

use timely::dataflow::operators::{Capability, InputCapability};
use timely::order::PartialOrder;
use timely::order::Product;
use timely::progress::Timestamp;

use crate::config::Order;
use crate::stages::Stage;
use crate::turn::Turn;

struct Hold<T: Timestamp, const PORTS: usize> {
    stage: Stage<T>,
    capabilities: [Capability<Product<T, Turn>>; PORTS],
}

/// Capabilities for `PORTS` outputs at the minimal times an operator still works for.
pub(crate) struct Holdings<T: Timestamp, const PORTS: usize> {
    turn: Turn,
    /// Whether hops are those of the stage and not of the turn.
    exact: bool,
    held: Vec<Hold<T, PORTS>>,
}

impl<T: Timestamp, const PORTS: usize> Holdings<T, PORTS> {
    /// Holds what an operator is born with.
    pub(crate) fn born(capabilities: Vec<Capability<Product<T, Turn>>>, order: Order) -> Self {
        let capabilities = capabilities.try_into().unwrap_or_else(|found: Vec<_>| {
            panic!("{} capabilities for {PORTS} outputs", found.len())
        });
        let hold = Hold { stage: Stage::minimum(), capabilities };
        Holdings { turn: Turn::default(), exact: order == Order::Time, held: vec![hold] }
    }

    /// The turn at which something of a stage is held.
    fn turn_of(&self, stage: &Stage<T>) -> Turn {
        match self.exact {
            true => Turn { cuts: self.turn.cuts, hops: stage.inner },
            false => self.turn,
        }
    }

    /// Whether one capability serves every record.
    pub(crate) fn only_one(&self) -> bool {
        self.held.len() == 1
    }

    /// Keeps a received batch's right to send. `turn` is the earliest turn it allows.
    pub(crate) fn receive(&mut self, from: &InputCapability<Product<T, Turn>>, turn: Turn) {
        self.turn = self.turn.max(turn);
        let stage = Product::new(from.time().outer.clone(), if self.exact { turn.hops } else { 0 });
        if !self.held.iter().any(|hold| hold.stage.less_equal(&stage)) {
            let now = Product::new(stage.outer.clone(), self.turn_of(&stage));
            let capabilities = std::array::from_fn(|port| from.delayed(&now, port));
            self.held.push(Hold { stage, capabilities });
        }
    }

    /// Moves everything held to the worker's turn, or to a later one.
    pub(crate) fn raise(&mut self, turn: Turn) {
        self.turn = self.turn.max(turn);
        for at in 0..self.held.len() {
            let turn = self.turn_of(&self.held[at].stage);
            let hold = &mut self.held[at];
            if hold.capabilities[0].time().inner < turn {
                let now = Product::new(hold.stage.outer.clone(), turn);
                for capability in &mut hold.capabilities {
                    capability.downgrade(&now);
                }
            }
        }
    }

    /// Holds for exactly `stages`, an antichain; each must be at or after one held so far.
    pub(crate) fn follow(&mut self, stages: &[Stage<T>]) {
        let same = self.held.len() == stages.len()
            && stages.iter().all(|stage| self.held.iter().any(|hold| hold.stage == *stage));
        if same {
            return;
        }
        let next = stages
            .iter()
            .map(|stage| {
                let now = Product::new(stage.outer.clone(), self.turn_of(stage));
                let covering = self.held.iter().find(|hold| hold.stage.less_equal(stage));
                let hold = covering.unwrap_or_else(|| self.uncovered(&stage.outer));
                let capabilities =
                    std::array::from_fn(|port| hold.capabilities[port].delayed(&now));
                Hold { stage: stage.clone(), capabilities }
            })
            .collect();
        self.held = next;
    }

    /// The right to let something leave the loop at `time` on `port`, whatever its turn.
    pub(crate) fn exactly(&self, time: &T, port: usize) -> Capability<Product<T, Turn>> {
        let at = self.position(time).unwrap_or_else(|| self.uncovered(time));
        let capability = &self.held[at].capabilities[port];
        capability.delayed(&Product::new(time.clone(), capability.time().inner))
    }

    /// The right to send what a stage causes on `port`.
    pub(crate) fn at_stage(&self, stage: &Stage<T>, port: usize) -> Capability<Product<T, Turn>> {
        let covering = self.held.iter().find(|hold| hold.stage.less_equal(stage));
        let hold = covering.unwrap_or_else(|| self.uncovered(&stage.outer));
        let now = Product::new(stage.outer.clone(), self.turn_of(stage));
        hold.capabilities[port].delayed(&now)
    }

    /// The capability a record of this time may travel under, kept while it still fits the
    /// capability `before` it: changing it would split the batch.
    pub(crate) fn travelling(&self, time: &T, before: Option<usize>) -> usize {
        match before {
            Some(at) if self.held[at].stage.outer.less_equal(time) => at,
            _ => self.position(time).unwrap_or_else(|| self.uncovered(time)),
        }
    }

    /// The capability at a position that [`travelling`](Self::travelling) gave.
    pub(crate) fn capability(&self, at: usize, port: usize) -> &Capability<Product<T, Turn>> {
        &self.held[at].capabilities[port]
    }

    fn position(&self, time: &T) -> Option<usize> {
        self.held.iter().position(|hold| hold.stage.outer.less_equal(time))
    }

    #[cold]
    fn uncovered(&self, time: &T) -> ! {
        let held: Vec<_> = self.held.iter().map(|hold| &hold.stage).collect();
        panic!("nothing is held at or before {time:?}; held: {held:?}")
    }
}
