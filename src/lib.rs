#![doc = include_str!("../docs/guide.md")]
#![doc(html_root_url = "https://docs.rs/timely-statefun")]

mod address;
pub mod archive;
mod buffer;
mod call_error;
mod clock;
mod codec;
mod dataflow;
mod dead_letter;
mod dispatch;
mod egress;
mod endpoint;
mod error;
mod execute;
mod expiration;
#[doc = "What [`json_type!`] and [`protobuf_type!`] build on."]
pub mod formats;
mod function;
mod functions;
#[cfg(test)]
mod fuzz;
#[cfg(feature = "grpc")]
mod grpc;
mod message;
mod messages;
pub mod metering;
#[cfg(feature = "modules")]
pub mod modules;
mod placement;
#[cfg(statefun_planted)]
mod planted;
#[cfg(feature = "playground")]
pub mod playground;
mod records;
mod remote;
mod retry;
mod runner;
#[cfg(feature = "serve")]
pub mod serve;
pub mod sink;
mod snapshot;
pub mod source;
mod spec;
mod state;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
mod tls;
mod trace;
mod typed;
mod value;
mod watched;

pub use address::{Address, FunctionType, Id, Namespace, TypeName};
pub use buffer::BufferSpec;
pub use call_error::CallError;
pub use clock::{Clock, ClockHands};
pub use dataflow::{
    Acknowledge, AsOf, BinLoads, Egresses, Handle, Held, Ingress, LookUps, LookedUp, NotThere,
    Persisted, PersistedUpdates, Released, Savepoint, SinkHandle, SnapshotCounts, SnapshotDone,
    SnapshotPolicy, Snapshots, StatefulFunctions,
};
pub use dead_letter::{DeadLetter, OnFailure, Reason, Stopped};
pub use dispatch::{Buffer, Context, NoCaller, Outcome, Table, TokenInUse};
pub use egress::Egress;
pub use endpoint::Endpoint;
pub use error::Error;
pub use execute::{ExecuteOptions, ExecutionError, execute, execute_from_args, execute_with};
pub use expiration::Expiration;
pub use function::{Function, FunctionResult};
pub use functions::{AtClose, Functions, Limits, OnUnbound};
pub use message::{Carries, Envelope, Mismatch};
pub use placement::BINS;
pub use retry::Retry;
pub use snapshot::{
    RestoreFrom, SnapshotError, SnapshotInfo, SnapshotOptions, SnapshotStatus, SnapshotStore,
};
pub use spec::StateSpec;
pub use table::TableSpec;
pub use timely_statefun_operators::{LoopStats, Order, Positions, STOP_GRACE_STEPS, STOP_STEPS};
#[cfg(feature = "tls")]
pub use tls::Pem;
pub use trace::{InvalidTraceContext, TraceContext};
pub use typed::{Typed, TypedMessage, TypedValue};
pub use value::{Named, Value, ValueSpec};
pub use watched::{ChangeOf, EntryOf, StateChange, Watchable};

// The guide, in its order.

#[doc = include_str!("../docs/first-pipeline.md")]
pub mod first_pipeline {}

#[doc = include_str!("../docs/messages-and-state.md")]
pub mod messages_and_state {}

#[doc = include_str!("../docs/time-and-completeness.md")]
pub mod time_and_completeness {}

#[doc = include_str!("../docs/sources.md")]
pub mod sources {}

#[doc = include_str!("../docs/remote-functions.md")]
pub mod remote_functions {}

#[doc = include_str!("../docs/deploying-functions.md")]
pub mod deploying_functions {}

#[cfg(feature = "modules")]
#[doc = include_str!("../docs/modules.md")]
pub mod module_files {}

#[cfg(feature = "playground")]
#[doc = include_str!("../docs/playground.md")]
pub mod playground_over_http {}

#[doc = include_str!("../docs/snapshots-and-exactly-once.md")]
pub mod snapshots_and_exactly_once {}

#[doc = include_str!("../docs/writing-a-sink.md")]
pub mod writing_a_sink {}

#[doc = include_str!("../docs/state-as-data.md")]
pub mod state_as_data {}

#[doc = include_str!("../docs/snapshots-offline.md")]
pub mod snapshots_offline {}

#[doc = include_str!("../docs/testing-programs.md")]
pub mod testing_programs {}

#[doc = include_str!("../docs/several-machines.md")]
pub mod several_machines {}

#[doc = include_str!("../docs/operating.md")]
pub mod operating {}

#[doc = include_str!("../docs/metrics.md")]
pub mod metrics_and_traces {}

#[doc = include_str!("../docs/limits.md")]
pub mod limits_and_defaults {}

#[doc = include_str!("../docs/from-statefun.md")]
pub mod from_statefun {}

// Pictures are drawn by the example `plot`, which fails where one is not that of its figures.
#[doc = include_str!("../docs/performance.md")]
#[doc = include_str!("../docs/figures/dispatch.svg")]
#[doc = ""]
#[doc = include_str!("../docs/figures/state.svg")]
#[doc = ""]
#[doc = include_str!("../docs/figures/snapshot.svg")]
#[doc = ""]
#[doc = include_str!("../docs/figures/remote.svg")]
#[doc = ""]
#[doc = include_str!("../docs/figures/codec.svg")]
pub mod performance {}

#[doc = include_str!("../docs/why-not.md")]
pub mod why_not {}

/// The README's code, compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
