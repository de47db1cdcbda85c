//! What a function does that has effects later: delayed messages, and asynchronous operations.

use std::future::Future;
use std::time::Duration;

use super::TypeIndex;
use super::context::Context;
use super::operations::{self, Outcome};
use crate::address::{Address, FunctionType, Id};
use crate::dead_letter::Reason;
use crate::message::Carries;

impl<M: 'static, T: Clone + PartialEq + 'static> Context<'_, M, T> {
    /// Sends a message after a delay, counted in milliseconds and rounded up, by the program's
    /// [clock](crate::Functions::clock). It is sent off once the delay is over, never before.
    ///
    /// A delayed message is no consequence of what is handled now: it does not hold back any frontier,
    /// and when it is sent off it is a new event, at the smallest element of the ingress frontier at
    /// that moment. Messages that are due are sent off in the order in which they are due, and those
    /// of one millisecond in the order in which they were sent.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use timely_statefun::{Context, FunctionResult, FunctionType, ValueSpec};
    /// const SESSION: FunctionType<bool> = FunctionType::new("example/session");
    /// const OPEN: ValueSpec<bool> = ValueSpec::new("open");
    ///
    /// /// Opens a session and closes it after a minute.
    /// fn session(context: &mut Context<'_, bool>, open: &bool) -> FunctionResult {
    ///     if *open {
    ///         let this = context.id().clone();
    ///         context.send_after(Duration::from_secs(60), SESSION, this, false);
    ///     }
    ///     context.set(OPEN, *open);
    ///     Ok(())
    /// }
    /// ```
    pub fn send_after<I>(
        &mut self,
        delay: Duration,
        to: FunctionType<I>,
        id: impl Into<Id>,
        input: I,
    ) where
        M: Carries<I>,
    {
        let target = self.names.constant(to.as_str());
        self.delay(delay, None, target, id.into(), M::pack(input));
    }

    /// Sends a message after a delay, as [`send_after`](Self::send_after) does, unless it is
    /// [cancelled](Self::cancel) before.
    ///
    /// A token belongs to the address that sends. It is free again once its message was sent off or
    /// cancelled.
    ///
    /// # Errors
    ///
    /// If a message of this address waits with the same token. Nothing is sent then.
    pub fn send_after_unless_cancelled<I>(
        &mut self,
        token: &str,
        delay: Duration,
        to: FunctionType<I>,
        id: impl Into<Id>,
        input: I,
    ) -> Result<(), TokenInUse>
    where
        M: Carries<I>,
    {
        let token = self.free_token(token)?;
        let target = self.names.constant(to.as_str());
        self.delay(delay, Some(token), target, id.into(), M::pack(input));
        Ok(())
    }

    /// Sends a message after a delay to an address that is known only at run time, with or without a
    /// token.
    ///
    /// # Errors
    ///
    /// If a message of this address waits with the same token.
    pub fn forward_after(
        &mut self,
        token: Option<&str>,
        delay: Duration,
        target: Address,
        message: M,
    ) -> Result<(), TokenInUse> {
        let token = token.map(|token| self.free_token(token)).transpose()?;
        let target_type = self.names.index(&target.function_type);
        self.delay(delay, token, target_type, target.id, message);
        Ok(())
    }

    /// Cancels the delayed message that this address sent with a token. Says whether there was one
    /// that was not sent off yet; it will not be.
    pub fn cancel(&mut self, token: &str) -> bool {
        self.reach.cancel(self.head, token)
    }

    /// Starts an asynchronous operation on the program's [runtime](crate::Functions::runtime). What
    /// becomes of it comes back as a message to this address, which `message` makes; the address is
    /// its own caller then.
    ///
    /// The operation starts once this invocation has succeeded, and not at all if it fails. It keeps
    /// the ingress time of what is handled now: the message comes at the same time, and no frontier
    /// passes it before, unless the function is [detached](crate::Function::detached). Messages that
    /// arrive meanwhile are handled as always.
    ///
    /// `message` must make what this function takes. It may be asked more than once, also for
    /// [`Outcome::Unknown`] while the operation is under way: that is what a snapshot contains of it.
    ///
    /// ```
    /// # use timely_statefun::{Context, FunctionResult, Outcome, ValueSpec};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Clone, Debug, Serialize, Deserialize)]
    /// enum Order { Placed(String), Priced(String, Outcome<u64>) }
    ///
    /// # async fn price_of(item: String) -> Result<u64, std::io::Error> { Ok(item.len() as u64) }
    /// const PRICE: ValueSpec<u64> = ValueSpec::new("price");
    ///
    /// fn order(context: &mut Context<'_, Order>, order: &Order) -> FunctionResult {
    ///     match order {
    ///         Order::Placed(item) => {
    ///             let item = item.clone();
    ///             context.start(price_of(item.clone()), move |outcome| {
    ///                 Order::Priced(item.clone(), outcome)
    ///             });
    ///         }
    ///         Order::Priced(_, Outcome::Completed(price)) => context.set(PRICE, *price),
    ///         Order::Priced(item, outcome) => return Err(format!("{item}: {outcome:?}").into()),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn start<I, V, E>(
        &mut self,
        operation: impl Future<Output = Result<V, E>> + Send + 'static,
        message: impl Fn(Outcome<V>) -> I + Send + Sync + 'static,
    ) where
        M: Carries<I>,
        V: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.operations {
            self.reach
                .start(operations::started(operation, move |outcome| M::pack(message(outcome))));
        } else {
            self.mistake.get_or_insert(Reason::UndeclaredOperation);
        }
    }

    fn free_token(&self, token: &str) -> Result<Box<str>, TokenInUse> {
        match self.reach.token_is_used(self.head, token) {
            true => Err(TokenInUse(token.into())),
            false => Ok(token.into()),
        }
    }

    fn delay(
        &mut self,
        delay: Duration,
        token: Option<Box<str>>,
        target_type: TypeIndex,
        target: Id,
        message: M,
    ) {
        if self.reach.delayed() >= self.delayed_max {
            self.mistake.get_or_insert(Reason::TooManyDelayed(self.delayed_max));
            return;
        }
        let delay_ms = delay.as_nanos().div_ceil(1_000_000);
        let delay_ms = u64::try_from(delay_ms).unwrap_or(u64::MAX);
        let routed = self.routed(target_type, target, message);
        self.reach.send_after(self.now_ms.saturating_add(delay_ms), token, routed);
    }
}

/// A token that a delayed message waits with cannot be given to another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delayed message waits with the token \"{0}\"")]
pub struct TokenInUse(Box<str>);
