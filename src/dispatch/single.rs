//! A function at a time, without a loop: for tests of functions.

use super::operations::OperationKey;
use super::{Context, Dispatcher, Entrance, Head, Routed, Surroundings};
use crate::address::Address;
use crate::dead_letter::Reason;
use crate::function::Code;

/// A delayed message that waits.
pub(crate) struct Waiting<'a, M> {
    /// Tells it from all others.
    pub(crate) sequence: u64,
    pub(crate) due_ms: u64,
    pub(crate) token: Option<&'a str>,
    pub(crate) target: Address,
    pub(crate) caller: Option<Address>,
    pub(crate) message: &'a M,
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// Runs the function of a message once, whatever is to become of the message if it fails.
    ///
    /// # Errors
    ///
    /// Why it failed; then nothing of what it did has happened, except that what it sent went out.
    pub(crate) fn attempt<S>(
        &mut self,
        mut routed: Routed<M>,
        outside: &mut S,
    ) -> Result<(), Reason>
    where
        S: Surroundings<M, T, Held = H>,
    {
        self.resolve(&mut routed.head);
        self.run(&routed, 0, outside).map_err(|failure| failure.reason)
    }

    /// Has `act` do something at an address, as its function could.
    ///
    /// # Errors
    ///
    /// As for [`attempt`](Self::attempt).
    pub(crate) fn act<S>(
        &mut self,
        mut head: Head,
        outside: &mut S,
        act: impl FnOnce(&mut Context<'_, M, T>),
    ) -> Result<(), Reason>
    where
        S: Surroundings<M, T, Held = H>,
    {
        self.resolve(&mut head);
        let done = self.run_as(&head, 0, outside, |context| {
            act(context);
            Ok(())
        });
        done.map_err(|failure| failure.reason)
    }

    /// Whether a function is bound to the type of a message, and is embedded.
    pub(crate) fn has_embedded(&mut self, head: &mut Head) -> bool {
        self.resolve(head);
        let body = self.entries[head.target_type as usize].body.as_ref();
        body.is_some_and(|body| matches!(body.code, Code::Embedded(_)))
    }

    /// The delayed messages that wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Waiting<'_, M>> {
        let waiting = self.later.list();
        waiting.map(|(identity, due_ms, token, routed)| Waiting {
            sequence: identity.sequence,
            due_ms,
            token,
            target: self.names.target(&routed.head),
            caller: self.names.caller(&routed.head),
            message: &routed.message,
        })
    }

    /// Brings in that nobody knows what became of an asynchronous operation.
    pub(crate) fn lose_operation<E>(&mut self, key: OperationKey, entrance: &mut E)
    where
        E: Entrance<M, T, Held = H>,
    {
        let message = self.operations.unknown(key);
        self.end_operation(key, Ok(message), entrance);
    }

    /// The target and the caller of a message.
    pub(crate) fn addresses(&mut self, head: &mut Head) -> (Address, Option<Address>) {
        self.resolve(head);
        (self.names.target(head), self.names.caller(head))
    }
}
