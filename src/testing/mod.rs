//! Tests of functions and of programs of them, with the code that runs in production: only the clock, and
//! whoever messages come from and go to, are the test's.
//!
//! * [`FunctionHarness`] hands one message to one function, and gives what it did as data.
//! * [`TestProgram`] runs functions in a dataflow that the test steps, with a clock that it turns, frontiers
//!   that it reads, snapshots, crashes and restarts.
//! * [`TestEndpoint`] answers the remote functions of a program, in the place of the network.
//! * [`Simulation`] runs whole programs of several workers again and again, with everything that can happen to
//!   them, as a seed says.
//! * [`FaultyStore`] is a store of snapshots that fails in every way a store can, when the test says so.
//!
//! They are there with the feature `testing`, for `dev-dependencies`.

mod difference;
mod endpoint;
mod harness;
mod invocation;
mod program;
mod simulation;
mod store;
mod turned;

pub use endpoint::{TestEndpoint, TestRequest};
pub use harness::FunctionHarness;
pub use invocation::{Delayed, Invocation, Operation};
pub use program::TestProgram;
pub use simulation::{Failed, Finished, Random, Report, Simulation};
pub use store::{FaultyStore, StoreCall, StoreFault};
