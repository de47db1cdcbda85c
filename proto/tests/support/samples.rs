//! Every message with any content, and its fields as the published format numbers them.

use std::fmt::Debug;

use timely_statefun_proto::egress::{KafkaProducerRecord, KinesisEgressRecord};
use timely_statefun_proto::reqreply::{
    Address, FromFunction, ToFunction, TypedValue, from_function, to_function,
};
use timely_statefun_proto::{Message, types};

use super::Random;
use super::wire::{Field, Fields};

/// A message that the tests know independently of its code.
pub trait Sample: Message + Default + PartialEq + Debug {
    /// One with any content.
    fn sample(random: &mut Random) -> Self;

    /// Its fields in the order of their numbers, those with defaults included.
    fn fields(&self) -> Fields;
}

fn text(number: u32, value: &str) -> Fields {
    vec![(number, Field::Bytes(value.as_bytes().to_vec()))]
}

fn bytes(number: u32, value: &[u8]) -> Fields {
    vec![(number, Field::Bytes(value.to_vec()))]
}

fn flag(number: u32, value: bool) -> Fields {
    vec![(number, Field::Varint(value.into()))]
}

fn int64(number: u32, value: i64) -> Fields {
    vec![(number, Field::Varint(value as u64))]
}

/// Enums are numbers of 32 bits, and the negative ones are written with 64.
fn choice(number: u32, value: i32) -> Fields {
    int64(number, value.into())
}

fn single<M: Sample>(number: u32, value: &Option<M>) -> Fields {
    value.iter().map(|message| (number, Field::Message(message.fields()))).collect()
}

fn list<M: Sample>(number: u32, values: &[M]) -> Fields {
    values.iter().map(|message| (number, Field::Element(message.fields()))).collect()
}

fn perhaps<M: Sample>(random: &mut Random) -> Option<M> {
    (!random.once_in(4)).then(|| M::sample(random))
}

fn several<M: Sample>(random: &mut Random) -> Vec<M> {
    (0..random.below(4)).map(|_| M::sample(random)).collect()
}

/// Which of an enum's values: at times one that is not known.
fn any_choice(random: &mut Random) -> i32 {
    random.one_of(&[0, 1, 2, 3, 1_000, -1])
}

/// The implementation for a message: how a field is drawn, and which fields it then has.
macro_rules! samples {
    ($($message:ty { $($field:ident: $drawn:ident => $number:literal $kind:ident,)* })*) => { $(
        impl Sample for $message {
            fn sample(random: &mut Random) -> Self {
                Self { $($field: samples!(@draw random $drawn),)* }
            }

            fn fields(&self) -> Fields {
                [$($kind($number, samples!(@pass self.$field, $kind)),)*].concat()
            }
        }
    )* };
    (@draw $random:ident text) => { $random.text() };
    (@draw $random:ident bytes) => { $random.bytes().into() };
    (@draw $random:ident flag) => { $random.once_in(2) };
    (@draw $random:ident number) => { $random.number() as _ };
    (@draw $random:ident choice) => { any_choice($random) };
    (@draw $random:ident perhaps) => { perhaps($random) };
    (@draw $random:ident several) => { several($random) };
    (@pass $value:expr, flag) => { $value };
    (@pass $value:expr, int64) => { $value };
    (@pass $value:expr, choice) => { $value };
    (@pass $value:expr, $by_reference:ident) => { &$value };
}

samples! {
    Address { namespace: text => 1 text, r#type: text => 2 text, id: text => 3 text, }
    TypedValue { typename: text => 1 text, has_value: flag => 2 flag, value: bytes => 3 bytes, }
    to_function::PersistedValue {
        state_name: text => 1 text,
        state_value: perhaps => 2 single,
    }
    to_function::Invocation { caller: perhaps => 1 single, argument: perhaps => 2 single, }
    to_function::InvocationBatchRequest {
        target: perhaps => 1 single,
        state: several => 2 list,
        invocations: several => 3 list,
    }
    from_function::PersistedValueMutation {
        mutation_type: choice => 1 choice,
        state_name: text => 2 text,
        state_value: perhaps => 3 single,
    }
    from_function::Invocation { target: perhaps => 1 single, argument: perhaps => 2 single, }
    from_function::DelayedInvocation {
        delay_in_ms: number => 1 int64,
        target: perhaps => 2 single,
        argument: perhaps => 3 single,
        is_cancellation_request: flag => 10 flag,
        cancellation_token: text => 11 text,
    }
    from_function::EgressMessage {
        egress_namespace: text => 1 text,
        egress_type: text => 2 text,
        argument: perhaps => 3 single,
    }
    from_function::InvocationResponse {
        state_mutations: several => 1 list,
        outgoing_messages: several => 2 list,
        delayed_invocations: several => 3 list,
        outgoing_egresses: several => 4 list,
    }
    from_function::ExpirationSpec {
        mode: choice => 1 choice,
        expire_after_millis: number => 2 int64,
    }
    from_function::PersistedValueSpec {
        state_name: text => 1 text,
        expiration_spec: perhaps => 2 single,
        type_typename: text => 3 text,
    }
    from_function::IncompleteInvocationContext { missing_values: several => 1 list, }
    KafkaProducerRecord { key: text => 1 text, value_bytes: bytes => 2 bytes, topic: text => 3 text, }
    KinesisEgressRecord {
        partition_key: text => 1 text,
        value_bytes: bytes => 2 bytes,
        stream: text => 3 text,
        explicit_hash_key: text => 4 text,
    }
    types::BooleanWrapper { value: flag => 1 flag, }
    types::StringWrapper { value: text => 1 text, }
}

impl Sample for ToFunction {
    fn sample(random: &mut Random) -> Self {
        ToFunction { request: perhaps(random).map(to_function::Request::Invocation) }
    }

    fn fields(&self) -> Fields {
        match &self.request {
            Some(to_function::Request::Invocation(batch)) => {
                vec![(100, Field::Message(batch.fields()))]
            }
            None => Vec::new(),
        }
    }
}

impl Sample for FromFunction {
    fn sample(random: &mut Random) -> Self {
        use from_function::Response::{IncompleteInvocationContext, InvocationResult};
        let response = match random.below(5) {
            0 => None,
            1 => Some(IncompleteInvocationContext(Sample::sample(random))),
            _ => Some(InvocationResult(Sample::sample(random))),
        };
        FromFunction { response }
    }

    fn fields(&self) -> Fields {
        use from_function::Response::{IncompleteInvocationContext, InvocationResult};
        match &self.response {
            Some(InvocationResult(result)) => vec![(100, Field::Message(result.fields()))],
            Some(IncompleteInvocationContext(context)) => {
                vec![(101, Field::Message(context.fields()))]
            }
            None => Vec::new(),
        }
    }
}

/// Messages of one number: which bits it has on the wire. A NaN would not equal itself, and the
/// message loses the sign of -0.0 (values do not, but they are written by other code).
macro_rules! number_samples {
    ($($message:ident, $number:ty, $field:expr;)*) => { $(
        impl Sample for types::$message {
            fn sample(random: &mut Random) -> Self {
                let value: $number = random.number() as i64 as $number;
                types::$message { value: if value == (0 as $number) { 0 as $number } else { value } }
            }

            fn fields(&self) -> Fields {
                let bits: fn($number) -> Field = $field;
                vec![(1, bits(self.value))]
            }
        }
    )* };
}

number_samples! {
    IntWrapper, i32, |value| Field::Fixed32(value as u32);
    LongWrapper, i64, |value| Field::Fixed64(value as u64);
    FloatWrapper, f32, |value| Field::Fixed32(value.to_bits());
    DoubleWrapper, f64, |value| Field::Fixed64(value.to_bits());
}

/// Calls `$check::<M>($argument)` for every message `M` of the wire.
#[allow(unused_macros)]
macro_rules! for_every_message {
    ($check:ident, $random:expr) => {{
        use timely_statefun_proto::{egress, reqreply, types};
        $check::<reqreply::Address>($random);
        $check::<reqreply::TypedValue>($random);
        $check::<reqreply::ToFunction>($random);
        $check::<reqreply::to_function::PersistedValue>($random);
        $check::<reqreply::to_function::Invocation>($random);
        $check::<reqreply::to_function::InvocationBatchRequest>($random);
        $check::<reqreply::FromFunction>($random);
        $check::<reqreply::from_function::PersistedValueMutation>($random);
        $check::<reqreply::from_function::Invocation>($random);
        $check::<reqreply::from_function::DelayedInvocation>($random);
        $check::<reqreply::from_function::EgressMessage>($random);
        $check::<reqreply::from_function::InvocationResponse>($random);
        $check::<reqreply::from_function::ExpirationSpec>($random);
        $check::<reqreply::from_function::PersistedValueSpec>($random);
        $check::<reqreply::from_function::IncompleteInvocationContext>($random);
        $check::<egress::KafkaProducerRecord>($random);
        $check::<egress::KinesisEgressRecord>($random);
        $check::<types::BooleanWrapper>($random);
        $check::<types::IntWrapper>($random);
        $check::<types::LongWrapper>($random);
        $check::<types::FloatWrapper>($random);
        $check::<types::DoubleWrapper>($random);
        $check::<types::StringWrapper>($random);
    }};
}
#[allow(unused_imports)]
pub(crate) use for_every_message;
