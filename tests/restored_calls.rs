//! Calls of remote functions across a restart: one that was under way is made again, with the state and the
//! messages that it had, and what waits behind it keeps its place and its time.

#[path = "support/executions.rs"]
mod executions;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executions::{Execution, Source, memory, on_request, run};
use protocol::{GREETER, GREETINGS, batch, greeter, id, read_text, state};
use server::{Answer, Server};
use timely_statefun::{
    Clock, Context, Endpoint, Function, Functions, Limits, Order, Reason, Retry, SnapshotStore,
    TypedValue, ValueSpec,
};

/// What a request says: the address, its state, and the messages.
type Asked = (String, Option<i32>, Vec<String>);

/// Serves the greeter; what is asked is noted. It does not answer about "held" while it is held.
fn serve(is_held: &Arc<AtomicBool>) -> (Server, Arc<Mutex<Vec<Asked>>>) {
    let (asked, is_held) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(is_held));
    let noted = Arc::clone(&asked);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        let texts = batch.invocations.iter().map(|one| read_text(one.argument.as_ref()));
        let texts: Vec<_> = texts.collect();
        let hold = texts.iter().any(|text| text == "held") && is_held.load(SeqCst);
        // Which states there are has to be asked for first, after each start.
        let Some(seen) = state::<i32>(&batch, "seen") else { return greeter(&batch) };
        noted.lock().unwrap().push((id(&batch).to_owned(), seen, texts));
        if hold {
            return Answer::never(|| {});
        }
        greeter(&batch)
    });
    (server, asked)
}

fn greet(time: u64, id: &str, text: &str) -> (u64, timely_statefun::Envelope<TypedValue>) {
    (time, GREETER.message(id, text.to_owned()))
}

type Run<'w> = Execution<'w, TypedValue, String>;

fn remote(url: &str) -> Functions<TypedValue> {
    let endpoint = Endpoint::at(url).batch_messages_max(2);
    protocol::remote(endpoint).typed_egress(GREETINGS)
}

/// The embedded greeter does what the remote one does, with the same state. The first attempts at "held"
/// fail until the clock is turned.
fn embedded(clock: &Clock, due_ms: u64) -> Functions<TypedValue> {
    const SEEN: ValueSpec<i32> = ValueSpec::new("seen");
    let greeter = Function::new(move |context: &mut Context<'_, TypedValue>, text: &String| {
        if text == "held" && context.now_ms() < due_ms {
            return Err("not yet".into());
        }
        let seen = context.update(SEEN, |seen| *seen += 1);
        context.emit(GREETINGS, format!("{text} {seen}"));
        Ok(())
    });
    let retry = Retry::attempts(1000).first(Duration::from_millis(10));
    let functions = Functions::new().embedded(GREETER, greeter.value(SEEN).retry(retry));
    functions.typed_egress(GREETINGS).clock(clock.clone())
}

/// Seven messages for one address: two are answered, two are in a call that is never answered, the
/// others wait behind it. Another address is answered all the time.
fn source() -> Source<TypedValue> {
    let texts = [(1, "a"), (1, "b"), (2, "held"), (2, "c"), (2, "d"), (3, "e"), (3, "f")];
    texts.map(|(time, text)| greet(time, "one", text)).into()
}

/// Takes a snapshot while a call is under way, and is killed when other things have happened.
fn killed_in_a_call(store: &SnapshotStore, more: &[(u64, timely_statefun::Envelope<TypedValue>)]) {
    let (server, asked) = serve(&Arc::new(AtomicBool::new(true)));
    let url = server.url();
    let (all, more, begun) = (source(), more.to_vec(), Arc::clone(&asked));
    let script = move |run: &mut Run<'_>| {
        run.give(&all[..2]);
        run.settle(2);
        run.give(&all);
        let is_called = |asked: &Asked| asked.2.iter().any(|text| text == "held");
        run.until("it is called", |_| begun.lock().unwrap().iter().any(is_called));
        let admitted = all.len() as u64;
        run.until("all are there", |run| run.handle.stats().admitted == admitted);
        run.cut();
        // This is lost.
        let all = [all.clone(), more.clone()].concat();
        run.give(&all);
        let wanted = 2 + more.len();
        run.until("others are answered", |run| run.seen.borrow().len() == wanted);
        assert!(!run.probe.less_than(&2) && run.probe.less_equal(&2), "the call holds its time");
    };
    run(1, store, &on_request(), move || remote(&url), GREETINGS, script).unwrap();
}

fn texts(seen: &[(u64, String)], times: bool) -> Vec<String> {
    let text = |(time, text): &(u64, String)| match times {
        true => format!("{time}: {text}"),
        false => text.clone(),
    };
    seen.iter().map(text).collect()
}

const EXPECTED: [&str; 5] = ["2: held 3", "2: c 4", "2: d 5", "3: e 6", "3: f 7"];

#[test]
fn a_call_that_was_under_way_is_made_again_with_its_state_and_what_waits_keeps_its_place() {
    for workers in 1..=3 {
        let store = memory();
        let more = [greet(4, "two", "x"), greet(5, "two", "y")];
        killed_in_a_call(&store, &more);

        let is_held = Arc::new(AtomicBool::new(true));
        let (server, asked) = serve(&is_held);
        let (url, all) = (server.url(), [source(), more.into()].concat());
        let calls = Arc::clone(&asked);
        let script = move |run: &mut Run<'_>| {
            // Nothing is read before the call is under way again.
            let is_called = |asked: &Asked| asked.2.iter().any(|text| text == "held");
            run.until("it is called", |_| calls.lock().unwrap().iter().any(is_called));
            run.give(&all);
            run.input.as_mut().unwrap().advance_to(9);
            let of_two = |calls: &Vec<Asked>| {
                calls
                    .iter()
                    .filter(|(id, ..)| id == "two")
                    .map(|(.., texts)| texts.len())
                    .sum::<usize>()
            };
            run.until("another is called", |_| of_two(&calls.lock().unwrap()) >= 2);
            // The snapshot knows where it is, though nobody has answered.
            run.cut();
            for _ in 0..20 {
                run.worker.step();
            }
            assert!(
                !run.probe.less_than(&2) && run.probe.less_equal(&2),
                "the call holds its time"
            );
        };
        let function = {
            let url = url.clone();
            move || remote(&url)
        };
        run(workers, &store, &on_request(), function, GREETINGS, script).unwrap();
        let first = asked.lock().unwrap()[0].clone();
        assert_eq!((first.0.as_str(), first.1, first.2[0].as_str()), ("one", Some(2), "held"));

        // Killed once more in the same call, and this time answered.
        is_held.store(false, SeqCst);
        asked.lock().unwrap().clear();
        let script = |run: &mut Run<'_>| {
            run.end().unwrap();
            run.seen.take()
        };
        let seen = run(workers, &store, &on_request(), move || remote(&url), GREETINGS, script);
        let seen = seen.unwrap().concat();
        let of_one: Vec<_> = seen.iter().filter(|(time, _)| *time < 4).cloned().collect();
        assert_eq!(texts(&of_one, true), EXPECTED, "on {workers} workers");
        let asked = asked.lock().unwrap();
        let of_one: Vec<_> = asked.iter().filter(|(id, ..)| id == "one").collect();
        let batches: Vec<_> =
            of_one.iter().map(|(_, seen, texts)| (*seen, texts.join(" "))).collect();
        let expected = [(Some(2), "held c"), (Some(4), "d"), (Some(5), "e f")];
        assert!(
            batches.iter().map(|(seen, texts)| (*seen, texts.as_str())).eq(expected),
            "{batches:?}"
        );
    }
}

/// Ingress and events may be earlier after a restart than what was restored: in the order of time, what has been
/// called for is then answered before them, and does not wait for what waits behind it.
#[test]
fn in_the_order_of_time_an_earlier_message_behind_a_call_does_not_keep_it_from_being_answered() {
    let store = memory();
    killed_in_a_call(&store, &[]);

    let is_there = Arc::new(AtomicBool::new(false));
    let (asked, waits) = (Arc::new(AtomicBool::new(false)), Arc::clone(&is_there));
    let called = Arc::clone(&asked);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        if state::<i32>(&batch, "seen").is_some() {
            called.store(true, SeqCst);
            while !waits.load(SeqCst) {
                std::thread::yield_now();
            }
        }
        greeter(&batch)
    });
    let (url, all) = (server.url(), [source(), vec![greet(0, "one", "early")]].concat());
    let script = move |run: &mut Run<'_>| {
        run.until("it is called", |_| asked.load(SeqCst));
        run.give(&all);
        run.input.as_mut().unwrap().advance_to(4);
        run.until("it has come", |run| run.handle.stats().handled == 1);
        is_there.store(true, SeqCst);
        run.end().unwrap();
        run.seen.take()
    };
    let functions = move || remote(&url).order(Order::Time);
    let seen = run(1, &store, &on_request(), functions, GREETINGS, script).unwrap().concat();
    let mut expected = EXPECTED.to_vec();
    expected.push("0: early 8");
    assert_eq!(texts(&seen, true), expected);
}

/// A function that was remote is embedded now, and remote again after that, with calls or attempts under
/// way each time.
#[test]
fn a_function_may_move_between_embedded_and_remote_and_keeps_its_state_and_what_waits() {
    const START_MS: u64 = 1_000_000;
    for workers in 1..=2 {
        let store = memory();
        killed_in_a_call(&store, &[]);
        // Embedded: the first message fails, the others wait behind it.
        let (clock, _hands) = Clock::turned(START_MS);
        let functions = move || embedded(&clock, START_MS + 1);
        let script = |run: &mut Run<'_>| {
            run.give(&[]);
            run.input.as_mut().unwrap().advance_to(9);
            run.cut();
            assert!(!run.probe.less_than(&2) && run.probe.less_equal(&2), "it holds its time");
            let counts = run.done.borrow().first().map(|done| done.counts);
            (run.seen.take(), counts)
        };
        let ran = run(workers, &store, &on_request(), functions, GREETINGS, script).unwrap();
        assert!(ran.iter().all(|(seen, _)| seen.is_empty()));
        let counts = ran[0].1.unwrap();
        assert_eq!((counts.retrying, counts.in_flight), (5, 0));

        // Remote, and the call is not answered.
        let (server, asked) = serve(&Arc::new(AtomicBool::new(true)));
        let (url, calls) = (server.url(), Arc::clone(&asked));
        let script = move |run: &mut Run<'_>| {
            run.until("it is called", |_| !calls.lock().unwrap().is_empty());
            run.cut();
            run.done.borrow().first().map(|done| done.counts)
        };
        let ran = run(workers, &store, &on_request(), move || remote(&url), GREETINGS, script);
        let counts = ran.unwrap()[0].unwrap();
        assert_eq!((counts.retrying, counts.in_flight), (0, 5));
        let first = asked.lock().unwrap()[0].clone();
        assert_eq!((first.0.as_str(), first.1), ("one", Some(2)));
        assert_eq!(first.2, ["held", "c"]);

        // Embedded again, to the end.
        let (clock, _hands) = Clock::turned(START_MS + 1);
        let functions = move || embedded(&clock, START_MS + 1);
        let script = |run: &mut Run<'_>| {
            run.end().unwrap();
            run.seen.take()
        };
        let seen = run(workers, &store, &on_request(), functions, GREETINGS, script).unwrap();
        assert_eq!(texts(&seen.concat(), true), EXPECTED, "on {workers} workers");

        // Remote at last, with the state that is left.
        let (server, asked) = serve(&Arc::new(AtomicBool::new(false)));
        let url = server.url();
        let all = [source(), vec![greet(20, "one", "last")]].concat();
        let script = move |run: &mut Run<'_>| {
            run.give(&all);
            run.end().unwrap();
            run.seen.take()
        };
        let seen = run(workers, &store, &on_request(), move || remote(&url), GREETINGS, script);
        assert_eq!(texts(&seen.unwrap().concat(), true), ["20: last 8"]);
        assert_eq!(*asked.lock().unwrap(), [("one".to_owned(), Some(7), vec!["last".to_owned()])]);
    }
}

/// What waited for another attempt as a new event, from nobody, is a new event still when its function is
/// served elsewhere; and it is there if the program is killed again before it is sent off.
#[test]
fn events_that_wait_survive_that_their_function_moves_and_the_program_is_killed_again() {
    const MESSAGES: usize = 300;
    let store = memory();
    let all: Source<TypedValue> =
        (0..MESSAGES).map(|n| greet(1, &format!("id {n}"), "held")).collect();
    let (clock, _hands) = Clock::turned(1000);
    let functions = move || {
        let failing = |_: &mut Context<'_, TypedValue>, _: &String| Err("not yet".into());
        let failing = Function::new(failing).retry(Retry::attempts(1000)).detached();
        let functions = Functions::new().embedded(GREETER, failing).typed_egress(GREETINGS);
        functions.clock(clock.clone())
    };
    let script = move |run: &mut Run<'_>| {
        run.give(&all);
        run.settle(2);
        run.cut();
        run.done.borrow()[0].counts.retrying
    };
    let retrying = run(1, &store, &on_request(), functions, GREETINGS, script).unwrap();
    assert_eq!(retrying, [MESSAGES as u64]);

    let is_held = Arc::new(AtomicBool::new(true));
    let (server, asked) = serve(&is_held);
    let mut delayed = 0;
    for (execution, workers) in [1, 2, 1].into_iter().enumerate() {
        let url = server.url();
        let functions = move || {
            let limits = Limits { budget_messages: 1, in_flight_max: 3, ..Limits::default() };
            remote(&url).limits(limits)
        };
        let is_last = execution == 2;
        is_held.store(!is_last, SeqCst);
        let script = move |run: &mut Run<'_>| {
            if is_last {
                run.end().unwrap();
            } else {
                run.cut();
            }
            (run.seen.take(), run.done.borrow().first().map_or(0, |done| done.counts.delayed))
        };
        let ran = run(workers, &store, &on_request(), functions, GREETINGS, script).unwrap();
        delayed += ran.iter().map(|(_, delayed)| delayed).sum::<u64>();
        if is_last {
            let seen: Vec<_> = ran.into_iter().flat_map(|(seen, _)| seen).collect();
            assert_eq!(seen.len(), MESSAGES);
            assert!(seen.iter().all(|(_, text)| text == "held 1"));
        }
    }
    let asked = asked.lock().unwrap();
    let mut calls = BTreeMap::<&str, usize>::new();
    for (id, seen, _) in asked.iter() {
        assert_eq!(*seen, None);
        *calls.entry(id).or_default() += 1;
    }
    assert_eq!(calls.len(), MESSAGES);
    println!("{delayed} events were in snapshots");
}

/// A batch that failed for good after a restart is given up with its own messages only, each at its time.
#[test]
fn what_is_given_up_after_a_restart_is_a_dead_letter_at_its_own_time() {
    let store = memory();
    killed_in_a_call(&store, &[]);
    let server = Server::start(|request| {
        let batch = batch(&request);
        let held = |text: &String| text == "held";
        match batch.invocations.iter().any(|one| held(&read_text(one.argument.as_ref()))) {
            true => Answer::status(400, "no"),
            false => greeter(&batch),
        }
    });
    let url = server.url();
    let functions = move || {
        let endpoint = Endpoint::at(&url).on_failure(timely_statefun::OnFailure::DeadLetter);
        protocol::remote(endpoint).typed_egress(GREETINGS)
    };
    let script = |run: &mut Run<'_>| {
        run.end().unwrap();
        (run.seen.take(), run.letters.take())
    };
    let ran = run(2, &store, &on_request(), functions, GREETINGS, script).unwrap();
    let (seen, letters): (Vec<_>, Vec<_>) = ran.into_iter().unzip();
    let (seen, letters) = (seen.concat(), letters.concat());
    assert_eq!(texts(&seen, true), ["2: c 3", "2: d 4", "3: e 5", "3: f 6"]);
    let [(2, letter)] = &letters[..] else { panic!("{letters:?}") };
    assert!(matches!(letter.reason, Reason::Call(_)), "{}", letter.reason);
    assert_eq!(letter.message.read::<String>().unwrap(), "held");
}
