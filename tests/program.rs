//! A program is tested step by step: its clock, its frontiers, its snapshots and its crashes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use timely_statefun::testing::TestProgram;
use timely_statefun::{
    Context, Egress, Envelope, Function, FunctionType, Functions, OnFailure, Order, Outcome,
    Reason, ValueSpec,
};

const DOOR: FunctionType<String> = FunctionType::new("house/door");
const BELL: FunctionType<String> = FunctionType::new("house/bell");
const RINGS: Egress<String> = Egress::new("house/rings");
const ECHO: FunctionType<u64> = FunctionType::new("hills/echo");
const HEARD: Egress<u64> = Egress::new("hills/heard");
const OPENED: ValueSpec<u64> = ValueSpec::new("opened");

/// A door that is told what to do in words, and a bell that rings.
fn functions() -> Functions<String> {
    let door = Function::new(|context, order: &String| {
        match order.as_str() {
            "open" => {
                context.update(OPENED, |opened| *opened += 1);
                let opened = context.get(OPENED).copied().unwrap_or(0);
                context.send(BELL, "hall", format!("{} {opened}", context.id()));
                context.send_after(Duration::from_secs(5), BELL, "hall", "close".to_owned());
            }
            "ask" => context.start(async { Ok::<_, String>(7) }, |outcome: Outcome<u64>| {
                format!("told {outcome:?}")
            }),
            "wait" => {
                let never = std::future::pending::<Result<u64, String>>();
                context.start(never, |outcome: Outcome<u64>| format!("told {outcome:?}"));
            }
            told if told.starts_with("told") => context.emit(RINGS, told.to_owned()),
            other => return Err(format!("how does one {other} a door?").into()),
        }
        Ok(())
    });
    let bell = Function::new(|context, text: &String| {
        match text.as_str() {
            "break" => return Err("it is broken".into()),
            text => context.emit(RINGS, text.to_owned()),
        }
        Ok(())
    });
    let door = door.value(OPENED).operations(4).on_failure(OnFailure::DeadLetter);
    let functions = Functions::new().embedded(DOOR, door);
    functions.embedded(BELL, bell.on_failure(OnFailure::Stop)).egress(RINGS)
}

fn program() -> TestProgram<String> {
    TestProgram::new(functions)
}

fn say(id: &str, order: &str) -> Envelope<String> {
    DOOR.message(id, order.to_owned())
}

fn rings<const N: usize>(rings: [(u64, &str); N]) -> Vec<(u64, String)> {
    rings.into_iter().map(|(time, text)| (time, text.to_owned())).collect()
}

/// What is due happens at the time of the ingress, and is handled when nothing else can come at that.
#[test]
fn in_the_order_of_time_a_program_waits_for_its_ingress() {
    let mut program = TestProgram::new(|| {
        let echo = Function::new(|context: &mut Context<'_, u64>, number: &u64| {
            context.emit(HEARD, *number);
            if *number == 1 {
                let this = context.id().clone();
                context.send_after(Duration::from_secs(1), ECHO, this, 2);
            }
            Ok(())
        });
        Functions::<u64>::new().embedded(ECHO, echo).egress(HEARD).order(Order::Time)
    });
    program.send(ECHO.message("a", 1));
    program.run();
    assert_eq!(program.take(HEARD), []);
    program.advance_to(1);
    program.run();
    assert_eq!(program.take(HEARD), [(0, 1)]);
    program.tick(Duration::from_secs(1));
    assert_eq!(program.take(HEARD), []);
    program.advance_to(2);
    program.run();
    assert_eq!(program.take(HEARD), [(1, 2)]);
}

#[test]
fn nothing_happens_before_the_program_is_stepped() {
    let mut program = program();
    program.send(say("front", "open"));
    program.send(say("back", "open"));
    assert_eq!(program.take(RINGS), []);
    program.run();
    assert_eq!(program.take(RINGS), rings([(0, "front 1"), (0, "back 1")]));
    assert_eq!(program.take(RINGS), []);
    assert_eq!(program.with(&DOOR.at("front"), |context| context.get(OPENED).copied()), Some(1));
    program.with(&DOOR.at("front"), |context| context.set(OPENED, 9));
    program.advance_to(3);
    program.send(say("front", "open"));
    program.run();
    assert_eq!(program.take(RINGS), rings([(3, "front 10")]));
}

#[test]
fn the_test_turns_the_clock() {
    let mut program = program();
    program.send(say("front", "open"));
    program.run();
    program.advance_to(4);
    program.tick(Duration::from_millis(4999));
    assert_eq!(program.take(RINGS), rings([(0, "front 1")]));
    program.tick(Duration::from_millis(1));
    assert_eq!(program.now_ms(), 5000);
    assert_eq!(program.take(RINGS), rings([(4, "close")]));
}

#[test]
fn frontiers_pass_what_is_done() {
    let mut program = program();
    assert_eq!(program.frontier(), [0]);
    program.send(say("front", "wait"));
    program.advance_to(2);
    for _ in 0..100 {
        program.step().unwrap();
    }
    // The operation holds the time at which it was begun.
    assert_eq!(program.frontier(), [0]);
    let mut program = self::program();
    program.send(say("front", "ask"));
    program.advance_to(2);
    program.run();
    assert_eq!(program.frontier(), [2]);
    assert_eq!(program.take(RINGS), rings([(0, "told Completed(7)")]));
    program.close();
    program.run();
    assert_eq!(program.frontier(), [] as [u64; 0]);
}

#[test]
fn a_crash_loses_nothing_that_a_snapshot_has_and_nothing_that_came_after_it() {
    let mut program = program();
    program.send(say("front", "open"));
    program.send(say("back", "wait"));
    for _ in 0..20 {
        program.step().unwrap();
    }
    let done = program.snapshot();
    assert_eq!(done.positions["test"], [(0, 1)].into());
    assert_eq!(program.take(RINGS), rings([(0, "front 1")]));
    program.advance_to(1);
    program.send(say("front", "open"));
    for _ in 0..20 {
        program.step().unwrap();
    }
    assert_eq!(program.take(RINGS), rings([(1, "front 2")]));
    assert_eq!(program.crash(), Some(done.cut));
    program.run();
    // What came after it comes again; nobody knows what became of the operation.
    assert_eq!(program.take(RINGS), rings([(0, "told Unknown"), (1, "front 2")]));
    assert_eq!(program.with(&DOOR.at("front"), |context| context.get(OPENED).copied()), Some(2));
    program.tick(Duration::from_secs(5));
    assert_eq!(program.take(RINGS), rings([(1, "close"), (1, "close")]));
    program.close();
    program.run();
    // The newest is the one at the end, in which nothing is left to do.
    assert!(program.crash() > Some(done.cut));
    program.run();
    assert_eq!(program.take(RINGS), []);
    let ended = catch_unwind(AssertUnwindSafe(|| program.with(&DOOR.at("front"), |_| ())));
    assert_eq!(*ended.unwrap_err().downcast::<&str>().unwrap(), "the program has come to its end");
}

#[test]
fn a_crash_without_a_snapshot_begins_anew() {
    let mut program = program();
    program.send(say("front", "open"));
    program.advance_to(2);
    program.send(say("front", "open"));
    program.run();
    assert_eq!(program.crash(), None);
    program.run();
    assert_eq!(program.take(RINGS), rings([(0, "front 1"), (2, "front 2")]));
}

#[test]
fn what_stops_a_program_is_said() {
    let mut program = program();
    program.send(BELL.message("hall", "break".to_owned()));
    let stopped = program.try_run().unwrap_err();
    assert_eq!(stopped.address, Some(BELL.at("hall")));
    assert_eq!(stopped.reason, Reason::Failed("it is broken".to_owned()));
    let mut program = self::program();
    program.send(say("front", "paint"));
    program.run();
    let letters = program.take_dead_letters();
    let [(0, letter)] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((&letter.target, letter.message.as_str()), (&DOOR.at("front"), "paint"));
    assert!(program.take_dead_letters().is_empty());
}

#[test]
fn what_a_program_does_not_do_is_said() {
    let complaint = |act: &mut dyn FnMut()| {
        let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("it is to fail");
        *panic.downcast::<String>().unwrap()
    };
    let mut program = program();
    let said = complaint(&mut || drop(program.take(Egress::<String>::new("house/other"))));
    assert_eq!(said, "\"house/other\" is not bound");
    let said = complaint(&mut || {
        program.with(&DOOR.at(1), |context| context.send(BELL, "hall", "x".to_owned()));
    });
    assert_eq!(said, "house/door 1: only state is set like this");
    const OTHER: FunctionType<String> = FunctionType::new("house/window");
    let said = complaint(&mut || program.with(&OTHER.at(1), |_| ()));
    assert!(said.contains("house/window 1"), "{said}");
}
