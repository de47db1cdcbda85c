//! Types of a program's own travel to remote functions and back, and what cannot be written is given
//! up alone.

#[path = "support/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use server::{Answer, Server};
use timely::dataflow::operators::{Inspect, ToStream};
use timely_statefun::{
    Egress, Endpoint, Envelope, Function, FunctionType, Functions, OnFailure, StatefulFunctions,
    formats::prost,
};
use timely_statefun_proto::Message as _;
use timely_statefun_proto::reqreply::from_function::{Invocation, InvocationResponse, Response};
use timely_statefun_proto::reqreply::{FromFunction, ToFunction, to_function};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    article: String,
    pieces: u32,
}
timely_statefun::json_type!(Order, "shop/order");

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[prost(prost_path = "timely_statefun::formats::prost")]
struct Parcel {
    #[prost(string, tag = "1")]
    to: String,
    #[prost(sint64, tag = "2")]
    grams: i64,
}
timely_statefun::protobuf_type!(Parcel, "shop/parcel");

/// A map whose keys are no text cannot be JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Odd(BTreeMap<Vec<u8>, u32>);
timely_statefun::json_type!(Odd, "shop/odd");

timely_statefun::messages! {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Message: TypedMessage {
        Order(Order),
        Parcel(Parcel),
        Odd(Odd),
        Count(i64),
    }
}

const ECHO: FunctionType<Message> = FunctionType::new("shop/echo");
const DESK: FunctionType<Message> = FunctionType::new("shop/desk");
const SEEN: Egress<Message> = Egress::new("shop/seen");

/// Sends each message on to the desk, as it came.
fn echo() -> Server {
    Server::start(|request| {
        assert_eq!(request.path, "/echo");
        let request = ToFunction::decode(&request.body[..]).unwrap().request;
        let Some(to_function::Request::Invocation(batch)) = request else {
            panic!("a request is a batch")
        };
        let target = timely_statefun_proto::reqreply::Address {
            namespace: "shop".to_owned(),
            r#type: "desk".to_owned(),
            id: "1".to_owned(),
        };
        let sent = batch.invocations.into_iter().map(|invocation| Invocation {
            target: Some(target.clone()),
            argument: invocation.argument,
        });
        let result = InvocationResponse {
            outgoing_messages: sent.collect(),
            ..InvocationResponse::default()
        };
        let response = Some(Response::InvocationResult(result));
        Answer::Ok(FromFunction { response }.encode_to_vec())
    })
}

#[test]
fn types_of_a_program_travel_and_what_cannot_be_written_is_given_up_alone() {
    let server = echo();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (seen, letters) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
    let sent: Vec<Message> = vec![
        Order { article: "tea".to_owned(), pieces: 2 }.into(),
        Parcel { to: "Ada".to_owned(), grams: -7 }.into(),
        Odd(BTreeMap::from([(vec![1], 1)])).into(),
        Odd(BTreeMap::new()).into(),
        i64::MIN.into(),
    ];
    let (url, handle, messages) = (server.url(), runtime.handle().clone(), sent.clone());
    let (found, given_up) = (Arc::clone(&seen), Arc::clone(&letters));
    let dataflow = move || {
        let desk = Function::new(|context, message: &Message| {
            context.emit(SEEN, message.clone());
            Ok(())
        });
        let endpoint = Endpoint::at(url).on_failure(OnFailure::DeadLetter);
        let functions: Functions<Message> = Functions::new().remote(ECHO, endpoint);
        functions.embedded(DESK, desk).egress(SEEN).runtime(handle)
    };
    timely::execute_directly(move |worker| {
        let handle = worker.dataflow::<u64, _, _>(|scope| {
            let messages: Vec<Envelope<Message>> =
                messages.into_iter().map(|message| ECHO.message("1", message)).collect();
            let egresses = messages.to_stream(scope).stateful_functions(dataflow()).unwrap();
            egresses.stream(SEEN).unwrap().inspect(move |message| {
                found.lock().unwrap().push(message.clone());
            });
            egresses.dead_letters().unwrap().inspect(move |letter| {
                let letter = (letter.message.clone(), letter.reason.to_string());
                given_up.lock().unwrap().push(letter);
            });
            egresses.handle()
        });
        handle.run(worker).unwrap();
    });
    let written = |message: &&Message| **message != sent[2];
    assert!(seen.lock().unwrap().iter().eq(sent.iter().filter(written)), "{seen:?}");
    let letters = letters.lock().unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].0, sent[2]);
    assert!(letters[0].1.contains("this cannot be JSON"), "{letters:?}");
}
