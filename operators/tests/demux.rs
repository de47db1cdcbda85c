//! A demux keeps the order in which records arrived, also across times.

use std::cell::RefCell;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Operator, Probe};
use timely_statefun_operators::Demux;

#[test]
fn records_keep_their_order_whatever_their_times() {
    let parts = Rc::new(RefCell::new(vec![Vec::new(); 3]));
    let expected: Vec<Vec<(u64, u64)>> = (0..3u64)
        .map(|part| (0..300).filter(|n| n % 3 == part).map(|n| (n * 7 % 11, n)).collect())
        .collect();
    let mut worker = timely::worker::Worker::new(
        timely::WorkerConfig::default(),
        timely::communication::Allocator::Thread(Default::default()),
        Some(std::time::Instant::now()),
    );
    let ((mut input, start), probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_unordered_input::<u64>();
        let probe = timely::dataflow::operators::probe::Handle::new();
        let streams = stream.demux("by three", 3, |n| (n % 3) as usize);
        for (part, stream) in streams.into_iter().enumerate() {
            let parts = Rc::clone(&parts);
            // Not `inspect`, which sorts what it finds by time.
            let seen = stream.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
                Pipeline,
                "see",
                |_, _| {
                    move |input, _| {
                        input.for_each(|at, data| {
                            let time = *at.time();
                            parts.borrow_mut()[part].extend(data.drain(..).map(|n| (time, n)));
                        });
                    }
                },
            );
            seen.probe_with(&probe);
        }
        (input, probe)
    });
    for n in 0..300 {
        // Times that jump back and forth: sorting by them would change the order.
        input.activate().session(&start.delayed(&(n * 7 % 11))).give(n);
        if n % 20 == 19 {
            worker.step();
        }
    }
    drop((input, start));
    worker.step_while(|| !probe.done());
    assert_eq!(*parts.borrow(), expected);
}
