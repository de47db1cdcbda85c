//! What one remote function has under way leaves places for the others, also where one endpoint serves
//! them all.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use protocol::*;
use server::Server;
use support::on_workers;
use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::{
    Endpoint, Envelope, FunctionType, Functions, Limits, StatefulFunctions, TypedValue,
};

const ONE: FunctionType<String> = FunctionType::new("share/one");
const OTHER: FunctionType<String> = FunctionType::new("share/other");
/// How many addresses each function has.
const ADDRESSES: usize = 60;
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// What is under way at a server, by what shares a limit, and what was at most.
#[derive(Default)]
struct UnderWay {
    now: BTreeMap<&'static str, usize>,
    most: BTreeMap<&'static str, usize>,
    done: BTreeMap<&'static str, usize>,
}

#[derive(Default)]
struct Watch(Mutex<UnderWay>, Condvar);

impl Watch {
    /// Has a call be under way until something holds. Says whether it did before long.
    fn call(&self, of: &'static str, until: impl Fn(&UnderWay) -> bool) -> bool {
        let mut watched = self.0.lock().unwrap();
        let now = watched.now.entry(of).or_default();
        *now += 1;
        let now = *now;
        let most = watched.most.entry(of).or_default();
        *most = now.max(*most);
        self.1.notify_all();
        let (mut watched, waited) =
            self.1.wait_timeout_while(watched, LONG, |watched| !until(watched)).unwrap();
        *watched.now.get_mut(of).unwrap() -= 1;
        *watched.done.entry(of).or_default() += 1;
        self.1.notify_all();
        !waited.timed_out()
    }
}

/// What a path shares its places with: the types of a namespace are one.
fn group(path: &str) -> &'static str {
    match path {
        "/one" => "one",
        "/other" => "other",
        _ => "found",
    }
}

/// Sends a message to each address of three bindings, each binding from an ingress of its own. Gives how
/// many greetings there were.
fn run(workers: usize, endpoint: Endpoint, in_flight_max: usize) -> usize {
    let greetings = on_workers(workers, move |worker| {
        let greetings = Rc::new(RefCell::new(0));
        let seen = Rc::clone(&greetings);
        let (mut inputs, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let ingresses = (0..3).map(|_| scope.new_input::<Vec<Envelope<TypedValue>>>());
            let (inputs, streams): (Vec<_>, Vec<_>) = ingresses.unzip();
            let functions = Functions::new()
                .remote(ONE, endpoint.clone())
                .remote(OTHER, endpoint.clone())
                .remote_namespace(FOUND, endpoint.clone())
                .typed_egress(GREETINGS)
                .limits(Limits { in_flight_max, ..Limits::default() })
                .runtime(runtime().handle().clone());
            let egresses = streams.stateful_functions(functions).unwrap();
            egresses.stream(GREETINGS).unwrap().inspect(move |_| *seen.borrow_mut() += 1);
            (inputs, egresses.handle())
        });
        if worker.index() == 0 {
            for id in 0..ADDRESSES as u64 {
                let text = id.to_string();
                inputs[0].send(ONE.message(id, text.clone()));
                inputs[1].send(OTHER.message(id, text.clone()));
                let name = if id % 2 == 0 { "even" } else { "odd" };
                inputs[2].send(FOUND.message(name, id, text).unwrap());
            }
        }
        drop(inputs);
        handle.run(worker).unwrap();
        greetings.take()
    });
    greetings.into_iter().sum()
}

/// Each binding has as many calls under way as its endpoint says, whoever else has that endpoint; all
/// types of a namespace have them together.
#[test]
fn each_binding_has_its_own_limit_and_reaches_it() {
    const EACH: usize = 3;
    for workers in [1, 2] {
        let watch = Arc::<Watch>::default();
        let watched = Arc::clone(&watch);
        let server = Server::start(move |request| {
            // Nobody is answered before all have as many under way as they may.
            let all = |watched: &UnderWay| {
                let most = ["one", "other", "found"].map(|of| watched.most.get(of).copied());
                most.iter().all(|most| most.unwrap_or(0) >= EACH * workers)
            };
            assert!(watched.call(group(&request.path), all), "some never had what they may have");
            greeter(&batch(&request))
        });
        let endpoint = Endpoint::at(server.url()).in_flight_max(EACH).read_timeout(LONG);
        assert_eq!(run(workers, endpoint, 1024), 3 * ADDRESSES);
        for (of, most) in &watch.0.lock().unwrap().most {
            assert_eq!(*most, EACH * workers, "{of}");
        }
    }
}

/// A function with far more to call for than the worker has places leaves one for each of the others,
/// which can do all their work while it waits.
#[test]
fn a_function_that_is_never_answered_does_not_take_the_last_place() {
    for in_flight_max in [1, 3, 5] {
        let watch = Arc::<Watch>::default();
        let watched = Arc::clone(&watch);
        let server = Server::start(move |request| {
            let batch = batch(&request);
            let of = group(&request.path);
            let others = |watched: &UnderWay| {
                let done = |of| watched.done.get(of).copied().unwrap_or(0);
                done("other") >= ADDRESSES && done("found") >= ADDRESSES
            };
            if of != "one" && state::<i32>(&batch, "seen").is_none() {
                return greeter(&batch);
            }
            assert!(watched.call(of, |watched| of != "one" || others(watched)), "others wait");
            greeter(&batch)
        });
        let endpoint = Endpoint::at(server.url()).read_timeout(LONG);
        assert_eq!(run(1, endpoint, in_flight_max), 3 * ADDRESSES);
        let most = watch.0.lock().unwrap().most["one"];
        let left = in_flight_max.saturating_sub(2).max(1);
        assert!(most <= in_flight_max.max(1) && most >= left, "{most} of {in_flight_max}");
    }
}
