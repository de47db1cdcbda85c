//! What bytes answer: the StateFun 3.x protocol.
//!
//! What an answer means is checked here as far as the answer alone tells.

use std::time::Duration;

use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::from_function::expiration_spec::ExpireMode;
use timely_statefun_proto::reqreply::from_function::persisted_value_mutation::MutationType;
use timely_statefun_proto::reqreply::from_function::{self, Response};
use timely_statefun_proto::reqreply::{self, FromFunction};

use super::elements;
use crate::address::{self, Address, Id, TypeName};
use crate::dispatch::{CallAnswer, CallDelayed, CallEffects, CalledState};
use crate::expiration::Expiration;
use crate::typed::TypedValue;

/// How long a name may be that an answer gives. Names are kept, and stand in what is said of failures.
const NAME_BYTES_MAX: usize = 4096;

/// What the body of an answer says, or what is wrong with it; for one, that it lists too much.
pub(super) fn answer(
    body: timely_statefun_proto::Bytes,
    elements_max: usize,
) -> Result<CallAnswer, String> {
    let listed = elements::count(&body);
    if listed > elements_max {
        return Err(format!("it lists {listed} effects or states (effects_max: {elements_max})"));
    }
    let answer = FromFunction::decode(body).map_err(|error| format!("it is malformed: {error}"))?;
    match answer.response {
        // A function that did nothing may say nothing.
        None => Ok(CallAnswer::Done(CallEffects::default())),
        Some(Response::InvocationResult(result)) => effects(result).map(CallAnswer::Done),
        Some(Response::IncompleteInvocationContext(incomplete)) => {
            let states = incomplete.missing_values.into_iter().map(state);
            states.collect::<Result<_, _>>().map(CallAnswer::Incomplete)
        }
    }
}

fn effects(result: from_function::InvocationResponse) -> Result<CallEffects, String> {
    let sent = result
        .outgoing_messages
        .into_iter()
        .map(|sent| Ok((from_address(sent.target)?, value(sent.argument, "a message")?)));
    let delayed = result.delayed_invocations.into_iter().map(delayed);
    let emitted = result.outgoing_egresses.into_iter().map(|record| {
        let name = name(&record.egress_namespace, &record.egress_type)?;
        Ok((name, value(record.argument, "a record for an egress")?))
    });
    let states = result.state_mutations.into_iter().map(|change| {
        let kept = match MutationType::try_from(change.mutation_type) {
            Ok(MutationType::Delete) => None,
            Ok(MutationType::Modify) => {
                // The runtime keeps what is there, whatever `has_value` says.
                let kept = change.state_value.ok_or("a state is set to nothing")?;
                check_type(&kept.typename, "a state")?;
                Some(TypedValue::found(&kept.typename, kept.value))
            }
            Err(_) => return Err(format!("mutation type {} is unknown", change.mutation_type)),
        };
        check_length(&change.state_name)?;
        Ok((change.state_name, kept))
    });
    Ok(CallEffects {
        sent: sent.collect::<Result<_, String>>()?,
        delayed: delayed.collect::<Result<_, _>>()?,
        emitted: emitted.collect::<Result<_, String>>()?,
        states: states.collect::<Result<_, String>>()?,
    })
}

fn delayed(sent: from_function::DelayedInvocation) -> Result<CallDelayed, String> {
    let token = Some(sent.cancellation_token).filter(|token| !token.is_empty());
    if sent.is_cancellation_request {
        return token.map(CallDelayed::Cancel).ok_or("a cancellation has no token".to_owned());
    }
    let delay_ms = u64::try_from(sent.delay_in_ms)
        .map_err(|_| format!("a delay is {} ms", sent.delay_in_ms))?;
    let (target, message) = (from_address(sent.target)?, value(sent.argument, "a message")?);
    Ok(CallDelayed::Send { delay_ms, token, target, message })
}

fn from_address(address: Option<reqreply::Address>) -> Result<Address, String> {
    let address = address.ok_or("a message has no target")?;
    let function_type = name(&address.namespace, &address.r#type)?;
    Ok(Address { function_type, id: Id::new(&address.id) })
}

fn value(value: Option<reqreply::TypedValue>, what: &str) -> Result<TypedValue, String> {
    let value = value.filter(|value| value.has_value).ok_or(format!("{what} has no value"))?;
    check_type(&value.typename, what)?;
    Ok(TypedValue::found(&value.typename, value.value))
}

/// A name of two parts.
fn name(namespace: &str, name: &str) -> Result<TypeName, String> {
    check_length(namespace)?;
    check_length(name)?;
    TypeName::new(&format!("{namespace}/{name}")).map_err(|error| error.to_string())
}

fn check_type(name: &str, what: &str) -> Result<(), String> {
    match name.is_empty() {
        true => Err(format!("the type name of {what} is empty")),
        false => check_length(name),
    }
}

fn check_length(name: &str) -> Result<(), String> {
    match name.len() > NAME_BYTES_MAX {
        true => Err(format!("a name has {} bytes, of {NAME_BYTES_MAX} at most", name.len())),
        false => Ok(()),
    }
}

fn state(spec: from_function::PersistedValueSpec) -> Result<CalledState, String> {
    let expiration = spec.expiration_spec.unwrap_or_default();
    let lifetime = || {
        let millis = u64::try_from(expiration.expire_after_millis)
            .map_err(|_| format!("a state expires after {} ms", expiration.expire_after_millis))?;
        Ok::<_, String>(Duration::from_millis(millis))
    };
    let expiration = match ExpireMode::try_from(expiration.mode) {
        Ok(ExpireMode::None) => Expiration::never(),
        Ok(ExpireMode::AfterWrite) => Expiration::after_write(lifetime()?),
        Ok(ExpireMode::AfterInvoke) => Expiration::after_read_or_write(lifetime()?),
        Err(_) => return Err(format!("expire mode {} is unknown", expiration.mode)),
    };
    check_length(&spec.state_name)?;
    address::check_part("state", &spec.state_name).map_err(|error| error.to_string())?;
    check_type(&spec.type_typename, "a state")?;
    Ok(CalledState { name: spec.state_name, type_name: spec.type_typename, expiration })
}

#[cfg(test)]
mod tests {
    use timely_statefun_proto::Bytes;
    use timely_statefun_proto::reqreply::from_function::{
        IncompleteInvocationContext, InvocationResponse,
    };

    use super::*;
    use crate::fuzz::{fuzz, recorded, within};

    /// How many elements an answer may list here.
    const ELEMENTS_MAX: usize = 20;
    /// What an element takes, and the same once more while a list grows or becomes effects.
    const ELEMENT_BYTES: usize = 1024;

    fn listed(answer: &FromFunction) -> usize {
        match &answer.response {
            None => 0,
            Some(Response::InvocationResult(result)) => {
                let InvocationResponse {
                    state_mutations,
                    outgoing_messages,
                    delayed_invocations,
                    outgoing_egresses,
                } = result;
                let effects = state_mutations.len() + outgoing_messages.len();
                effects + delayed_invocations.len() + outgoing_egresses.len()
            }
            Some(Response::IncompleteInvocationContext(incomplete)) => {
                incomplete.missing_values.len()
            }
        }
    }

    fn check_names(found: &CallAnswer) {
        let check = |name: &TypeName| assert!(TypeName::new(name.as_str()).is_ok(), "{name}");
        match found {
            CallAnswer::Done(CallEffects { sent, delayed, emitted, states }) => {
                sent.iter().for_each(|(to, _)| check(&to.function_type));
                emitted.iter().for_each(|(to, _)| check(to));
                for sent in delayed {
                    match sent {
                        CallDelayed::Send { target, token, .. } => {
                            check(&target.function_type);
                            assert_ne!(token.as_deref(), Some(""));
                        }
                        CallDelayed::Cancel(token) => assert!(!token.is_empty()),
                    }
                }
                let values = sent.iter().map(|(_, value)| value);
                let values = values.chain(emitted.iter().map(|(_, value)| value));
                let values = values.chain(states.iter().filter_map(|(_, value)| value.as_ref()));
                values.for_each(|value| assert!(!value.type_name().is_empty()));
            }
            CallAnswer::Incomplete(states) => {
                for CalledState { name, type_name, .. } in states {
                    assert!(address::check_part("state", name).is_ok() && !type_name.is_empty());
                }
            }
        }
    }

    /// Reads any bytes as an answer. Whether they are one.
    fn any_answer(input: &[u8]) -> bool {
        let body = Bytes::copy_from_slice(input);
        let room = 4 * input.len() + ELEMENTS_MAX * ELEMENT_BYTES;
        match within(room, || answer(body.clone(), ELEMENTS_MAX)) {
            Ok(found) => {
                let read = FromFunction::decode(input).expect("it was read");
                let listed = listed(&read);
                let counted = elements::count(input);
                assert!(listed <= counted && counted <= ELEMENTS_MAX, "{listed} {counted}");
                check_names(&found);
                // In its canonical form it says the same.
                let again = answer(read.encode_to_vec().into(), ELEMENTS_MAX);
                assert_eq!(again.as_ref(), Ok(&found));
                true
            }
            Err(why) => {
                assert!(!why.is_empty() && why.len() < 4 * NAME_BYTES_MAX, "{why}");
                false
            }
        }
    }

    #[test]
    fn any_bytes_are_an_answer_or_an_error_and_take_what_their_elements_take() {
        let mut inputs = recorded("response_hex");
        let missing = |state_name: &str| from_function::PersistedValueSpec {
            state_name: state_name.to_owned(),
            type_typename: "io.statefun.types/int".to_owned(),
            expiration_spec: Some(from_function::ExpirationSpec {
                mode: ExpireMode::AfterInvoke.into(),
                expire_after_millis: 77,
            }),
        };
        let incomplete =
            IncompleteInvocationContext { missing_values: vec![missing("seen"), missing("count")] };
        let incomplete = Response::IncompleteInvocationContext(incomplete);
        inputs.push(FromFunction { response: Some(incomplete) }.encode_to_vec());
        inputs.retain(|input| answer(input.clone().into(), ELEMENTS_MAX).is_ok());
        assert!(inputs.len() > 20, "{} answers", inputs.len());
        fuzz("answer", 150_000, &inputs, any_answer);
    }

    /// Five thousand elements in ten thousand bytes are refused before any of them takes memory.
    #[test]
    fn an_answer_that_lists_too_much_takes_no_memory() {
        for list in [0x0a, 0x12, 0x1a, 0x22] {
            let input = [&[0xa2, 0x06, 0x90, 0x4e][..], &[list, 0].repeat(5000)].concat();
            assert!(!any_answer(&input));
        }
    }
}
