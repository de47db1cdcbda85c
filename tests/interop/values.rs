//! Values of every type, as messages and as state.

use std::collections::BTreeSet;

use timely_statefun::{Typed, TypedValue};

use crate::Site;
use crate::functions::{Record, VALUES};
use crate::program::Program;

const NOTE: &str = "interop/note";
const USER: &str = "interop/user";

/// Values of one type.
struct Kind {
    values: Vec<TypedValue>,
    same: fn(&TypedValue, &TypedValue) -> bool,
    /// Whether the first value is the type's default, which has no bytes.
    default_first: bool,
}

/// Values of a built-in type, the default first, of which each is written in one way only.
fn exact<V: Typed>(values: &[V]) -> Kind {
    let values = values.iter().map(TypedValue::of).collect();
    Kind { values, same: |one, other| one == other, default_first: true }
}

/// The same for numbers with a point. Some SDKs lose the sign of -0.0, or choose another NaN.
fn nearly<V: Typed + Into<f64>>(values: &[V]) -> Kind {
    fn same<V: Typed + Into<f64>>(one: &TypedValue, other: &TypedValue) -> bool {
        let number = |value: &TypedValue| -> f64 { value.read::<V>().unwrap().into() };
        let (one, other) = (number(one), number(other));
        one == other || (one.is_nan() && other.is_nan())
    }
    Kind { same: same::<V>, ..exact(values) }
}

/// Values of a type of the functions' own.
fn own(type_name: &str, values: &[&str]) -> Vec<TypedValue> {
    let value = |text: &&str| TypedValue::new(type_name, text.as_bytes().to_vec()).unwrap();
    values.iter().map(value).collect()
}

/// Whether the values are the same JSON, which can be written in several ways.
fn same_json(one: &TypedValue, other: &TypedValue) -> bool {
    let json = |value: &TypedValue| -> serde_json::Value {
        assert_eq!(value.type_name(), USER);
        serde_json::from_slice(value.bytes()).unwrap()
    };
    json(one) == json(other)
}

fn kinds() -> Vec<Kind> {
    let long = "long ".repeat(20_000);
    let texts = ["", "x", "Zoë ☃ 🦀", " a\n\t\"b\\\0c ", &long, ""];
    let users = [r#"{"name": "Ada"}"#, r#"{"name":""}"#, r#"{"name":"Zo\u00eb ☃ 🦀 \"\\ \n"}"#];
    let (f32s, f64s) = ((f32::MIN_POSITIVE, f32::EPSILON), (f64::MIN_POSITIVE, f64::EPSILON));
    vec![
        exact(&[false, true, false]),
        exact(&[0, 1, -1, i32::MAX, i32::MIN, 0]),
        exact(&[0, 1, -1, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1, 0]),
        nearly(&[0.0, 1.5, -1.5, f32::MAX, f32::MIN, f32s.0, f32s.1, f32::from_bits(1)]),
        nearly(&[0.0, -0.0_f32, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0]),
        nearly(&[0.0, 1.5, -1.5, f64::MAX, f64::MIN, f64s.0, f64s.1, f64::from_bits(1)]),
        nearly(&[0.0, -0.0_f64, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0]),
        exact(&texts.map(str::to_owned)),
        Kind { values: own(NOTE, &texts), same: |one, other| one == other, default_first: true },
        Kind { values: own(USER, &users), same: same_json, default_first: false },
    ]
}

pub fn every_type_is_message_and_state(site: &Site<'_>) {
    let mut program = Program::remote(site.workers, site.url, &[VALUES]);
    for (at, kind) in kinds().iter().enumerate() {
        let mut ask = |value: &TypedValue| program.ask([VALUES.message(at as u64, value.clone())]);
        let clear = TypedValue::of(&"!clear".to_owned());
        let check = |records: &[Record], expected: &[&TypedValue]| {
            let found: Vec<_> = records.iter().map(Record::value).collect();
            let same = found.iter().zip(expected).all(|(one, other)| (kind.same)(one, other));
            assert!(
                same && found.len() == expected.len(),
                "{found:?} where there should be {expected:?}"
            );
        };
        for round in 0..2 {
            let mut before = None;
            for value in &kind.values {
                let records = ask(value);
                let expected: Vec<_> = before.into_iter().chain([value]).collect();
                check(&records, &expected);
                before = Some(value);
                if kind.default_first && value == &kind.values[0] {
                    let last = records.last().map(Record::value);
                    assert!(last.is_some_and(|last| last.bytes().is_empty()), "{records:?}");
                }
            }
            assert!(ask(&clear).is_empty(), "round {round}");
        }
    }
    // Each type has a state of its own, and what is in one batch sees what was before it.
    let values: Vec<_> = kinds().iter().map(|kind| kind.values[0].clone()).collect();
    let twice: Vec<_> = values.iter().flat_map(|value| [value.clone(), value.clone()]).collect();
    let types: BTreeSet<_> = values.iter().map(TypedValue::type_name).collect();
    let sent = twice.len();
    let records = program.ask(twice.into_iter().map(|value| VALUES.message("all", value)));
    assert_eq!(
        records.len(),
        2 * sent - types.len(),
        "all but the first of a type come with another"
    );
}
