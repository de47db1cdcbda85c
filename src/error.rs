//! Misuse found while a program is built.

use crate::address::TypeName;

/// A mistake in how functions, egresses or streams were put together, found before anything runs.
///
/// What exactly is wrong is asked with the predicates; the message names the thing and quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Kind);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Kind {
    #[error("function type \"{0}\" is bound twice")]
    DuplicateFunction(TypeName),
    #[error("namespace \"{0}\" is bound twice")]
    DuplicateNamespace(String),
    #[error("egress \"{0}\" is bound twice")]
    DuplicateEgress(String),
    #[error("state \"{state}\" of function type \"{function}\" is declared twice")]
    DuplicateState { function: String, state: String },
    #[error("state \"{state}\" of function type \"{function}\" cannot be watched: {why}")]
    NotWatchable { function: String, state: String, why: String },
    #[error("state \"{state}\" of function type \"{function}\" is not watched, or as another type")]
    NotWatched { function: String, state: String },
    #[error(
        "worker {worker} cannot attach look-ups, which it or all of {workers} workers have attached"
    )]
    LookUpsTaken { worker: usize, workers: usize },
    #[error(
        "function \"{0}\" needs a runtime, for asynchronous operations or calls, and none was given"
    )]
    NoRuntime(String),
    #[error(
        "function \"{0}\" mixes times, in a program that handles messages in the order of time"
    )]
    MixedTimes(String),
    #[error("the expiration of state \"{state}\" means nothing: {why}")]
    InvalidExpiration { state: String, why: &'static str },
    #[error("what becomes of stored state of function type \"{function}\" cannot be: {what} {why}")]
    InvalidConversion { function: String, what: String, why: &'static str },
    #[error("the endpoint \"{url}\" of function \"{function}\" is not valid: {why}")]
    InvalidEndpoint { function: String, url: String, why: String },
    #[error("there is no ingress: functions need at least one stream of messages")]
    NoIngress,
    #[error("egress \"{0}\" is not bound")]
    UnknownEgress(String),
    #[error("egress \"{0}\" was already taken")]
    EgressTaken(String),
    #[error("egress \"{egress}\" carries {bound}, not {asked}")]
    EgressType { egress: String, bound: &'static str, asked: &'static str },
    #[error(
        "ingress {number} of functions \"{set}\" takes no part in the snapshots that others take part in"
    )]
    NotInSnapshots { set: String, number: usize },
    #[error("ingress \"{0}\" takes part in other snapshots than the first of its functions")]
    OtherSnapshots(String),
    #[error("{what} \"{name}\" takes part in the snapshots twice")]
    TwiceInSnapshots { what: &'static str, name: String },
    #[error(
        "egress \"{0}\" is kept in snapshots as a whole, so it cannot be the ingress of other functions"
    )]
    KeptAndChained(String),
    #[error("egress \"{0}\" is held, and its functions take part in no snapshots")]
    HeldWithoutSnapshots(String),
    #[error("egress \"{0}\" is held, and was asked for as one that is not")]
    Held(String),
    #[error("egress \"{0}\" is not held, and was asked for as one that is")]
    NotHeld(String),
    #[error("no functions take part in the snapshots of which one is to be a savepoint")]
    NothingToSave,
    #[error("functions \"{0}\" were built after snapshots had begun to be taken")]
    SnapshotsBegun(String),
    #[error(
        "function \"{0}\" waits while it handles a message, and can only be served; `Context::start` begins \
         an operation in a dataflow"
    )]
    OnlyServed(String),
    #[cfg(feature = "serve")]
    #[error("{what} \"{name}\" cannot be served: {why}")]
    NotServed { what: &'static str, name: String, why: String },
    #[error("{what} \"{name}\" is not a valid name: {why}")]
    InvalidName { what: &'static str, name: String, why: &'static str },
}

impl Error {
    /// A function type, or a namespace, was bound twice.
    pub fn is_duplicate_function(&self) -> bool {
        matches!(self.0, Kind::DuplicateFunction(_) | Kind::DuplicateNamespace(_))
    }

    /// An egress was bound twice.
    pub fn is_duplicate_egress(&self) -> bool {
        matches!(self.0, Kind::DuplicateEgress(_))
    }

    /// A function declared two states of one name.
    pub fn is_duplicate_state(&self) -> bool {
        matches!(self.0, Kind::DuplicateState { .. })
    }

    /// A state is to be [watched](crate::Functions::watched) that its function does not declare, or declares
    /// otherwise, or whose function is not bound.
    pub fn is_not_watchable(&self) -> bool {
        matches!(self.0, Kind::NotWatchable { .. })
    }

    /// Changes of a state were asked for that is not [watched](crate::Functions::watched), or is watched as
    /// another type.
    pub fn is_not_watched(&self) -> bool {
        matches!(self.0, Kind::NotWatched { .. })
    }

    /// [Look-ups](crate::LookUps) were attached twice by one worker, or by more workers than they were made for.
    pub fn is_look_ups_taken(&self) -> bool {
        matches!(self.0, Kind::LookUpsTaken { .. })
    }

    /// A function declares asynchronous operations, or is remote, and the program gave no runtime.
    pub fn is_no_runtime(&self) -> bool {
        matches!(self.0, Kind::NoRuntime(_))
    }

    /// A function's calls may be about [several times](crate::Functions::remote_mixing_times) where messages
    /// are handled in the order of time.
    pub fn is_mixed_times(&self) -> bool {
        matches!(self.0, Kind::MixedTimes(_))
    }

    /// A state is to expire after no time at all, or after more than can be counted.
    pub fn is_invalid_expiration(&self) -> bool {
        matches!(self.0, Kind::InvalidExpiration { .. })
    }

    /// What is stored of a state is to be [converted](crate::Function::converted) or
    /// [discarded](crate::Function::discarded), and that contradicts what else is said of it.
    pub fn is_invalid_conversion(&self) -> bool {
        matches!(self.0, Kind::InvalidConversion { .. })
    }

    /// A remote function's URL, or a header or option for it, is not valid.
    pub fn is_invalid_endpoint(&self) -> bool {
        matches!(self.0, Kind::InvalidEndpoint { .. })
    }

    /// No stream was given.
    pub fn is_no_ingress(&self) -> bool {
        matches!(self.0, Kind::NoIngress)
    }

    /// An egress was asked for that was not bound.
    pub fn is_unknown_egress(&self) -> bool {
        matches!(self.0, Kind::UnknownEgress(_))
    }

    /// An egress was asked for a second time. The stream of the first time can be cloned.
    pub fn is_egress_taken(&self) -> bool {
        matches!(self.0, Kind::EgressTaken(_))
    }

    /// An egress was asked for with another type than it was bound with.
    pub fn is_egress_type(&self) -> bool {
        matches!(self.0, Kind::EgressType { .. })
    }

    /// A [held](crate::Functions::held_egress) egress was asked for as one that is not, or the other way round; or
    /// it belongs to functions that take part in no snapshots, so that it would be held for ever.
    pub fn is_misused_hold(&self) -> bool {
        matches!(self.0, Kind::HeldWithoutSnapshots(_) | Kind::Held(_) | Kind::NotHeld(_))
    }

    /// An ingress, or a set of functions, cannot take part in snapshots like this: others of its functions do
    /// and it does not, or the other way round; two have one name; what comes again after a restart is chained; or
    /// they are built in another dataflow than the first, or after snapshots had begun to be taken.
    pub fn is_misused_snapshots(&self) -> bool {
        matches!(
            self.0,
            Kind::NotInSnapshots { .. }
                | Kind::OtherSnapshots(_)
                | Kind::TwiceInSnapshots { .. }
                | Kind::KeptAndChained(_)
                | Kind::SnapshotsBegun(_)
        )
    }

    /// A savepoint is asked for where no functions take part in snapshots, or none do any more.
    pub fn is_no_functions_in_snapshots(&self) -> bool {
        matches!(self.0, Kind::NothingToSave)
    }

    /// A function is [asynchronous](crate::Function::new_async) and was embedded in a dataflow.
    #[cfg(feature = "serve")]
    pub fn is_only_served(&self) -> bool {
        matches!(self.0, Kind::OnlyServed(_))
    }

    /// Something cannot be [served](crate::serve): a remote function, state whose pieces expire by
    /// themselves, or an egress whose records have no type that others know.
    #[cfg(feature = "serve")]
    pub fn is_not_served(&self) -> bool {
        matches!(self.0, Kind::NotServed { .. })
    }

    /// A name breaks the rules of names.
    pub fn is_invalid_name(&self) -> bool {
        matches!(self.0, Kind::InvalidName { .. })
    }
}
