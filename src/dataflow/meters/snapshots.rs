//! What worker 0 tells of snapshots.

use std::time::Duration;

use crate::metering::{self, Labels, Present, Spread, Total};

/// Of so many snapshots it is remembered how long they took, until somebody asks.
pub(in crate::dataflow) const TOOK_MAX: usize = 64;

/// How snapshots are getting on.
#[derive(Clone, Debug, Default)]
pub(in crate::dataflow) struct SnapshotFigures {
    /// How many became durable, and were given up.
    pub(in crate::dataflow) durable: u64,
    pub(in crate::dataflow) given_up: u64,
    /// How long those took that became durable since the last time.
    pub(in crate::dataflow) took: Vec<Duration>,
    /// Bytes of the last that became durable.
    pub(in crate::dataflow) bytes: Option<u64>,
    /// Since when that is durable.
    pub(in crate::dataflow) age: Option<Duration>,
    /// Cuts that are not acknowledged.
    pub(in crate::dataflow) unacknowledged: usize,
}

pub(super) struct SnapshotMeters {
    labels: Labels,
    durable: Total,
    given_up: Total,
    seconds: Spread,
    bytes: Option<Present>,
    age: Option<Present>,
    unacknowledged: Present,
}

impl SnapshotMeters {
    pub(super) fn new() -> Self {
        let labels = Labels::of_worker(0);
        SnapshotMeters {
            durable: Total::new(&metering::SNAPSHOTS_DURABLE, &labels),
            given_up: Total::new(&metering::SNAPSHOTS_GIVEN_UP, &labels),
            seconds: Spread::new(&metering::SNAPSHOT_SECONDS, &labels),
            bytes: None,
            age: None,
            unacknowledged: Present::new(&metering::UNACKNOWLEDGED_CUTS, &labels),
            labels,
        }
    }

    pub(super) fn tell(&mut self, figures: SnapshotFigures) {
        let SnapshotFigures { durable, given_up, took, bytes, age, unacknowledged } = figures;
        self.durable.tell(durable);
        self.given_up.tell(given_up);
        took.into_iter().for_each(|took| self.seconds.tell(took));
        let labels = &self.labels;
        if let Some(bytes) = bytes {
            let gauge =
                self.bytes.get_or_insert_with(|| Present::new(&metering::SNAPSHOT_BYTES, labels));
            gauge.tell(bytes as f64);
        }
        if let Some(age) = age {
            let gauge =
                self.age.get_or_insert_with(|| Present::new(&metering::SNAPSHOT_AGE, labels));
            gauge.tell(age.as_secs_f64());
        }
        self.unacknowledged.tell_count(unacknowledged);
    }
}
