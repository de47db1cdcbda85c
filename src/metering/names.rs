//! What is measured: the names of all metrics, and what each is.

use metrics::Unit;

/// What a metric is to those who read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A total that only rises. It begins at zero with each process.
    Counter,
    /// What there is now, or was when it was last looked at.
    Gauge,
    /// How values are distributed.
    Histogram,
}

/// A metric that this library gives to the [`metrics`] facade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, in the form that Prometheus wants.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, as recorders show it.
    pub meaning: &'static str,
    pub(super) unit: Unit,
}

/// Of a function type.
const FUNCTION: &[&str] = &["worker", "set", "function"];
/// Of a function type, and why.
const REASON: &[&str] = &["worker", "set", "function", "reason"];
/// Of a set of functions.
const SET: &[&str] = &["worker", "set"];
/// Of one ingress, by number.
const INGRESS: &[&str] = &["worker", "set", "ingress"];
/// Of one egress, by name.
const EGRESS: &[&str] = &["worker", "set", "egress"];
/// By how heavy a bin is.
const RANK: &[&str] = &["worker", "set", "rank"];
/// Of the snapshots that worker 0 decides on.
const SNAPSHOTS: &[&str] = &["worker"];

macro_rules! metrics {
    ($($id:ident = $name:literal, $kind:ident, $unit:ident, $labels:ident, $meaning:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $meaning)]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: $labels,
                meaning: $meaning,
                unit: Unit::$unit,
            };
        )*
        /// All metrics of this library, in the order of their documentation.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    FUNCTION_IN = "statefun_function_in_total", Counter, Count, FUNCTION,
        "messages that came to a function, each once however often it is tried";
    FUNCTION_OUT_LOCAL = "statefun_function_out_local_total", Counter, Count, FUNCTION,
        "messages that a function sent to the same worker, without a delay";
    FUNCTION_OUT_REMOTE = "statefun_function_out_remote_total", Counter, Count, FUNCTION,
        "messages that a function sent to other workers, without a delay";
    FUNCTION_OUT_EGRESS = "statefun_function_out_egress_total", Counter, Count, FUNCTION,
        "records that a function emitted";
    FUNCTION_FAILURES = "statefun_function_failures_total", Counter, Count, FUNCTION,
        "invocations that failed, and answers of remote functions that could not be done";
    FUNCTION_DEAD_LETTERS = "statefun_function_dead_letters_total", Counter, Count, REASON,
        "messages that became dead letters, by kind of reason";
    FUNCTION_SKIPPED = "statefun_function_skipped_total", Counter, Count, REASON,
        "messages that were given up without a dead letter, by kind of reason";
    FUNCTION_ASYNC_OPERATIONS = "statefun_function_async_operations", Gauge, Count, FUNCTION,
        "asynchronous operations under way, or waiting for their turn";
    FUNCTION_DELAYED = "statefun_function_delayed_messages", Gauge, Count, FUNCTION,
        "delayed messages for a function that are not due, on the worker of their senders";
    FUNCTION_RETRYING = "statefun_function_retrying_messages", Gauge, Count, FUNCTION,
        "messages that wait for another attempt, or behind one that does";
    FUNCTION_BACKLOG = "statefun_function_backlog_messages", Gauge, Count, FUNCTION,
        "messages of a remote function that wait for a call";
    FUNCTION_BLOCKED = "statefun_function_blocked_addresses", Gauge, Count, FUNCTION,
        "addresses of a remote function whose backlog fills a call";
    FUNCTION_CALLS = "statefun_function_calls_in_flight", Gauge, Count, FUNCTION,
        "calls of a remote function under way";
    FUNCTION_BATCH = "statefun_function_batch_messages", Histogram, Count, FUNCTION,
        "messages that went to a remote function in one call";
    FUNCTION_CALL_FAILURES = "statefun_function_remote_invocation_failures_total", Counter, Count, FUNCTION,
        "attempts at calls of a remote function that failed";
    FUNCTION_CALL_SECONDS = "statefun_function_remote_invocation_seconds", Histogram, Seconds, FUNCTION,
        "how long an attempt at a call of a remote function took, whatever came of it";
    LOOP_WAITING = "statefun_loop_waiting_messages", Gauge, Count, SET,
        "messages that wait to be handled";
    LOOP_WAITING_BYTES = "statefun_loop_waiting_bytes", Gauge, Bytes, SET,
        "what waiting messages weigh against the limits of the loop";
    LOOP_HANDLED = "statefun_loop_handled_total", Counter, Count, SET,
        "messages taken off the queue, each as often as it was";
    LIVE_TIMES = "statefun_live_times", Gauge, Count, SET,
        "ingress times that have work";
    FRONTIER_LAG = "statefun_frontier_lag_seconds", Gauge, Seconds, SET,
        "how far behind the clock the least time is at which anything can still be emitted";
    INGRESS_ADMITTED = "statefun_ingress_admitted_total", Counter, Count, SET,
        "records that were let in";
    INGRESS_SKIPPED = "statefun_ingress_skipped_total", Counter, Count, SET,
        "records that were skipped, since what was restored contains them";
    INGRESS_HELD_BACK = "statefun_ingress_held_back_records", Gauge, Count, INGRESS,
        "records that wait to be let in";
    INGRESS_SHUT = "statefun_ingress_shut", Gauge, Count, INGRESS,
        "1 while nothing is let in, since a worker has no room or the program has stopped; else 0";
    EGRESS_RECORDS = "statefun_egress_records_total", Counter, Count, EGRESS,
        "records that left the functions";
    HELD_RECORDS = "statefun_held_records", Gauge, Count, SET,
        "records of held egresses that wait for their snapshot";
    BIN_MESSAGES = "statefun_bin_messages", Gauge, Count, RANK,
        "messages that the heaviest bins had since they were last looked at";
    BIN_NUMBER = "statefun_bin_number", Gauge, Count, RANK,
        "which bins these are";
    SNAPSHOTS_DURABLE = "statefun_snapshots_durable_total", Counter, Count, SNAPSHOTS,
        "snapshots that became durable";
    SNAPSHOTS_GIVEN_UP = "statefun_snapshots_given_up_total", Counter, Count, SNAPSHOTS,
        "snapshots that were given up";
    SNAPSHOT_AGE = "statefun_snapshot_age_seconds", Gauge, Seconds, SNAPSHOTS,
        "how long ago the last snapshot became durable";
    SNAPSHOT_SECONDS = "statefun_snapshot_seconds", Histogram, Seconds, SNAPSHOTS,
        "how long it took from when a snapshot was begun until it was durable";
    SNAPSHOT_BYTES = "statefun_snapshot_bytes", Gauge, Bytes, SNAPSHOTS,
        "what was written for the last snapshot, without its manifest";
    UNACKNOWLEDGED_CUTS = "statefun_unacknowledged_cuts", Gauge, Count, SNAPSHOTS,
        "cuts whose held records are not acknowledged";
}
