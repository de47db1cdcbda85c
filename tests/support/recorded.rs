//! What was recorded with the official SDKs of other languages: requests, and how they were answered.
//!
//! The recordings are in `tests/vectors/`, or in the directory that `STATEFUN_VECTORS` names; a README
//! there says what is in them.
#![allow(dead_code)]

use std::path::PathBuf;
use std::{env, fs};

use serde_json::{Value, json};
use timely_statefun_proto::reqreply::from_function::persisted_value_mutation::MutationType;
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, InvocationResponse, PersistedValueMutation, PersistedValueSpec, Response,
    expiration_spec::ExpireMode,
};
use timely_statefun_proto::reqreply::to_function::{
    Invocation, InvocationBatchRequest, PersistedValue, Request,
};
use timely_statefun_proto::reqreply::{Address, FromFunction, ToFunction, TypedValue};

/// A request and its answer, and where they were recorded.
pub struct Exchange {
    pub file: String,
    pub sdk: String,
    /// The name of the file's subject, the same for all SDKs.
    pub subject: String,
    pub recorded: Value,
}

impl Exchange {
    /// Where it is, for whoever reads that it failed.
    pub fn place(&self) -> String {
        format!("{}, {}", self.file, self.recorded["name"])
    }

    pub fn bytes(&self, field: &str) -> Option<Vec<u8>> {
        self.recorded[field].as_str().map(unhex)
    }

    /// The answer as it reads, of those that are one: an error has none.
    pub fn answer(&self) -> Option<&Value> {
        let answer = self.recorded.get("response")?;
        (self.recorded["status"] == 200).then_some(answer)
    }
}

pub fn exchanges() -> Vec<Exchange> {
    let ours = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let directory = env::var_os("STATEFUN_VECTORS").map_or_else(ours, PathBuf::from);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let mut exchanges = Vec::new();
    for path in &files {
        let content: Value = serde_json::from_slice(&fs::read(path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let text = |field: &str| content[field].as_str().unwrap_or_default().to_owned();
        let before = exchanges.len();
        for recorded in content["exchanges"].as_array().into_iter().flatten() {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let recorded = recorded.clone();
            exchanges.push(Exchange { file, sdk: text("sdk"), subject: text("name"), recorded });
        }
        assert!(exchanges.len() > before, "{} has no exchanges", path.display());
    }
    let (count, files) = (exchanges.len(), files.len());
    println!("{count} exchanges in {files} files of {}", directory.display());
    assert!(count > 0, "nothing was recorded in {}", directory.display());
    exchanges
}

/// Says how many were checked, which must be some.
pub fn checked(count: usize, what: &str) {
    println!("{count} {what} checked");
    assert!(count > 0, "no {what} were checked");
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.is_ascii() && text.len().is_multiple_of(2), "{text} is not hexadecimal");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// From what is recorded to messages.

pub fn address(text: &Value) -> Option<Address> {
    let mut parts = text.as_str()?.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_else(|| panic!("{text} is no address"));
    Some(Address { namespace: next(), r#type: next(), id: next() })
}

pub fn typed_value(value: &Value) -> Option<TypedValue> {
    let fields = value.as_object()?;
    Some(TypedValue {
        typename: fields["typename"].as_str().unwrap().to_owned(),
        has_value: fields["has_value"].as_bool().unwrap(),
        value: unhex(fields["value_hex"].as_str().unwrap()).into(),
    })
}

pub fn to_function(request: &Value) -> ToFunction {
    let persisted = |state: &Value| PersistedValue {
        state_name: state["name"].as_str().unwrap().to_owned(),
        state_value: typed_value(&state["value"]),
    };
    let invocation = |invocation: &Value| Invocation {
        caller: address(&invocation["caller"]),
        argument: typed_value(&invocation["argument"]),
    };
    let batch = InvocationBatchRequest {
        target: address(&request["target"]),
        state: request["state"].as_array().unwrap().iter().map(persisted).collect(),
        invocations: request["invocations"].as_array().unwrap().iter().map(invocation).collect(),
    };
    ToFunction { request: Some(Request::Invocation(batch)) }
}

// From messages to what is recorded, less what only explains it.

pub fn address_text(address: &Option<Address>) -> Value {
    address.as_ref().map_or(Value::Null, |Address { namespace, r#type, id }| {
        format!("{namespace}/{type}/{id}").into()
    })
}

pub fn typed_json(value: &Option<TypedValue>) -> Value {
    value.as_ref().map_or(Value::Null, |TypedValue { typename, has_value, value }| {
        json!({ "typename": typename, "has_value": has_value, "value_hex": hex(value) })
    })
}

pub fn mutation_json(mutation: &PersistedValueMutation) -> Value {
    let kind = MutationType::try_from(mutation.mutation_type).unwrap().as_str_name();
    let value = typed_json(&mutation.state_value);
    json!({ "type": kind, "name": mutation.state_name, "value": value })
}

pub fn delayed_json(delayed: &DelayedInvocation) -> Value {
    json!({
        "cancel": delayed.is_cancellation_request,
        "token": delayed.cancellation_token,
        "delay_in_ms": delayed.delay_in_ms,
        "target": address_text(&delayed.target),
        "argument": typed_json(&delayed.argument),
    })
}

pub fn result_json(result: &InvocationResponse) -> Value {
    let messages = result.outgoing_messages.iter();
    let egresses = result.outgoing_egresses.iter();
    json!({
        "state_mutations": result.state_mutations.iter().map(mutation_json).collect::<Vec<_>>(),
        "outgoing_messages": messages.map(|sent| json!({
            "target": address_text(&sent.target),
            "argument": typed_json(&sent.argument),
        })).collect::<Vec<_>>(),
        "delayed_invocations": result.delayed_invocations.iter().map(delayed_json).collect::<Vec<_>>(),
        "outgoing_egresses": egresses.map(|emitted| json!({
            "egress": format!("{}/{}", emitted.egress_namespace, emitted.egress_type),
            "argument": typed_json(&emitted.argument),
        })).collect::<Vec<_>>(),
    })
}

pub fn spec_json(spec: &PersistedValueSpec) -> Value {
    let expiration = spec.expiration_spec.as_ref().map_or(Value::Null, |expiration| {
        let mode = ExpireMode::try_from(expiration.mode).unwrap().as_str_name();
        json!({ "mode": mode, "millis": expiration.expire_after_millis })
    });
    json!({ "state_name": spec.state_name, "type": spec.type_typename, "expiration": expiration })
}

pub fn answer_json(answer: &FromFunction) -> Value {
    match &answer.response {
        Some(Response::InvocationResult(result)) => {
            json!({ "invocation_result": result_json(result) })
        }
        Some(Response::IncompleteInvocationContext(context)) => {
            let missing: Vec<_> = context.missing_values.iter().map(spec_json).collect();
            json!({ "incomplete_invocation_context": missing })
        }
        None => Value::Null,
    }
}

/// Without what explains the bytes, and without the order that nobody promises.
pub fn plain(mut answer: Value) -> Value {
    if answer.get("response").is_some_and(Value::is_null) {
        return Value::Null;
    }
    let by_name = |list: &mut Value, name: &str| {
        let list = list.as_array_mut().unwrap();
        list.sort_by_key(|item| item[name].as_str().unwrap().to_owned());
    };
    if let Some(list) = answer.pointer_mut("/invocation_result/state_mutations") {
        by_name(list, "name");
    }
    if let Some(list) = answer.pointer_mut("/incomplete_invocation_context") {
        by_name(list, "state_name");
    }
    without_explanations(&mut answer);
    answer
}

pub fn without_explanations(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with("decoded"));
            fields.values_mut().for_each(without_explanations);
        }
        Value::Array(items) => items.iter_mut().for_each(without_explanations),
        _ => {}
    }
}
