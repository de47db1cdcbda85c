//! Calls about messages of several times take effect at the join of the times, and hold all of them until
//! then.

#[path = "../operators/tests/support/pair.rs"]
mod pair;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use differential_dataflow::lattice::Lattice;
use pair::Pair;
use protocol::*;
use server::{Answer, Server};
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Inspect, Probe};
use timely::progress::Timestamp;
use timely::progress::timestamp::Refines;
use timely_statefun::{
    Endpoint, Envelope, Functions, OnFailure, Order, StatefulFunctions, TypedValue,
};
use timely_statefun_proto::reqreply::from_function::InvocationResponse;

impl Lattice for Pair {
    fn join(&self, other: &Self) -> Self {
        Pair(self.0.max(other.0), self.1.max(other.1))
    }
    fn meet(&self, other: &Self) -> Self {
        Pair(self.0.min(other.0), self.1.min(other.1))
    }
}

/// What was emitted, and what was given up, each with its time.
type Out<T> = (Vec<(T, String)>, Vec<(T, String)>);
/// What was asked, each with what the frontier was meanwhile.
type Calls<T> = Vec<(Vec<String>, Vec<T>)>;

/// A server that answers when it is let, and tells what it was asked: the messages of each batch.
struct Let {
    server: Server,
    go: Sender<()>,
    asked: Receiver<Vec<String>>,
}

/// Batches with this in them are answered badly.
const POISON: &str = "poison";

fn serve(bad: fn() -> Answer) -> Let {
    let (go, may) = channel();
    let (tell, asked) = channel();
    let (may, tell) = (Mutex::new(may), Mutex::new(tell));
    let server = Server::start(move |request| {
        let batch = batch(&request);
        let texts = batch.invocations.iter().map(|i| read_text(i.argument.as_ref()));
        let texts: Vec<String> = texts.collect();
        if state::<i32>(&batch, "seen").is_some() {
            tell.lock().unwrap().send(texts.clone()).unwrap();
            may.lock().unwrap().recv().unwrap();
        }
        match texts.iter().any(|text| text == POISON) {
            true => bad(),
            false => greeter(&batch),
        }
    });
    Let { server, go, asked }
}

/// Runs one address. While its first message is called for, the others come to wait, each at its time.
/// Then whatever is asked is answered, after a look at what the frontier of the greetings is meanwhile.
fn run<T: Timestamp + Lattice + Refines<()> + Sync>(
    served: Let,
    messages: Vec<(T, &'static str)>,
) -> (Out<T>, Calls<T>) {
    let Let { server, go, asked } = served;
    let url = server.url();
    let ends = Arc::new(Mutex::new(Some((go, asked))));
    let (out, calls) = timely::execute_directly(move |worker| {
        let (go, asked) = ends.lock().unwrap().take().unwrap();
        let (greetings, letters) =
            (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let (seen, given_up) = (Rc::clone(&greetings), Rc::clone(&letters));
        let ((mut input, start), handle, probe) = worker.dataflow::<T, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input::<Envelope<TypedValue>>();
            let endpoint = Endpoint::at(&url).on_failure(OnFailure::DeadLetter);
            let functions = Functions::<TypedValue, T>::new()
                .remote_mixing_times(GREETER, endpoint)
                .typed_egress(GREETINGS)
                .runtime(runtime().handle().clone());
            let egresses = stream.stateful_functions(functions).unwrap();
            let emitted =
                egresses.stream(GREETINGS).unwrap().inspect_time(move |time, greeting| {
                    seen.borrow_mut().push((time.clone(), greeting.clone()));
                });
            egresses.dead_letters().unwrap().inspect_time(move |time, letter| {
                given_up.borrow_mut().push((time.clone(), letter.message.read().unwrap()));
            });
            (input, egresses.handle(), emitted.probe().0)
        });
        let times: Vec<_> = messages.iter().map(|(time, _)| start.delayed(time)).collect();
        drop(start);
        for (number, (time, (_, text))) in times.into_iter().zip(&messages).enumerate() {
            input.activate().session(&time).give(GREETER.message("x", (*text).to_owned()));
            drop(time);
            while handle.stats().admitted <= number as u64 {
                worker.step_or_park(Some(Duration::from_millis(1)));
            }
        }
        let mut calls = Vec::new();
        while !worker.installed_dataflows().is_empty() {
            worker.step_or_park(Some(Duration::from_millis(1)));
            if let Ok(texts) = asked.try_recv() {
                // What could move the frontier has time to.
                for _ in 0..50 {
                    worker.step();
                }
                calls.push((texts, probe.with_frontier(|frontier| frontier.to_vec())));
                go.send(()).unwrap();
            }
        }
        ((greetings.take(), letters.take()), calls)
    });
    drop(server);
    (out, calls)
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_waits_at_several_times_goes_together_and_happens_at_the_last() {
    let served = serve(|| unreachable!("there is no poison"));
    let messages = vec![(0, "a"), (1, "b"), (3, "c"), (3, "d"), (7, "e")];
    let ((greetings, letters), calls) = run::<u64>(served, messages);
    assert_eq!(
        calls,
        [(texts(&["a"]), vec![0]), (texts(&["b", "c", "d", "e"]), vec![1])],
        "two calls, and each holds the first of its times"
    );
    let expected = [(0, "a 1"), (7, "b 2"), (7, "c 3"), (7, "d 4"), (7, "e 5")];
    assert!(greetings.iter().map(|(time, text)| (*time, text.as_str())).eq(expected));
    assert!(letters.is_empty());
}

#[test]
fn times_of_which_none_is_the_last_have_a_join() {
    let served = serve(|| unreachable!("there is no poison"));
    let messages = vec![(Pair(0, 0), "a"), (Pair(2, 1), "b"), (Pair(1, 3), "c"), (Pair(0, 2), "d")];
    let ((greetings, letters), calls) = run(served, messages);
    assert_eq!(calls[1].0, texts(&["b", "c", "d"]));
    let mut held = calls[1].1.clone();
    held.sort();
    assert_eq!(held, [Pair(0, 2), Pair(2, 1)], "every time is held");
    let join = Pair(2, 3);
    let expected = [(Pair(0, 0), "a 1"), (join, "b 2"), (join, "c 3"), (join, "d 4")];
    assert!(greetings.iter().map(|(time, text)| (*time, text.as_str())).eq(expected));
    assert!(letters.is_empty());
}

/// Whether a call fails or its answer means nothing, which is found out at the join: the messages go on
/// as if they had not been mixed.
#[test]
fn a_message_that_fails_is_given_up_at_its_own_time() {
    let bad: [fn() -> Answer; 2] = [
        || Answer::status(400, ""),
        || {
            let result = InvocationResponse {
                outgoing_egresses: vec![egress("poison took effect")],
                state_mutations: vec![set("nobody", text("x"))],
                ..InvocationResponse::default()
            };
            done(result)
        },
    ];
    for bad in bad {
        let messages =
            vec![(0, "a"), (1, "b"), (2, "c"), (4, POISON), (5, "d"), (6, "e"), (7, "f")];
        let ((greetings, letters), calls) = run::<u64>(serve(bad), messages);
        assert_eq!(letters, [(4, POISON.to_owned())]);
        let asked: Vec<_> = calls.iter().map(|(texts, held)| (texts.join(" "), held[0])).collect();
        let asked: Vec<_> = asked.iter().map(|(texts, held)| (texts.as_str(), *held)).collect();
        assert_eq!(
            asked,
            [
                ("a", 0),
                ("b c poison d e f", 1),
                ("b c poison", 1),
                ("b c", 1),
                ("poison d e f", 4),
                ("poison d", 4),
                ("poison", 4),
                ("d", 5),
                ("e f", 6),
            ]
        );
        let expected = [(0, "a 1"), (2, "b 2"), (2, "c 3"), (5, "d 4"), (7, "e 5"), (7, "f 6")];
        assert!(greetings.iter().map(|(time, text)| (*time, text.as_str())).eq(expected));
    }
}

#[test]
fn times_are_not_mixed_where_they_say_what_comes_first() {
    let endpoint = || Endpoint::at("http://localhost/");
    let functions = Functions::<TypedValue>::new().runtime(runtime().handle().clone());
    let mixing = functions.remote_namespace_mixing_times(FOUND, endpoint());
    mixing.check().unwrap();
    let error = mixing.order(Order::Time).check().unwrap_err();
    assert!(error.is_mixed_times() && error.to_string().contains("\"found\""), "{error}");
    let functions = Functions::<TypedValue>::new().runtime(runtime().handle().clone());
    functions.remote(GREETER, endpoint()).order(Order::Time).check().unwrap();
}
