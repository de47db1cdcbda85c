//! What goes round for ever starves nothing: not other addresses, not ingress, not the frontiers of
//! earlier times, and not other dataflows of the worker.
//!
//! Two addresses of one worker send a ball to each other until they may not any more. All else must
//! happen within a number of steps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::{
    Egress, Envelope, Function, FunctionType, Functions, Limits, StatefulFunctions,
};

const PLAYER: FunctionType<Message> = FunctionType::new("fairness/player");
const CHAIN: FunctionType<Message> = FunctionType::new("fairness/chain");
const ENDS: Egress<u64> = Egress::new("fairness/ends");
const EARLY: u64 = 3;
const PLAY: u64 = 5;
const LATE: u64 = 7;
/// Links of a chain from address to address.
const LINKS: u64 = 100;
const CHAINS: u64 = 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    Ball,
    Link(u64),
}

fn functions(
    limits: Limits,
    playing: &Rc<Cell<bool>>,
    strokes: &Rc<Cell<u64>>,
) -> Functions<Message> {
    let (playing, strokes) = (Rc::clone(playing), Rc::clone(strokes));
    let player = Function::new(move |context, _: &Message| {
        strokes.set(strokes.get() + 1);
        if playing.get() {
            let other = 1 - context.id().as_number().ok_or("players have numbers")?;
            context.send(PLAYER, other, Message::Ball);
        }
        Ok(())
    });
    let chain = Function::new(|context, message: &Message| {
        match message {
            Message::Link(0) => context.emit(ENDS, *context.time()),
            Message::Link(left) => context.send(CHAIN, left % 10, Message::Link(left - 1)),
            Message::Ball => return Err("no player".into()),
        }
        Ok(())
    });
    Functions::new().embedded(PLAYER, player).embedded(CHAIN, chain).egress(ENDS).limits(limits)
}

fn check(limits: Limits, balls: u64) {
    timely::execute_directly(move |worker| {
        let (playing, strokes) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0)));
        let ends = Rc::new(RefCell::new(Vec::new()));
        let ((mut input, first), probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input::<Envelope<Message>>();
            let functions = functions(limits, &playing, &strokes);
            let egresses = stream.stateful_functions(functions).unwrap();
            let ends = Rc::clone(&ends);
            let out = egresses.stream(ENDS).unwrap();
            let probe = out.inspect(move |time| ends.borrow_mut().push(*time)).probe().0;
            (input, probe, egresses.handle())
        });
        let (mut other, other_probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<u64>>();
            (input, stream.probe().0)
        });
        let play = first.delayed(&PLAY);
        for ball in 0..balls {
            input.activate().session(&play).give(PLAYER.message(ball % 2, Message::Ball));
        }
        while strokes.get() < 100 {
            worker.step();
        }
        // The ball is in play. Now come the others, before its time and after.
        for time in [EARLY, LATE] {
            let capability = first.delayed(&time);
            let mut input = input.activate();
            let mut session = input.session(&capability);
            for chain in 0..CHAINS {
                session.give(CHAIN.message(chain, Message::Link(LINKS)));
            }
        }
        drop((first, play, input));
        other.advance_to(1);
        // With a budget of one, a link of each chain takes a step for every message that waits.
        let steps_max = LINKS * (2 * CHAINS + balls) + 100;
        let count = |of: u64| ends.borrow().iter().filter(|time| **time == of).count() as u64;
        let done = |of| count(of) == CHAINS;
        for _ in 0..steps_max {
            if done(EARLY) && done(LATE) && !probe.less_equal(&EARLY) {
                break;
            }
            worker.step();
        }
        assert!(done(EARLY) && done(LATE), "{} and {}", count(EARLY), count(LATE));
        assert!(!probe.less_equal(&EARLY), "all is done at an earlier time, and it is not passed");
        assert!(!other_probe.less_than(&1), "the other dataflow had no turn");
        let before = strokes.get();
        for _ in 0..1000 {
            worker.step();
        }
        assert!(strokes.get() > before, "the ball is not in play any more");
        assert!(probe.less_equal(&PLAY), "a time was passed at which a ball is in play");
        playing.set(false);
        handle.run(worker).unwrap();
        assert!(probe.done());
    });
}

#[test]
fn a_ball_in_play_starves_nothing() {
    check(Limits::default(), 1);
}

#[test]
fn a_hundred_balls_in_play_starve_nothing() {
    check(Limits::default(), 100);
}

#[test]
fn a_ball_in_play_starves_nothing_with_a_budget_of_one() {
    let limits = Limits { budget_messages: 1, ..Limits::default() };
    check(limits.clone(), 1);
    check(limits, 10);
}

#[test]
fn a_ball_in_play_starves_nothing_without_a_limit_of_time() {
    check(Limits { activation_max: None, ..Limits::default() }, 1);
}
