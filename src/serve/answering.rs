//! One request: what it asks, done at a desk, and the answer.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Refusal, wire};
use crate::dead_letter::Reason;
use crate::dispatch::{Asked, CallAnswer, Desk, Turned};
use crate::typed::TypedMessage;

/// Answers a request that comes at this time. The desk has to be cleared then, also if this is dropped.
pub(super) async fn answer<M: TypedMessage, T: Clone + PartialEq + 'static>(
    desk: &mut Desk<M, T>,
    request: Bytes,
    listed_max: usize,
    now_ms: u64,
    is_wanted: impl Fn() -> bool,
) -> Result<Bytes, Refusal> {
    let asked = wire::asked(request, listed_max).map_err(Refusal::Malformed)?;
    let Asked { target, states, messages } = asked;
    match desk.admit(target, states, now_ms) {
        Ok(()) => {}
        Err(Turned::Unknown(name)) => return Err(Refusal::Unknown(name.to_string())),
        Err(Turned::Incomplete(states)) => return Ok(wire::answer(CallAnswer::Incomplete(states))),
        Err(Turned::Invalid(why)) => return Err(Refusal::Failed(why)),
    }
    for (caller, message) in messages {
        if !is_wanted() {
            return Err(Refusal::Unavailable("nobody waits for the answer".to_owned()));
        }
        desk.handle(caller, message).await.map_err(failed)?;
    }
    await_operations(desk).await.map_err(failed)?;
    desk.answer().map(wire::answer).map_err(failed)
}

/// Waits for the operations that were begun, and for those begun when these have ended.
async fn await_operations<M: TypedMessage, T: Clone + PartialEq + 'static>(
    desk: &mut Desk<M, T>,
) -> Result<(), Reason> {
    let mut waiting = VecDeque::from(desk.take_operations());
    let mut under_way = FuturesUnordered::new();
    let under_way_max = desk.operations_max();
    loop {
        let room = under_way_max.saturating_sub(under_way.len()).min(waiting.len());
        under_way.extend(waiting.drain(..room));
        let Some(outcome) = under_way.next().await else { return Ok(()) };
        desk.tell(outcome).await?;
        waiting.extend(desk.take_operations());
    }
}

fn failed(reason: Reason) -> Refusal {
    Refusal::Failed(reason.to_string())
}
