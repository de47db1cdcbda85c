//! A held egress on its way to asynchronous code: what there is no room for waits here, and cuts are acknowledged
//! when all of their records are.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::{Antichain, Timestamp};

use super::delivery::{SinkHandle, lock};
use super::held::{Held, Released};
use crate::dead_letter::Reason;
use crate::sink::{Giver, HeldReceiver, SinkStatus};

/// What there is of a cut.
#[derive(Default)]
struct Cut {
    records: u64,
    acknowledged: u64,
    has_ended: bool,
}

impl<T: Timestamp, E: Send + 'static> Held<'_, T, E> {
    /// Gives the records of this worker to asynchronous code, with room for so many, at least 1, between the two.
    /// Each is [acknowledged](crate::sink::Taken::acknowledge) by itself.
    ///
    /// What there is no room for waits on the worker, where it has been since it was emitted. There are as many
    /// records as the cuts have that are not acknowledged, of which
    /// [no more](crate::SnapshotPolicy::unacknowledged_cuts_max) are taken meanwhile. All workers call this.
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use timely_statefun::source::{self, Times};
    /// use timely_statefun::{
    ///     Egress, Function, FunctionType, Functions, SnapshotOptions, SnapshotPolicy, SnapshotStore,
    ///     Snapshots, StatefulFunctions,
    /// };
    ///
    /// const ECHO: FunctionType<String> = FunctionType::new("example/echo");
    /// const ECHOES: Egress<String> = Egress::new("example/echoes");
    ///
    /// let directory = tempfile::tempdir()?;
    /// let url = format!("file://{}", directory.path().display());
    /// let store = SnapshotStore::open(&url, SnapshotOptions::default())?;
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    /// let handle = runtime.handle().clone();
    /// let (sender, channel) = source::channel(10);
    /// sender.try_send("hello".to_owned()).expect("there is room");
    /// drop(sender);
    /// let (heard, hears) = std::sync::mpsc::channel();
    /// timely::execute_directly(move |worker| {
    ///     let policy = SnapshotPolicy::new("echoes");
    ///     let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).expect("a store");
    ///     let echo = Function::new(|context, text: &String| {
    ///         context.emit(ECHOES, text.clone());
    ///         Ok(())
    ///     });
    ///     let functions = Functions::<String>::new().embedded(ECHO, echo).held_egress(ECHOES);
    ///     let echoes = worker.dataflow::<u64, _, _>(|scope| {
    ///         let source = channel.source(scope, "texts", Times::fixed(0));
    ///         let ingress = source.unreplayed(&snapshots, |text| ECHO.message("all", text));
    ///         let egresses = ingress.stateful_functions(functions).expect("they fit together");
    ///         let (mut receiver, _) = egresses.held(ECHOES).expect("it is held").channel(100);
    ///         handle.spawn(async move {
    ///             while let Some(taken) = receiver.recv().await {
    ///                 heard.send(taken.acknowledge()).expect("somebody listens");
    ///             }
    ///         });
    ///         egresses.handle()
    ///     });
    ///     echoes.run(worker).expect("all goes well");
    /// });
    /// assert_eq!(hears.into_iter().collect::<Vec<_>>(), ["hello"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn channel(self, capacity: usize) -> (HeldReceiver<E>, SinkHandle) {
        let (releases, egress) = (Rc::clone(&self.releases), self.name);
        let (released, acknowledge) = self.stream();
        let scope = released.scope();
        let mut builder = OperatorBuilder::new(format!("Channel [{egress}]"), scope);
        let unconnected = Vec::<(usize, Antichain<_>)>::new;
        let mut input = builder.new_input_connection(released, Pipeline, unconnected());
        // Nothing leaves by it: as long as it may, there are acknowledgements to hear of.
        let (_, nothing) = builder.new_output_connection::<Vec<()>, _>(unconnected());
        drop(nothing);
        let address = builder.operator_info().address;
        let activator = scope.worker().sync_activator_for(address.to_vec());
        // A worker that has ended needs no waking.
        let (giver, receiver) = Giver::new(capacity, Box::new(move || _ = activator.activate()));
        let status = Arc::<Mutex<SinkStatus>>::default();
        let handle = SinkHandle::of(&status);
        builder.build(move |mut born| {
            let mut hearing = born.pop();
            let mut waiting = VecDeque::new();
            let mut cuts = BTreeMap::<u64, Cut>::new();
            move |frontiers| {
                input.for_each(|_, released| {
                    for released in released.drain(..) {
                        match released {
                            Released::Record { cut, bin, record } => {
                                cuts.entry(cut).or_default().records += 1;
                                waiting.push_back((cut, bin, record));
                            }
                            Released::End { cut } => {
                                cuts.entry(cut).or_default().has_ended = true;
                            }
                        }
                    }
                });
                let heard = giver.hear();
                for (cut, records) in heard.acknowledged {
                    let cut = cuts.get_mut(&cut).expect("it is not acknowledged yet");
                    cut.acknowledged += records;
                }
                while let Some(first) = cuts.first_entry()
                    && first.get().has_ended
                    && first.get().acknowledged == first.get().records
                {
                    let cut = first.remove_entry().0;
                    acknowledge.acknowledge(cut);
                    lock(&status).acknowledged = Some(cut);
                }
                if heard.is_gone {
                    if let Some((cut, _)) = cuts.first_key_value() {
                        let why = "nobody takes it any more".into();
                        let (egress, cut) = (egress.into(), *cut);
                        releases.stop(Reason::SinkFailed { egress, cut, why });
                    }
                } else {
                    giver.give(waiting.drain(..heard.room.min(waiting.len())));
                }
                let mut status = lock(&status);
                status.waiting = cuts.keys().copied().collect();
                let records = cuts.values().map(|cut| cut.records - cut.acknowledged);
                status.records = records.sum::<u64>() as usize;
                if frontiers[0].is_empty() && cuts.is_empty() {
                    drop(hearing.take());
                }
            }
        });
        (receiver, handle)
    }
}
