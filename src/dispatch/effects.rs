//! What a running function can reach, and what it does that must wait until it has succeeded.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use super::later::{Change, Later};
use super::operations::{Started, Unknown};
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
    fn start(&mut self, operation: Started<M>);
}

/// What an invocation does besides writing state, sending and emitting.
pub(super) struct Effects<M> {
    /// In order; what was taken back again is gone.
    delayed: Vec<Option<Change<M>>>,
    /// What this invocation did with a token of its address.
    tokens: HashMap<Box<str>, Token>,
    pub(super) started: Vec<Started<M>>,
}

enum Token {
    /// A message was set with it: the change at this place.
    Used(usize),
    /// Its message was cancelled.
    Free,
}

impl<M> Default for Effects<M> {
    fn default() -> Self {
        Effects { delayed: Vec::new(), tokens: HashMap::new(), started: Vec::new() }
    }
}

impl<M> Effects<M> {
    pub(super) fn is_empty(&self) -> bool {
        self.delayed.is_empty() && self.started.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.delayed.clear();
        self.tokens.clear();
        self.started.clear();
    }

    /// Takes what was done with delayed messages, in order.
    pub(super) fn take_delayed(&mut self) -> impl Iterator<Item = Change<M>> + '_ {
        self.tokens.clear();
        self.delayed.drain(..).flatten()
    }
}

/// The surroundings of an invocation, and its effects.
pub(super) struct Reached<'a, M, S> {
    pub(super) outside: &'a mut S,
    pub(super) later: &'a Later<M>,
    pub(super) effects: &'a mut Effects<M>,
    /// Messages that the invocation has sent to this worker, and to others.
    pub(super) sent_here: u32,
    pub(super) sent_away: u32,
}

impl<M, T, S: Surroundings<M, T>> Reach<M, T> for Reached<'_, M, S> {
    fn time(&self) -> &T {
        self.outside.time()
    }

    fn frontier(&self) -> &[T] {
        self.outside.frontier()
    }

    fn send(&mut self, message: Routed<M>) {
        match self.outside.send(message) {
            true => self.sent_here += 1,
            false => self.sent_away += 1,
        }
    }

    fn delayed(&self) -> usize {
        self.later.len() + self.effects.delayed.len()
    }

    fn token_is_used(&self, sender: &Head, token: &str) -> bool {
        match self.effects.tokens.get(token) {
            Some(Token::Used(_)) => true,
            Some(Token::Free) => false,
            None => self.later.find(sender, token).is_some(),
        }
    }

    fn send_after(&mut self, due_ms: u64, token: Option<Box<str>>, routed: Routed<M>) {
        let Effects { delayed, tokens, .. } = &mut *self.effects;
        if let Some(token) = &token {
            tokens.insert(token.clone(), Token::Used(delayed.len()));
        }
        delayed.push(Some(Change::Set { due_ms, token, routed }));
    }

    fn cancel(&mut self, sender: &Head, token: &str) -> bool {
        let Effects { delayed, tokens, .. } = &mut *self.effects;
        let change = match tokens.get(token) {
            Some(Token::Used(at)) => {
                delayed[*at] = None;
                None
            }
            #[cfg(statefun_planted)]
            Some(Token::Free) if crate::planted::is("cancelled-twice") => return true,
            Some(Token::Free) => return false,
            None => match self.later.find(sender, token) {
                Some(key) => Some(Change::Cancel(key)),
                None => return false,
            },
        };
        delayed.extend(change.map(Some));
        tokens.insert(token.into(), Token::Free);
        true
    }

    fn start(&mut self, operation: Started<M>) {
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

/// Makes a message that another one carries.
struct Packed<N>(Arc<dyn Unknown<N>>);

impl<M: Carries<N>, N> Unknown<M> for Packed<N> {
    fn unknown(&self) -> M {
        M::pack(self.0.unknown())
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

    fn start(&mut self, Started { task, unknown }: Started<N>) {
        let task = Box::pin(async move { task.await.map(M::pack) });
        self.reach.start(Started { task, unknown: Arc::new(Packed(unknown)) });
    }
}
