//! Any bytes are a request or none, and whatever they are, nothing of them is there for the next.

use bytes::Bytes;
use futures_util::FutureExt;
use timely_statefun_proto::reqreply::from_function::Response;
use timely_statefun_proto::reqreply::{FromFunction, ToFunction};
use timely_statefun_proto::{BuiltIn, Message};

use super::{Refusal, answering, wire};
use crate::dispatch::{Asked, Desk};
use crate::fuzz::{fuzz, recorded, within};
use crate::{
    BufferSpec, Context, Egress, Function, FunctionType, Functions, TableSpec, TypedValue,
    ValueSpec,
};

/// How many elements a request may list here.
const LISTED_MAX: usize = 20;
/// What an element takes, and the same once more while a list grows or becomes what is asked.
const ELEMENT_BYTES: usize = 1024;

const ALL: FunctionType<TypedValue> = FunctionType::new("holdout/all");
const VALUE: ValueSpec<i32> = ValueSpec::new("value");
const TABLE: TableSpec<String, u64> = TableSpec::new("table");
const BUFFER: BufferSpec<Vec<String>> = BufferSpec::typed("buffer", "test/texts");
const LOOKS: Egress<TypedValue> = Egress::new("test.io/looks");

/// Looks at all there is, and changes it.
fn desk() -> Desk<TypedValue, u64> {
    let all = Function::new(|context: &mut Context<'_, TypedValue>, message: &TypedValue| {
        let value = context.get(VALUE).copied();
        let table: Vec<_> =
            context.table(TABLE).iter().map(|(key, value)| (key.clone(), *value)).collect();
        let buffer: Vec<_> = context.buffer(BUFFER).iter().cloned().collect();
        let other = context.get(ValueSpec::<String, _>::new("other")).cloned();
        let looks = format!("{value:?} {table:?} {buffer:?} {other:?} {:?}", context.caller());
        context.emit(LOOKS, TypedValue::of(&looks));
        context.set(VALUE, value.unwrap_or_default().wrapping_add(1));
        context.table(TABLE).insert(looks.clone(), 7);
        context.buffer(BUFFER).append(vec![looks.clone()]);
        context.set(ValueSpec::<String, _>::new("other"), looks);
        context.forward(context.address(), message.clone());
        match context.caller() {
            Some(_) => Ok(context.reply(7)?),
            None => Ok(()),
        }
    });
    let all = all.value(VALUE).table(TABLE).buffer(BUFFER).registry(1);
    Functions::new().embedded(ALL, all).typed_egress(LOOKS).desk()
}

fn asked(input: &[u8]) -> Result<Asked, String> {
    wire::asked(Bytes::copy_from_slice(input), LISTED_MAX)
}

#[test]
fn any_bytes_are_a_request_or_malformed_and_take_what_their_elements_take() {
    let mut inputs = recorded("request_hex");
    inputs.retain(|input| asked(input).is_ok());
    assert!(inputs.len() > 20, "{} requests", inputs.len());
    fuzz("request", 150_000, &inputs, |input| {
        let room = 4 * input.len() + LISTED_MAX * ELEMENT_BYTES;
        let body = Bytes::copy_from_slice(input);
        match within(room, || wire::asked(body.clone(), LISTED_MAX)) {
            Ok(found) => {
                let read = ToFunction::decode(input).expect("it was read");
                // In its canonical form it asks the same.
                assert_eq!(asked(&read.encode_to_vec()).as_ref(), Ok(&found));
                assert!(found.states.len() + found.messages.len() < LISTED_MAX);
                assert!(found.messages.iter().all(|(_, value)| !value.type_name().is_empty()));
                true
            }
            Err(why) => {
                assert!(!why.is_empty(), "it is said why");
                false
            }
        }
    });
}

fn answer(desk: &mut Desk<TypedValue, u64>, input: &[u8]) -> Result<FromFunction, Refusal> {
    let input = Bytes::copy_from_slice(input);
    let answer = answering::answer(desk, input, LISTED_MAX, 1000, || true).now_or_never();
    let answer = answer.expect("nobody waits for anything");
    desk.clear();
    answer.map(|answer| FromFunction::decode(answer).expect("it is an answer"))
}

/// A request for the function, with what is kept.
fn request(kept: [(&str, &str, Option<&[u8]>); 4], messages: usize) -> Vec<u8> {
    use timely_statefun_proto::reqreply::to_function::{
        Invocation, InvocationBatchRequest, PersistedValue, Request,
    };
    use timely_statefun_proto::reqreply::{Address, TypedValue};
    let text = str::to_owned;
    let state = kept.map(|(name, typename, bytes)| PersistedValue {
        state_name: text(name),
        state_value: bytes.map(|bytes| TypedValue::new(typename, bytes.to_vec()).unwrap()),
    });
    let address =
        |r#type| Address { namespace: text("holdout"), r#type: text(r#type), id: text("1") };
    let invocation = |number: usize| Invocation {
        caller: (number % 2 == 1).then(|| address("caller")),
        argument: Some(TypedValue::of(&format!("message {number}"))),
    };
    let batch = InvocationBatchRequest {
        target: Some(address("all")),
        state: state.into(),
        invocations: (0..messages).map(invocation).collect(),
    };
    ToFunction { request: Some(Request::Invocation(batch)) }.encode_to_vec()
}

#[test]
fn any_request_is_answered_or_refused_and_leaves_nothing() {
    let (table, buffer) =
        ("rust.table/io.statefun.types:string,rust:u64", "rust.buffer/test:texts");
    let (int, string) = (<i32 as BuiltIn>::TYPE_NAME, <String as BuiltIn>::TYPE_NAME);
    let unset = [("value", int, None), ("table", table, None), ("buffer", buffer, None)];
    let [value, no_table, no_buffer] = unset;
    let other = ("other", string, None);
    let fresh = request([value, no_table, no_buffer, other], 1);
    // A key "a" with 5, a key without anything, and lists of texts.
    let entries: &[u8] = &[0x0a, 8, 0x0a, 3, 0x0a, 1, b'a', 0x12, 1, 5, 0x0a, 3, 0x12, 1, 0];
    let texts: &[u8] = &[0x0a, 3, 0x92, 0xa1, b'x', 0x0a, 1];
    let texts = [&texts[..2], &[0x92, 0xa0, 0xa0], &[0x0a, 1, 0x90]].concat();
    let full = [
        ("value", int, Some(&[0x0d, 1, 0, 0, 0][..])),
        ("table", table, Some(entries)),
        ("buffer", buffer, Some(&texts)),
        ("other", string, Some(&[0x0a, 1, b'y'])),
    ];
    let inputs = [fresh.clone(), request(full, 3), request(full, 0)];
    let mut used = desk();
    let expected = answer(&mut used, &fresh).expect("it is a good one");
    fuzz("served", 10_000, &inputs, |input| {
        let answered = answer(&mut used, input);
        assert_eq!(answer(&mut used, &fresh).as_ref(), Ok(&expected), "nothing is left");
        let all = answered
            .as_ref()
            .is_ok_and(|answer| matches!(answer.response, Some(Response::InvocationResult(_))));
        // Another desk says the same, whatever this one was used for.
        if all {
            assert_eq!(answer(&mut desk(), input), answered);
        }
        all
    });
}
