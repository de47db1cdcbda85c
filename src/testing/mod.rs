//! Tests of functions and of programs of them, with the code that runs in production: only the clock, and
//! whoever messages come from and go to, are the test's.
//!
//! * [`FunctionHarness`] hands one message to one function, and gives what it did as data.
//!
//! They are there with the feature `testing`, for `dev-dependencies`.

mod difference;
mod harness;
mod invocation;

pub use harness::FunctionHarness;
pub use invocation::{Delayed, Invocation, Operation};
