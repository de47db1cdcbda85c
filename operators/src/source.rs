//! A stream of what somebody gives whenever the operator is activated, at times that never go back.
//!
//! It knows nothing of where records come from, nor when to wait: that is up to whoever gives.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::progress::Timestamp;
use timely::scheduling::{Activator, SyncActivator};

use crate::feed::Feed;

/// What a [source] gives when it is activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion<T, D> {
    /// The time of the records, and of all before which nothing more comes. It must be at or after that of the
    /// portion before.
    pub time: T,
    /// The records, in order.
    pub records: Vec<D>,
    /// Whether nothing more comes at all.
    pub ends: bool,
}

/// How a source has itself activated.
#[derive(Clone, Debug)]
pub struct SourceActivators {
    /// On its own worker, also after some time.
    pub here: Activator,
    /// From any thread.
    pub anywhere: SyncActivator,
}

/// A stream of what `build` has given whenever the operator is activated: at first, when the
/// [feed](Feed::is_ready) says so, and when one of the activators is used. `None` ends it as a portion that
/// says so does. Nobody asks again after the end.
///
/// ```
/// use timely::dataflow::operators::{Capture, capture::Extract};
/// use timely_statefun_operators::{Feed, Portion, source};
///
/// let captured = timely::example(|scope| {
///     let numbers = source(scope, "Numbers", &Feed::new(), |activators| {
///         let mut next = 0;
///         move || {
///             activators.here.activate();
///             next += 1;
///             Some(Portion { time: next, records: vec![next; 2], ends: next == 3 })
///         }
///     });
///     numbers.capture()
/// });
/// assert_eq!(captured.extract(), [(1, vec![1; 2]), (2, vec![2; 2]), (3, vec![3; 2])]);
/// ```
///
/// # Panics
///
/// When a portion is given whose time is not at or after that of the one before.
pub fn source<'scope, T: Timestamp, D: 'static, G>(
    scope: Scope<'scope, T>,
    name: &str,
    feed: &Feed,
    build: impl FnOnce(SourceActivators) -> G,
) -> Stream<'scope, T, Vec<D>>
where
    G: FnMut() -> Option<Portion<T, D>> + 'static,
{
    let mut builder = OperatorBuilder::new(format!("Source [{name}]"), scope);
    let (output, stream) = builder.new_output::<Vec<D>>();
    let mut output: OutputBuilder<T, CapacityContainerBuilder<Vec<D>>> =
        OutputBuilder::from(output);
    let address = builder.operator_info().address;
    let activators = SourceActivators {
        here: scope.activator_for(address.clone()),
        anywhere: scope.worker().sync_activator_for(address.to_vec()),
    };
    feed.of_source(activators.here.clone());
    let mut give = Some(build(activators));
    builder.build(move |mut born| {
        let mut held = born.pop();
        drop(born);
        move |_| {
            let Some(portion) = give.as_mut().map(|give| give()) else { return };
            let Some(Portion { time, mut records, ends }) = portion else {
                (held, give) = (None, None);
                return;
            };
            let capability = held.as_mut().expect("it is held to the end");
            if *capability.time() != time {
                capability.downgrade(&time);
            }
            if !records.is_empty() {
                output.activate().session(capability).give_container(&mut records);
            }
            if ends {
                (held, give) = (None, None);
            }
        }
    });
    stream
}
