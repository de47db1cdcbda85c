//! What a worker releases goes into topics, and what was taken there is acknowledged.

use std::sync::Arc;

use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::{Antichain, Timestamp};

use super::topics::{Shared, Topics};
use crate::dataflow::{Held, Released};
use crate::typed::TypedValue;

/// A worker that gives what it has. Dropped, what nobody has taken of it waits no more: whoever goes on has it again.
struct Giving {
    topics: Arc<Shared>,
    worker: usize,
}

impl Drop for Giving {
    fn drop(&mut self) {
        self.topics.leave(self.worker);
    }
}

impl Topics {
    /// Takes what this worker releases of the [egress](super::EGRESS), which is [held](crate::Functions::held_egress);
    /// every worker calls this.
    ///
    /// A cut is acknowledged when all of its records that this worker has were taken, and of all cuts before it. What
    /// was not acknowledged comes again after a restart, whether it was taken or not. When the dataflow is dropped,
    /// what waits is not handed out any more.
    pub fn receive<T: Timestamp>(&self, held: Held<'_, T, TypedValue>) {
        let (released, acknowledge) = held.stream();
        let scope = released.scope();
        let worker = scope.index();
        let mut builder = OperatorBuilder::new("Playground".to_owned(), scope);
        let unconnected = Vec::<(usize, Antichain<_>)>::new;
        let mut released = builder.new_input_connection(released, Pipeline, unconnected());
        // Nothing leaves by it: as long as it may, the dataflow is not over.
        let (_, nothing) = builder.new_output_connection::<Vec<()>, _>(unconnected());
        drop(nothing);
        let activator = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
        let topics = Arc::clone(&self.shared);
        // A worker that has ended wants to know nothing.
        let wake = move || {
            let _ = activator.activate();
        };
        topics.join(worker, Box::new(wake));
        let giving = Giving { topics: Arc::clone(&topics), worker };
        builder.build(move |mut born| {
            let mut lasting = born.pop();
            move |frontiers| {
                let Giving { topics, worker } = &giving;
                released.for_each(|_, released| {
                    for released in released.drain(..) {
                        match released {
                            Released::Record { cut, record, .. } => {
                                topics.put(*worker, cut, record)
                            }
                            Released::End { cut } => topics.end(*worker, cut),
                        }
                    }
                });
                let (finished, is_done) = topics.finished(*worker);
                finished.into_iter().for_each(|cut| acknowledge.acknowledge(cut));
                if frontiers[0].is_empty() && is_done {
                    drop(lasting.take());
                }
            }
        });
    }
}
