//! The body of a request, written as it goes over the wire.
//!
//! It is written by hand, from what a worker has at hand: the generated messages own their texts, so that
//! each call would copy every name in it.

use bytes::Bytes;

use crate::address::Address;
use crate::dispatch::CallRequest;

/// The body of a request.
pub(super) fn body(request: &CallRequest<'_>) -> Bytes {
    // ToFunction { 100: InvocationBatchRequest }
    let batch = batch_len(request);
    let mut to = Vec::with_capacity(2 + varint_len(batch) + batch);
    to.extend_from_slice(&[0xa2, 0x06]);
    varint(&mut to, batch);
    // InvocationBatchRequest { 1: Address, 2: repeated PersistedValue, 3: repeated Invocation }
    address(&mut to, 1, &request.target);
    for (name, type_name, kept) in &request.states {
        // PersistedValue { 1: string state_name, 2: TypedValue }
        header(&mut to, 2, state_len(name, type_name, kept.as_ref()));
        field(&mut to, 1, name.as_bytes());
        if let Some(kept) = kept {
            value(&mut to, type_name, kept);
        }
    }
    for (caller, message) in &request.messages {
        // Invocation { 1: Address caller, 2: TypedValue argument }
        let (name, bytes) = (message.type_name(), message.bytes());
        header(&mut to, 3, invocation_len(caller.as_ref(), name, bytes));
        if let Some(caller) = caller {
            address(&mut to, 1, caller);
        }
        value(&mut to, name, bytes);
    }
    to.into()
}

fn batch_len(request: &CallRequest<'_>) -> usize {
    let states = request.states.iter();
    let states = states.map(|(name, type_name, kept)| state_len(name, type_name, kept.as_ref()));
    let messages = request.messages.iter().map(|(caller, message)| {
        invocation_len(caller.as_ref(), message.type_name(), message.bytes())
    });
    nested_len(address_len(&request.target)) + states.chain(messages).map(nested_len).sum::<usize>()
}

fn state_len(name: &str, type_name: &str, kept: Option<&Bytes>) -> usize {
    let kept = kept.map_or(0, |kept| nested_len(value_len(type_name, kept)));
    field_len(name.as_bytes()) + kept
}

fn invocation_len(caller: Option<&Address>, type_name: &str, bytes: &Bytes) -> usize {
    let caller = caller.map_or(0, |caller| nested_len(address_len(caller)));
    caller + nested_len(value_len(type_name, bytes))
}

/// Address { 1: string namespace, 2: string type, 3: string id }
fn address_len(address: &Address) -> usize {
    let Address { function_type, id } = address;
    let names = field_len(function_type.namespace().as_bytes());
    names + field_len(function_type.name().as_bytes()) + id.with_bytes(field_len)
}

fn address(to: &mut Vec<u8>, number: u8, address: &Address) {
    let Address { function_type, id } = address;
    header(to, number, address_len(address));
    field(to, 1, function_type.namespace().as_bytes());
    field(to, 2, function_type.name().as_bytes());
    id.with_bytes(|id| field(to, 3, id));
}

/// TypedValue { 1: string typename, 2: bool has_value, 3: bytes value }
fn value_len(type_name: &str, bytes: &[u8]) -> usize {
    field_len(type_name.as_bytes()) + 2 + field_len(bytes)
}

fn value(to: &mut Vec<u8>, type_name: &str, bytes: &[u8]) {
    header(to, 2, value_len(type_name, bytes));
    field(to, 1, type_name.as_bytes());
    to.extend_from_slice(&[0x10, 1]);
    field(to, 3, bytes);
}

/// How long a field is; one without content is left out.
fn field_len(content: &[u8]) -> usize {
    if content.is_empty() { 0 } else { nested_len(content.len()) }
}

fn field(to: &mut Vec<u8>, number: u8, content: &[u8]) {
    if !content.is_empty() {
        header(to, number, content.len());
        to.extend_from_slice(content);
    }
}

/// How long a field is whose content is so long, also if it has none.
fn nested_len(content: usize) -> usize {
    1 + varint_len(content) + content
}

/// What comes before the content of a field with one of the first 15 numbers.
fn header(to: &mut Vec<u8>, number: u8, content: usize) {
    to.push(number << 3 | 2);
    varint(to, content);
}

fn varint_len(mut value: usize) -> usize {
    let mut len = 1;
    while value >= 0x80 {
        value >>= 7;
        len += 1;
    }
    len
}

fn varint(to: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use timely_statefun_proto::reqreply::{self, ToFunction, to_function};
    use timely_statefun_proto::{Message, reqreply::to_function::Invocation};

    use super::*;
    use crate::address::{Id, TypeName};
    use crate::dispatch::Traced;
    use crate::typed::TypedValue;

    fn to_address(address: &Address) -> reqreply::Address {
        let (of, id) = (&address.function_type, address.id.to_string());
        reqreply::Address { namespace: of.namespace().to_owned(), r#type: of.name().to_owned(), id }
    }

    fn to_value(type_name: &str, bytes: &Bytes) -> reqreply::TypedValue {
        let (typename, value) = (type_name.to_owned(), bytes.clone());
        reqreply::TypedValue { typename, has_value: true, value }
    }

    /// The same with the generated messages.
    fn generated(request: &CallRequest<'_>) -> Vec<u8> {
        let state = request.states.iter().map(|(name, type_name, kept)| {
            let state_value = kept.as_ref().map(|kept| to_value(type_name, kept));
            to_function::PersistedValue { state_name: (*name).to_owned(), state_value }
        });
        let invocations = request.messages.iter().map(|(caller, message)| Invocation {
            caller: caller.as_ref().map(to_address),
            argument: Some(to_value(message.type_name(), message.bytes())),
        });
        let batch = to_function::InvocationBatchRequest {
            target: Some(to_address(&request.target)),
            state: state.collect(),
            invocations: invocations.collect(),
        };
        ToFunction { request: Some(to_function::Request::Invocation(batch)) }.encode_to_vec()
    }

    #[test]
    fn it_is_what_the_generated_messages_make_of_it() {
        let address = |name: &str, id: &str| Address {
            function_type: TypeName::new(name).unwrap(),
            id: Id::new(id),
        };
        let long = "long ".repeat(5000);
        let texts = ["", "a", "ß\0", &long[..126], &long[..128], &long[..16_384], &long];
        for (at, text) in texts.into_iter().enumerate() {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            let value = TypedValue::new("example/text", bytes.clone()).unwrap();
            let empty = TypedValue::of(&0_i64);
            let name = format!("state{text}");
            let caller = address("other/caller", text);
            let request = CallRequest {
                target: address("example/greeter", text),
                states: vec![
                    ("unset", "example/text", None),
                    (&name, "example/text", Some(bytes)),
                    ("zero", "io.statefun.types/int", Some(Bytes::new())),
                ]
                .split_off(at % 3),
                messages: vec![(None, &empty), (Some(caller), &value), (None, &value)],
                traced: Traced::No,
            };
            assert_eq!(&body(&request)[..], generated(&request), "{at}");
        }
    }
}
