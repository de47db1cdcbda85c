//! What a running function can reach, and what it does that must wait until it has succeeded.

use std::marker::PhantomData;

use super::later::{Change, Later};
use super::operations::Task;
use super::{Head, Routed, Surroundings};
use crate::message::Carries;

/// What a function reaches through its [`Context`](super::Context).
///
/// A function of another message type reaches the same through [`Mapped`].
pub(super) trait Reach<M, T> {
    fn time(&self) -> &T;
    fn frontier(&self) -> &[T];
    fn send(&mut self, message: Routed<M>);
    /// How many delayed messages there would be with one more.
    fn delayed(&self) -> usize;
    fn token_is_used(&self, sender: &Head, token: &str) -> bool;
    fn send_after(&mut self, due_ms: u64, token: Option<Box<str>>, message: Routed<M>);
    fn cancel(&mut self, sender: &Head, token: &str) -> bool;
    fn start(&mut self, operation: Task<M>);
}

/// What an invocation does besides writing state, sending and emitting.
pub(super) struct Effects<M> {
    pub(super) delayed: Vec<Change<M>>,
    pub(super) started: Vec<Task<M>>,
}

impl<M> Default for Effects<M> {
    fn default() -> Self {
        Effects { delayed: Vec::new(), started: Vec::new() }
    }
}

impl<M> Effects<M> {
    pub(super) fn clear(&mut self) {
        self.delayed.clear();
        self.started.clear();
    }

    /// The delayed message of this invocation that has a token.
    fn position(&self, token: &str) -> Option<usize> {
        self.delayed.iter().position(|change| match change {
            Change::Set { token: Some(used), .. } => **used == *token,
            Change::Set { token: None, .. } | Change::Cancel(_) => false,
        })
    }
}

/// The surroundings of an invocation, and its effects.
pub(super) struct Reached<'a, M, S> {
    pub(super) outside: &'a mut S,
    pub(super) later: &'a Later<M>,
    pub(super) effects: &'a mut Effects<M>,
}

impl<M, S> Reached<'_, M, S> {
    /// The message with a token that was set by an earlier invocation and not taken back by this one.
    fn find(&self, sender: &Head, token: &str) -> Option<u32> {
        let key = self.later.find(sender, token)?;
        let cancelled =
            |change: &Change<M>| matches!(change, Change::Cancel(other) if *other == key);
        (!self.effects.delayed.iter().any(cancelled)).then_some(key)
    }
}

impl<M, T, S: Surroundings<M, T>> Reach<M, T> for Reached<'_, M, S> {
    fn time(&self) -> &T {
        self.outside.time()
    }

    fn frontier(&self) -> &[T] {
        self.outside.frontier()
    }

    fn send(&mut self, message: Routed<M>) {
        self.outside.send(message);
    }

    fn delayed(&self) -> usize {
        self.later.len() + self.effects.delayed.len()
    }

    fn token_is_used(&self, sender: &Head, token: &str) -> bool {
        self.effects.position(token).is_some() || self.find(sender, token).is_some()
    }

    fn send_after(&mut self, due_ms: u64, token: Option<Box<str>>, routed: Routed<M>) {
        self.effects.delayed.push(Change::Set { due_ms, token, routed });
    }

    fn cancel(&mut self, sender: &Head, token: &str) -> bool {
        if let Some(at) = self.effects.position(token) {
            self.effects.delayed.remove(at);
            return true;
        }
        let found = self.find(sender, token);
        self.effects.delayed.extend(found.map(Change::Cancel));
        found.is_some()
    }

    fn start(&mut self, operation: Task<M>) {
        self.effects.started.push(operation);
    }
}

/// What functions with messages of type `N` reach in a program whose messages, of type `M`, carry
/// them.
pub(super) struct Mapped<'a, M, N, T> {
    reach: &'a mut dyn Reach<M, T>,
    message: PhantomData<fn(N)>,
}

impl<'a, M, N, T> Mapped<'a, M, N, T> {
    pub(super) fn new(reach: &'a mut dyn Reach<M, T>) -> Self {
        Mapped { reach, message: PhantomData }
    }
}

fn packed<M: Carries<N>, N>(Routed { head, message }: Routed<N>) -> Routed<M> {
    Routed { head, message: M::pack(message) }
}

impl<M: Carries<N> + 'static, N: 'static, T> Reach<N, T> for Mapped<'_, M, N, T> {
    fn time(&self) -> &T {
        self.reach.time()
    }

    fn frontier(&self) -> &[T] {
        self.reach.frontier()
    }

    fn send(&mut self, message: Routed<N>) {
        self.reach.send(packed(message));
    }

    fn delayed(&self) -> usize {
        self.reach.delayed()
    }

    fn token_is_used(&self, sender: &Head, token: &str) -> bool {
        self.reach.token_is_used(sender, token)
    }

    fn send_after(&mut self, due_ms: u64, token: Option<Box<str>>, message: Routed<N>) {
        self.reach.send_after(due_ms, token, packed(message));
    }

    fn cancel(&mut self, sender: &Head, token: &str) -> bool {
        self.reach.cancel(sender, token)
    }

    fn start(&mut self, operation: Task<N>) {
        self.reach.start(Box::pin(async move { operation.await.map(M::pack) }));
    }
}
