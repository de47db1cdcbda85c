//! Requests are built, and answers read, as recorded with the official SDKs of other languages.
//!
//! The recordings are in `tests/vectors/`, or in the directory that `STATEFUN_VECTORS` names; a README
//! there says what is in them. How a recorded value reads is not taken from our own code.

use std::collections::BTreeMap;
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
use timely_statefun_proto::{BuiltIn, Message, egress, type_names};

/// A request and its answer, and where they were recorded.
struct Exchange {
    file: String,
    sdk: String,
    /// The name of the file's subject, the same for all SDKs.
    subject: String,
    recorded: Value,
}

impl Exchange {
    /// Where it is, for whoever reads that it failed.
    fn place(&self) -> String {
        format!("{}, {}", self.file, self.recorded["name"])
    }

    fn bytes(&self, field: &str) -> Option<Vec<u8>> {
        self.recorded[field].as_str().map(unhex)
    }

    /// The answer as it reads, of those that are one: an error has none.
    fn answer(&self) -> Option<&Value> {
        let answer = self.recorded.get("response")?;
        (self.recorded["status"] == 200).then_some(answer)
    }
}

fn exchanges() -> Vec<Exchange> {
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
fn checked(count: usize, what: &str) {
    println!("{count} {what} checked");
    assert!(count > 0, "no {what} were checked");
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.is_ascii() && text.len().is_multiple_of(2), "{text} is not hexadecimal");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// From what is recorded to messages.

fn address(text: &Value) -> Option<Address> {
    let mut parts = text.as_str()?.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_else(|| panic!("{text} is no address"));
    Some(Address { namespace: next(), r#type: next(), id: next() })
}

fn typed_value(value: &Value) -> Option<TypedValue> {
    let fields = value.as_object()?;
    Some(TypedValue {
        typename: fields["typename"].as_str().unwrap().to_owned(),
        has_value: fields["has_value"].as_bool().unwrap(),
        value: unhex(fields["value_hex"].as_str().unwrap()).into(),
    })
}

fn to_function(request: &Value) -> ToFunction {
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

fn address_text(address: &Option<Address>) -> Value {
    address.as_ref().map_or(Value::Null, |Address { namespace, r#type, id }| {
        format!("{namespace}/{type}/{id}").into()
    })
}

fn typed_json(value: &Option<TypedValue>) -> Value {
    value.as_ref().map_or(Value::Null, |TypedValue { typename, has_value, value }| {
        json!({ "typename": typename, "has_value": has_value, "value_hex": hex(value) })
    })
}

fn mutation_json(mutation: &PersistedValueMutation) -> Value {
    let kind = MutationType::try_from(mutation.mutation_type).unwrap().as_str_name();
    let value = typed_json(&mutation.state_value);
    json!({ "type": kind, "name": mutation.state_name, "value": value })
}

fn delayed_json(delayed: &DelayedInvocation) -> Value {
    json!({
        "cancel": delayed.is_cancellation_request,
        "token": delayed.cancellation_token,
        "delay_in_ms": delayed.delay_in_ms,
        "target": address_text(&delayed.target),
        "argument": typed_json(&delayed.argument),
    })
}

fn result_json(result: &InvocationResponse) -> Value {
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

fn spec_json(spec: &PersistedValueSpec) -> Value {
    let expiration = spec.expiration_spec.as_ref().map_or(Value::Null, |expiration| {
        let mode = ExpireMode::try_from(expiration.mode).unwrap().as_str_name();
        json!({ "mode": mode, "millis": expiration.expire_after_millis })
    });
    json!({ "state_name": spec.state_name, "type": spec.type_typename, "expiration": expiration })
}

fn answer_json(answer: &FromFunction) -> Value {
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
fn plain(mut answer: Value) -> Value {
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

fn without_explanations(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with("decoded"));
            fields.values_mut().for_each(without_explanations);
        }
        Value::Array(items) => items.iter_mut().for_each(without_explanations),
        _ => {}
    }
}

/// All values with a type in `recorded`.
fn typed_values<'a>(recorded: &'a Value, found: &mut Vec<&'a Value>) {
    if recorded.get("typename").is_some() {
        found.push(recorded);
    } else if let Value::Object(fields) = recorded {
        fields.values().for_each(|field| typed_values(field, found));
    } else if let Value::Array(items) = recorded {
        items.iter().for_each(|item| typed_values(item, found));
    }
}

/// Checks a value that is recorded as bytes and as what the SDK made of them.
///
/// Where an exchange is about what is not canonical, the SDKs themselves differ: bytes that do read
/// must read the same, but need not come out the same again.
fn check_value<V: BuiltIn>(recorded: &Value, canonical: bool, same: impl Fn(&V, &str) -> bool) {
    let message = typed_value(recorded).unwrap();
    let typed = message.typed().expect("there is a value");
    match typed.read::<V>() {
        Ok(value) => {
            let expected = recorded["decoded"].as_str().unwrap();
            assert!(same(&value, expected), "{recorded}");
            if canonical && !matches!(expected, "nan" | "-0.0") {
                assert_eq!(value.to_bytes(), typed.bytes, "{recorded}");
                assert_eq!(TypedValue::of(&value), message, "{recorded}");
            }
        }
        Err(error) => assert!(!canonical, "{recorded}: {error}"),
    }
}

/// Whether `text` is how Python shows the string. What it shows with escapes is not looked at.
fn shows_string(value: &str, text: &str) -> bool {
    let quoted = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    let inner = quoted('\'').or_else(|| quoted('"')).unwrap_or_else(|| panic!("{text}"));
    inner.contains('\\') || inner == value
}

/// Whether `text` is how Python shows the number, or -0.0 where the SDK had lost the sign.
fn shows_number(value: f64, text: &str) -> bool {
    let shown: f64 = text.parse().unwrap();
    shown == value || (shown.is_nan() && value.is_nan())
}

#[test]
fn vectors_requests_are_built_byte_for_byte() {
    let mut count = 0;
    for exchange in exchanges() {
        let request = &exchange.recorded["request"];
        let Some(bytes) = exchange.bytes("request_hex") else { continue };
        if !request.is_object() {
            continue;
        }
        let built = to_function(request);
        assert_eq!(hex(&built.encode_to_vec()), hex(&bytes), "{}", exchange.place());
        assert_eq!(ToFunction::decode(&bytes[..]).unwrap(), built, "{}", exchange.place());
        count += 1;
    }
    checked(count, "requests");
}

/// Among them are unknown fields, and a batch in two pieces.
#[test]
fn vectors_requests_that_were_answered_are_read() {
    let mut count = 0;
    for exchange in exchanges() {
        let Some(bytes) = exchange.bytes("request_hex") else { continue };
        if exchange.answer().is_some() {
            let request = ToFunction::decode(&bytes[..])
                .unwrap_or_else(|error| panic!("{}: {error}", exchange.place()));
            let again = ToFunction::decode(&request.encode_to_vec()[..]);
            assert_eq!(again.unwrap(), request, "{}", exchange.place());
            count += 1;
        }
    }
    checked(count, "answered requests");
}

#[test]
fn vectors_answers_are_read_as_recorded() {
    let mut count = 0;
    for exchange in exchanges() {
        let Some(recorded) = exchange.answer() else { continue };
        let bytes = exchange.bytes("response_hex").unwrap_or_default();
        let answer = FromFunction::decode(&bytes[..])
            .unwrap_or_else(|error| panic!("{}: {error}", exchange.place()));
        let (ours, recorded) = (plain(answer_json(&answer)), plain(recorded.clone()));
        assert_eq!(ours, recorded, "{}", exchange.place());
        count += 1;
    }
    checked(count, "answers");
}

/// A server in Rust answers with the bytes of the Python SDK, which writes fields in order too.
#[test]
fn vectors_answers_are_written_as_python_writes_them() {
    let (mut count, mut others) = (0, 0);
    for exchange in exchanges() {
        if exchange.answer().is_none() {
            continue;
        }
        let bytes = exchange.bytes("response_hex").unwrap_or_default();
        let answer = FromFunction::decode(&bytes[..]).unwrap();
        let written = answer.encode_to_vec();
        assert_eq!(FromFunction::decode(&written[..]).unwrap(), answer, "{}", exchange.place());
        if exchange.sdk.contains("(PyPI)") {
            assert_eq!(hex(&written), hex(&bytes), "{}", exchange.place());
            count += 1;
        } else {
            others += 1;
        }
    }
    println!("{count} answers of the Python SDK compared");
    checked(count + others, "answers");
}

#[test]
fn vectors_values_are_read_and_written_as_recorded() {
    let mut counts = BTreeMap::new();
    for exchange in exchanges() {
        let mut values = Vec::new();
        typed_values(&exchange.recorded, &mut values);
        let canonical = exchange.subject != "noncanonical";
        for value in values.into_iter().filter(|value| value["has_value"] == true) {
            if value.get("decoded").is_none() {
                continue;
            }
            let name = value["typename"].as_str().unwrap();
            match name {
                type_names::BOOL => check_value(value, canonical, |value: &bool, text| {
                    text == if *value { "True" } else { "False" }
                }),
                type_names::INT => {
                    check_value(value, canonical, |value: &i32, text| text.parse() == Ok(*value))
                }
                type_names::LONG => {
                    check_value(value, canonical, |value: &i64, text| text.parse() == Ok(*value))
                }
                type_names::FLOAT => check_value(value, canonical, |value: &f32, text| {
                    shows_number((*value).into(), text)
                }),
                type_names::DOUBLE => {
                    check_value(value, canonical, |value: &f64, text| shows_number(*value, text))
                }
                type_names::STRING => {
                    check_value(value, canonical, |value: &String, text| shows_string(value, text))
                }
                _ => continue,
            }
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    println!("{counts:?}");
    checked(counts.values().sum(), "values");
}

#[test]
fn vectors_egress_records_are_read_and_written_as_recorded() {
    let mut count = 0;
    for exchange in exchanges() {
        let mut values = Vec::new();
        typed_values(&exchange.recorded, &mut values);
        for value in values.into_iter().filter(|value| value["decoded"].is_object()) {
            let (bytes, recorded) =
                (unhex(value["value_hex"].as_str().unwrap()), &value["decoded"]);
            let text = |field: &str| recorded[field].as_str().unwrap_or_default();
            let written = match value["typename"].as_str().unwrap() {
                type_names::KAFKA_RECORD => {
                    let record = egress::KafkaProducerRecord::decode(&bytes[..]).unwrap();
                    assert_eq!((&*record.key, &*record.topic), (text("key"), text("topic")));
                    assert_eq!(record.value_bytes.is_empty(), text("value_bytes").is_empty());
                    record.encode_to_vec()
                }
                type_names::KINESIS_RECORD => {
                    let record = egress::KinesisEgressRecord::decode(&bytes[..]).unwrap();
                    assert_eq!(record.partition_key, text("partition_key"));
                    assert_eq!(record.stream, text("stream"));
                    assert_eq!(record.explicit_hash_key, text("explicit_hash_key"));
                    assert_eq!(record.value_bytes.is_empty(), text("value_bytes").is_empty());
                    record.encode_to_vec()
                }
                other => panic!("{}: {other}", exchange.place()),
            };
            assert_eq!(hex(&written), hex(&bytes), "{}", exchange.place());
            count += 1;
        }
    }
    // Other recordings need not have any.
    if env::var_os("STATEFUN_VECTORS").is_none() {
        checked(count, "egress records");
    }
}
