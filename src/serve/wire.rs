//! What bytes ask, and how an answer becomes bytes: the StateFun 3.x protocol, from the side that serves.
//!
//! What a request means is checked here as far as the request alone tells.

use bytes::Bytes;
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::from_function::expiration_spec::ExpireMode;
use timely_statefun_proto::reqreply::from_function::persisted_value_mutation::MutationType;
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, EgressMessage, ExpirationSpec, IncompleteInvocationContext, Invocation,
    InvocationResponse, PersistedValueMutation, PersistedValueSpec, Response,
};
use timely_statefun_proto::reqreply::to_function::{self, Request};
use timely_statefun_proto::reqreply::{self, FromFunction, ToFunction};

use crate::address::{Address, Id, TypeName};
use crate::dispatch::{Asked, CallAnswer, CallDelayed, CallEffects, CalledState};
use crate::expiration::Expiration;
use crate::remote::elements;
use crate::typed::TypedValue;

/// What the body of a request asks, or what is wrong with it; for one, that it lists too much.
pub(super) fn asked(body: Bytes, listed_max: usize) -> Result<Asked, String> {
    let listed = elements::count(&body);
    if listed > listed_max {
        return Err(format!("it lists {listed} messages and states (listed_max: {listed_max})"));
    }
    let request = ToFunction::decode(body).map_err(|error| format!("it is malformed: {error}"))?;
    let Some(Request::Invocation(batch)) = request.request else {
        return Err("it asks nothing".to_owned());
    };
    let target = batch.target.ok_or("it has no target")?;
    let target = address(target, "its target")?;
    let mut names: Vec<&str> = batch.state.iter().map(|state| &*state.state_name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|names| names[0] == names[1]) {
        return Err(format!("state \"{}\" comes twice", twice[0]));
    }
    let states = batch.state.into_iter().map(|state| {
        let kept = state.state_value.filter(|kept| kept.has_value);
        (state.state_name, kept.map(|kept| (kept.typename, kept.value)))
    });
    let states = states.collect();
    let messages = batch.invocations.into_iter().map(message).collect::<Result<_, String>>()?;
    Ok(Asked { target, states, messages })
}

fn message(sent: to_function::Invocation) -> Result<(Option<Address>, TypedValue), String> {
    // Some say that nobody sent a message with an address that has nothing in it.
    let caller = sent.caller.filter(|caller| *caller != reqreply::Address::default());
    let caller = caller.map(|caller| address(caller, "a caller")).transpose()?;
    let argument = sent.argument.filter(|argument| argument.has_value);
    let argument = argument.ok_or("a message has no value")?;
    if argument.typename.is_empty() {
        return Err("the type name of a message is empty".to_owned());
    }
    Ok((caller, TypedValue::found(&argument.typename, argument.value)))
}

fn address(address: reqreply::Address, what: &str) -> Result<Address, String> {
    let reqreply::Address { namespace, r#type, id } = address;
    if r#type.contains('/') {
        return Err(format!("{what} is none: \"/\" is in the name of a type"));
    }
    let function_type = TypeName::new(&format!("{namespace}/{type}"));
    let function_type = function_type.map_err(|error| format!("{what} is none: {error}"))?;
    match id.is_empty() {
        true => Err(format!("{what} has no id")),
        false => Ok(Address { function_type, id: Id::new(&id) }),
    }
}

/// The body of an answer.
pub(super) fn answer(answer: CallAnswer) -> Bytes {
    let response = match answer {
        CallAnswer::Done(effects) => Response::InvocationResult(result(effects)),
        CallAnswer::Incomplete(states) => {
            let missing_values = states.into_iter().map(spec).collect();
            Response::IncompleteInvocationContext(IncompleteInvocationContext { missing_values })
        }
    };
    FromFunction { response: Some(response) }.encode_to_vec().into()
}

fn result(effects: CallEffects) -> InvocationResponse {
    let CallEffects { sent, delayed, emitted, states } = effects;
    let sent = sent.into_iter().map(|(target, argument)| Invocation {
        target: Some(to_address(&target)),
        argument: Some(value(argument)),
    });
    let emitted = emitted.into_iter().map(|(egress, argument)| EgressMessage {
        egress_namespace: egress.namespace().to_owned(),
        egress_type: egress.name().to_owned(),
        argument: Some(value(argument)),
    });
    let states = states.into_iter().map(|(state_name, kept)| PersistedValueMutation {
        mutation_type: match kept {
            Some(_) => MutationType::Modify.into(),
            None => MutationType::Delete.into(),
        },
        state_name,
        state_value: kept.map(value),
    });
    InvocationResponse {
        state_mutations: states.collect(),
        outgoing_messages: sent.collect(),
        delayed_invocations: delayed.into_iter().map(to_delayed).collect(),
        outgoing_egresses: emitted.collect(),
    }
}

fn to_delayed(delayed: CallDelayed) -> DelayedInvocation {
    match delayed {
        CallDelayed::Cancel(token) => DelayedInvocation {
            is_cancellation_request: true,
            cancellation_token: token,
            ..DelayedInvocation::default()
        },
        CallDelayed::Send { delay_ms, token, target, message } => DelayedInvocation {
            is_cancellation_request: false,
            cancellation_token: token.unwrap_or_default(),
            delay_in_ms: signed(delay_ms),
            target: Some(to_address(&target)),
            argument: Some(value(message)),
        },
    }
}

fn to_address(address: &Address) -> reqreply::Address {
    reqreply::Address {
        namespace: address.function_type.namespace().to_owned(),
        r#type: address.function_type.name().to_owned(),
        id: address.id.with_str(str::to_owned),
    }
}

fn value(value: TypedValue) -> reqreply::TypedValue {
    reqreply::TypedValue {
        typename: value.type_name().to_owned(),
        has_value: true,
        value: value.bytes().clone(),
    }
}

fn spec(state: CalledState) -> PersistedValueSpec {
    let CalledState { name, type_name, expiration } = state;
    PersistedValueSpec {
        state_name: name,
        type_typename: type_name,
        expiration_spec: (expiration != Expiration::never()).then(|| ExpirationSpec {
            mode: match expiration.counts_reads() {
                true => ExpireMode::AfterInvoke.into(),
                false => ExpireMode::AfterWrite.into(),
            },
            expire_after_millis: signed(expiration.lifetime_ms()),
        }),
    }
}

/// Milliseconds as the protocol has them. What it cannot say is longer than anybody waits.
fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}
