//! Timely dataflow operators for messages that travel in cycles.
//!
//! * [`KeyedLoop`]: messages are handled where their key lives, and cause further messages, until
//!   none is left. Ingress times are kept exactly: what a record causes leaves at the record's own
//!   time, and a frontier passes a time when everything that began there is over. The loop can be
//!   *cut* while it runs: each cut is a consistent line through all workers and every message in
//!   flight, and nothing waits for it.
//! * the loop's gates, which admit ingress as long as there is room: [`LoopHandle::ready`].
//! * [`Decider`]: when cuts are taken, one at a time, by any number of loops.
//! * [`Hold`]: what leaves a loop, or a part of it, is kept until its cut counts.
//! * [`council`]: news between workers, beside the dataflow.
//! * [`source`](source()): a stream of what is given whenever there is room, as the gates say through a [`Feed`].
//! * [`bulletin`]: a stream of what somebody says, with a frontier that they set.
//! * [`Demux`]: one stream into several, in order.
//!
//! These operators know times and keys. They have never heard of functions, files or networks; the
//! crate `timely-statefun` builds those on top.
//!
//! Every record carries its own ingress time, and a batch travels at the least time its sender has
//! work for, so that batches stay large however many ingress times are alive.
#![doc(html_root_url = "https://docs.rs/timely-statefun-operators")]

mod alignment;
mod announcements;
mod batch;
mod bulletin;
mod config;
mod council;
pub mod crossing;
mod cut_times;
mod cuts;
mod decider;
mod decisions;
#[cfg(feature = "testing")]
mod delay;
mod demux;
mod engine;
mod feed;
mod flow;
mod gate;
mod handle;
mod handler;
mod hold;
mod holdings;
mod keyed_loop;
mod live_times;
mod marks;
mod members;
mod part;
#[cfg(statefun_planted)]
mod planted;
mod positions;
mod record;
mod restore;
mod source;
mod stages;
mod turn;
mod waker;
mod walk;

pub use announcements::{Announcement, Announcements, Cuts};
pub use bulletin::{Bulletin, bulletin};
pub use config::{LoopConfig, Order};
#[cfg(feature = "testing")]
pub use council::council_held_back;
pub use council::{Council, council};
pub use cut_times::CutTimes;
pub use decider::{CutControl, Decider};
#[cfg(feature = "testing")]
pub use delay::Delays;
pub use demux::Demux;
pub use feed::Feed;
pub use handle::{GateStats, LoopHandle, LoopStats, STOP_GRACE_STEPS, STOP_STEPS};
pub use handler::{Awaits, Handler, Held, Inbox, Outbox, Verdict, Weight};
pub use hold::{HeldBatch, Hold, HoldControl, LetGo, Outputs};
pub use keyed_loop::{HoldingParts, Ingress, KeyedLoop, LoopParts, holding_loop, keyed_loop};
pub use marks::CutMarks;
pub use part::{Place, Places, Work};
pub use positions::{AtCut, Positions};
pub use restore::Restore;
pub use source::{Portion, SourceActivators, source};
pub use turn::{Hops, Turn};
pub use waker::Waker;
