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
