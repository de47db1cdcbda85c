//! What is written, protobuf written by hand reads; what protobuf written by hand writes, in whatever
//! form the format allows, is read.

mod support;

use std::fmt::Debug;

use support::samples::{Sample, for_every_message};
use support::wire::{Field, Fields, canonical, disturbed, read, write};
use support::{Random, Seeded};
use timely_statefun_proto::reqreply::from_function::Response;
use timely_statefun_proto::reqreply::to_function::Request;
use timely_statefun_proto::reqreply::{Address, FromFunction, ToFunction, TypedValue};
use timely_statefun_proto::{BuiltIn, Bytes, Message};

/// How many of each message are tried.
const ROUNDS: usize = 400;

/// With messages as the bytes they are, which is how they are read.
fn flat(fields: &Fields) -> Fields {
    let each = fields.iter().map(|(number, field)| match field {
        Field::Message(inner) | Field::Element(inner) => (*number, Field::Bytes(write(inner))),
        other => (*number, other.clone()),
    });
    each.collect()
}

fn written_and_read_back<M: Sample>(random: &mut Random) {
    let mut longest = 0;
    for _ in 0..ROUNDS {
        let message = M::sample(random);
        let bytes = message.encode_to_vec();
        let fields = canonical(&message.fields());
        assert_eq!(read(&bytes), Some(flat(&fields)), "{message:?}");
        assert_eq!(bytes, write(&fields), "{message:?}");
        assert_eq!(M::decode(&bytes[..]).unwrap(), message);
        assert_eq!(M::decode(Bytes::from(bytes.clone())).unwrap(), message);
        longest = longest.max(bytes.len());
    }
    assert!(longest > 0, "only defaults were tried");
}

#[test]
fn messages_are_written_in_order_and_without_defaults() {
    let seed = 0x5eed_0001;
    let _seeded = Seeded(seed);
    let random = &mut Random(seed);
    for_every_message!(written_and_read_back, random);
}

fn read_in_any_form<M: Sample>(random: &mut Random) {
    let mut others = 0;
    for _ in 0..ROUNDS {
        let message = M::sample(random);
        let bytes = write(&disturbed(&message.fields(), random));
        assert_eq!(M::decode(&bytes[..]).unwrap(), message, "{bytes:02x?}");
        others += usize::from(bytes != message.encode_to_vec());
    }
    assert!(others > ROUNDS / 10, "hardly another form was tried");
}

#[test]
fn order_repeats_pieces_defaults_and_unknown_fields_change_nothing() {
    let seed = 0x5eed_0002;
    let _seeded = Seeded(seed);
    let random = &mut Random(seed);
    for_every_message!(read_in_any_form, random);
}

/// `field` is what the value has to be on the wire, if it is not the default.
fn value<V: BuiltIn + Debug>(value: V, field: Field, random: &mut Random) {
    let bytes = value.to_bytes();
    let fields = vec![(1, field)];
    assert_eq!(read(&bytes), Some(canonical(&fields)), "{value:?}");
    assert_eq!(bytes, write(&canonical(&fields)), "{value:?}");
    let other = write(&disturbed(&fields, random));
    for bytes in [&bytes[..], &other] {
        // By their bytes, since a NaN does not equal itself.
        let back = V::from_bytes(bytes).unwrap();
        assert_eq!(back.to_bytes(), value.to_bytes(), "{value:?} {bytes:02x?}");
    }
}

#[test]
fn values_keep_all_their_bits() {
    let seed = 0x5eed_0003;
    let _seeded = Seeded(seed);
    let random = &mut Random(seed);
    for _ in 0..10 * ROUNDS {
        let bits = random.number();
        let half = bits as u32;
        value(half as i32, Field::Fixed32(half), random);
        value(bits as i64, Field::Fixed64(bits), random);
        value(f32::from_bits(half), Field::Fixed32(half), random);
        value(f64::from_bits(bits), Field::Fixed64(bits), random);
        value(bits & 1 == 1, Field::Varint(bits & 1), random);
        let text = random.text();
        value(text.clone(), Field::Bytes(text.into_bytes()), random);
    }
}

#[test]
fn a_batch_in_two_pieces_is_one_batch() {
    let target = Address { namespace: "n".into(), r#type: "t".into(), id: "i".into() };
    let state = vec![(1, Field::Bytes(b"seen".to_vec()))];
    let argument = TypedValue::of(&7_i32);
    let message = vec![(2, Field::Message(argument.fields()))];
    let bytes = write(&vec![
        (100, Field::Message(vec![(3, Field::Element(message.clone()))])),
        (100, Field::Message(vec![(1, Field::Message(target.fields()))])),
        (100, Field::Message(vec![(2, Field::Element(state))])),
        (100, Field::Message(vec![(3, Field::Element(message))])),
    ]);
    let request = ToFunction::decode(&bytes[..]).unwrap().request;
    let Some(Request::Invocation(batch)) = request else { panic!("{request:?}") };
    assert_eq!(batch.target, Some(target));
    assert_eq!(batch.state.len(), 1);
    assert_eq!(batch.invocations.len(), 2);
    assert_eq!(batch.invocations[1].argument, Some(argument));
}

#[test]
fn an_answer_without_either_part_has_none() {
    assert_eq!(FromFunction::decode(&[][..]).unwrap().response, None);
    let unknown = write(&vec![(99, Field::Varint(1)), (102, Field::Bytes(vec![1]))]);
    assert_eq!(FromFunction::decode(&unknown[..]).unwrap().response, None);
    assert_eq!(ToFunction::decode(&unknown[..]).unwrap().request, None);
}

#[test]
fn of_both_parts_of_an_answer_the_last_counts() {
    let nothing = |number| (number, Field::Message(Vec::new()));
    let last = |order: [u32; 2]| {
        let bytes = write(&order.map(nothing).to_vec());
        FromFunction::decode(&bytes[..]).unwrap().response
    };
    assert!(matches!(last([101, 100]), Some(Response::InvocationResult(_))));
    assert!(matches!(last([100, 101]), Some(Response::IncompleteInvocationContext(_))));
}

/// A stack is finite, and what comes from elsewhere may try.
#[test]
fn nesting_without_end_is_an_error() {
    let groups = vec![0x0b; 1_000_000];
    assert!(FromFunction::decode(&groups[..]).is_err());
    assert!(String::from_bytes(&[&[0x0a, 1, b'a'][..], &groups].concat()).is_err());
}
