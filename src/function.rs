//! A function as a value: what it does, what it keeps, and what happens when it fails.

use std::fmt;
use std::marker::PhantomData;

use crate::dead_letter::{OnFailure, Reason};
use crate::dispatch::Context;
use crate::message::Carries;
use crate::state::Declared;
use crate::value::{Value, ValueSpec};

/// What a function returns: nothing, or any error, which undoes the invocation.
pub type FunctionResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

type Run<M, T> = dyn Fn(&mut Context<'_, M, T>, &M) -> Result<(), Reason>;

/// A function with the type of its input forgotten.
pub(crate) struct Body<M, T> {
    pub(crate) run: Box<Run<M, T>>,
    pub(crate) values: Vec<Declared>,
    pub(crate) on_failure: OnFailure,
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
        let body = Body { run: Box::new(run), values: Vec::new(), on_failure: OnFailure::Stop };
        Function { body, input: PhantomData }
    }

    /// Declares a value that the function keeps for each address.
    #[must_use]
    pub fn value<V: Value>(mut self, spec: ValueSpec<V>) -> Self {
        self.body.values.push(Declared::new(spec));
        self
    }

    /// Says what happens when the function fails. Default: [`OnFailure::Stop`].
    #[must_use]
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.body.on_failure = policy;
        self
    }
}

impl<M, I, T> fmt::Debug for Function<M, I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<_> = self.body.values.iter().map(|value| value.name).collect();
        f.debug_struct("Function")
            .field("values", &values)
            .field("on_failure", &self.body.on_failure)
            .finish_non_exhaustive()
    }
}

/// An error and what caused it, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
