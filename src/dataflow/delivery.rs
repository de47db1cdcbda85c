//! A held egress on its way into a sink: records go to the worker of their shard, which gives the sink a cut when it
//! has all of it from all workers.
//!
//! That it has all cannot be read off a frontier, since a cut says nothing of times. So each worker tells each
//! shard, beside the dataflow, how many records of a cut it has sent there; of a cut without records as well.
//! It writes nothing itself.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::{Antichain, Timestamp};
use timely::scheduling::SyncActivator;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::egresses::Batches;
use super::held::{Arrivals, Held};
use super::releases::Releases;
use crate::dead_letter::Reason;
use crate::dispatch::{Batch, OfBin};
use crate::retry::Retry;
use crate::sink::{Sink, SinkError, SinkStatus};

/// A record on its way to its shard.
#[derive(Clone, Serialize, Deserialize)]
struct Parcel<E> {
    shard: u32,
    cut: u64,
    bin: u16,
    record: E,
}

/// What a worker tells a shard: how many records of a cut it has sent there.
#[derive(Clone, Serialize, Deserialize)]
struct Sent {
    shard: u32,
    cut: u64,
    records: u64,
}

/// How a sink is getting on, on one worker, from any thread.
#[derive(Clone, Debug)]
pub struct SinkHandle {
    status: Arc<Mutex<SinkStatus>>,
}

impl SinkHandle {
    pub(super) fn of(status: &Arc<Mutex<SinkStatus>>) -> Self {
        SinkHandle { status: Arc::clone(status) }
    }

    /// How it is getting on. A worker without a shard has nothing to tell.
    pub fn status(&self) -> SinkStatus {
        lock(&self.status).clone()
    }
}

pub(super) fn lock<X>(mutex: &Mutex<X>) -> MutexGuard<'_, X> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Timestamp, E: ExchangeData> Held<'_, T, E> {
    /// Gives the records to a sink, exactly once: cut by cut, each whole, and in an order that does not depend on
    /// workers. A cut is given when all workers have sent what they have of it, and acknowledged when the
    /// sink has stored it.
    ///
    /// All workers call this, with sinks of the same place; each writes the [shards](Sink::shards) that are
    /// its own. The sink is called on threads of the snapshots' runtime. What fails is [tried
    /// again](Sink::retry), and shown by the handle; past that the program stops.
    ///
    /// # Panics
    ///
    /// If the sink has no shard.
    pub fn sink<S: Sink<E>>(self, sink: S) -> SinkHandle {
        let Held { batches, releases, egress, name, runtime, .. } = self;
        let shards = sink.shards();
        assert!(shards > 0, "a sink has at least one shard");
        let (parcels, sent) = send(batches, &releases, egress, name, shards);
        let status = Arc::<Mutex<SinkStatus>>::default();
        let to = Destination { releases, egress, name, shards, status: Arc::clone(&status) };
        deliver(parcels, sent, to, Arc::new(sink), &runtime);
        SinkHandle { status }
    }
}

type Parcels<'scope, T, E> = Stream<'scope, T, Vec<Parcel<E>>>;
type Sendings<'scope, T> = Stream<'scope, T, Vec<Sent>>;

/// Sends records to their shards, and says how many of each cut.
fn send<'scope, T: Timestamp, E: ExchangeData>(
    batches: Batches<'scope, T>,
    releases: &Rc<Releases<T>>,
    egress: usize,
    name: &str,
    shards: u32,
) -> (Parcels<'scope, T, E>, Sendings<'scope, T>) {
    let scope = batches.scope();
    let mut builder = OperatorBuilder::new(format!("Send [{name}]"), scope);
    let mut input = builder.new_input(batches, Pipeline);
    let (output, parcels) = builder.new_output::<Vec<Parcel<E>>>();
    let mut output: OutputBuilder<T, CapacityContainerBuilder<Vec<Parcel<E>>>> =
        OutputBuilder::from(output);
    let unconnected = Vec::<(usize, Antichain<_>)>::new();
    let (sendings, sent) = builder.new_output_connection::<Vec<Sent>, _>(unconnected);
    let mut sendings: OutputBuilder<T, CapacityContainerBuilder<Vec<Sent>>> =
        OutputBuilder::from(sendings);
    let activator = scope.activator_for(builder.operator_info().address);
    releases.connect(egress, activator, shards as usize);
    let releases = Rc::clone(releases);
    let (mut arrivals, mut counts) = (Arrivals::default(), BTreeMap::<u32, u64>::new());
    builder.build(move |mut born| {
        // What is said concerns no time: one serves until no cut comes any more.
        let mut speaking = born.pop();
        drop(born);
        move |frontiers| {
            let Some(capability) = &speaking else { return };
            arrivals.expect(&releases, egress);
            let mut sendings = sendings.activate();
            let mut say = |arrivals: &mut Arrivals, counts: &mut BTreeMap<u32, u64>| {
                for (cut, _) in arrivals.ended() {
                    let sent = (0..shards).map(|shard| {
                        let records = counts.remove(&shard).unwrap_or_default();
                        Sent { shard, cut, records }
                    });
                    sendings.session(capability).give_iterator(sent);
                }
            };
            say(&mut arrivals, &mut counts);
            let mut output = output.activate();
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for Batch { cut, records, .. } in batches.drain(..) {
                    let records: Result<Box<Vec<OfBin<E>>>, _> = records.downcast();
                    let records = records.expect("an egress carries one type");
                    arrivals.note(cut, records.len() as u64);
                    for (bin, record) in *records {
                        let shard = u32::from(bin) % shards;
                        *counts.entry(shard).or_default() += 1;
                        session.give(Parcel { shard, cut, bin, record });
                    }
                    say(&mut arrivals, &mut counts);
                }
            });
            if releases.is_over() && arrivals.is_empty() && frontiers[0].is_empty() {
                speaking = None;
            }
        }
    });
    (parcels, sent)
}

/// Where an egress goes.
struct Destination<T: Timestamp> {
    releases: Rc<Releases<T>>,
    egress: usize,
    name: &'static str,
    shards: u32,
    status: Arc<Mutex<SinkStatus>>,
}

/// What one worker has for a shard of its own.
struct Shard<E> {
    /// Cuts that are not acknowledged, by number.
    cuts: BTreeMap<u64, Cut<E>>,
    jobs: UnboundedSender<(u64, Vec<E>)>,
    /// The cut that the sink is writing.
    writing: Option<u64>,
    acknowledged: Option<u64>,
}

/// What there is of a cut.
struct Cut<E> {
    /// How many workers have said how many records they sent, and how many that is altogether.
    workers: usize,
    sent: u64,
    records: Vec<OfBin<E>>,
}

/// What a shard's task tells.
enum Told {
    Stored { shard: u32, cut: u64 },
    Failed { cut: u64, why: String },
}

/// Gathers the cuts of this worker's shards and has the sink write them.
fn deliver<T: Timestamp, E: ExchangeData, S: Sink<E>>(
    parcels: Parcels<'_, T, E>,
    sent: Sendings<'_, T>,
    to: Destination<T>,
    sink: Arc<S>,
    runtime: &Handle,
) {
    let Destination { releases, egress, name, shards, status } = to;
    let scope = parcels.scope();
    let (worker, peers) = (scope.index(), scope.peers());
    let mut builder = OperatorBuilder::new(format!("Sink [{name}]"), scope);
    let unconnected = Vec::<(usize, Antichain<_>)>::new;
    let by_shard = Exchange::new(|parcel: &Parcel<E>| u64::from(parcel.shard));
    let mut parcels = builder.new_input_connection(parcels, by_shard, unconnected());
    let by_shard = Exchange::new(|sent: &Sent| u64::from(sent.shard));
    let mut sent = builder.new_input_connection(sent, by_shard, unconnected());
    // Nothing leaves by it: as long as it may, the dataflow is not over.
    let (_, nothing) = builder.new_output_connection::<Vec<()>, _>(unconnected());
    drop(nothing);
    let activator = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let own = (0..shards).filter(|shard| *shard as usize % peers == worker);
    let (tell, told) = channel();
    let shards = own.map(|shard| {
        let (jobs, received) = unbounded_channel();
        let (tell, activator) = (tell.clone(), activator.clone());
        let task = Task { shard, sink: Arc::clone(&sink), status: Arc::clone(&status) };
        runtime.spawn(task.run(received, Telling { tell, activator }));
        let shard_of = Shard { cuts: BTreeMap::new(), jobs, writing: None, acknowledged: None };
        (shard, shard_of)
    });
    let mut shards: BTreeMap<u32, Shard<E>> = shards.collect();
    drop(tell);
    builder.build(move |mut born| {
        let mut lasting = born.pop();
        let mut failed = false;
        move |frontiers| {
            let mut of = |shard: u32, cut: u64, note: &mut dyn FnMut(&mut Cut<E>)| {
                let shard = shards.get_mut(&shard).expect("its records come to its worker");
                let new = || Cut { workers: 0, sent: 0, records: Vec::new() };
                note(shard.cuts.entry(cut).or_insert_with(new));
            };
            parcels.for_each(|_, parcels| {
                for Parcel { shard, cut, bin, record } in parcels.drain(..) {
                    let mut record = Some(record);
                    of(shard, cut, &mut |cut| {
                        cut.records.extend(record.take().map(|record| (bin, record)));
                    });
                }
            });
            sent.for_each(|_, sent| {
                for Sent { shard, cut, records } in sent.drain(..) {
                    of(shard, cut, &mut |cut| {
                        cut.workers += 1;
                        cut.sent += records;
                    });
                }
            });
            let mut failure = None;
            while let Some(told) = next(&told, &mut failed) {
                match told {
                    Ok(Told::Stored { shard: number, cut }) => {
                        let shard = shards.get_mut(&number).expect("it is one of these");
                        shard.cuts.remove(&cut);
                        (shard.writing, shard.acknowledged) = (None, Some(cut));
                        releases.acknowledge(egress, number as usize, cut);
                    }
                    Ok(Told::Failed { cut, why }) => {
                        // Its task is gone, which is told as well.
                        failure.get_or_insert((cut, why));
                    }
                    Err(()) if shards.values().any(|shard| !shard.cuts.is_empty()) => {
                        let why = || (0, "the runtime has shut down".to_owned());
                        failure.get_or_insert_with(why);
                    }
                    Err(()) => {}
                }
            }
            if let Some((cut, why)) = failure {
                tracing::error!(egress = name, cut, why, "a sink failed");
                let (egress, why) = (name.into(), why.into());
                releases.stop(Reason::SinkFailed { egress, cut, why });
            }
            for shard in shards.values_mut().filter(|shard| shard.writing.is_none()) {
                let Some(mut first) = shard.cuts.first_entry() else { continue };
                let (cut, gathered) = (*first.key(), first.get_mut());
                if gathered.workers < peers || (gathered.records.len() as u64) < gathered.sent {
                    continue;
                }
                let mut records = std::mem::take(&mut gathered.records);
                // Where a bin is the same, in the order in which they came: from one worker.
                records.sort_by_key(|(bin, _)| *bin);
                let records = records.into_iter().map(|(_, record)| record).collect();
                shard.writing = Some(cut);
                // Where the task is gone, it has told so.
                drop(shard.jobs.send((cut, records)));
            }
            let mut status = lock(&status);
            let mut waiting: Vec<u64> =
                shards.values().flat_map(|shard| shard.cuts.keys().copied()).collect();
            waiting.sort_unstable();
            waiting.dedup();
            status.waiting = waiting;
            status.acknowledged = shards.values().map(|shard| shard.acknowledged).min().flatten();
            let gathered = shards.values().flat_map(|shard| shard.cuts.values());
            status.records =
                gathered.map(|cut| cut.sent.max(cut.records.len() as u64) as usize).sum();
            let all_come = frontiers.iter().all(|frontier| frontier.is_empty());
            if all_come && status.waiting.is_empty() {
                drop(lasting.take());
            }
        }
    });
}

/// What a task told, if any did; an error, once, when none can any more.
fn next(told: &Receiver<Told>, is_over: &mut bool) -> Option<Result<Told, ()>> {
    use std::sync::mpsc::TryRecvError;
    match told.try_recv() {
        Ok(told) => Some(Ok(told)),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => (!std::mem::replace(is_over, true)).then_some(Err(())),
    }
}

/// How a task tells the operator.
struct Telling {
    tell: Sender<Told>,
    activator: SyncActivator,
}

impl Telling {
    fn tell(&self, told: Told) {
        // A worker that has ended wants to know nothing.
        drop(self.tell.send(told));
        let _ = self.activator.activate();
    }
}

/// Also where it is dropped with its runtime.
impl Drop for Telling {
    fn drop(&mut self) {
        let (closed, _) = channel();
        drop(std::mem::replace(&mut self.tell, closed));
        let _ = self.activator.activate();
    }
}

/// Writes one shard, cut after cut.
struct Task<S> {
    shard: u32,
    sink: Arc<S>,
    status: Arc<Mutex<SinkStatus>>,
}

impl<S> Task<S> {
    async fn run<E: Send + 'static>(
        self,
        mut jobs: UnboundedReceiver<(u64, Vec<E>)>,
        telling: Telling,
    ) where
        S: Sink<E>,
    {
        let shard = self.shard;
        let mut last: Option<Option<u64>> = None;
        while let Some((cut, records)) = jobs.recv().await {
            let stored = self.store(&mut last, cut, records).await;
            match stored {
                Ok(()) => {
                    #[cfg(statefun_planted)]
                    crate::planted::reach("sink-has-cut");
                    telling.tell(Told::Stored { shard, cut });
                }
                Err(error) => {
                    return telling.tell(Told::Failed { cut, why: error.to_string() });
                }
            }
        }
    }

    async fn store<E: Send + 'static>(
        &self,
        last: &mut Option<Option<u64>>,
        cut: u64,
        records: Vec<E>,
    ) -> Result<(), SinkError>
    where
        S: Sink<E>,
    {
        let shard = self.shard;
        if records.is_empty() {
            return Ok(());
        }
        if last.is_none() {
            let (stored, ()) = self.attempt((), move |sink: &S, ()| sink.last(shard)).await?;
            *last = Some(stored);
        }
        if last.flatten().is_some_and(|last| last >= cut) {
            return Ok(());
        }
        let write = move |sink: &S, records: &Vec<E>| sink.write(shard, cut, records);
        self.attempt(records, write).await?;
        *last = Some(Some(cut));
        Ok(())
    }

    fn note(&self, failures: u32, error: Option<String>) {
        let mut status = lock(&self.status);
        (status.failures, status.last_error) = (failures, error);
    }

    /// Does something that may fail, until it does not or it is enough.
    async fn attempt<E, C: Send + 'static, R: Send + 'static>(
        &self,
        with: C,
        act: impl Fn(&S, &C) -> Result<R, SinkError> + Copy + Send + 'static,
    ) -> Result<(R, C), SinkError>
    where
        S: Sink<E>,
    {
        let retry: Retry = self.sink.retry();
        let (mut with, mut attempts) = (Some(with), 0);
        loop {
            let (sink, content) = (Arc::clone(&self.sink), with.take().expect("it is put back"));
            let done = tokio::task::spawn_blocking(move || {
                let acted = catch_unwind(AssertUnwindSafe(|| act(&sink, &content)));
                let acted = acted.unwrap_or_else(|panic| Err(panicked(&*panic)));
                (acted, content)
            });
            // Only a runtime that shuts down lets it go without an end.
            let ended = done.await.map_err(|_| SinkError::refused("the runtime has shut down"));
            let (acted, content) = ended?;
            attempts += 1;
            let error = match acted {
                Ok(result) => {
                    self.note(0, None);
                    return Ok((result, content));
                }
                Err(error) => error,
            };
            self.note(attempts, Some(error.to_string()));
            tracing::warn!(shard = self.shard, attempts, %error, "a sink fails");
            if error.is_refused() || !retry.again_after(attempts) {
                return Err(error);
            }
            with = Some(content);
            let chance = u64::from(self.shard) << 32 | u64::from(attempts);
            tokio::time::sleep(Duration::from_millis(retry.wait_ms(attempts, chance))).await;
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> SinkError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    SinkError::failed(format!("it panicked: {}", text.unwrap_or("of something that is no text")))
}
