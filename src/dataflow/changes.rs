//! Changes of state that is watched, as streams and collections.

use std::any::{Any, type_name};
use std::rc::Rc;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Timestamp;

use super::egresses::Batches;
use crate::address::Id;
use crate::watched::{Stamp, StateChange};

/// Batches of changes that have their stamps: each a `Vec` of [`StateChange`]s, which all who take it share.
pub(crate) type Stamped<'scope, T> = Stream<'scope, T, Vec<Rc<dyn Any>>>;

/// Gives changes their stamps.
pub(super) fn stamped<'scope, T: Timestamp>(
    batches: Batches<'scope, T>,
    name: &str,
    mut stamper: Box<dyn Stamp<T>>,
) -> Stamped<'scope, T> {
    batches.unary_frontier::<CapacityContainerBuilder<_>, _, _, _>(Pipeline, name, |_, _| {
        move |(input, frontier), output| {
            let frontier = frontier.frontier();
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    session.give(stamper.stamp(capability.time(), &frontier, batch.records));
                }
            });
            stamper.pass(&frontier);
        }
    })
}

/// The changes of a state, in the order in which they happened.
pub(super) fn changes<'scope, K, V, T>(
    stamped: Stamped<'scope, T>,
    name: &str,
) -> Stream<'scope, T, Vec<StateChange<K, V, T>>>
where
    K: Clone + 'static,
    V: Clone + 'static,
    T: Timestamp,
{
    stamped.unary(Pipeline, name, |_, _| {
        |input, output| {
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    let changes = batch.downcast::<Vec<StateChange<K, V, T>>>();
                    let changes = changes.unwrap_or_else(|_| {
                        unreachable!("they are of {} and {}", type_name::<K>(), type_name::<V>())
                    });
                    session.give_iterator(Rc::unwrap_or_clone(changes).into_iter());
                }
            });
        }
    })
}

/// What a state holds, as it changes.
pub(super) fn collection<'scope, K, V, T>(
    changes: Stream<'scope, T, Vec<StateChange<K, V, T>>>,
    name: &str,
) -> VecCollection<'scope, T, (Id, K, V), isize>
where
    K: differential_dataflow::Data,
    V: differential_dataflow::Data,
    T: Timestamp + Lattice,
{
    let updates = changes.unary(Pipeline, name, |_, _| {
        |input, output| {
            input.for_each(|capability, changes| {
                let mut session = output.session(&capability);
                for StateChange { id, key, old, new, stamp, .. } in changes.drain(..) {
                    if let Some(old) = old {
                        session.give(((id.clone(), key.clone(), old), stamp.clone(), -1));
                    }
                    if let Some(new) = new {
                        session.give(((id, key, new), stamp, 1));
                    }
                }
            });
        }
    });
    updates.as_collection()
}
