//! Streams that are part of snapshots as they are, for operators that stand before functions.
//!
//! A set of functions of its own keeps them: one function, which emits what it is given to an egress whose
//! records are kept. So they take part in cuts, live where their addresses do, and come back like any
//! such egress. Nothing is kept here.

use std::hash::Hash;

use differential_dataflow::difference::Semigroup;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, Hashable, VecCollection};
use timely::ExchangeData;
use timely::dataflow::Stream;
use timely::progress::Timestamp;

use super::{Egresses, Handle, Snapshots, StatefulFunctions};
use crate::address::FunctionType;
use crate::egress::Egress;
use crate::error::Error;
use crate::function::Function;
use crate::functions::Functions;
use crate::message::Envelope;

/// What the function that keeps is called.
const KEEP: &str = "timely-statefun/persist";
/// What it is called that is kept.
const KEPT: &str = "timely-statefun/persisted";
/// By how many addresses the data of a collection are kept.
const ADDRESSES: u64 = 1 << 16;

/// A record of a source: its partition, its position in it, and what it says.
type Read<D> = (u64, u64, D);

type Reads<'scope, T, D> = Stream<'scope, T, Vec<Read<D>>>;

/// A stream that is kept, and the handle on what keeps it.
pub type Persisted<'scope, T, D> = (Stream<'scope, T, Vec<(u64, u64, D)>>, Handle<T>);

/// A collection that is kept, and the handle on what keeps it.
pub type PersistedUpdates<'scope, T, D, R> = (VecCollection<'scope, T, D, R>, Handle<T>);

impl<T: Timestamp> Snapshots<T> {
    /// Keeps a stream with the snapshots: what has come of it is in them, and after a restart it comes first, at
    /// the minimum time, before anything new. So operators behind it that keep something in memory make that
    /// anew.
    ///
    /// Records are given with the partition and the position at which their source has them, and leave
    /// with both, each partition in order and on one worker. The source must be one that can be read again: after a
    /// restart it goes on behind the [positions](Self::positions) of this name, and what it gives again is
    /// skipped. Positions rise within a partition, whose records come to one worker.
    ///
    /// All records take memory for as long as the program lives. Where what counts is what changes add up to, see
    /// [`persist_updates`](Self::persist_updates).
    ///
    /// **What is exact.** This stream is: each record is there once, whatever happened. What operators make of it
    /// is as well, as long as it follows from which records there are, and not from the times at which they come
    /// or the order between partitions, which a restart changes. Where it goes into functions, the ingress must
    /// be [replayed](Self::replayed), and each record must give the same messages at the same positions
    /// whenever it comes, all messages of a partition through one worker and in order: then those that a snapshot
    /// contains are skipped when they come again. What depends on times, such as a join with what was known
    /// at the time of a record, is exact after a snapshot that is [aligned](Self::request_aligned), where
    /// all that came before a time is known and nothing else is.
    ///
    /// The [handle](Handle) is that of the functions that keep the stream. A source should wait until
    /// it is ready too.
    ///
    /// # Errors
    ///
    /// If the name is no name, or is that of another ingress or set of functions in these snapshots, or these have
    /// begun in another dataflow.
    pub fn persist<'scope, D: ExchangeData + Clone>(
        &self,
        name: impl Into<String>,
        stream: Reads<'scope, T, D>,
    ) -> Result<Persisted<'scope, T, D>, Error> {
        let (keep, kept) = (FunctionType::<Read<D>>::new(KEEP), Egress::<Read<D>>::new(KEPT));
        let function = Function::new(move |context, record: &Read<D>| {
            context.emit(kept, record.clone());
            Ok(())
        });
        let functions = Functions::new().embedded(keep, function).persisted_egress(kept);
        let envelope = move |record: Read<D>| {
            let (partition, position, _) = record;
            keep.message::<Read<D>>(partition, record).read_at(partition, position)
        };
        let egresses = self.keep(name.into(), stream, envelope, functions)?;
        Ok((egresses.stream(kept)?, egresses.handle()))
    }

    /// Keeps a differential collection with the snapshots: what its updates, `(data, time, difference)`, add up
    /// to is in them, and after a restart it comes first, at the minimum time. So arrangements behind it are made
    /// anew.
    ///
    /// Like [`persist`](Self::persist), but a snapshot keeps one difference for each piece of data, and forgets what
    /// comes to nothing; when they came is forgotten too. Updates come with the partition and the position
    /// at which their source has them. Their time must not be before the one at which they travel.
    ///
    /// **What is exact.** The collection is, at all times that are at or after those at which updates had come when
    /// the snapshot was taken: earlier ones have all that came later as well. So is, at these times, what
    /// differential operators make of it.
    ///
    /// # Errors
    ///
    /// As for [`persist`](Self::persist).
    pub fn persist_updates<'scope, D, R>(
        &self,
        name: impl Into<String>,
        updates: Reads<'scope, T, (D, T, R)>,
    ) -> Result<PersistedUpdates<'scope, T, D, R>, Error>
    where
        T: Lattice,
        D: ExchangeData + Clone + Hash + Ord,
        R: ExchangeData + Semigroup + Clone,
    {
        let keep = FunctionType::<(D, T, R)>::new(KEEP);
        let kept = Egress::<(D, T, R)>::new(KEPT);
        let function = Function::new(move |context, update: &(D, T, R)| {
            context.emit(kept, update.clone());
            Ok(())
        });
        let functions = Functions::new().embedded(keep, function).persisted_updates(kept);
        let envelope = move |(partition, position, update): (u64, u64, (D, T, R))| {
            // The same data must come to the same address. If another build hashes otherwise, they do not,
            // and still add up to the same behind it.
            let address = update.0.hashed() % ADDRESSES;
            keep.message::<(D, T, R)>(address, update).read_at(partition, position)
        };
        let egresses = self.keep(name.into(), updates, envelope, functions)?;
        Ok((egresses.stream(kept)?.as_collection(), egresses.handle()))
    }

    /// Builds the functions that keep a stream.
    fn keep<'scope, D: 'static, M: ExchangeData>(
        &self,
        name: String,
        stream: Stream<'scope, T, Vec<D>>,
        envelope: impl FnMut(D) -> Envelope<M> + 'static,
        functions: Functions<M, T>,
    ) -> Result<Egresses<'scope, T, M>, Error> {
        let envelopes = super::egresses::each(stream, &format!("Persist [{name}]"), envelope);
        self.replayed(name.clone(), envelopes).stateful_functions(functions.named(name))
    }
}
