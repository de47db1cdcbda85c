//! One batch of messages at a time, for one address whose state comes with it and goes with the answer.
//!
//! Nothing that a batch does happens here: all of it is gathered, given away as one answer, and undone. So a
//! batch happens altogether or not at all, and finds nothing of those before it, whatever became of them.
//!
//! A desk does not know who waits for the answer, and awaits nothing but the functions themselves.

use std::collections::HashMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::calls::{CallAnswer, CallDelayed, CallEffects, RemoteState};
use super::context::Context;
use super::effects::Reach;
use super::egresses::Egresses;
use super::meters::Meters;
use super::names::Names;
use super::operations::{Started, Task};
use super::{Head, Routed, panic_message};
use crate::address::{Address, TypeName};
use crate::dead_letter::Reason;
use crate::function::{Body, Code};
use crate::placement;
use crate::state::{Cursor, FunctionState, Given, Unfit, VisitingState};
use crate::typed::{TypedMessage, TypedValue};

/// Names of types that are remembered between batches. Whoever asks can make up any number of them.
const NAMES_MAX: usize = 4096;

/// A batch of messages for one address, and what is kept there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) target: Address,
    pub(crate) states: Vec<Given>,
    /// The messages, each with its caller.
    pub(crate) messages: Vec<(Option<Address>, TypedValue)>,
}

/// Why a batch is not handled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Turned {
    /// No function of this type is here.
    Unknown(TypeName),
    /// These states must come with it.
    Incomplete(Vec<RemoteState>),
    /// What came with it is not what the function declares.
    Invalid(String),
}

/// A function that is bound, and the state of the one address that is here.
struct Seat<M, T> {
    body: Rc<Body<M, T>>,
    state: FunctionState,
    meters: Meters,
}

/// Who is here.
struct Visitor {
    seat: usize,
    target: Address,
    cursor: Cursor,
    now_ms: u64,
}

/// Where one batch at a time is handled.
pub(crate) struct Desk<M, T> {
    /// By number of the function.
    seats: Vec<Seat<M, T>>,
    /// How many of them are of a type of their own; the others are of namespaces.
    types: usize,
    names: Names,
    /// The names as they were at first.
    first_names: Names,
    egresses: Egresses<T>,
    gathered: Gathered<M, T>,
    delayed_max: usize,
    visitor: Option<Visitor>,
}

impl<M: TypedMessage, T: Clone + PartialEq + 'static> Desk<M, T> {
    /// Functions by number, of which the first `types` have a type of their own.
    pub(crate) fn new(
        bodies: impl Iterator<Item = Rc<Body<M, T>>>,
        types: usize,
        names: Names,
        egresses: Egresses<T>,
        delayed_max: usize,
        time: T,
    ) -> Self {
        let seats = bodies.map(|body| {
            let state = FunctionState::new(&body.values, body.registry);
            Seat { body, state, meters: Meters::default() }
        });
        let first_names = names.clone();
        Desk {
            seats: seats.collect(),
            types,
            names,
            first_names,
            egresses,
            gathered: Gathered::new(time),
            delayed_max,
            visitor: None,
        }
    }

    /// Puts in place what came for an address at this time, which stands still until it is
    /// [cleared](Self::clear), also if this fails.
    ///
    /// # Errors
    ///
    /// If nothing can be handled.
    pub(crate) fn admit(
        &mut self,
        target: Address,
        states: Vec<Given>,
        now_ms: u64,
    ) -> Result<(), Turned> {
        assert!(self.visitor.is_none(), "one batch at a time is handled");
        let Some(seat) = self.names.bound_to(&target.function_type) else {
            return Err(Turned::Unknown(target.function_type));
        };
        let hash = placement::hash(&target.id);
        let cursor = self.seats[seat].state.admit(&target.id, hash, now_ms, states);
        let cursor = cursor.map_err(|unfit| match unfit {
            Unfit::Missing(states) => Turned::Incomplete(states.into_iter().map(remote).collect()),
            Unfit::Invalid(why) => Turned::Invalid(why),
        });
        match cursor {
            Ok(cursor) => {
                self.visitor = Some(Visitor { seat, target, cursor, now_ms });
                Ok(())
            }
            Err(turned) => {
                self.seats[seat].state.dismiss();
                Err(turned)
            }
        }
    }

    /// Has the function handle a message that came.
    ///
    /// # Errors
    ///
    /// Why it failed. Nothing of the batch counts then.
    pub(crate) async fn handle(
        &mut self,
        caller: Option<Address>,
        value: TypedValue,
    ) -> Result<(), Reason> {
        let message = caught(|| M::from_typed(value).map_err(Reason::WrongInput))?;
        self.run(caller, &message).await
    }

    /// Has the function handle what became of an operation it began. Its address is its own caller then.
    ///
    /// # Errors
    ///
    /// As for [`handle`](Self::handle).
    pub(crate) async fn tell(&mut self, outcome: Result<M, String>) -> Result<(), Reason> {
        let message = outcome.map_err(Reason::NoResult)?;
        let visitor = self.visitor.as_ref().expect("somebody is here");
        self.run(Some(visitor.target.clone()), &message).await
    }

    async fn run(&mut self, caller: Option<Address>, message: &M) -> Result<(), Reason> {
        let visitor = self.visitor.as_mut().expect("somebody is here");
        let Seat { body, state, meters } = &mut self.seats[visitor.seat];
        if state.lacks_some() && matches!(body.code, Code::Awaited(_)) {
            return Ok(());
        }
        let head = self.names.head(visitor.target.clone(), caller);
        let mut mistake = None;
        let mut context = Context {
            head: &head,
            now_ms: visitor.now_ms,
            cursor: &mut visitor.cursor,
            state,
            names: &mut self.names,
            meters,
            egresses: &mut self.egresses,
            reach: &mut self.gathered,
            delayed_max: self.delayed_max,
            operations: body.operations_max > 0,
            mistake: &mut mistake,
        };
        let result = match &body.code {
            Code::Embedded(run) => caught(|| run(&mut context, message)),
            Code::Awaited(prepare) => {
                let begin = caught(|| prepare(message).map_err(Reason::WrongInput));
                match begin.and_then(|begin| caught(|| Ok(begin(&mut context)))) {
                    Ok(running) => {
                        let mut running = pin!(running);
                        poll_fn(|wake| {
                            let poll = AssertUnwindSafe(|| running.as_mut().poll(wake));
                            catch_unwind(poll).unwrap_or_else(|panic| {
                                Poll::Ready(Err(Reason::Panicked(panic_message(&*panic))))
                            })
                        })
                        .await
                    }
                    Err(reason) => Err(reason),
                }
            }
            Code::Remote(_) => unreachable!("a function that is served is not remote"),
        };
        // Without all of its state, what a function did means nothing, and so does that it failed.
        match self.seats[visitor.seat].state.lacks_some() {
            true => Ok(()),
            false => mistake.map_or(result, Err),
        }
    }

    /// How many operations of the function may be under way at once.
    pub(crate) fn operations_max(&self) -> usize {
        let visitor = self.visitor.as_ref().expect("somebody is here");
        self.seats[visitor.seat].body.operations_max
    }

    /// The operations that were begun, in order. None is worth anything before all state has come.
    pub(crate) fn take_operations(&mut self) -> Vec<Task<M>> {
        let visitor = self.visitor.as_ref().expect("somebody is here");
        let mut begun = std::mem::take(&mut self.gathered.begun);
        if self.seats[visitor.seat].state.lacks_some() {
            begun.clear();
        }
        begun
    }

    /// What the batch did.
    ///
    /// # Errors
    ///
    /// If something of it cannot be told.
    pub(crate) fn answer(&mut self) -> Result<CallAnswer, Reason> {
        let visitor = self.visitor.as_ref().expect("somebody is here");
        let Seat { state, .. } = &self.seats[visitor.seat];
        if state.lacks_some() {
            let lacking = state.lacking().into_iter().map(remote);
            return Ok(CallAnswer::Incomplete(lacking.collect()));
        }
        let Desk { names, gathered, egresses, .. } = self;
        let address = |head: &Head| names.target(head);
        let typed = |message: &M| message.to_typed().map_err(Reason::WrongOutput);
        caught(|| {
            let sent = gathered.sent.drain(..);
            let sent = sent.map(|sent| Ok((address(&sent.head), typed(&sent.message)?)));
            let sent = sent.collect::<Result<_, Reason>>()?;
            let delayed = gathered.delayed.drain(..).map(|delayed| {
                Ok(match delayed {
                    Delayed::Cancel(token) => CallDelayed::Cancel(named(token)?.into()),
                    Delayed::Send { due_ms, token, sent: Routed { head, message } } => {
                        CallDelayed::Send {
                            delay_ms: due_ms - visitor.now_ms,
                            token: token.map(named).transpose()?.map(String::from),
                            target: address(&head),
                            message: typed(&message)?,
                        }
                    }
                })
            });
            let delayed = delayed.collect::<Result<_, Reason>>()?;
            let emitted = egresses.take_typed().map_err(Reason::WrongOutput)?;
            let states = state.changes().map_err(Reason::Failed)?.into_iter();
            let states = states.map(|(name, value)| {
                (name, value.map(|(type_name, bytes)| TypedValue::found(&type_name, bytes)))
            });
            let states = states.collect();
            Ok(CallAnswer::Done(CallEffects { sent, delayed, emitted, states }))
        })
    }

    /// Forgets the batch, however far it came.
    pub(crate) fn clear(&mut self) {
        self.egresses.rollback();
        self.gathered.clear();
        let Some(visitor) = self.visitor.take() else { return };
        let seat = &mut self.seats[visitor.seat];
        seat.state.dismiss();
        if visitor.seat >= self.types {
            // They are of another type next time.
            seat.meters = Meters::default();
        }
        if self.names.len() > NAMES_MAX {
            self.names = self.first_names.clone();
        }
    }
}

fn remote(state: VisitingState) -> RemoteState {
    let VisitingState { name, type_name, expiration } = state;
    RemoteState { name, type_name, expiration }
}

/// A token that others can tell from none.
fn named(token: Box<str>) -> Result<Box<str>, Reason> {
    match token.is_empty() {
        true => Err(Reason::Failed("an empty token means none to whoever calls".to_owned())),
        false => Ok(token),
    }
}

/// What code of others comes to, which may panic.
fn caught<X>(run: impl FnOnce() -> Result<X, Reason>) -> Result<X, Reason> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Reason::Panicked(panic_message(&*panic))))
}

/// What a batch does that is no state and no record of an egress, in order.
struct Gathered<M, T> {
    time: T,
    sent: Vec<Routed<M>>,
    delayed: Vec<Delayed<M>>,
    /// What is known of tokens: whether a message waits with it.
    tokens: HashMap<Box<str>, bool>,
    begun: Vec<Task<M>>,
}

enum Delayed<M> {
    Send { due_ms: u64, token: Option<Box<str>>, sent: Routed<M> },
    Cancel(Box<str>),
}

impl<M, T> Gathered<M, T> {
    fn new(time: T) -> Self {
        let (sent, delayed) = (Vec::new(), Vec::new());
        Gathered { time, sent, delayed, tokens: HashMap::new(), begun: Vec::new() }
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.delayed.clear();
        self.tokens.clear();
        self.begun.clear();
    }
}

impl<M, T> Reach<M, T> for Gathered<M, T> {
    fn time(&self) -> &T {
        &self.time
    }

    fn frontier(&self) -> &[T] {
        std::slice::from_ref(&self.time)
    }

    fn send(&mut self, message: Routed<M>) {
        self.sent.push(message);
    }

    fn delayed(&self) -> usize {
        self.delayed.len()
    }

    fn token_is_used(&self, _: &Head, token: &str) -> bool {
        self.tokens.get(token).is_some_and(|waits| *waits)
    }

    fn send_after(&mut self, due_ms: u64, token: Option<Box<str>>, sent: Routed<M>) {
        self.tokens.extend(token.clone().map(|token| (token, true)));
        self.delayed.push(Delayed::Send { due_ms, token, sent });
    }

    /// What waits is known only to whoever calls, who is told in any case.
    fn cancel(&mut self, _: &Head, token: &str) -> bool {
        self.delayed.push(Delayed::Cancel(token.into()));
        self.tokens.insert(token.into(), false) != Some(false)
    }

    fn start(&mut self, Started { task, .. }: Started<M>) {
        self.begun.push(task);
    }
}
