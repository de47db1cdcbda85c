//! This library calls what it serves: over HTTP/1.1 and HTTP/2, through refusals, and while servers come and go.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use protocol::*;
use timely_statefun::serve::{Answer, Refusal, RequestReply, Server, Serving};
use timely_statefun::{Endpoint, OnFailure};
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::{ToFunction, to_function};

/// The greeter, which refuses its first requests.
#[derive(Clone, Default)]
struct Greeter {
    asked: Arc<AtomicUsize>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
}

impl RequestReply for Greeter {
    fn answer(&self, request: Bytes) -> Answer {
        self.asked.fetch_add(1, SeqCst);
        let answer = match (self.refusals.lock().unwrap().pop(), ToFunction::decode(request)) {
            (Some(refusal), _) => Err(refusal),
            (None, Err(error)) => Err(Refusal::Malformed(error.to_string())),
            (None, Ok(ToFunction { request: Some(to_function::Request::Invocation(batch)) })) => {
                let server::Answer::Ok(answer) = greeter(&batch) else { panic!("it answers") };
                Ok(answer.into())
            }
            (None, Ok(_)) => Err(Refusal::Malformed("it has no target".to_owned())),
        };
        Box::pin(async { answer })
    }
}

fn serve(greeter: &Greeter, address: &str) -> Serving {
    let server = Server::new(greeter.clone());
    runtime().block_on(server.bind(address)).unwrap()
}

fn endpoint(address: SocketAddr) -> Endpoint {
    let endpoint = Endpoint::at(format!("http://{address}/{{function.name}}"));
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter);
    endpoint.retry_first(Duration::from_millis(1)).retry_longest(Duration::from_millis(20))
}

#[test]
fn what_is_served_is_called_over_both_versions() {
    for http2 in [false, true] {
        let greeter = Greeter::default();
        let serving = serve(&greeter, "127.0.0.1:0");
        let endpoint = endpoint(serving.local_addr().unwrap()).http2(http2);
        let people = ["Ada", "Grace", "Ada"];
        let messages = people.iter().zip(0..).map(|(person, time)| greet(time, person)).collect();
        let ran = run_on(1, move || remote(endpoint.clone()), messages);
        let mut greetings: Vec<_> = ran.greetings.into_iter().map(|(_, text)| text).collect();
        greetings.sort();
        assert_eq!(greetings, ["Ada 1", "Ada 2", "Grace 1"]);
        assert!(runtime().block_on(serving.shutdown()).is_graceful());
    }
}

#[test]
fn refusals_are_tried_again_but_for_what_means_nothing() {
    let refusals = vec![
        Refusal::Unknown("example/greeter".to_owned()),
        Refusal::Failed("it failed".to_owned()),
        Refusal::Failed("it failed".to_owned()),
    ];
    let greeter = Greeter { refusals: Arc::new(Mutex::new(refusals)), ..Greeter::default() };
    let serving = serve(&greeter, "127.0.0.1:0");
    let to = endpoint(serving.local_addr().unwrap());
    let ran = run_on(1, move || remote(to.clone()), vec![greet(0, "Ada")]);
    assert_eq!(ran.greetings, [(0, "Ada 1".to_owned())]);

    greeter.refusals.lock().unwrap().push(Refusal::Malformed("it is strange".to_owned()));
    let to = endpoint(serving.local_addr().unwrap());
    let asked = greeter.asked.load(SeqCst);
    let ran = run_on(1, move || remote(to.clone()), vec![greet(0, "Ada")]);
    assert_eq!(greeter.asked.load(SeqCst), asked + 1);
    let reason = format!("{:?}", ran.letters[0].reason);
    assert!(reason.contains("400") && reason.contains("it is strange"), "{reason}");
}

#[test]
fn servers_come_and_go_and_no_message_is_lost() {
    for http2 in [false, true] {
        let greeter = Greeter::default();
        let first = serve(&greeter, "127.0.0.1:0");
        let address = first.local_addr().unwrap();
        let asked = Arc::clone(&greeter.asked);
        let done = Arc::new(AtomicUsize::new(0));
        let over = Arc::clone(&done);
        let replacing = std::thread::spawn(move || {
            let (mut serving, mut replaced) = (first, 0);
            while over.load(SeqCst) == 0 {
                let before = asked.load(SeqCst);
                while over.load(SeqCst) == 0 && asked.load(SeqCst) < before + 50 {
                    std::thread::yield_now();
                }
                assert!(runtime().block_on(serving.shutdown()).is_graceful());
                serving = serve(&greeter, &address.to_string());
                replaced += 1;
            }
            replaced
        });
        let to = endpoint(address).http2(http2);
        let messages = (0..30).flat_map(|time| (0..20).map(move |id| greet(time, &id.to_string())));
        let ran = run_on(1, move || remote(to.clone()), messages.collect());
        done.store(1, SeqCst);
        let replaced: usize = replacing.join().unwrap();
        assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{:?}", ran.letters.first());
        let mut greetings: Vec<_> = ran.greetings.into_iter().map(|(_, text)| text).collect();
        greetings.sort();
        let counts = |id: usize| (1..=30).map(move |count| format!("{id} {count}"));
        let mut expected: Vec<_> = (0..20).flat_map(counts).collect();
        expected.sort();
        assert!(greetings == expected);
        assert!(replaced > 2, "{replaced}");
    }
}
