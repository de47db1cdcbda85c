//! The ingress and egress of StateFun's playground, over HTTP: programs that are tried with `curl`. With the feature
//! `playground`.
//!
//! `PUT /namespace/function/id` sends a function a record, and `GET /topic` takes the next that functions have emitted to
//! a topic. What each of them promises, with all statuses and bounds, is [on a page of its own](crate::playground_over_http).
//!
//! Servers listen behind the doors that [served functions](crate::serve) have. Records go in through a
//! [channel](crate::source::channel), and come out of a [held egress](crate::Functions::held_egress).

mod egress;
mod ingress;
mod receive;
mod record;
mod request;
mod shelves;
mod spec;
mod topics;

pub use ingress::Ingress;
pub use record::{EGRESS, EgressRecord};
pub use spec::{Ack, EgressSpec, IngressSpec};
pub use topics::{Rejected, Topics, TopicsStatus};
