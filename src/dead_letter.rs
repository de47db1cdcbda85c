//! Messages that were given up on, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::message::Mismatch;

/// A message that was given up on. Nothing it might have caused happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadLetter<M> {
    /// Who the message was for.
    pub target: Address,
    /// Who sent it, if a function did or the ingress named somebody.
    pub caller: Option<Address>,
    /// What it said.
    pub message: M,
    /// Why it was given up.
    pub reason: Reason,
    /// How often it was tried; 0 if there was nobody to try it on.
    pub attempts: u32,
}

/// Why a message was given up, or a program stopped.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize,
)]
#[non_exhaustive]
pub enum Reason {
    /// No function is bound to the target's type, nor to its namespace.
    #[error("no function of this type is bound")]
    NotBound,
    /// The function returned this error.
    #[error("the function failed: {0}")]
    Failed(String),
    /// The function panicked with this message.
    #[error("the function panicked: {0}")]
    Panicked(String),
    /// The message is not of the type that the function takes.
    #[error("the message is of another type: {0}")]
    WrongInput(Mismatch),
    /// A remote function sent a message, or emitted a record, of a type that there is nothing for.
    #[error("the function sent a value of another type: {0}")]
    WrongOutput(Mismatch),
    /// A remote function could not be called, or its answer means nothing.
    #[error("{0}")]
    Call(String),
    /// What a remote function answered cannot be done.
    #[error("what {url} answered cannot be done: {why}")]
    Answer {
        /// Where it is served; what may be secret in it is left out.
        url: Box<str>,
        /// What is wrong with the answer.
        why: Box<Reason>,
    },
    /// A remote function asked for its states again and again.
    #[error("the function asked for more states more than {0} times about one batch")]
    Incomplete(u32),
    /// The function used a state that it has not declared, and it has no
    /// [registry](crate::Function::registry).
    #[error("the function used state \"{0}\", which it does not declare")]
    UndeclaredState(String),
    /// The function used a state with another type than it declared, or registered.
    #[error("the function used state \"{state}\" as \"{used}\" but declares it as \"{declared}\"")]
    StateType {
        /// The name of the state.
        state: Box<str>,
        /// The name of the type it was declared with.
        declared: Box<str>,
        /// The name of the type it was used with.
        used: Box<str>,
    },
    /// The function used a state as another kind of state than it declared, or registered.
    #[error("the function used state \"{state}\" as a {used} but declares it as a {declared}")]
    StateKind {
        /// The name of the state.
        state: Box<str>,
        /// The kind it was declared as: "value", "table" or "buffer".
        declared: Box<str>,
        /// The kind it was used as.
        used: Box<str>,
    },
    /// The function used a state with another expiration than it declared, or registered. It would
    /// not have the lifetime that is written where it is used.
    #[error(
        "the function used state \"{state}\" with expiration \"{used}\" but declares it with \
         \"{declared}\""
    )]
    StateExpiration {
        /// The name of the state.
        state: Box<str>,
        /// The expiration it was declared with.
        declared: Box<str>,
        /// The expiration it was used with.
        used: Box<str>,
    },
    /// The function used a state that cannot be registered: a name or the expiration is not valid.
    #[error("the function used a state that cannot be registered: {0}")]
    InvalidState(String),
    /// The function used one more state than its [registry](crate::Function::registry) takes.
    #[error("the function used more than {0} states that it does not declare")]
    TooManyStates(usize),
    /// The function emitted to an egress that is not bound.
    #[error("the function emitted to egress \"{0}\", which is not bound")]
    UnknownEgress(String),
    /// A remote function emitted to an egress whose records are no values that it could give.
    #[error("the function emitted to egress \"{0}\", which is not bound for remote functions")]
    UntypedEgress(String),
    /// The function emitted to an egress with another type than it was bound with.
    #[error("the function emitted {used} to egress \"{egress}\", which carries {bound}")]
    EgressType {
        /// The name of the egress.
        egress: Box<str>,
        /// The type it was bound with.
        bound: Box<str>,
        /// The type it was used with.
        used: Box<str>,
    },
    /// A chain of messages was longer than [`depth_max`](crate::Limits::depth_max).
    #[error("the chain of messages that led here is longer than {0}")]
    TooDeep(u32),
    /// The function began an asynchronous operation without declaring that it does.
    #[error("the function began an asynchronous operation, which it does not declare")]
    UndeclaredOperation,
    /// An asynchronous operation ended and nothing could be made of its outcome.
    #[error("an asynchronous operation ended without a result: {0}")]
    NoResult(String),
    /// More delayed messages would have waited on the worker than
    /// [`delayed_messages_max`](crate::Limits::delayed_messages_max) allows.
    #[error("more than {0} delayed messages would wait on this worker")]
    TooManyDelayed(usize),
    /// More waited on the worker than [`loop_bytes_hard`](crate::Limits::loop_bytes_hard) allows.
    #[error("more messages wait on this worker than its hard limit allows")]
    Full,
    /// A record of an ingress that is [replayed](crate::Snapshots::replayed) has no position.
    #[error("a record of ingress \"{0}\" has no position, and the ingress is to be replayed")]
    NoPosition(String),
    /// A record of an ingress that is [replayed](crate::Snapshots::replayed) came after one of its partition
    /// whose position is not before its own. A snapshot that has the one could not say that it lacks the
    /// other.
    #[error(
        "ingress \"{ingress}\" gave position {position} of partition {partition} after {before}; positions \
         must rise"
    )]
    PositionBack {
        /// The name of the ingress.
        ingress: Box<str>,
        /// The partition.
        partition: u64,
        /// The position that came.
        position: u64,
        /// The one that came before it.
        before: u64,
    },
    /// A newer execution of the program has taken over its snapshots. Nothing that this one did since its
    /// last durable cut counts.
    #[error("{0}")]
    Fenced(String),
    /// Nothing failed: the program was to stop at a [savepoint](crate::Snapshots::stop_at_savepoint), which is
    /// durable.
    #[error("savepoint \"{name}\" is durable, which is cut {cut}")]
    AtSavepoint {
        /// The name of the savepoint.
        name: Box<str>,
        /// The number of its cut.
        cut: u64,
    },
    /// What a snapshot holds cannot be restored.
    #[error("the snapshot cannot be restored: {0}")]
    NotRestored(String),
    /// The last snapshot failed again and again, so what is [held](crate::Functions::held_egress) cannot leave.
    #[error("what egresses hold cannot leave, since the last snapshot is given up: {0}")]
    NotReleased(String),
    /// The sink of a [held](crate::Functions::held_egress) egress failed too often, or for good.
    #[error("the sink of egress \"{egress}\" failed at cut {cut}: {why}")]
    SinkFailed {
        /// The name of the egress.
        egress: Box<str>,
        /// The cut that it did not take.
        cut: u64,
        /// What it said.
        why: Box<str>,
    },
    /// A [source](crate::source) cannot go on.
    #[error("source \"{source_name}\" failed: {why}")]
    SourceFailed {
        /// The name of the source.
        source_name: Box<str>,
        /// What is wrong.
        why: Box<str>,
    },
}

impl Reason {
    /// What kind of reason it is, in one word for each, which stays the same whatever is said of it: what metrics
    /// call it.
    ///
    /// ```
    /// use timely_statefun::Reason;
    ///
    /// assert_eq!(Reason::Failed("no such item".to_owned()).kind(), "failed");
    /// ```
    pub fn kind(&self) -> &'static str {
        match self {
            Reason::NotBound => "not_bound",
            Reason::Failed(_) => "failed",
            Reason::Panicked(_) => "panicked",
            Reason::WrongInput(_) => "wrong_input",
            Reason::WrongOutput(_) => "wrong_output",
            Reason::Call(_) => "call",
            Reason::Answer { .. } => "answer",
            Reason::Incomplete(_) => "incomplete",
            Reason::UndeclaredState(_) => "undeclared_state",
            Reason::StateType { .. } => "state_type",
            Reason::StateKind { .. } => "state_kind",
            Reason::StateExpiration { .. } => "state_expiration",
            Reason::InvalidState(_) => "invalid_state",
            Reason::TooManyStates(_) => "too_many_states",
            Reason::UnknownEgress(_) => "unknown_egress",
            Reason::UntypedEgress(_) => "untyped_egress",
            Reason::EgressType { .. } => "egress_type",
            Reason::TooDeep(_) => "too_deep",
            Reason::UndeclaredOperation => "undeclared_operation",
            Reason::NoResult(_) => "no_result",
            Reason::TooManyDelayed(_) => "too_many_delayed",
            Reason::Full => "full",
            Reason::NoPosition(_) => "no_position",
            Reason::PositionBack { .. } => "position_back",
            Reason::Fenced(_) => "fenced",
            Reason::AtSavepoint { .. } => "at_savepoint",
            Reason::NotRestored(_) => "not_restored",
            Reason::NotReleased(_) => "not_released",
            Reason::SinkFailed { .. } => "sink_failed",
            Reason::SourceFailed { .. } => "source_failed",
        }
    }
}

/// Why a program stopped: the address at which it happened, if it is about one, and what.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize,
)]
pub struct Stopped {
    /// Who could not handle a message; none if it is about the program's ingress or snapshots.
    pub address: Option<Address>,
    /// Why.
    pub reason: Reason,
    /// The worker it happened on, out of all workers of all processes.
    pub worker: usize,
}

impl Stopped {
    /// The name and the cut of the savepoint that the program was to
    /// [stop at](crate::Snapshots::stop_at_savepoint). `None`: it stopped because something failed.
    pub fn at_savepoint(&self) -> Option<(&str, u64)> {
        match &self.reason {
            Reason::AtSavepoint { name, cut } => Some((name, *cut)),
            _ => None,
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stopped { address, reason, worker } = self;
        match address {
            Some(address) => write!(f, "stopped at \"{address}\" on worker {worker}: {reason}"),
            None => write!(f, "stopped on worker {worker}: {reason}"),
        }
    }
}

/// What to do when a function cannot handle a message.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Stop the dataflow on all workers. No frontier passes what did not happen.
    #[default]
    Stop,
    /// Give the message up: it becomes a dead letter, and the next one is handled.
    DeadLetter,
    /// Give the message up without a trace but a line in the log, and handle the next one.
    Skip,
}

/// An error and what caused it, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
