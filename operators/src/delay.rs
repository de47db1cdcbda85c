//! Holds batches back on their way to other workers, for as long as a test says: in no normal build.
//!
//! What one worker sends stays in order. It knows no cut.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Timestamp;
use timely::progress::operate::FrontierInterest;

/// How long batches are held back in a loop, in activations of the operator that does it. All clones are
/// one.
#[derive(Clone)]
pub struct Delays {
    draw: Rc<RefCell<dyn FnMut() -> u32>>,
    held: Rc<Cell<usize>>,
}

impl Delays {
    /// As `draw` says for each batch.
    pub fn new(draw: impl FnMut() -> u32 + 'static) -> Self {
        Delays { draw: Rc::new(RefCell::new(draw)), held: Rc::default() }
    }

    /// How many batches are held back now.
    pub fn held(&self) -> usize {
        self.held.get()
    }
}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delays").field("held", &self.held.get()).finish_non_exhaustive()
    }
}

impl PartialEq for Delays {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.held, &other.held)
    }
}

impl Eq for Delays {}

/// The stream, held back if it is to be.
pub(crate) fn delay<'scope, T: Timestamp, D: 'static>(
    stream: Stream<'scope, T, Vec<D>>,
    delays: Option<&Delays>,
) -> Stream<'scope, T, Vec<D>> {
    let Some(Delays { draw, held }) = delays.cloned() else { return stream };
    let scope = stream.scope();
    let mut builder = OperatorBuilder::new("Delay".to_owned(), scope);
    let mut input = builder.new_input(stream, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (output, delayed) = builder.new_output::<Vec<D>>();
    let mut output: OutputBuilder<_, CapacityContainerBuilder<Vec<D>>> =
        OutputBuilder::from(output);
    let activator = scope.activator_for(builder.operator_info().address);
    builder.build(move |_| {
        let mut waiting = VecDeque::new();
        move |_| {
            input.for_each(|batch, data| {
                held.set(held.get() + 1);
                waiting.push_back((batch.retain(0), std::mem::take(data), draw.borrow_mut()()));
            });
            let mut output = output.activate();
            while let Some((_, _, left)) = waiting.front_mut() {
                if *left > 0 {
                    *left -= 1;
                    break;
                }
                let (capability, mut data, _) = waiting.pop_front().expect("there is a first one");
                output.session(&capability).give_container(&mut data);
                held.set(held.get() - 1);
            }
            if !waiting.is_empty() {
                activator.activate();
            }
        }
    });
    delayed
}
