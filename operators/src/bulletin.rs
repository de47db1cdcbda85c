//! A stream of what somebody says, with a frontier that they set.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::progress::Timestamp;
use timely::scheduling::Activator;

/// Says what leaves in a [stream](bulletin), and how far its frontier is. Dropped, it says no more.
///
/// ```
/// use timely::dataflow::operators::{Inspect, Probe};
/// use timely_statefun_operators::bulletin;
///
/// timely::execute_directly(|worker| {
///     let (bulletin, probe) = worker.dataflow::<u64, _, _>(|scope| {
///         let (bulletin, said) = bulletin(scope, "weather");
///         let (probe, _) = said.inspect(|said: &&str| println!("{said}")).probe();
///         (bulletin, probe)
///     });
///     bulletin.say("rain");
///     bulletin.advance(&[7]);
///     while probe.less_than(&7) {
///         worker.step();
///     }
///     assert!(!probe.less_than(&7) && probe.less_equal(&7));
///     drop(bulletin);
/// });
/// ```
pub struct Bulletin<T, D> {
    desk: Rc<Desk<T, D>>,
}

/// What is said, in order.
enum Said<T, D> {
    Record(D),
    Frontier(Vec<T>),
}

struct Desk<T, D> {
    said: RefCell<Vec<Said<T, D>>>,
    closed: Cell<bool>,
    activator: Activator,
}

impl<T: Timestamp, D> Bulletin<T, D> {
    /// Says something. It leaves at the least time, in `Ord`, that can still be said anything at.
    ///
    /// # Panics
    ///
    /// When the operator comes to it, if there is no such time any more.
    pub fn say(&self, record: D) {
        self.note(Said::Record(record));
    }

    /// Says nothing more at times that are not at or after one of these. With none, nothing at all.
    ///
    /// # Panics
    ///
    /// When the operator comes to it, if one of them is not at or after what was said before.
    pub fn advance(&self, to: &[T]) {
        self.note(Said::Frontier(to.to_vec()));
    }

    fn note(&self, said: Said<T, D>) {
        self.desk.said.borrow_mut().push(said);
        self.desk.activator.activate();
    }
}

impl<T, D> Drop for Bulletin<T, D> {
    fn drop(&mut self) {
        self.desk.closed.set(true);
        self.desk.activator.activate();
    }
}

impl<T, D> std::fmt::Debug for Bulletin<T, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bulletin").finish_non_exhaustive()
    }
}

/// A stream of what is said on this worker. Its frontier waits for all workers' bulletins.
pub fn bulletin<'scope, T: Timestamp, D: 'static>(
    scope: Scope<'scope, T>,
    name: &str,
) -> (Bulletin<T, D>, Stream<'scope, T, Vec<D>>) {
    let mut builder = OperatorBuilder::new(format!("Bulletin [{name}]"), scope);
    let (output, stream) = builder.new_output::<Vec<D>>();
    let mut output: OutputBuilder<T, CapacityContainerBuilder<Vec<D>>> =
        OutputBuilder::from(output);
    let activator = scope.activator_for(builder.operator_info().address);
    let desk = Rc::new(Desk { said: RefCell::default(), closed: Cell::new(false), activator });
    let bulletin = Bulletin { desk: Rc::clone(&desk) };
    builder.build(move |born| {
        // One for each time at which something can be said.
        let mut held = born;
        move |_| {
            let mut output = output.activate();
            for said in desk.said.borrow_mut().drain(..) {
                match said {
                    Said::Record(record) => {
                        let least = held.iter().min_by(|one, other| one.time().cmp(other.time()));
                        let least = least.expect("something can still be said");
                        output.session(least).give(record);
                    }
                    Said::Frontier(to) => {
                        let later = |time: &T| {
                            let right = held.iter().find(|held| held.time().less_equal(time));
                            let right = right.unwrap_or_else(|| {
                                panic!("a bulletin is at {held:?} and cannot go to {time:?}")
                            });
                            right.delayed(time)
                        };
                        held = to.iter().map(later).collect();
                    }
                }
            }
            if desk.closed.get() {
                held.clear();
            }
        }
    });
    (bulletin, stream)
}
