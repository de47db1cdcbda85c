//! The protocol of remote functions as tests speak it, a function that speaks it well, and programs that
//! call it.
#![allow(dead_code)]

use std::cell::RefCell;
use std::rc::Rc;

use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::{
    Address, Egress, Endpoint, Envelope, FunctionType, Functions, Namespace, Reason,
    StatefulFunctions, Stopped, TypedValue,
};
use timely_statefun_proto::reqreply::from_function::{
    EgressMessage, ExpirationSpec, IncompleteInvocationContext, InvocationResponse,
    PersistedValueMutation, PersistedValueSpec, Response,
};
use timely_statefun_proto::reqreply::to_function::{self, InvocationBatchRequest};
use timely_statefun_proto::reqreply::{self, FromFunction, ToFunction};
use timely_statefun_proto::{BuiltIn, Message};
use tokio::runtime::Runtime;

use crate::server::{Answer, Request};
use crate::support::on_workers;

pub const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
pub const FOUND: Namespace<String> = Namespace::new("found");
pub const GREETINGS: Egress<String> = Egress::new("example/greetings");

pub fn batch(request: &Request) -> InvocationBatchRequest {
    let header = |name: &str| {
        let found = request.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(header("content-type"), Some("application/octet-stream"));
    assert_eq!(header("user-agent"), Some("statefun"));
    asked(&request.body)
}

/// What a request asks.
pub fn asked(body: &[u8]) -> InvocationBatchRequest {
    let message = ToFunction::decode(body).unwrap();
    let Some(to_function::Request::Invocation(batch)) = message.request else {
        panic!("a request is a batch")
    };
    assert!(!batch.invocations.is_empty());
    batch
}

/// The id that a batch is for.
pub fn id(batch: &InvocationBatchRequest) -> &str {
    &batch.target.as_ref().unwrap().id
}

pub fn answer(response: Response) -> Answer {
    Answer::Ok(FromFunction { response: Some(response) }.encode_to_vec())
}

pub fn done(result: InvocationResponse) -> Answer {
    answer(Response::InvocationResult(result))
}

pub fn missing(states: &[(&str, &str, Option<ExpirationSpec>)]) -> Answer {
    let missing_values = states.iter().map(|(name, type_name, expiration)| PersistedValueSpec {
        state_name: (*name).to_owned(),
        expiration_spec: *expiration,
        type_typename: (*type_name).to_owned(),
    });
    let missing_values = missing_values.collect();
    answer(Response::IncompleteInvocationContext(IncompleteInvocationContext { missing_values }))
}

pub fn text(value: &str) -> Option<reqreply::TypedValue> {
    Some(reqreply::TypedValue::of(&value.to_owned()))
}

pub fn read_text(value: Option<&reqreply::TypedValue>) -> String {
    value.unwrap().typed().unwrap().read::<String>().unwrap()
}

pub fn egress(value: &str) -> EgressMessage {
    let (egress_namespace, egress_type) = ("example".to_owned(), "greetings".to_owned());
    EgressMessage { egress_namespace, egress_type, argument: text(value) }
}

pub fn set(name: &str, value: Option<reqreply::TypedValue>) -> PersistedValueMutation {
    let mutation_type = i32::from(value.is_some());
    PersistedValueMutation { mutation_type, state_name: name.to_owned(), state_value: value }
}

/// The state of a name in a request: unknown, known and empty, or there.
pub fn state<V: BuiltIn>(batch: &InvocationBatchRequest, name: &str) -> Option<Option<V>> {
    let found = batch.state.iter().find(|state| state.state_name == name)?;
    Some(found.state_value.as_ref().map(|value| value.typed().unwrap().read().unwrap()))
}

/// Greets, and remembers how often it has seen each, as the SDKs' example does.
pub fn greeter(batch: &InvocationBatchRequest) -> Answer {
    let Some(mut seen) = state::<i32>(batch, "seen") else {
        return missing(&[("seen", "io.statefun.types/int", None)]);
    };
    let mut result = InvocationResponse::default();
    for invocation in &batch.invocations {
        let name = read_text(invocation.argument.as_ref());
        let count = seen.unwrap_or(0) + 1;
        seen = Some(count);
        result.outgoing_egresses.push(egress(&format!("{name} {count}")));
    }
    result.state_mutations = vec![set("seen", seen.map(|seen| reqreply::TypedValue::of(&seen)))];
    done(result)
}

/// A message that was given up.
#[derive(Clone, Debug)]
pub struct Letter {
    pub target: Address,
    pub message: String,
    pub reason: Reason,
}

/// What became of a program.
#[derive(Debug, Default)]
pub struct Ran {
    /// What was emitted, with the times, in order if there was one worker.
    pub greetings: Vec<(u64, String)>,
    pub letters: Vec<Letter>,
    pub stopped: Option<Stopped>,
}

/// Runs functions on messages, each with its time, which the first worker brings in.
pub fn run_on(
    workers: usize,
    functions: impl Fn() -> Functions<TypedValue> + Send + Sync + 'static,
    messages: Vec<(u64, Envelope<TypedValue>)>,
) -> Ran {
    let ran = on_workers(workers, move |worker| {
        let greetings = Rc::new(RefCell::new(Vec::new()));
        let letters = Rc::new(RefCell::new(Vec::new()));
        let (seen, given_up) = (Rc::clone(&greetings), Rc::clone(&letters));
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let functions = functions().typed_egress(GREETINGS);
            let egresses = stream.stateful_functions(functions).unwrap();
            egresses.stream(GREETINGS).unwrap().inspect_time(move |time, greeting| {
                seen.borrow_mut().push((*time, greeting.clone()));
            });
            egresses.dead_letters().unwrap().inspect(move |letter| {
                let message = letter.message.read::<String>().unwrap_or_default();
                let (target, reason) = (letter.target.clone(), letter.reason.clone());
                given_up.borrow_mut().push(Letter { target, message, reason });
            });
            (input, egresses.handle())
        });
        if worker.index() == 0 {
            for (time, message) in &messages {
                input.advance_to(*time);
                input.send(message.clone());
            }
        }
        input.close();
        let stopped = handle.run(worker).err();
        Ran { greetings: greetings.take(), letters: letters.take(), stopped }
    });
    ran.into_iter().fold(Ran::default(), |mut all, one| {
        all.greetings.extend(one.greetings);
        all.letters.extend(one.letters);
        all.stopped = all.stopped.or(one.stopped);
        all
    })
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

pub fn remote(endpoint: Endpoint) -> Functions<TypedValue> {
    Functions::new().remote(GREETER, endpoint).runtime(runtime().handle().clone())
}

pub fn greet(time: u64, id: &str) -> (u64, Envelope<TypedValue>) {
    (time, GREETER.message(id, id.to_owned()))
}
