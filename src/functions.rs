//! The builder: which functions and egresses there are, checked before a dataflow exists.

use std::cell::Cell;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use differential_dataflow::difference::Semigroup;
use differential_dataflow::lattice::Lattice;
use smol_str::SmolStr;
use timely::progress::Timestamp;
use timely_statefun_operators::Order;
use tokio::runtime::Handle;

use crate::address::{self, FunctionType, Namespace, TypeName};
use crate::clock::Clock;
use crate::dead_letter::OnFailure;
#[cfg(feature = "serve")]
use crate::dispatch::Desk;
use crate::dispatch::{
    Bound, Dispatcher, Egresses, ErasedChanges, ErasedEgress, Keeping, Names, Sums, TraceOf,
};
use crate::egress::Egress;
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind};
use crate::function::{Body, Code, Function};
use crate::message::Carries;
use crate::metering::Metering;
use crate::remote;
use crate::state::{Conversion, Conversions, Declared};
use crate::trace::TraceContext;
use crate::typed::TypedMessage;
use crate::value::Value;
use crate::watched::{Watchable, WatchedState};

/// Limits of a set of functions, each with its default.
///
/// ```
/// use timely_statefun::{Functions, Limits};
///
/// let limits = Limits { budget_messages: 1, ..Limits::default() };
/// let functions = Functions::<String>::new().limits(limits);
/// # functions.check().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages a worker handles before it gives other operators their turn. Default 4,096; at
    /// least 1.
    pub budget_messages: usize,
    /// Time after which it does so although it could handle more; looked at between messages.
    /// Default 1 ms; `None` for no limit.
    pub activation_max: Option<Duration>,
    /// How long a worker without work keeps looking for some before its thread parks, in programs
    /// of several workers. Default 20 µs.
    pub spin: Duration,
    /// Records that one ingress of one worker may have let in for one worker and that are not yet
    /// handled. Default 65,536; at least 1.
    pub gate_credit_records: usize,
    /// Bytes waiting on a worker above which no ingress lets anything in, until they are below
    /// three quarters of it. A message counts with the size of its type. Default 256 MiB.
    pub loop_bytes_soft: usize,
    /// Bytes waiting on a worker above which messages that functions send it are given up, as
    /// [`when_full`](Self::when_full) says. Default 1 GiB.
    pub loop_bytes_hard: usize,
    /// What becomes of messages above [`loop_bytes_hard`](Self::loop_bytes_hard). Default: stop.
    pub when_full: OnFailure,
    /// How many messages may lead to one another before the last becomes a dead letter. Default
    /// `u32::MAX`, which stands for no limit: functions may message each other for ever. A delayed
    /// message begins a new chain.
    pub depth_max: u32,
    /// Delayed messages that may wait on a worker. An invocation that would send more fails. Default
    /// 2,147,483,648.
    pub delayed_messages_max: usize,
    /// Asynchronous operations that may be under way on a worker. Those beyond wait for their turn. At
    /// least one for each function that declares some; while a function has none under way, the others
    /// leave a place for it. Default 32,768, as in StateFun.
    pub operations_max: usize,
    /// Calls of remote functions that may be under way on a worker. Those beyond wait for their turn. At
    /// least one for each remote function; while one has none under way, the others leave a place for
    /// it. Default 1,024. (StateFun: 32,768 for calls and asynchronous operations together.)
    pub in_flight_max: usize,
    /// Bytes of messages that may wait on a worker for the answers of one remote function before its
    /// ingress is held back, and nobody else's, until they are below three quarters of it. `None`, the
    /// default, for a quarter of [`loop_bytes_soft`](Self::loop_bytes_soft).
    pub function_bytes_soft: Option<usize>,
}

/// What becomes of delayed messages that still wait when all ingress has closed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum AtClose {
    /// They are sent off when they are due, and the dataflow lasts until then. A function that always
    /// sends itself another makes it last for ever; it can see in an empty
    /// [frontier](crate::Context::frontier) that ingress has closed.
    #[default]
    Wait,
    /// They are sent off at once, in the order in which they would have been, and so is every message
    /// that is sent with a delay from then on.
    SendNow,
}

/// What becomes of the state that is stored of functions that are no longer bound, when a program is restored.
///
/// Messages that are stored for them are what all messages for functions that are not bound are: they fail when
/// they are handled, or, if they are delayed, when they are due.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum OnUnbound {
    /// The program is not restored, and says which functions are missing.
    #[default]
    Fail,
    /// It stays part of snapshots, as it was stored, and is there when the function is bound again.
    Keep,
    /// It is left out. The next snapshot is a full one, and has nothing of it.
    Discard,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = timely_statefun_operators::LoopConfig::default();
        Limits {
            budget_messages: limits.budget_messages,
            activation_max: limits.activation_max,
            spin: limits.spin,
            gate_credit_records: limits.gate_credit_records,
            loop_bytes_soft: limits.loop_bytes_soft,
            loop_bytes_hard: limits.loop_bytes_hard,
            when_full: OnFailure::Stop,
            depth_max: u32::MAX,
            delayed_messages_max: 1 << 31,
            operations_max: 32_768,
            in_flight_max: 1024,
            function_bytes_soft: None,
        }
    }
}

/// Which functions and egresses there are. `M` is the program's message type, `T` its timestamp.
///
/// Every worker builds the same ones. Mistakes are kept and come back from [`check`](Self::check) or
/// from [`stateful_functions`](crate::StatefulFunctions::stateful_functions), before anything is
/// built.
pub struct Functions<M, T = u64> {
    pub(crate) name: String,
    pub(crate) functions: Vec<(TypeName, Rc<Body<M, T>>)>,
    pub(crate) namespaces: Vec<(SmolStr, Rc<Body<M, T>>)>,
    pub(crate) egresses: Vec<ErasedEgress<T>>,
    pub(crate) watched: Vec<WatchedState<T>>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) at_close: AtClose,
    pub(crate) on_unbound: OnUnbound,
    pub(crate) order: Order,
    pub(crate) runtime: Option<Handle>,
    pub(crate) metering: Metering<T>,
    /// If calls are made with trace contexts.
    pub(crate) trace_of: Option<TraceOf<M>>,
    /// If a test looks on.
    #[cfg(feature = "testing")]
    pub(crate) watch: Option<Rc<crate::dispatch::Watch<M, T>>>,
    /// Who answers remote functions, if a test does.
    #[cfg(feature = "testing")]
    pub(crate) answers: Option<std::sync::Arc<dyn remote::Answers>>,
    /// How long a test holds back what goes to workers.
    #[cfg(feature = "testing")]
    pub(crate) delays: Option<timely_statefun_operators::Delays>,
    mistake: Option<Error>,
}

impl<M: 'static, T: Clone + PartialEq + 'static> Functions<M, T> {
    /// No functions and no egresses.
    pub fn new() -> Self {
        Functions {
            name: "functions".to_owned(),
            functions: Vec::new(),
            namespaces: Vec::new(),
            egresses: Vec::new(),
            watched: Vec::new(),
            limits: Limits::default(),
            clock: Clock::system(),
            at_close: AtClose::Wait,
            on_unbound: OnUnbound::Fail,
            order: Order::Arrival,
            runtime: None,
            metering: Metering::new(),
            trace_of: None,
            #[cfg(feature = "testing")]
            watch: None,
            #[cfg(feature = "testing")]
            answers: None,
            #[cfg(feature = "testing")]
            delays: None,
            mistake: None,
        }
    }

    /// Names this set of functions, for the operators it becomes. Default "functions".
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Binds a function to one type.
    #[must_use]
    pub fn embedded<I>(mut self, to: FunctionType<I>, function: Function<M, I, T>) -> Self
    where
        M: Carries<I>,
    {
        let name = to.as_str();
        self.note(address::check("function type", name));
        self.note(check_values(name, &function.body));
        self.bind(to.name(), function.body);
        self
    }

    /// Binds a function to all types of a namespace that are not bound by themselves.
    ///
    /// Each such type keeps state of its own. Types come into being with their first message.
    #[must_use]
    pub fn embedded_namespace<I>(mut self, to: Namespace<I>, function: Function<M, I, T>) -> Self
    where
        M: Carries<I>,
    {
        let name = to.name();
        self.note(address::check_part("namespace", name));
        self.note(check_values(name, &function.body));
        self.bind_namespace(SmolStr::new_static(name), function.body);
        self
    }

    /// Binds one type to a function that is served elsewhere.
    ///
    /// Its messages wait while the one call of their address is under way, and then go to it together. A
    /// slow or failing endpoint delays the addresses of its own functions and nothing else.
    #[must_use]
    pub fn remote<I>(mut self, to: FunctionType<I>, mut endpoint: Endpoint) -> Self
    where
        M: Carries<I> + TypedMessage,
    {
        let name = to.as_str();
        self.note(address::check("function type", name));
        let last = name.rsplit_once('/').map(|(_, last)| last);
        self.note(remote::check(name, last, &mut endpoint));
        let body = Body::remote(endpoint);
        self.note(check_values(name, &body));
        self.bind(to.name(), body);
        self
    }

    /// Binds all types of a namespace that are not bound by themselves to functions that are served
    /// elsewhere. A function that appears there is called from its first message on.
    #[must_use]
    pub fn remote_namespace<I>(mut self, to: Namespace<I>, mut endpoint: Endpoint) -> Self
    where
        M: Carries<I> + TypedMessage,
    {
        let name = to.name();
        self.note(address::check_part("namespace", name));
        self.note(remote::check(name, None, &mut endpoint));
        let body = Body::remote(endpoint);
        self.note(check_values(name, &body));
        self.bind_namespace(SmolStr::new_static(name), body);
        self
    }

    /// Binds one type whose name was found at run time to a function that is served elsewhere.
    ///
    /// # Errors
    ///
    /// If it is bound already, or its endpoint is not valid.
    #[cfg(feature = "modules")]
    pub(crate) fn try_remote(&mut self, name: TypeName, mut endpoint: Endpoint) -> Result<(), Error>
    where
        M: TypedMessage,
    {
        let twice = self.functions.iter().any(|(bound, _)| *bound == name);
        once(twice, || Kind::DuplicateFunction(name.clone()))?;
        remote::check(name.as_str(), Some(name.name()), &mut endpoint)?;
        let body = Body::remote(endpoint);
        check_values(name.as_str(), &body)?;
        self.bind(name, body);
        Ok(())
    }

    /// Does the same for all types of a namespace that are not bound by themselves.
    ///
    /// # Errors
    ///
    /// As for [`try_remote`](Self::try_remote).
    #[cfg(feature = "modules")]
    pub(crate) fn try_remote_namespace(
        &mut self,
        name: &str,
        mut endpoint: Endpoint,
    ) -> Result<(), Error>
    where
        M: TypedMessage,
    {
        let twice = self.namespaces.iter().any(|(bound, _)| bound == name);
        once(twice, || Kind::DuplicateNamespace(name.to_owned()))?;
        remote::check(name, None, &mut endpoint)?;
        let body = Body::remote(endpoint);
        check_values(name, &body)?;
        self.bind_namespace(name.into(), body);
        Ok(())
    }

    /// Binds one type to a function that is served elsewhere, and lets its calls be about messages of
    /// several times: where many times are alive, each with few messages for an address, there are fewer
    /// calls.
    ///
    /// An answer does not say which message caused what. Everything it says happens at the join of the
    /// times, the least that none of them is after, and all of them are held until then: no frontier
    /// passes the first before the answer has taken effect at the last. Not for a program that handles
    /// messages in [the order of time](Self::order), whose results must not depend on what happened to
    /// wait.
    #[must_use]
    pub fn remote_mixing_times<I>(mut self, to: FunctionType<I>, endpoint: Endpoint) -> Self
    where
        M: Carries<I> + TypedMessage,
        T: Lattice,
    {
        self = self.remote(to, endpoint);
        mix_times(self.functions.last_mut());
        self
    }

    /// Does the same for all types of a namespace, as with [`remote_namespace`](Self::remote_namespace).
    #[must_use]
    pub fn remote_namespace_mixing_times<I>(mut self, to: Namespace<I>, endpoint: Endpoint) -> Self
    where
        M: Carries<I> + TypedMessage,
        T: Lattice,
    {
        self = self.remote_namespace(to, endpoint);
        mix_times(self.namespaces.last_mut());
        self
    }

    /// Binds an egress that remote functions can emit to as well, with values of its type; with
    /// [`TypedValue`](crate::TypedValue), of any type.
    #[must_use]
    pub fn typed_egress<E: TypedMessage>(mut self, egress: Egress<E>) -> Self {
        self.note(address::check("egress", egress.name()));
        self.bind_egress(ErasedEgress::typed(egress));
        self
    }

    /// Binds an egress, which functions can then emit to.
    #[must_use]
    pub fn egress<E: 'static>(mut self, egress: Egress<E>) -> Self {
        self.note(address::check("egress", egress.name()));
        self.bind_egress(ErasedEgress::new(egress));
        self
    }

    /// Binds an egress whose records are held until a snapshot contains what caused them: for
    /// [sinks](crate::sink), which then have each record exactly once. Taken with
    /// [`Egresses::held`](crate::Egresses::held).
    ///
    /// What was emitted since the snapshot before leaves when the next is durable, at once, and after a restart
    /// again, the same. So it comes later by up to the interval of [snapshots](crate::SnapshotPolicy::interval),
    /// and no frontier of it passes what is held. Records are stored as values are.
    ///
    /// A set of functions that takes part in no snapshots cannot have one.
    #[must_use]
    pub fn held_egress<E: Value>(mut self, egress: Egress<E>) -> Self {
        self.note(address::check("egress", egress.name()));
        self.bind_egress(ErasedEgress::new(egress).held::<E>());
        self
    }

    /// Binds an egress that is [held](Self::held_egress), and that remote functions can
    /// [emit to](Self::typed_egress) as well.
    #[must_use]
    pub fn held_typed_egress<E: TypedMessage + Value>(mut self, egress: Egress<E>) -> Self {
        self.note(address::check("egress", egress.name()));
        self.bind_egress(ErasedEgress::typed(egress).held::<E>());
        self
    }

    /// Binds an egress whose records are part of snapshots: after a restart, all that were ever emitted come
    /// first, at the minimum time. So what depends on all of them, as a sum in memory does, is there
    /// again. A program that takes no snapshots keeps nothing.
    ///
    /// They take memory for as long as the program lives. Where what counts is what changes add up to, see
    /// [`persisted_changes`](Self::persisted_changes). What a sink has already written comes again: such an
    /// egress is for operators of the dataflow.
    #[must_use]
    pub fn persisted_egress<E: Value + Clone>(mut self, egress: Egress<E>) -> Self {
        self.note(address::check("egress", egress.name()));
        self.bind_egress(ErasedEgress::kept(egress, Keeping::records::<E>()));
        self
    }

    /// Binds an egress of changes, for [`collection`](crate::Egresses::collection), whose contents are part of
    /// snapshots: after a restart they come first, at the minimum time, as one change for each piece of
    /// data. A program that takes no snapshots keeps nothing.
    ///
    /// Each address keeps what its own changes add up to, and forgets what comes to nothing. So what an
    /// address adds, the same address should take away.
    #[must_use]
    pub fn persisted_changes<D, R>(mut self, egress: Egress<(D, R)>) -> Self
    where
        D: Value + Clone + Hash + Eq,
        R: Value + Semigroup,
    {
        self.note(address::check("egress", egress.name()));
        self.bind_egress(ErasedEgress::kept(egress, Keeping::changes::<D, R, Semigroups>()));
        self
    }

    /// The same of changes that bring their own times, for [`updates`](crate::Egresses::updates). After a
    /// restart they are at the minimum time.
    #[must_use]
    pub fn persisted_updates<D, R>(mut self, egress: Egress<(D, T, R)>) -> Self
    where
        D: Value + Clone + Hash + Eq,
        R: Value + Semigroup,
    {
        self.note(address::check("egress", egress.name()));
        self.bind_egress(ErasedEgress::kept(egress, Keeping::updates::<D, R, Semigroups>()));
        self
    }

    /// Has changes of a state told: of a value or a table that a function keeps, for
    /// [`changes`](crate::Egresses::changes) and [`state`](crate::Egresses::state), and for
    /// [look-ups](crate::Egresses::look_ups). State that nobody watches costs nothing more.
    ///
    /// The function may be embedded or remote, and be bound by itself or with its namespace. A remote function,
    /// or one with a [registry](crate::Function::registry), cannot use another state of this name, with other
    /// types: an invocation that does fails. So does one of a remote function that gives bytes which are no
    /// value of the type. A state of any type is watched as [`TypedValue`](crate::TypedValue)s.
    ///
    /// In a [`check`](Self::check), it is a mistake if the function is not bound, or declares no such state.
    ///
    /// ```
    /// use timely_statefun::{Function, Functions, FunctionType, ValueSpec};
    ///
    /// const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
    /// const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
    ///
    /// let counter = Function::new(|context, amount: &u64| {
    ///     context.update(TOTAL, |total| *total += amount);
    ///     Ok(())
    /// });
    /// let functions = Functions::<u64>::new().embedded(COUNTER, counter.value(TOTAL));
    /// functions.watched(COUNTER, TOTAL).check().unwrap();
    /// ```
    #[must_use]
    pub fn watched<I, S: Watchable>(mut self, of: FunctionType<I>, state: S) -> Self
    where
        T: Timestamp + Lattice,
    {
        self.add_watched(WatchedState::new(of.as_str(), state));
        self
    }

    fn add_watched(&mut self, state: WatchedState<T>) {
        let name = state.changes.state.name();
        if !self.watched.iter().any(|known| known.is(state.changes.function, name)) {
            self.watched.push(state);
        }
    }

    /// Binds the functions and egresses of a bundle: functions whose messages are of type `N`, which
    /// this program's messages carry.
    ///
    /// A bundle is built as a program's functions are, often by another crate. Its functions send and
    /// take its own messages, which travel as this program's. Its name, limits, clock and runtime are
    /// not used: those of the program hold.
    ///
    /// ```
    /// use timely_statefun::{Function, Functions, FunctionType};
    ///
    /// mod audit {
    ///     use timely_statefun::{Function, Functions, FunctionType};
    ///
    ///     pub const BOOK: FunctionType<u64> = FunctionType::new("audit/book");
    ///     pub fn functions() -> Functions<u64> {
    ///         Functions::new().embedded(BOOK, Function::new(|_, _: &u64| Ok(())))
    ///     }
    /// }
    ///
    /// timely_statefun::messages! {
    ///     /// What travels in the shop.
    ///     #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    ///     enum Message {
    ///         Order(String),
    ///         Audit(u64),
    ///     }
    /// }
    ///
    /// const SHOP: FunctionType<String> = FunctionType::new("example/shop");
    ///
    /// let shop = Function::new(|context, order: &String| {
    ///     context.send(audit::BOOK, "today", order.len() as u64);
    ///     Ok(())
    /// });
    /// let functions = Functions::<Message>::new().embedded(SHOP, shop).bundle(audit::functions());
    /// functions.check().unwrap();
    /// ```
    #[must_use]
    pub fn bundle<N: 'static>(mut self, bundle: Functions<N, T>) -> Self
    where
        M: Carries<N>,
    {
        for (name, body) in bundle.functions {
            self.bind(name, body.carried_by());
        }
        for (name, body) in bundle.namespaces {
            self.bind_namespace(name, body.carried_by());
        }
        for egress in bundle.egresses {
            self.bind_egress(egress);
        }
        for state in bundle.watched {
            self.add_watched(state);
        }
        self.note(bundle.mistake.map_or(Ok(()), Err));
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the clock that delayed messages, expiry and retries go by. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Says what becomes of delayed messages that still wait when all ingress has closed. Default:
    /// [`AtClose::Wait`].
    #[must_use]
    pub fn at_close(mut self, delayed: AtClose) -> Self {
        self.at_close = delayed;
        self
    }

    /// Says what becomes of the state of functions that are stored and no longer bound. Default:
    /// [`OnUnbound::Fail`].
    #[must_use]
    pub fn on_unbound(mut self, policy: OnUnbound) -> Self {
        self.on_unbound = policy;
        self
    }

    /// Sets the order in which messages are handled. Default: [`Order::Arrival`].
    ///
    /// With [`Order::Time`], messages are handled in the order of ingress time, then depth, then
    /// caller (by name of its type, then id; those without a caller first), then in the order in which
    /// the caller sent them. State and egress then depend on the input alone, however many workers and
    /// processes there are. Among ingress records of one time for one address, those without a caller
    /// are ordered by ingress, worker and position: where the same input may be divided among workers
    /// in another way, give them [callers](crate::Envelope::with_caller) or times of their own.
    ///
    /// Delayed messages and the outcomes of asynchronous operations happen when they happen, in either
    /// order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets the runtime that asynchronous operations and calls of remote functions run on. It must live as long as the dataflow: one
    /// that is shut down before stops the program. It has threads of its own, and for remote functions I/O and a timer, as
    /// `tokio::runtime::Runtime::new` makes it; on one without threads nothing happens unless somebody blocks on it.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Says how what these functions do is told to the recorder of the [`metrics`] facade. Default:
    /// [once a second](Metering::new).
    #[must_use]
    pub fn metering(mut self, metering: Metering<T>) -> Self {
        self.metering = metering;
        self
    }

    /// Has calls of remote functions made with a W3C trace context, in the header `traceparent`, over HTTP and over
    /// gRPC: each call begins a trace of its own. The span of the call, at level debug, has its numbers in the fields
    /// `trace_id` and `span_id`. By default nothing is said of traces.
    ///
    /// Where messages carry traces, [`traced_by`](Self::traced_by) goes on with those.
    #[must_use]
    pub fn traced(self) -> Self {
        self.traced_by(|_| None)
    }

    /// Does the same, in the trace that a message says it belongs to. The call of several messages is made in the
    /// trace of the first that says so, and in one of its own if none does. If `context` panics, it says nothing.
    ///
    /// ```
    /// use timely_statefun::{Functions, TraceContext, TypedValue};
    ///
    /// /// The trace that a message of this program carries, if it does.
    /// fn trace_of(message: &TypedValue) -> Option<TraceContext> {
    ///     let text = message.read::<String>().ok()?;
    ///     text.split(' ').next()?.parse().ok()
    /// }
    /// let functions = Functions::<TypedValue>::new().traced_by(trace_of);
    /// # functions.check().unwrap();
    /// ```
    #[must_use]
    pub fn traced_by(mut self, context: impl Fn(&M) -> Option<TraceContext> + 'static) -> Self {
        self.trace_of = Some(Rc::new(context));
        self
    }

    /// Checks what was bound so far.
    ///
    /// # Errors
    ///
    /// The first mistake that was made.
    pub fn check(&self) -> Result<(), Error> {
        self.mistake.clone().map_or(Ok(()), Err)?;
        self.watched.iter().try_for_each(|state| self.check_watched(state))?;
        let mut bound = self.bound();
        let mixes = bound.clone().find(|(_, body)| body.join.is_some());
        if let (Order::Time, Some((name, _))) = (self.order, mixes) {
            return Err(Kind::MixedTimes(name.to_owned()).into());
        }
        let awaited = bound.clone().find(|(_, body)| matches!(body.code, Code::Awaited(_)));
        if let Some((name, _)) = awaited {
            return Err(Kind::OnlyServed(name.to_owned()).into());
        }
        let needs =
            |body: &Body<M, T>| body.operations_max > 0 || matches!(body.code, Code::Remote(_));
        match bound.find(|(_, body)| needs(body)) {
            Some((name, _)) if self.runtime.is_none() => {
                Err(Kind::NoRuntime(name.to_owned()).into())
            }
            _ => Ok(()),
        }
    }

    /// Checks that the state of a function that is bound can be watched.
    fn check_watched(&self, state: &WatchedState<T>) -> Result<(), Error> {
        let ErasedChanges { function, state, .. } = &state.changes;
        let namespace = function.rsplit_once('/').map(|(namespace, _)| namespace);
        let exact = self.functions.iter().find(|(name, _)| name.as_str() == *function);
        let within = || self.namespaces.iter().find(|(name, _)| Some(name.as_str()) == namespace);
        let mistake = |why| {
            let (function, state) = ((*function).to_owned(), state.name().to_owned());
            Err(Kind::NotWatchable { function, state, why }.into())
        };
        let exact = exact.map(|(_, body)| body);
        let Some(body) = exact.or_else(|| within().map(|(_, body)| body)) else {
            return mistake("no such function is bound".to_owned());
        };
        match state.among(&body.values) {
            Ok(Some(_)) => Ok(()),
            Err(reason) => mistake(reason.to_string()),
            // Which states there are is found out at run time.
            Ok(None) if body.registry.is_some() => state.check(),
            Ok(None) => mistake("the function declares no such state".to_owned()),
        }
    }

    /// Checks what was bound so far, for whoever serves it.
    ///
    /// # Errors
    ///
    /// The first mistake that was made, or what cannot be served.
    #[cfg(feature = "serve")]
    pub(crate) fn check_served(&self) -> Result<(), Error> {
        self.mistake.clone().map_or(Ok(()), Err)?;
        let not_served = |what, name: &str, why: &str| -> Result<(), Error> {
            let (name, why) = (name.to_owned(), why.to_owned());
            Err(Kind::NotServed { what, name, why }.into())
        };
        for (name, body) in self.bound() {
            if matches!(body.code, Code::Remote(_)) {
                return not_served("function", name, "it is served elsewhere");
            }
            if let Some(why) = body.values.iter().find_map(Declared::stays_at_home) {
                return not_served("function", name, &why);
            }
        }
        for egress in &self.egresses {
            if !egress.is_typed() {
                return not_served("egress", egress.name, "it is not bound as a typed egress");
            }
        }
        Ok(())
    }

    /// Where these functions handle one batch at a time, of which the state comes with it.
    #[cfg(feature = "serve")]
    pub(crate) fn desk(&self) -> Desk<M, T>
    where
        M: TypedMessage,
        T: Timestamp,
    {
        let Functions { functions, egresses, limits, .. } = self;
        let bodies = self.bound().map(|(_, body)| Rc::clone(body));
        let letters = Egress::<()>::new("dead letters");
        let egresses = Egresses::new(egresses.clone(), letters, Rc::new(Cell::new(false)));
        Desk::new(
            bodies,
            functions.len(),
            self.names(),
            egresses.in_order(),
            limits.delayed_messages_max,
            T::minimum(),
        )
    }

    /// The numbers of what is bound, the same on every worker.
    pub(crate) fn names(&self) -> Names {
        let bound = self.functions.iter().map(|(name, _)| name.clone());
        Names::new(bound, self.namespaces.iter().map(|(name, _)| name.clone()).collect())
    }

    /// What handles the messages of one worker.
    pub(crate) fn into_dispatcher<D: 'static, H>(
        self,
        names: Names,
        dead_letters: Egress<D>,
        dead_letters_read: Rc<Cell<bool>>,
        worker: usize,
    ) -> Dispatcher<M, T, H> {
        let Functions { functions, namespaces, egresses, watched, limits, trace_of, .. } = self;
        let (at_close, on_unbound) = (self.at_close, self.on_unbound);
        let bound = Bound {
            functions,
            namespaces,
            depth_max: limits.depth_max,
            delayed_messages_max: limits.delayed_messages_max,
            operations_max: limits.operations_max,
            in_flight_max: limits.in_flight_max,
            function_bytes_soft: limits.function_bytes_soft.unwrap_or(limits.loop_bytes_soft / 4),
            hurry_at_close: at_close == AtClose::SendNow,
            on_unbound,
            when_full: limits.when_full,
            worker,
        };
        let watched = watched.into_iter().map(|state| state.changes).collect();
        let egresses = Egresses::new(egresses, dead_letters, dead_letters_read).watching(watched);
        let mut dispatcher = Dispatcher::new(bound, names, egresses);
        if let Some(trace_of) = trace_of {
            dispatcher.trace_calls(trace_of);
        }
        dispatcher
    }

    fn bind(&mut self, name: TypeName, body: Body<M, T>) {
        let twice = self.functions.iter().any(|(bound, _)| *bound == name);
        self.note(once(twice, || Kind::DuplicateFunction(name.clone())));
        self.functions.push((name, Rc::new(body)));
    }

    fn bind_namespace(&mut self, name: SmolStr, body: Body<M, T>) {
        let twice = self.namespaces.iter().any(|(bound, _)| *bound == name);
        self.note(once(twice, || Kind::DuplicateNamespace(name.to_string())));
        self.namespaces.push((name, Rc::new(body)));
    }

    fn bind_egress(&mut self, egress: ErasedEgress<T>) {
        let twice = self.egresses.iter().any(|bound| bound.name == egress.name);
        self.note(once(twice, || Kind::DuplicateEgress(egress.name.to_owned())));
        self.egresses.push(egress);
    }

    /// All functions with the names that they are bound to: those of types of their own, then those of namespaces.
    pub(crate) fn bound(&self) -> impl Iterator<Item = (&str, &Rc<Body<M, T>>)> + Clone {
        let functions = self.functions.iter().map(|(name, body)| (name.as_str(), body));
        functions.chain(self.namespaces.iter().map(|(name, body)| (name.as_str(), body)))
    }

    fn note(&mut self, result: Result<(), Error>) {
        if let Err(mistake) = result {
            self.mistake.get_or_insert(mistake);
        }
    }
}

/// Lets the calls of a function that was just bound be about messages of several times.
fn mix_times<N, M, T: Lattice>(bound: Option<&mut (N, Rc<Body<M, T>>)>) {
    let (_, body) = bound.expect("it was just bound");
    let body = Rc::get_mut(body).expect("nobody else knows what was just bound");
    body.join = Some(T::join);
}

/// Changes add up as differential dataflow has them.
struct Semigroups;

impl<R: Semigroup> Sums<R> for Semigroups {
    fn add(sum: &mut R, change: &R) {
        sum.plus_equals(change);
    }

    fn is_nothing(sum: &R) -> bool {
        sum.is_zero()
    }
}

/// A mistake, if something is bound twice.
fn once(twice: bool, mistake: impl FnOnce() -> Kind) -> Result<(), Error> {
    if twice { Err(mistake().into()) } else { Ok(()) }
}

fn check_values<M, T>(function: &str, body: &Body<M, T>) -> Result<(), Error> {
    for (at, value) in body.values.iter().enumerate() {
        value.check()?;
        if body.values[..at].iter().any(|before| before.name == value.name) {
            let (function, state) = (function.to_owned(), value.name.clone().into_owned());
            return Err(Kind::DuplicateState { function, state }.into());
        }
    }
    check_conversions(&body.conversions, &body.values, body.registry.is_some()).map_err(
        |(what, why)| Kind::InvalidConversion { function: function.to_owned(), what, why }.into(),
    )
}

/// Checks what is said of stored state against what is declared.
fn check_conversions(
    conversions: &Conversions,
    values: &[Declared],
    has_registry: bool,
) -> Result<(), (String, &'static str)> {
    let Conversions { converted, discarded } = conversions;
    let is_in = |of: &Declared, states: &[Conversion]| states.iter().any(|it| it.from.is_like(of));
    for (at, Conversion { from, to, .. }) in converted.iter().enumerate() {
        let is_declared = |of: &Declared| values.iter().any(|value| value.is_like(of));
        if is_declared(from) {
            return Err((from.to_string(), "is converted, and is what is declared"));
        }
        if is_in(from, &converted[..at]) {
            return Err((from.to_string(), "is converted twice"));
        }
        if !is_declared(to) && !is_in(to, converted) && !has_registry {
            return Err((to.to_string(), "is what another is converted to, and is not declared"));
        }
    }
    for (name, type_name) in discarded {
        let is_it = |of: &Declared| of.name == *name && of.type_name == *type_name;
        if values.iter().any(is_it) || converted.iter().any(|it| is_it(&it.from)) {
            return Err((
                format!("state \"{name}\" of \"{type_name}\""),
                "is discarded, and needed",
            ));
        }
    }
    Ok(())
}

impl<M: 'static, T: Clone + PartialEq + 'static> Default for Functions<M, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M, T> fmt::Debug for Functions<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions")
            .field("name", &self.name)
            .field("functions", &self.functions.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("namespaces", &self.namespaces.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
