//! Stateful functions on timely dataflow.
mod address;
mod dataflow;
mod dead_letter;
mod dispatch;
mod egress;
mod error;
mod function;
mod functions;
mod message;
mod placement;
mod state;
mod value;

pub use address::{Address, FunctionType, Id, Namespace, TypeName};
pub use dataflow::{Egresses, Handle, StatefulFunctions};
pub use dead_letter::{DeadLetter, OnFailure, Reason, Stopped};
pub use dispatch::{Context, NoCaller};
pub use egress::Egress;
pub use error::Error;
pub use function::{Function, FunctionResult};
pub use functions::{Functions, Limits};
pub use message::{Carries, Envelope, Mismatch};
pub use placement::BINS;
pub use value::{Named, Value, ValueSpec};
