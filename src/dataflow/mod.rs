//! The whole picture: streams of envelopes go through gates into one loop, and its egress comes out
//! and is taken apart.

mod changes;
mod cutting;
mod delivery;
mod egresses;
mod handler;
mod held;
mod ingress;
mod look_ups;
mod meters;
mod outflow;
mod persist;
mod releases;
mod snapshots;
mod sources;

use std::cell::Cell;
use std::rc::Rc;

use timely::ExchangeData;
use timely::progress::Timestamp;
use timely_statefun_operators::{Demux, LoopConfig, LoopHandle, holding_loop, keyed_loop};

use cutting::Cutting;
pub use delivery::SinkHandle;
pub use egresses::{BinLoads, Egresses};
use handler::{Chains, FunctionHandler};
pub use held::{Acknowledge, Held, Released};
use ingress::Envelopes;
pub use ingress::Ingress;
pub use look_ups::{AsOf, LookUps, LookedUp, NotThere};
use meters::LaterHandle;
pub use persist::{Persisted, PersistedUpdates};
use releases::Releases;
pub(crate) use snapshots::{HELD, NOTE, TABLE, put_framed, section};
pub use snapshots::{Savepoint, SnapshotCounts, SnapshotDone, SnapshotPolicy, Snapshots};
pub use sources::Source;

use crate::dead_letter::Stopped;
use crate::dispatch::Batch;
use crate::error::{Error, Kind};
use crate::functions::Functions;

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

fn build<'scope, T: Timestamp, M: ExchangeData>(
    ingresses: Vec<Ingress<'scope, T, M>>,
    functions: Functions<M, T>,
) -> Result<Egresses<'scope, T, M>, Error> {
    functions.check()?;
    let scope = ingresses.first().ok_or(Kind::NoIngress)?.stream.scope();
    let mut cutting = Cutting::of(scope, &functions.name, &ingresses)?;
    let held = functions.egresses.iter().find(|egress| egress.holding.is_some());
    if let (None, Some(held)) = (&cutting, held) {
        return Err(Kind::HeldWithoutSnapshots(held.name.to_owned()).into());
    }
    if let Some(cutting) = &mut cutting {
        cutting.releases = Releases::of(&functions.egresses, cutting.set, &cutting.scribe);
    }
    let names = functions.names();
    let stops = ingresses.iter().flat_map(|ingress| &ingress.link);
    let stops: Vec<_> = stops.map(|link| Rc::clone(&link.stops)).collect();
    let ingresses = ingresses.into_iter().enumerate().map(|(number, ingress)| {
        let mut names = names.clone();
        let name = format!("{} {number}", functions.name);
        ingress.gate(name, cutting.as_ref(), move |envelope| names.route(envelope))
    });
    let ingresses = ingresses.collect();

    let name = functions.name.clone();
    let config = loop_config(&functions, cutting.as_ref());
    let cuts = cutting.as_ref().map(Cutting::cuts);
    let (bound, watched) = (functions.egresses.clone(), functions.watched.clone());
    // Behind the egresses come dead letters, and then changes of state.
    let ports = bound.len() + 1 + watched.len();
    let dead_letters_read = Rc::new(Cell::new(false));
    let read = Rc::clone(&dead_letters_read);
    let place = (scope.index(), scope.peers());
    let (chains, later) = (Chains::default(), LaterHandle::default());
    let known = (chains.clone(), Rc::clone(&later));
    let handler = FunctionHandler::new(functions, names, read, place, cutting.as_ref(), known);
    let handler = handler.stopped_by(stops);
    let loads = handler.loads();
    let route = |batch: &Batch| batch.egress;
    let holds = cutting.as_ref().and_then(|cutting| {
        let restores = cutting.reading.is_some();
        cutting.releases.as_ref().map(|releases| releases.hold(restores))
    });
    let (parts, handle) = match holds.zip(cuts.clone()) {
        None => {
            let (output, handle) = keyed_loop(scope, &name, ingresses, config, cuts, handler);
            (output.demux(&name, ports, route), handle)
        }
        Some((hold, cuts)) => {
            let (outputs, handle) =
                holding_loop(scope, &name, ingresses, config, cuts, hold, handler);
            let free = outputs.free.demux(&name, ports, route);
            let kept = outputs.kept.demux(&format!("{name}, held"), ports, route);
            let is_held = |at: usize| bound.get(at).is_some_and(|egress| egress.holding.is_some());
            let parts = free.into_iter().zip(kept).enumerate();
            let parts = parts.map(|(at, (free, kept))| if is_held(at) { kept } else { free });
            (parts.collect(), handle)
        }
    };
    // Nothing of it runs yet.
    drop(later.set(handle.clone()));
    let snapshots = cutting.map(|cutting| {
        let Cutting { snapshots, releases, done, .. } = cutting;
        (snapshots, releases, chains, done)
    });
    Ok(Egresses::new(parts, bound, watched, dead_letters_read, (handle, loads), snapshots))
}

fn loop_config<M, T: Timestamp>(
    functions: &Functions<M, T>,
    cutting: Option<&Cutting<'_, T>>,
) -> LoopConfig {
    let limits = &functions.limits;
    LoopConfig {
        budget_messages: limits.budget_messages,
        activation_max: limits.activation_max,
        spin: limits.spin,
        gate_credit_records: limits.gate_credit_records,
        loop_bytes_soft: limits.loop_bytes_soft,
        loop_bytes_hard: limits.loop_bytes_hard,
        order: functions.order,
        cuts_before: cutting.map_or(0, |cutting| cutting.snapshots.cuts_before()),
        #[cfg(feature = "testing")]
        delays: functions.delays.clone(),
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
        build(vec![self.into()], functions)
    }
}

impl<'scope, T: Timestamp, M: ExchangeData> StatefulFunctions<'scope, T, M>
    for Ingress<'scope, T, M>
{
    fn stateful_functions(
        self,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error> {
        build(vec![self], functions)
    }
}

impl<'scope, T, M, I> StatefulFunctions<'scope, T, M> for Vec<I>
where
    T: Timestamp,
    M: ExchangeData,
    I: Into<Ingress<'scope, T, M>>,
{
    fn stateful_functions(
        self,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error> {
        build(self.into_iter().map(Into::into).collect(), functions)
    }
}

impl<'scope, T, M, I, const N: usize> StatefulFunctions<'scope, T, M> for [I; N]
where
    T: Timestamp,
    M: ExchangeData,
    I: Into<Ingress<'scope, T, M>>,
{
    fn stateful_functions(
        self,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error> {
        build(self.map(Into::into).into(), functions)
    }
}
