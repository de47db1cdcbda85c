//! Parcels that travel from office to office in every way a message can, and the courier that is served
//! elsewhere.

use std::cell::Cell;
use std::time::Duration;

use timely_statefun::{
    BufferSpec, Context, Egress, Endpoint, Expiration, Function, FunctionResult, FunctionType,
    Functions, Limits, Namespace, OnFailure, Outcome, Retry, TableSpec, TypedValue, ValueSpec,
};
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, IncompleteInvocationContext, Invocation, InvocationResponse,
    PersistedValueMutation, PersistedValueSpec, Response, persisted_value_mutation::MutationType,
};
use timely_statefun_proto::reqreply::to_function::Request;
use timely_statefun_proto::reqreply::{self, FromFunction, ToFunction, TypedValue as Wire};

use crate::ways::{COURIERS, OFFICES, Way, is_brought_later, mix};

pub const OFFICE: FunctionType<String> = FunctionType::new("post/office");
pub const COURIER: FunctionType<String> = FunctionType::new("post/courier");
/// Functions that fail every time: customs of all countries.
pub const CUSTOMS: Namespace<String> = Namespace::new("customs");
/// Fails now and then.
pub const FERRY: FunctionType<String> = FunctionType::new("post/ferry");
/// Fails now and then, and no time waits for it.
pub const BARGE: FunctionType<String> = FunctionType::new("post/barge");

/// Parcels that have come to their end, and what became of each decoy.
pub const ARRIVED: Egress<(u64, i64)> = Egress::new("post/arrived");
pub const DECOYS: Egress<(u64, bool)> = Egress::new("post/decoys");
/// What has arrived, with the office and the number of what has arrived there before: stored once.
pub const BOOK: Egress<(u64, u64, u64)> = Egress::new("post/book");
/// What must not happen.
pub const WRONG: Egress<String> = Egress::new("post/wrong");

pub const BALANCE: ValueSpec<i64> = ValueSpec::new("balance");
/// How many parcels went through.
pub const HANDLED: ValueSpec<u64> = ValueSpec::new("handled");
/// How many parcels have come to their end here.
const ENDED: ValueSpec<u64> = ValueSpec::new("ended");
/// The same as a list: 1, 2, 3 and so on.
pub const LOG: BufferSpec<u64> = BufferSpec::new("log");
/// The same by what the parcel's id ends with: states that nobody declares.
pub const COUNTED: [ValueSpec<u64>; 3] =
    [ValueSpec::new("counted-0"), ValueSpec::new("counted-1"), ValueSpec::new("counted-2")];
/// How many parcels were sent straight to each office, and the last number that came from each.
const SENT: TableSpec<u64, u64> = TableSpec::new("sent");
const GOT: TableSpec<String, u64> = TableSpec::new("got");
/// Decoys that were cancelled in time.
const CANCELLED: TableSpec<u64, bool> = TableSpec::new("cancelled");
const STAMP_MS: u64 = 700;
/// When it was written, for a while.
const STAMP: ValueSpec<u64> =
    ValueSpec::new("stamp").expiring(Expiration::after_write(Duration::from_millis(STAMP_MS)));

/// A parcel on its way, as text.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub id: u64,
    pub hops: u64,
    pub amount: i64,
    /// The office or courier it comes straight from, and the number of the parcel there.
    pub from: String,
    pub number: u64,
    /// The time it has, where it must still have it when it arrives.
    pub time: Option<u64>,
}

impl Parcel {
    pub fn write(&self) -> String {
        let Parcel { id, hops, amount, from, number, time } = self;
        let time = time.map_or("-".to_owned(), |time| time.to_string());
        format!("go {id} {hops} {amount} {from} {number} {time}")
    }

    fn read(words: &[&str]) -> Result<Self, String> {
        let [id, hops, amount, from, number, time] = words else {
            return Err(format!("{words:?} is no parcel"));
        };
        let number_of = |word: &str| word.parse().map_err(|_| format!("\"{word}\" is no number"));
        Ok(Parcel {
            id: number_of(id)?,
            hops: number_of(hops)?,
            amount: amount.parse().map_err(|_| format!("\"{amount}\" is no amount"))?,
            from: (*from).to_owned(),
            number: number_of(number)?,
            time: time.parse().ok(),
        })
    }
}

/// The functions of the program. Whether the book is held, so that it is stored once.
pub fn functions(is_held: bool) -> Functions<TypedValue> {
    let office = Function::new(office)
        .value(BALANCE)
        .value(HANDLED)
        .value(ENDED)
        .value(STAMP)
        .table(SENT)
        .table(GOT)
        .table(CANCELLED)
        .buffer(LOG)
        .registry(COUNTED.len())
        .operations(64);
    let customs = Function::new(|_: &mut Context<'_, TypedValue>, _: &String| {
        Err("nothing comes through customs".into())
    });
    let barge = boat(false).retry(Retry::attempts(1000).first(Duration::from_millis(20)));
    let ferry = boat(true).retry(Retry::attempts(1000).first(Duration::from_millis(20)));
    // A program that is never to stop gives calls more time than everything that goes wrong can take of it: several
    // attempts at one may hang, and each waits until its own time is up.
    let endpoint = Endpoint::at("http://courier/call").batch_messages_max(3);
    let endpoint = endpoint.call_timeout(Duration::from_secs(24 * 60 * 60));
    let functions = match is_held {
        true => Functions::new().held_egress(BOOK),
        false => Functions::new().egress(BOOK),
    };
    functions
        .named("post")
        .embedded(OFFICE, office)
        .embedded_namespace(
            CUSTOMS,
            customs.on_failure(OnFailure::DeadLetter).retry(Retry::attempts(2)),
        )
        .embedded(FERRY, ferry)
        .embedded(BARGE, barge.detached())
        .remote(COURIER, endpoint)
        .persisted_egress(ARRIVED)
        .persisted_egress(DECOYS)
        .egress(WRONG)
        .limits(Limits { depth_max: 100, ..Limits::default() })
}

/// What brings parcels on, or fails, by chance. Whether they keep their time.
fn boat(keeps_time: bool) -> Function<TypedValue, String> {
    let times = Cell::new(0_u64);
    Function::new(move |context: &mut Context<'_, TypedValue>, text: &String| {
        times.set(times.get() + 1);
        if mix(times.get(), 3).is_multiple_of(3) {
            return Err("no boat today".into());
        }
        let parcel = Parcel::read(&text.split(' ').skip(1).collect::<Vec<_>>())?;
        if keeps_time {
            check_time(context, &parcel);
        }
        context.send(OFFICE, next_office(&parcel), text.clone());
        Ok(())
    })
}

/// Where a parcel goes that has been at an office with so many hops left.
fn next_office(parcel: &Parcel) -> u64 {
    mix(parcel.id, 1000 + parcel.hops) % OFFICES
}

fn office(context: &mut Context<'_, TypedValue>, text: &String) -> FunctionResult {
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["never"] => {
            context.emit(WRONG, "what a courier had cancelled came".to_owned());
            Ok(())
        }
        ["go", ..] => go(context, Parcel::read(&words[1..])?),
        ["decoy", id] => {
            let id: u64 = id.parse()?;
            if context.table(CANCELLED).contains_key(&id) {
                context.emit(WRONG, format!("decoy {id} came after it was cancelled"));
            }
            context.emit(DECOYS, (id, true));
            Ok(())
        }
        ["cancel", id] => {
            if context.cancel(id) {
                context.table(CANCELLED).insert(id.parse()?, true);
                context.emit(DECOYS, (id.parse()?, false));
            }
            if context.cancel(id) {
                context.emit(WRONG, format!("decoy {id} was cancelled twice"));
            }
            Ok(())
        }
        ["told", outcome, ..] => {
            let parcel = Parcel::read(&words[3..])?;
            check_time(context, &parcel);
            match outcome {
                "done" => {
                    pass(context, parcel);
                    Ok(())
                }
                // It was under way when the program ended: it can be begun anew.
                _ => begin(context, parcel),
            }
        }
        _ => Err(format!("nobody says \"{text}\"").into()),
    }
}

fn check_time(context: &mut Context<'_, TypedValue>, parcel: &Parcel) {
    let now = *context.time();
    if parcel.time.is_some_and(|time| time != now) {
        let Parcel { id, time, .. } = parcel;
        context.emit(WRONG, format!("parcel {id} has time {now}, not {time:?}"));
    }
}

fn go(context: &mut Context<'_, TypedValue>, parcel: Parcel) -> FunctionResult {
    check_time(context, &parcel);
    if parcel.from != "-" {
        let before = context.table(GOT).get(&parcel.from).copied().unwrap_or(0);
        // A courier numbers what it brings to all offices.
        let is_next = match parcel.from.starts_with("office") {
            true => parcel.number == before + 1,
            false => parcel.number > before,
        };
        if !is_next {
            let Parcel { id, from, number, .. } = &parcel;
            context.emit(WRONG, format!("parcel {id}: number {number} of {from} after {before}"));
        }
        context.table(GOT).insert(parcel.from.clone(), parcel.number);
    }
    context.update(HANDLED, |handled| *handled += 1);
    let handled = *context.get(HANDLED).expect("it was just set");
    context.buffer(LOG).append(handled);
    context.update(COUNTED[(parcel.id % 3) as usize], |counted| *counted += 1);
    let now_ms = context.now_ms();
    match context.get(STAMP).copied() {
        Some(stamp) if now_ms >= stamp + STAMP_MS => {
            context.emit(WRONG, format!("a stamp of {stamp} is there at {now_ms}"));
        }
        Some(_) => {}
        None => context.set(STAMP, now_ms),
    }
    let time = Some(*context.time());
    let parcel = Parcel { from: "-".to_owned(), number: 0, time, ..parcel };
    match Way::of(parcel.id, parcel.hops) {
        Way::End => {
            context.update(BALANCE, |balance| *balance += parcel.amount);
            context.emit(ARRIVED, (parcel.id, parcel.amount));
            let (office, ended) =
                (context.id().to_string(), context.update(ENDED, |ended| *ended += 1));
            context.emit(BOOK, (office.parse()?, ended, parcel.id));
        }
        Way::On => pass(context, parcel),
        Way::Split => {
            let half = parcel.amount / 2;
            let [one, other] = Way::halves(parcel.id);
            pass(context, Parcel { id: one, amount: half, ..parcel.clone() });
            pass(context, Parcel { id: other, amount: parcel.amount - half, ..parcel });
        }
        Way::Later => {
            let to = next_office(&parcel);
            let delay = Duration::from_millis(mix(parcel.id, 77) % 3000);
            let parcel = Parcel { hops: parcel.hops - 1, time: None, ..parcel };
            context.send_after(delay, OFFICE, to, parcel.write());
        }
        Way::Decoy => {
            let (decoy, this) = (mix(parcel.id, parcel.hops) >> 8, context.id().clone());
            let delay = Duration::from_millis(mix(decoy, 5) % 200);
            let token = decoy.to_string();
            let text = format!("decoy {decoy}");
            context.send_after_unless_cancelled(&token, delay, OFFICE, this.clone(), text)?;
            match mix(decoy, 6) % 2 {
                0 => context.send(OFFICE, this, format!("cancel {decoy}")),
                _ => {
                    let later = Duration::from_millis(mix(decoy, 7) % 200);
                    context.send_after(later, OFFICE, this, format!("cancel {decoy}"));
                }
            }
            pass(context, parcel);
        }
        Way::Courier => {
            let (courier, to) = (mix(parcel.id, 11) % COURIERS, next_office(&parcel));
            let parcel = Parcel { hops: parcel.hops - 1, ..parcel };
            context.send(COURIER, courier, format!("{to} {}", parcel.write()));
        }
        Way::Ferry => {
            let parcel = Parcel { hops: parcel.hops - 1, ..parcel };
            context.send(FERRY, mix(parcel.id, 12) % 3, parcel.write());
        }
        Way::Barge => {
            let parcel = Parcel { hops: parcel.hops - 1, time: None, ..parcel };
            context.send(BARGE, mix(parcel.id, 15) % 3, parcel.write());
        }
        Way::Operation => begin(context, parcel)?,
        Way::Customs => {
            let text = format!("{} {}", parcel.id, parcel.amount);
            let country = ["here", "there"][(mix(parcel.id, 16) % 2) as usize];
            context.send_within(CUSTOMS, country, mix(parcel.id, 13) % 3, text)?;
        }
    }
    Ok(())
}

/// Passes a parcel straight to the next office.
fn pass(context: &mut Context<'_, TypedValue>, parcel: Parcel) {
    let (to, this) = (next_office(&parcel), context.id().to_string());
    let number = context.table(SENT).update(to, |sent| *sent += 1);
    let parcel = Parcel { from: format!("office{this}"), number, hops: parcel.hops - 1, ..parcel };
    context.send(OFFICE, to, parcel.write());
}

/// Begins an operation, after which the parcel goes on.
fn begin(context: &mut Context<'_, TypedValue>, parcel: Parcel) -> FunctionResult {
    let takes = Duration::from_millis(mix(parcel.id, 9) % 800);
    let operation = async move {
        tokio::time::sleep(takes).await;
        Ok::<_, std::io::Error>(())
    };
    let text = parcel.write();
    context.start(operation, move |outcome| {
        let outcome = if let Outcome::Completed(()) = outcome { "done" } else { "unknown" };
        format!("told {outcome} {text}")
    });
    Ok(())
}

/// The courier, as a server of functions answers for it.
pub fn courier(request: &ToFunction) -> FromFunction {
    let Some(Request::Invocation(batch)) = &request.request else {
        panic!("a request is a batch");
    };
    let response = match batch.state.iter().find(|state| state.state_name == "carried") {
        None => {
            let carried = PersistedValueSpec {
                state_name: "carried".to_owned(),
                expiration_spec: None,
                type_typename: "io.statefun.types/long".to_owned(),
            };
            Response::IncompleteInvocationContext(IncompleteInvocationContext {
                missing_values: vec![carried],
            })
        }
        Some(state) => {
            let carried = state.state_value.as_ref().filter(|value| value.has_value);
            let carried = carried.map_or(0, |value| {
                value.typed().expect("it has a value").read::<i64>().expect("it is a number")
            });
            let this = &batch.target.as_ref().expect("a batch has a target").id;
            Response::InvocationResult(carry(carried, this, &batch.invocations))
        }
    };
    FromFunction { response: Some(response) }
}

fn carry(
    mut carried: i64,
    this: &str,
    invocations: &[reqreply::to_function::Invocation],
) -> InvocationResponse {
    let mut result = InvocationResponse::default();
    for invocation in invocations {
        let argument = invocation.argument.as_ref().and_then(Wire::typed);
        let text = argument.and_then(|text| text.read::<String>().ok());
        let text = text.expect("parcels are text");
        let (to, parcel) = text.split_once(' ').expect("it says where to");
        let words: Vec<&str> = parcel.split(' ').skip(1).collect();
        let parcel = Parcel::read(&words).expect("it is a parcel");
        let target = reqreply::Address {
            namespace: "post".to_owned(),
            r#type: "office".to_owned(),
            id: to.to_owned(),
        };
        if is_brought_later(parcel.id) {
            let (id, delay_in_ms) = (parcel.id, (mix(parcel.id, 17) % 2000) as i64);
            let token = format!("{id} {}", parcel.hops);
            let parcel = Parcel { time: None, ..parcel };
            let later = |text: &str, token: String| DelayedInvocation {
                delay_in_ms,
                target: Some(target.clone()),
                argument: Some(Wire::of(&text.to_owned())),
                cancellation_token: token,
                ..DelayedInvocation::default()
            };
            result.delayed_invocations.push(later("never", token.clone()));
            result.delayed_invocations.push(later(&parcel.write(), String::new()));
            result.delayed_invocations.push(DelayedInvocation {
                is_cancellation_request: true,
                cancellation_token: token,
                ..DelayedInvocation::default()
            });
            continue;
        }
        carried += 1;
        let number = carried as u64;
        let parcel = Parcel { from: format!("courier{this}"), number, ..parcel };
        result
            .outgoing_messages
            .push(Invocation { target: Some(target), argument: Some(Wire::of(&parcel.write())) });
    }
    result.state_mutations.push(PersistedValueMutation {
        mutation_type: MutationType::Modify as i32,
        state_name: "carried".to_owned(),
        state_value: Some(Wire::of(&carried)),
    });
    result
}
