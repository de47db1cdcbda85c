//! What travels: messages, and the envelopes they travel in.

use serde::{Deserialize, Serialize};

use crate::address::Address;

/// A program's message type that can carry inputs of type `I`.
///
/// A program has one message type. Where all its functions take that type, nothing needs to be
/// written: every type carries itself. A program with several kinds of input makes an enum of them
/// and implements this once for each, which [`messages!`](crate::messages) does for it. By hand it
/// looks like this:
///
/// ```
/// use timely_statefun::{Carries, Mismatch};
///
/// #[derive(Clone)]
/// enum Message { Deposit(u64), Query(String) }
///
/// impl Carries<u64> for Message {
///     fn pack(amount: u64) -> Self { Message::Deposit(amount) }
///     fn unpack<R>(&self, read: impl FnOnce(&u64) -> R) -> Result<R, Mismatch> {
///         match self {
///             Message::Deposit(amount) => Ok(read(amount)),
///             Message::Query(_) => Err(Mismatch::new("a deposit", "a query")),
///         }
///     }
/// }
///
/// assert_eq!(Message::pack(7).unpack(|amount: &u64| *amount).unwrap(), 7);
/// assert!(Message::Query(String::new()).unpack(|_: &u64| ()).is_err());
/// ```
#[diagnostic::on_unimplemented(
    message = "the program's message type `{Self}` does not carry `{I}`",
    label = "this function's input is `{I}`, but messages are `{Self}`",
    note = "let a variant of `{Self}` carry `{I}` (see `messages!`), or send what the function takes"
)]
pub trait Carries<I>: Sized {
    /// The message with this input.
    fn pack(input: I) -> Self;

    /// Reads the input, if the message has one of this type.
    ///
    /// # Errors
    ///
    /// If the message holds something else.
    fn unpack<R>(&self, read: impl FnOnce(&I) -> R) -> Result<R, Mismatch>;
}

impl<M> Carries<M> for M {
    #[inline]
    fn pack(input: M) -> M {
        input
    }

    #[inline]
    fn unpack<R>(&self, read: impl FnOnce(&M) -> R) -> Result<R, Mismatch> {
        Ok(read(self))
    }
}

/// A value of another type than was wanted.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize,
)]
#[error("{found} where {wanted} is wanted")]
pub struct Mismatch {
    wanted: String,
    found: String,
}

impl Mismatch {
    /// A mismatch that names both types.
    pub fn new(wanted: impl Into<String>, found: impl Into<String>) -> Self {
        Mismatch { wanted: wanted.into(), found: found.into() }
    }
}

/// A message with who it is for and, where there is one, who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<M> {
    /// Who the message is for.
    pub target: Address,
    /// Who the function will see as its caller.
    pub caller: Option<Address>,
    /// What it says.
    pub message: M,
    /// Where in its source it was read, if that is known: a partition, and a position in it.
    pub position: Option<(u64, u64)>,
}

impl<M> Envelope<M> {
    /// A message for `target` from nobody. [`FunctionType::message`](crate::FunctionType::message)
    /// makes one whose type is checked.
    pub fn new(target: Address, message: M) -> Self {
        Envelope { target, caller: None, message, position: None }
    }

    /// The same message from `caller`, whom the function can reply to.
    #[must_use]
    pub fn with_caller(mut self, caller: Address) -> Self {
        self.caller = Some(caller);
        self
    }

    /// The same message, with where in its source it was read. Positions must rise within a partition, in
    /// the order in which its messages come to one ingress of one worker; where several messages are made
    /// of what was read, each needs a position of its own.
    ///
    /// ```
    /// use timely_statefun::{Envelope, FunctionType};
    ///
    /// const PERSON: FunctionType<String> = FunctionType::new("example/person");
    ///
    /// let line = 17;
    /// let ends: [Envelope<String>; 2] =
    ///     [PERSON.message("Ada", "calls".to_owned()), PERSON.message("Ben", "is called".to_owned())];
    /// let [caller, callee] = ends;
    /// let ends = [caller.read_at(0, 2 * line), callee.read_at(0, 2 * line + 1)];
    /// assert_eq!(ends[1].position, Some((0, 35)));
    /// ```
    #[must_use]
    pub fn read_at(mut self, partition: u64, position: u64) -> Self {
        self.position = Some((partition, position));
        self
    }
}
