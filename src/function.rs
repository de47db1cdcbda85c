//! A function as a value: what it does, what it keeps, and what happens when it fails.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;

use crate::buffer::BufferSpec;
use crate::dead_letter::{OnFailure, Reason, chain};
use crate::dispatch::Context;
use crate::endpoint::Endpoint;
use crate::message::{Carries, Mismatch};
use crate::retry::Retry;
use crate::spec::{self, StateSpec};
use crate::state::{Conversions, Declared};
use crate::table::TableSpec;
use crate::typed::{TypedMessage, TypedValue};
use crate::value::ValueSpec;

/// What a function returns: nothing, or any error, which undoes the invocation.
pub type FunctionResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

type Run<M, T> = dyn Fn(&mut Context<'_, M, T>, &M) -> Result<(), Reason>;

/// A function that is under way.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Reason>> + 'a>>;

/// Begins to handle a message.
pub(crate) type Begin<M, T> = Box<dyn for<'a, 'c> FnOnce(&'a mut Context<'c, M, T>) -> Running<'a>>;

type Prepare<M, T> = dyn Fn(&M) -> Result<Begin<M, T>, Mismatch>;

/// Says of what type a closure is.
fn beginning<M, T, F>(begin: F) -> Begin<M, T>
where
    F: for<'a, 'c> FnOnce(&'a mut Context<'c, M, T>) -> Running<'a> + 'static,
{
    Box::new(begin)
}

/// Who handles messages.
pub(crate) enum Code<M, T> {
    /// Code of this program.
    Embedded(Box<Run<M, T>>),
    /// Code of this program that waits for things while it handles a message. Only where functions are
    /// served is there somebody who waits with it.
    #[cfg_attr(not(feature = "serve"), expect(dead_code, reason = "it is made to be served"))]
    Awaited(Box<Prepare<M, T>>),
    /// Somebody who is called.
    Remote(Box<RemoteCode<M>>),
}

type ToTyped<M> = dyn Fn(&M) -> Result<TypedValue, Mismatch>;
type FromTyped<M> = dyn Fn(TypedValue) -> Result<M, Mismatch>;

/// A function that is served elsewhere, and what messages are there.
pub(crate) struct RemoteCode<M> {
    pub(crate) endpoint: Endpoint,
    pub(crate) to_typed: Box<ToTyped<M>>,
    pub(crate) from_typed: Box<FromTyped<M>>,
}

impl<M: TypedMessage, T> Body<M, T> {
    /// A function that is served elsewhere.
    pub(crate) fn remote(endpoint: Endpoint) -> Self {
        Body {
            values: Vec::new(),
            conversions: endpoint.options.conversions.clone(),
            registry: Some(endpoint.options.states_max),
            on_failure: endpoint.options.on_failure,
            retry: Retry::attempts(1),
            operations_max: 0,
            detached: endpoint.options.detached,
            join: None,
            code: Code::Remote(Box::new(RemoteCode {
                endpoint,
                to_typed: Box::new(M::to_typed),
                from_typed: Box::new(M::from_typed),
            })),
        }
    }
}

/// A function with the type of its input forgotten.
pub(crate) struct Body<M, T> {
    pub(crate) code: Code<M, T>,
    pub(crate) values: Vec<Declared>,
    /// What becomes of states that are stored otherwise.
    pub(crate) conversions: Conversions,
    /// How many states may be registered, if any may.
    pub(crate) registry: Option<usize>,
    pub(crate) on_failure: OnFailure,
    pub(crate) retry: Retry,
    /// How many asynchronous operations it may have under way on a worker; 0 if it declares none.
    pub(crate) operations_max: usize,
    /// Whether what it waits for does not hold back the time it began at.
    pub(crate) detached: bool,
    /// The time at which a call about messages of two times takes effect, if there may be one.
    pub(crate) join: Option<fn(&T, &T) -> T>,
}

impl<N: 'static, T: Clone + PartialEq + 'static> Body<N, T> {
    /// The same function in a program whose messages carry the function's.
    pub(crate) fn carried_by<M: Carries<N> + 'static>(self: Rc<Self>) -> Body<M, T> {
        let Body { values, registry, on_failure, retry, operations_max, detached, .. } = &*self;
        let (values, registry, on_failure) = (values.clone(), *registry, *on_failure);
        let conversions = self.conversions.clone();
        let (retry, operations_max, detached) = (retry.clone(), *operations_max, *detached);
        let join = self.join;
        let code = match &self.code {
            Code::Embedded(_) => Code::Embedded(Box::new(move |context, message: &M| {
                let Code::Embedded(run) = &self.code else { unreachable!("it was embedded") };
                let run = |input: &N| context.with_mapped(|context| run(context, input));
                message.unpack(run).unwrap_or_else(|mismatch| Err(Reason::WrongInput(mismatch)))
            })),
            Code::Awaited(_) => Code::Awaited(Box::new(move |message: &M| {
                let Code::Awaited(prepare) = &self.code else { unreachable!("it was awaited") };
                let begin = message.unpack(|input: &N| prepare(input))??;
                Ok(beginning(move |context| Box::pin(context.begin_mapped(begin))))
            })),
            Code::Remote(code) => {
                let (endpoint, back) = (code.endpoint.clone(), Rc::clone(&self));
                Code::Remote(Box::new(RemoteCode {
                    endpoint,
                    to_typed: Box::new(move |message: &M| {
                        let Code::Remote(code) = &self.code else { unreachable!("it was remote") };
                        message.unpack(|input| (code.to_typed)(input))?
                    }),
                    from_typed: Box::new(move |value| {
                        let Code::Remote(code) = &back.code else { unreachable!("it was remote") };
                        (code.from_typed)(value).map(M::pack)
                    }),
                }))
            }
        };
        Body {
            code,
            values,
            conversions,
            registry,
            on_failure,
            retry,
            operations_max,
            detached,
            join,
        }
    }
}

/// A function: code that handles one message at a time, the values it keeps for each address, and
/// what happens when it fails.
///
/// One function serves all addresses of its type on a worker. What it must remember belongs into its
/// state: anything else it captures is neither per address nor kept across a restart.
///
/// ```
/// use timely_statefun::{Egress, Function, Functions, FunctionType, OnFailure, ValueSpec};
///
/// const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
/// const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
/// const TOTALS: Egress<u64> = Egress::new("example/totals");
///
/// let count = Function::new(|context, amount: &u64| {
///     let before = context.get(TOTAL).copied().unwrap_or(0);
///     let total = before.checked_add(*amount).ok_or("too much")?;
///     context.set(TOTAL, total);
///     context.emit(TOTALS, total);
///     Ok(())
/// });
/// let functions: Functions<u64> = Functions::new()
///     .embedded(COUNTER, count.value(TOTAL).on_failure(OnFailure::DeadLetter))
///     .egress(TOTALS);
/// functions.check().unwrap();
/// ```
pub struct Function<M, I, T = u64> {
    pub(crate) body: Body<M, T>,
    input: PhantomData<fn(I)>,
}

impl<M, I, T> Function<M, I, T>
where
    M: Carries<I> + 'static,
    I: 'static,
    T: 'static,
{
    /// A function that keeps nothing and stops the dataflow when it fails.
    pub fn new(function: impl Fn(&mut Context<'_, M, T>, &I) -> FunctionResult + 'static) -> Self {
        let run = move |context: &mut Context<'_, M, T>, message: &M| match message
            .unpack(|input| function(context, input))
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Reason::Failed(chain(&*error))),
            Err(mismatch) => Err(Reason::WrongInput(mismatch)),
        };
        Self::of(Code::Embedded(Box::new(run)))
    }

    /// A function that waits for things while it handles a message, such as a database's answer: one that
    /// is [served](crate::serve), and cannot be embedded in a dataflow. Later messages of its address wait
    /// with whoever calls.
    ///
    /// It may await anything that runs on tokio. What it wrote, sent and emitted takes effect with the
    /// rest of its batch, and not at all if whoever called gives up waiting: then it is dropped where it
    /// waits. Where it uses a state of a [registry](Self::registry) that did not come with the batch, what
    /// it did before is done again.
    ///
    /// ```
    /// use timely_statefun::{Context, Function, FunctionResult, FunctionType, Functions, TypedValue, ValueSpec};
    ///
    /// const SHOP: FunctionType<String> = FunctionType::new("example/shop");
    /// const PRICE: ValueSpec<i64> = ValueSpec::new("price");
    ///
    /// # async fn price_of(item: &str) -> Result<i64, std::io::Error> { Ok(item.len() as i64) }
    /// async fn shop(context: &mut Context<'_, TypedValue>, item: String) -> FunctionResult {
    ///     let price = price_of(&item).await?;
    ///     context.set(PRICE, price);
    ///     Ok(())
    /// }
    ///
    /// let shop = Function::new_async(shop).value(PRICE);
    /// let functions = Functions::<TypedValue>::new().embedded(SHOP, shop);
    /// assert!(functions.check().is_err_and(|error| error.is_only_served()));
    /// ```
    #[cfg(feature = "serve")]
    pub fn new_async(
        function: impl AsyncFn(&mut Context<'_, M, T>, I) -> FunctionResult + 'static,
    ) -> Self
    where
        I: Clone,
    {
        let function = Rc::new(function);
        Self::of(Code::Awaited(Box::new(move |message: &M| {
            let input = message.unpack(I::clone)?;
            let function = Rc::clone(&function);
            Ok(beginning(move |context| {
                Box::pin(async move {
                    let result = function(context, input).await;
                    result.map_err(|error| Reason::Failed(chain(&*error)))
                })
            }))
        })))
    }

    fn of(code: Code<M, T>) -> Self {
        let body = Body {
            code,
            values: Vec::new(),
            conversions: Conversions::default(),
            registry: None,
            on_failure: OnFailure::Stop,
            retry: Retry::attempts(1),
            operations_max: 0,
            detached: false,
            join: None,
        };
        Function { body, input: PhantomData }
    }

    /// Declares a value that the function keeps for each address.
    #[must_use]
    pub fn value<V: 'static>(mut self, spec: ValueSpec<V>) -> Self {
        self.body.values.push(Declared::new(spec));
        self
    }

    /// Declares a table that the function keeps for each address.
    #[must_use]
    pub fn table<K: Hash + Eq + 'static, V: 'static>(mut self, spec: TableSpec<K, V>) -> Self {
        self.body.values.push(Declared::new(spec));
        self
    }

    /// Declares a buffer that the function keeps for each address.
    #[must_use]
    pub fn buffer<E: 'static>(mut self, spec: BufferSpec<E>) -> Self {
        self.body.values.push(Declared::new(spec));
        self
    }

    /// Has what is stored of one state be restored as another one that the function declares: of another type, or
    /// with another name. Default: a program is not restored where a stored state has another type than the
    /// one that is declared, and one that is not declared is kept as it is stored.
    ///
    /// Both are of one kind: values, tables with keys of one type, or buffers. Each value that is stored is read
    /// as the old type, converted, and is then what the new state has; an error ends the restart, and says
    /// whose value it was. When something lives until stays as it was. What is restored so may be
    /// converted again, so a state can be brought through all of its versions, one after the other. The next
    /// snapshot is a full one, which has the new type, and the conversion is needed no more.
    ///
    /// ```
    /// use timely_statefun::{Function, ValueSpec};
    ///
    /// const EUROS: ValueSpec<i32> = ValueSpec::new("balance");
    /// const CENTS: ValueSpec<i64> = ValueSpec::new("balance");
    ///
    /// let account = Function::<i64, i64>::new(|context, cents: &i64| {
    ///     context.update(CENTS, |balance: &mut i64| *balance += cents);
    ///     Ok(())
    /// });
    /// let account = account.value(CENTS).converted(EUROS, CENTS, |euros| Ok(100 * i64::from(euros)));
    /// ```
    #[must_use]
    pub fn converted<O, S>(
        mut self,
        from: O,
        to: S,
        convert: impl Fn(O::Kept) -> Result<S::Kept, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Self
    where
        O: StateSpec<Shape = S::Shape>,
        S: StateSpec,
    {
        self.body.conversions.converted.push(spec::conversion(from, to, convert));
        self
    }

    /// Leaves out, when a program is restored, what is stored of a state with this name whose values have this
    /// type. It must not be what the function declares. Default: as for [`converted`](Self::converted).
    ///
    /// The next snapshot is a full one, and has nothing of it.
    #[must_use]
    pub fn discarded(mut self, name: impl Into<String>, type_name: impl Into<String>) -> Self {
        self.body.conversions.discarded.push((name.into(), type_name.into()));
        self
    }

    /// Lets the function keep state that it does not declare, with names that are found out at run
    /// time: up to `states_max` values, tables and buffers, each of which an address may keep or not.
    ///
    /// A state is registered with its first use, be it only a read. All addresses of the function's
    /// type on a worker share the registrations and the limit; functions of a namespace have them for
    /// each type. An invocation that fails registers nothing. What was registered stays so.
    ///
    /// Where a state was registered as another kind of state, or with another type or expiration, and
    /// where a name is not valid or there are too many, the use has no effect and the invocation
    /// [fails](crate::Reason).
    ///
    /// ```
    /// use timely_statefun::{Function, ValueSpec};
    ///
    /// // Counts words for each letter that one begins with.
    /// let count = Function::<String, String>::new(|context, word: &String| {
    ///     let letter = word.get(..1).ok_or("an empty word")?;
    ///     let seen = context.update(ValueSpec::new(letter), |seen: &mut u64| *seen += 1);
    ///     println!("{seen} words with {letter}");
    ///     Ok(())
    /// });
    /// let count = count.registry(26);
    /// ```
    #[must_use]
    pub fn registry(mut self, states_max: usize) -> Self {
        self.body.registry = Some(states_max);
        self
    }

    /// Says what happens when the function fails, after the last attempt. Default:
    /// [`OnFailure::Stop`].
    #[must_use]
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.body.on_failure = policy;
        self
    }

    /// Has a message that fails tried again. Default: a single attempt.
    ///
    /// Later messages of its address wait until it succeeds or is given up; other addresses do not.
    /// Its ingress time waits as well, and so does the frontier, unless the function is
    /// [detached](Self::detached). Misuse, such as an undeclared state, is not tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.body.retry = retry;
        self
    }

    /// Declares that the function [begins asynchronous operations](Context::start), and how many may
    /// be under way on a worker at once; 0 counts as 1.
    ///
    /// What it begins beyond that waits for its turn. Meanwhile gates hold back its ingress, and that
    /// of nobody else.
    #[must_use]
    pub fn operations(mut self, under_way_max: usize) -> Self {
        self.body.operations_max = under_way_max.max(1);
        self
    }

    /// Has the outcome of an asynchronous operation, or another attempt at a message, be a new event,
    /// as a delayed message is: it happens at a later ingress time, and does not hold back the time
    /// of what caused it.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.body.detached = true;
        self
    }
}

impl<M, I, T> fmt::Debug for Function<M, I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<_> = self.body.values.iter().map(|value| &value.name).collect();
        f.debug_struct("Function")
            .field("values", &values)
            .field("on_failure", &self.body.on_failure)
            .finish_non_exhaustive()
    }
}
