//! The whole picture: streams of envelopes go through gates into one loop, and its egress comes out
//! and is taken apart.

mod egresses;
mod handler;

use std::cell::Cell;
use std::rc::Rc;

use timely::ExchangeData;
use timely::dataflow::Stream;
use timely::progress::Timestamp;
use timely_statefun_operators::{Demux, Ingress, LoopConfig, LoopHandle, keyed_loop};

pub use egresses::Egresses;
use handler::FunctionHandler;

use crate::dead_letter::Stopped;
use crate::dispatch::{Batch, Names};
use crate::error::{Error, Kind};
use crate::functions::Functions;
use crate::message::Envelope;

/// A program's handle on its functions, on one worker: whether they are ready for more, what was
/// admitted, why they stopped, and what they did.
pub type Handle<T> = LoopHandle<T, Stopped>;

/// Sends streams of messages through stateful functions.
pub trait StatefulFunctions<'scope, T: Timestamp, M> {
    /// Delivers every message to its function, and all messages that functions send, until none is
    /// left. What a record at time `t` causes is emitted at `t`; when the frontier of an egress
    /// passes `t`, all consequences of all records up to `t` have happened.
    ///
    /// Several streams are given as an array or a vector. A stream that is fed faster than the
    /// functions work should be fed only while the [handle](Egresses::handle) is ready.
    ///
    /// # Errors
    ///
    /// If there is no stream, or the functions were [put together wrongly](Functions::check).
    /// Nothing is built then.
    fn stateful_functions(
        self,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error>;
}

/// A stream of messages for functions.
pub(crate) type Envelopes<'scope, T, M> = Stream<'scope, T, Vec<Envelope<M>>>;

fn build<'scope, T: Timestamp, M: ExchangeData>(
    streams: Vec<Envelopes<'scope, T, M>>,
    functions: Functions<M, T>,
) -> Result<Egresses<'scope, T, M>, Error> {
    functions.check()?;
    let scope = streams.first().ok_or(Kind::NoIngress)?.scope();
    let bound = functions.functions.iter().map(|(name, _)| crate::TypeName::fixed(name));
    let namespaces = functions.namespaces.iter().map(|(name, _)| *name);
    let names = Names::new(bound, namespaces.collect());
    let ingresses = streams.into_iter().enumerate().map(|(number, stream)| {
        let mut names = names.clone();
        let name = format!("{} {number}", functions.name);
        Ingress::new(name, stream, move |envelope| names.route(envelope))
    });
    let ingresses = ingresses.collect();

    let name = functions.name.clone();
    let config = loop_config(&functions);
    let bound = functions.egresses.clone();
    let dead_letters_read = Rc::new(Cell::new(false));
    let read = Rc::clone(&dead_letters_read);
    let handler = FunctionHandler::new(functions, names, read, scope.index());
    let (output, handle) = keyed_loop(scope, &name, ingresses, config, None, handler);
    let parts = output.demux(&name, bound.len() + 1, |batch: &Batch| batch.egress);
    Ok(Egresses::new(parts, bound, dead_letters_read, handle))
}

fn loop_config<M, T>(functions: &Functions<M, T>) -> LoopConfig {
    let limits = &functions.limits;
    LoopConfig {
        budget_messages: limits.budget_messages,
        activation_max: limits.activation_max,
        spin: limits.spin,
        gate_credit_records: limits.gate_credit_records,
        loop_bytes_soft: limits.loop_bytes_soft,
        loop_bytes_hard: limits.loop_bytes_hard,
        order: functions.order,
        ..LoopConfig::default()
    }
}

impl<'scope, T: Timestamp, M: ExchangeData> StatefulFunctions<'scope, T, M>
    for Envelopes<'scope, T, M>
{
    fn stateful_functions(
        self,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error> {
        build(vec![self], functions)
    }
}

impl<'scope, T: Timestamp, M: ExchangeData> StatefulFunctions<'scope, T, M>
    for Vec<Envelopes<'scope, T, M>>
{
    fn stateful_functions(
        self,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error> {
        build(self, functions)
    }
}

impl<'scope, T: Timestamp, M: ExchangeData, const N: usize> StatefulFunctions<'scope, T, M>
    for [Envelopes<'scope, T, M>; N]
{
    fn stateful_functions(
        self,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error> {
        build(self.into(), functions)
    }
}
