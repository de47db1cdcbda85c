//! A frontier passes a time that is over, although a later record goes round for ever.
//!
//! Batches travel at the least time their sender works for. When that time ends, the batches must
//! leave it, or a record that never ends would keep an earlier, finished time open. (What a frontier
//! may not pass is the subject of `tests/frontier.rs` of the functions' crate.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use timely::dataflow::operators::{Input, Probe};
use timely_statefun_operators::{Handler, KeyedLoop, LoopConfig, Outbox, Verdict};

/// Passes a ball to the other worker until it is told to stop; a 0 or 1 is handled and gone.
struct Players {
    going: Arc<AtomicBool>,
}

const BALL: u64 = 2;

impl Handler<u64> for Players {
    type Message = u64;
    type Output = ();
    type Failure = String;

    fn route(message: &u64) -> u64 {
        *message
    }

    fn handle(&mut self, message: u64, outbox: &mut Outbox<'_, u64, u64>) -> Verdict<String> {
        if message >= BALL && self.going.load(SeqCst) {
            outbox.send(BALL + (message + 1) % 2);
        }
        Verdict::Done
    }
}

#[test]
fn a_ball_that_never_rests_does_not_carry_an_earlier_time_round() {
    // Far more than a loop needs to be done with a time. Steps would be no measure: a worker makes any
    // number of them while the other's thread does not run.
    const LIMIT: Duration = Duration::from_secs(60);
    let going = Arc::new(AtomicBool::new(true));
    let guards = timely::execute(timely::Config::process(2), move |worker| {
        let going = Arc::clone(&going);
        let players = Players { going: Arc::clone(&going) };
        let (mut input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<u64>>();
            let (out, handle) = stream.keyed_loop("players", LoopConfig::default(), None, players);
            (input, out.probe().0, handle)
        });
        if worker.index() == 0 {
            // In one batch of the gate: something at time 0, which is soon over, and the ball.
            input.send(0);
            input.advance_to(1);
            input.send(BALL);
        }
        input.advance_to(2);
        let began = Instant::now();
        while probe.less_equal(&0) {
            worker.step();
            std::thread::yield_now();
            assert!(began.elapsed() < LIMIT, "time 0 was over long ago");
        }
        let flies = probe.less_equal(&1);
        assert!(flies || !going.load(SeqCst), "passed the ball's time while it flew");
        // Whoever has seen enough ends the game for both.
        while handle.stats().sent_away < 100 && going.load(SeqCst) {
            worker.step();
            std::thread::yield_now();
        }
        going.store(false, SeqCst);
        input.close();
        handle.run(worker).unwrap();
        assert!(probe.done());
    });
    for worker in guards.unwrap().join() {
        worker.unwrap();
    }
}
