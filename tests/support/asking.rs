//! Requests of the request-reply protocol as a test builds them, and what is asked with them.
#![allow(dead_code)]

use std::future::Future;

use timely_statefun::serve::{Refusal, RequestReply, ServedFunctions, ServedOptions};
use timely_statefun::{Functions, TypedMessage, TypedValue};
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::from_function::{
    InvocationResponse, PersistedValueSpec, Response,
};
use timely_statefun_proto::reqreply::to_function::{
    Invocation, InvocationBatchRequest, PersistedValue, Request,
};
use timely_statefun_proto::reqreply::{self, Address, FromFunction, ToFunction};

/// Who is asked about what.
#[derive(Clone, Default)]
pub struct Asking(pub InvocationBatchRequest);

pub fn address(text: &str) -> Address {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_else(|| panic!("{text} is no address"));
    Address { namespace: next(), r#type: next(), id: next() }
}

pub fn value(value: TypedValue) -> reqreply::TypedValue {
    let typename = value.type_name().to_owned();
    reqreply::TypedValue { typename, has_value: true, value: value.bytes().clone() }
}

impl Asking {
    /// A batch for `namespace/type/id`.
    pub fn of(target: &str) -> Self {
        let target = Some(address(target));
        Asking(InvocationBatchRequest { target, ..InvocationBatchRequest::default() })
    }

    pub fn with(mut self, name: &str, kept: Option<TypedValue>) -> Self {
        let (state_name, state_value) = (name.to_owned(), kept.map(value));
        self.0.state.push(PersistedValue { state_name, state_value });
        self
    }

    pub fn with_unset<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().fold(self, |asking, name| asking.with(name, None))
    }

    pub fn message(mut self, message: TypedValue) -> Self {
        self.0.invocations.push(Invocation { caller: None, argument: Some(value(message)) });
        self
    }

    pub fn message_from(mut self, caller: &str, message: TypedValue) -> Self {
        let (caller, argument) = (Some(address(caller)), Some(value(message)));
        self.0.invocations.push(Invocation { caller, argument });
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.message(TypedValue::of(&text.to_owned()))
    }

    pub fn bytes(&self) -> Vec<u8> {
        ToFunction { request: Some(Request::Invocation(self.0.clone())) }.encode_to_vec()
    }
}

pub fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Functions on one thread.
pub fn serve<M: TypedMessage>(
    functions: impl Fn() -> Functions<M> + Send + Sync + 'static,
) -> ServedFunctions {
    let options = ServedOptions { threads: 1, ..ServedOptions::default() };
    ServedFunctions::with(options, functions).unwrap()
}

pub fn ask_bytes(served: &ServedFunctions, request: Vec<u8>) -> Result<FromFunction, Refusal> {
    let answer = wait(served.answer(request.into()))?;
    Ok(FromFunction::decode(answer).expect("it is an answer"))
}

#[track_caller]
pub fn ask(served: &ServedFunctions, asking: &Asking) -> InvocationResponse {
    match ask_bytes(served, asking.bytes()).unwrap().response {
        Some(Response::InvocationResult(result)) => result,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn missing(served: &ServedFunctions, asking: &Asking) -> Vec<PersistedValueSpec> {
    match ask_bytes(served, asking.bytes()).unwrap().response {
        Some(Response::IncompleteInvocationContext(context)) => context.missing_values,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn refused(served: &ServedFunctions, asking: &Asking) -> Refusal {
    ask_bytes(served, asking.bytes()).unwrap_err()
}

/// What became of states: each with the name of its type and its bytes, or taken away.
pub fn mutations(result: &InvocationResponse) -> Vec<(String, Option<TypedValue>)> {
    let mutations = result.state_mutations.iter();
    mutations
        .map(|mutation| {
            let kept = mutation.state_value.as_ref().map(|kept| {
                assert!(kept.has_value && mutation.mutation_type == 1);
                TypedValue::new(&kept.typename, kept.value.clone()).unwrap()
            });
            (mutation.state_name.clone(), kept)
        })
        .collect()
}

/// What was emitted, each record with the name of its egress.
pub fn emitted(result: &InvocationResponse) -> Vec<(String, TypedValue)> {
    let records = result.outgoing_egresses.iter();
    records
        .map(|record| {
            let value = record.argument.as_ref().unwrap();
            let value = TypedValue::new(&value.typename, value.value.clone()).unwrap();
            (format!("{}/{}", record.egress_namespace, record.egress_type), value)
        })
        .collect()
}
