//! Splits one stream into several by a number in each record.
//!
//! Unlike timely's `partition` it keeps the order in which batches arrived, whatever their times:
//! what one sender emitted at several times reaches each output in the order it was emitted.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Timestamp;
use timely::progress::operate::FrontierInterest;

/// Splits a stream into several.
pub trait Demux<'scope, T: Timestamp, D> {
    /// Gives `outputs` streams; each record goes to the one that `route` names, in order.
    ///
    /// ```
    /// use timely::dataflow::operators::{Capture, ToStream};
    /// use timely::dataflow::operators::capture::Extract;
    /// use timely_statefun_operators::Demux;
    ///
    /// let (even, odd) = timely::example(|scope| {
    ///     let mut parts = (0..6u64).to_stream(scope).demux("Parity", 2, |n| (n % 2) as usize);
    ///     let odd = parts.pop().unwrap().capture();
    ///     let even = parts.pop().unwrap().capture();
    ///     (even, odd)
    /// });
    /// assert_eq!(even.extract()[0].1, [0, 2, 4]);
    /// assert_eq!(odd.extract()[0].1, [1, 3, 5]);
    /// ```
    ///
    /// # Panics
    ///
    /// While running, if `route` names an output there is not.
    fn demux(
        self,
        name: &str,
        outputs: usize,
        route: impl FnMut(&D) -> usize + 'static,
    ) -> Vec<Stream<'scope, T, Vec<D>>>;
}

impl<'scope, T: Timestamp, D: 'static> Demux<'scope, T, D> for Stream<'scope, T, Vec<D>> {
    fn demux(
        self,
        name: &str,
        outputs: usize,
        mut route: impl FnMut(&D) -> usize + 'static,
    ) -> Vec<Stream<'scope, T, Vec<D>>> {
        let mut builder = OperatorBuilder::new(format!("Demux [{name}]"), self.scope());
        let mut input = builder.new_input(self, Pipeline);
        builder.set_notify_for(0, FrontierInterest::Never);
        let (mut ports, streams): (Vec<_>, Vec<_>) = (0..outputs)
            .map(|_| {
                let (port, stream) = builder.new_output::<Vec<D>>();
                let port: OutputBuilder<T, CapacityContainerBuilder<Vec<D>>> =
                    OutputBuilder::from(port);
                (port, stream)
            })
            .unzip();
        builder.build(move |_| {
            let mut parts: Vec<Vec<D>> = (0..outputs).map(|_| Vec::new()).collect();
            move |_| {
                let mut ports: Vec<_> = ports.iter_mut().map(|port| port.activate()).collect();
                input.for_each(|capability, data| {
                    for datum in data.drain(..) {
                        parts[route(&datum)].push(datum);
                    }
                    for (port, part) in ports.iter_mut().zip(&mut parts) {
                        if !part.is_empty() {
                            port.session(&capability).give_container(part);
                            part.clear();
                        }
                    }
                });
            }
        });
        streams
    }
}
