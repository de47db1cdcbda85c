//! Requests are built, and answers read, as recorded with the official SDKs of other languages.
//!
//! The recordings are in `tests/vectors/`, or in the directory that `STATEFUN_VECTORS` names; a README
//! there says what is in them. How a recorded value reads is not taken from our own code.

#[path = "support/recorded.rs"]
mod recorded;

use std::collections::BTreeMap;
use std::env;

use recorded::{answer_json, checked, exchanges, hex, plain, to_function, typed_value, unhex};
use serde_json::Value;
use timely_statefun_proto::reqreply::{FromFunction, ToFunction, TypedValue};
use timely_statefun_proto::{BuiltIn, Message, egress, type_names};

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
