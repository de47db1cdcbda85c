//! What a function sees and can do while it handles one message.

use super::effects::{Mapped, Reach};
use super::egresses::{self, Egresses};
use super::meters::Meters;
use super::names::Names;
use super::{Head, NOBODY, Routed, TypeIndex};
use crate::address::{Address, FunctionType, Id, Namespace};
use crate::dead_letter::Reason;
use crate::egress::Egress;
use crate::error::Error;
use crate::function::Begin;
use crate::message::Carries;
use crate::placement;
use crate::state::{Cursor, FunctionState};
use crate::typed::TypedValue;
use crate::value::ValueSpec;

/// What a function sees and can do while it handles one message.
///
/// State that is written, messages that are sent and records that are emitted take effect together
/// when the function returns `Ok`, and not at all if it returns an error or panics.
///
/// Using a state or an egress in a way that does not fit how it was declared has no effect and makes
/// the invocation fail, whatever the function returns.
pub struct Context<'a, M, T = u64> {
    pub(super) head: &'a Head,
    pub(super) now_ms: u64,
    pub(super) cursor: &'a mut Cursor,
    pub(super) state: &'a mut FunctionState,
    pub(super) names: &'a mut Names,
    pub(super) meters: &'a mut Meters,
    pub(super) egresses: &'a mut Egresses<T>,
    pub(super) reach: &'a mut dyn Reach<M, T>,
    pub(super) delayed_max: usize,
    /// Whether the function declares asynchronous operations.
    pub(super) operations: bool,
    /// The first misuse of state or an egress.
    pub(super) mistake: &'a mut Option<Reason>,
}

impl<M, T: Clone + PartialEq + 'static> Context<'_, M, T> {
    /// The address that handles this message.
    pub fn address(&self) -> Address {
        self.names.target(self.head)
    }

    /// The id of the address that handles this message.
    pub fn id(&self) -> &Id {
        &self.head.target
    }

    /// Who sent this message: the function that sent it, or whom the ingress named.
    pub fn caller(&self) -> Option<Address> {
        self.names.caller(self.head)
    }

    /// The ingress time: the timestamp of the record that caused this message, directly or through
    /// others. What is sent and emitted now has the same.
    pub fn time(&self) -> &T {
        self.reach.time()
    }

    /// What time it is by the program's [clock](crate::Functions::clock), in milliseconds since the
    /// beginning of 1970: when this worker began its present round of work. It never goes back.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The ingress frontier that this worker has seen: every ingress record it will still handle is
    /// at or after an element of it. Empty when there will be none.
    ///
    /// Messages that earlier records caused may still be under way.
    pub fn frontier(&self) -> &[T] {
        self.reach.frontier()
    }

    /// Sends a message to a function.
    ///
    /// Messages from one address to another arrive in the order in which they were sent.
    pub fn send<I>(&mut self, to: FunctionType<I>, id: impl Into<Id>, input: I)
    where
        M: Carries<I>,
    {
        let target = self.names.constant(to.as_str());
        self.dispatch(target, id.into(), M::pack(input));
    }

    /// Sends a message to a function of a namespace, which need not exist before.
    ///
    /// # Errors
    ///
    /// If `function` is not a valid name.
    pub fn send_within<I>(
        &mut self,
        to: Namespace<I>,
        function: &str,
        id: impl Into<Id>,
        input: I,
    ) -> Result<(), Error>
    where
        M: Carries<I>,
    {
        self.forward(to.at(function, id)?, M::pack(input));
        Ok(())
    }

    /// Sends a message to an address that is known only at run time.
    pub fn forward(&mut self, target: Address, message: M) {
        let target_type = self.names.index(&target.function_type);
        self.dispatch(target_type, target.id, message);
    }

    /// Sends an answer to the caller.
    ///
    /// # Errors
    ///
    /// If nobody sent this message.
    pub fn reply<I>(&mut self, input: I) -> Result<(), NoCaller>
    where
        M: Carries<I>,
    {
        if self.head.caller_type == NOBODY {
            return Err(NoCaller);
        }
        self.dispatch(self.head.caller_type, self.head.caller.clone(), M::pack(input));
        Ok(())
    }

    fn dispatch(&mut self, target_type: TypeIndex, target: Id, message: M) {
        let routed = self.routed(target_type, target, message);
        self.reach.send(routed);
    }

    /// A message from here.
    pub(super) fn routed(&self, target_type: TypeIndex, target: Id, message: M) -> Routed<M> {
        let caller_type = self.head.target_type;
        let head = Head {
            target_type,
            caller_type,
            depth: self.head.depth.saturating_add(1),
            function: self.names.function(target_type),
            again: false,
            hash: placement::hash(&target),
            target,
            caller: self.head.target.clone(),
            names: self.names.travelling(target_type, caller_type),
        };
        Routed { head, message }
    }

    /// The same context for a function whose messages are carried by this program's.
    pub(crate) fn with_mapped<N: 'static, R>(
        &mut self,
        run: impl FnOnce(&mut Context<'_, N, T>) -> R,
    ) -> R
    where
        M: Carries<N> + 'static,
    {
        run(&mut Context {
            head: self.head,
            now_ms: self.now_ms,
            cursor: &mut *self.cursor,
            state: &mut *self.state,
            names: &mut *self.names,
            meters: &mut *self.meters,
            egresses: &mut *self.egresses,
            reach: &mut Mapped::<M, N, T>::new(&mut *self.reach),
            delayed_max: self.delayed_max,
            operations: self.operations,
            mistake: &mut *self.mistake,
        })
    }

    /// Begins a function whose messages are carried by this program's.
    pub(crate) async fn begin_mapped<N: 'static>(
        &mut self,
        begin: Begin<N, T>,
    ) -> Result<(), Reason>
    where
        M: Carries<N> + 'static,
    {
        begin(&mut Context {
            head: self.head,
            now_ms: self.now_ms,
            cursor: &mut *self.cursor,
            state: &mut *self.state,
            names: &mut *self.names,
            meters: &mut *self.meters,
            egresses: &mut *self.egresses,
            reach: &mut Mapped::<M, N, T>::new(&mut *self.reach),
            delayed_max: self.delayed_max,
            operations: self.operations,
            mistake: &mut *self.mistake,
        })
        .await
    }

    /// Emits a record, which leaves at this message's [time](Self::time).
    pub fn emit<E: 'static>(&mut self, egress: Egress<E>, record: E) {
        let emitted = self.egresses.emit(egress, self.reach.time(), record);
        if let Err(mistake) = emitted {
            let egress = egress.name();
            self.mistake.get_or_insert(match mistake {
                egresses::Mistake::Unknown => Reason::UnknownEgress(egress.to_owned()),
                egresses::Mistake::OtherType { bound } => Reason::EgressType {
                    egress: egress.into(),
                    bound: bound.into(),
                    used: std::any::type_name::<E>().into(),
                },
            });
        }
    }

    /// Emits what a remote function gave to the egress of a name.
    pub(super) fn emit_typed(&mut self, egress: &str, value: TypedValue) {
        let emitted = self.egresses.emit_typed(egress, self.reach.time(), value);
        if let Err(mistake) = emitted {
            let name = egress.to_owned();
            self.mistake.get_or_insert(match mistake {
                egresses::TypedMistake::Unknown => Reason::UnknownEgress(name),
                egresses::TypedMistake::Untyped => Reason::UntypedEgress(name),
                egresses::TypedMistake::OtherType(mismatch) => Reason::WrongOutput(mismatch),
            });
        }
    }

    /// The value this address keeps, if it keeps one that has not [expired](crate::Expiration).
    pub fn get<V: 'static>(&mut self, spec: ValueSpec<V, &str>) -> Option<&V> {
        match self.state.get(self.cursor, spec) {
            Ok(value) => value,
            Err(mistake) => {
                self.mistake.get_or_insert(*mistake);
                None
            }
        }
    }

    /// Keeps a value, in place of the one there was.
    pub fn set<V: 'static>(&mut self, spec: ValueSpec<V, &str>, value: V) {
        self.put(spec, Some(value));
    }

    /// Keeps no value any more. An address that keeps none takes no memory.
    pub fn clear<V: 'static>(&mut self, spec: ValueSpec<V, &str>) {
        self.put(spec, None);
    }

    /// Changes a value, starting from the default where there is none, and returns what it became.
    ///
    /// ```
    /// # use timely_statefun::{Context, FunctionResult, ValueSpec};
    /// const SEEN: ValueSpec<u64> = ValueSpec::new("seen");
    ///
    /// fn greet(context: &mut Context<'_, String>, name: &String) -> FunctionResult {
    ///     let seen = context.update(SEEN, |seen| *seen += 1);
    ///     println!("{name} was here {seen} times");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// The value is cloned, so that an invocation that fails can be undone; large ones are better
    /// read with [`get`](Self::get) and written with [`set`](Self::set) only where they change.
    pub fn update<V: 'static + Clone + Default>(
        &mut self,
        spec: ValueSpec<V, &str>,
        change: impl FnOnce(&mut V),
    ) -> V {
        let mut value = self.get(spec).cloned().unwrap_or_default();
        change(&mut value);
        self.put(spec, Some(value.clone()));
        value
    }

    pub(super) fn put<V: 'static>(&mut self, spec: ValueSpec<V, &str>, value: Option<V>) {
        let put = self.state.put(self.cursor, &self.head.target, spec, value);
        if let Err(mistake) = put {
            self.mistake.get_or_insert(*mistake);
        }
    }
}

impl<M, T> std::fmt::Debug for Context<'_, M, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.names.target(self.head);
        f.debug_struct("Context").field("address", &address).finish_non_exhaustive()
    }
}

/// There is nobody to reply to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody sent this message, so there is nobody to reply to")]
pub struct NoCaller;
