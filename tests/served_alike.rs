//! A function does the same whether it is embedded or served and called by the loop; and may become the one or
//! the other at any time without losing what it keeps.
//!
//! Random programs, against a model that knows neither. Requests are those that the loop would send, byte for
//! byte, and are answered by the server in an order that is random too.
//!
//! `STATEFUN_ALIKE_SEEDS` says how many programs, `STATEFUN_ALIKE_SEED` which one alone.

#[path = "support/asking.rs"]
mod asking;
#[path = "support/mod.rs"]
mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use asking::{serve, wait};
use support::Random;
use timely_statefun::serve::{RequestReply, ServedFunctions};
use timely_statefun::testing::{TestEndpoint, TestProgram};
use timely_statefun::{
    BufferSpec, Context, Egress, Endpoint, Expiration, Function, FunctionResult, FunctionType,
    Functions, OnFailure, Retry, TableSpec, TypedValue, ValueSpec,
};
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::FromFunction;

const FIRST: FunctionType<String> = FunctionType::new("test/first");
const SECOND: FunctionType<String> = FunctionType::new("test/second");
const NUMBER: ValueSpec<i32> = ValueSpec::new("number");
const OWN: ValueSpec<u64> = ValueSpec::new("own");
const LONG: Expiration = Expiration::after_read_or_write(Duration::from_secs(1 << 30));
const TEXT: ValueSpec<String> = ValueSpec::new("text").expiring(LONG);
const TABLE: TableSpec<String, i64> = TableSpec::new("table");
const BUFFER: BufferSpec<i32> = BufferSpec::new("buffer");
const LOOKS: Egress<String> = Egress::new("test/looks");

const IDS: usize = 4;

type Typed<'a> = Context<'a, TypedValue>;

/// What one message has done, one step after the other.
fn act(context: &mut Typed<'_>, program: &str, has_all: bool) -> FunctionResult {
    for step in program.split(' ') {
        let (step, with) = step.split_once('=').unwrap_or((step, ""));
        match step {
            "number" => context.set(NUMBER, with.parse()?),
            "add" => _ = context.update(NUMBER, |number| *number += 1),
            "forget" => context.clear(NUMBER),
            "own" => _ = context.update(OWN, |own| *own += 1),
            "text" => context.set(TEXT, with.to_owned()),
            "untext" => context.clear(TEXT),
            "put" if has_all => _ = context.table(TABLE).update(with.into(), |times| *times += 1),
            "take" if has_all => _ = context.table(TABLE).remove(with),
            "clear" if has_all => context.table(TABLE).clear(),
            "append" if has_all => context.buffer(BUFFER).append(with.parse()?),
            "empty" if has_all => context.buffer(BUFFER).clear(),
            "replace" if has_all => context.buffer(BUFFER).replace([1, 2, 3]),
            "late" if has_all => {
                _ = context.update(ValueSpec::<i64, _>::new(with), |late| *late += 1);
            }
            "put" | "take" | "clear" | "append" | "empty" | "replace" | "late" => {}
            "send" => context.send(SECOND, context.id().clone(), with.to_owned()),
            "look" => look(context, has_all),
            "fail" => return Err("it is to".into()),
            other => return Err(format!("{other}?").into()),
        }
    }
    Ok(())
}

fn look(context: &mut Typed<'_>, has_all: bool) {
    let number = context.get(NUMBER).copied();
    let own = context.get(OWN).copied();
    let text = context.get(TEXT).cloned();
    let (mut table, mut buffer, mut late) = (BTreeMap::new(), Vec::new(), Vec::new());
    if has_all {
        table.extend(context.table(TABLE).iter().map(|(key, value)| (key.clone(), *value)));
        buffer.extend(context.buffer(BUFFER).iter().copied());
        late.extend(["x", "y"].map(|name| context.get(ValueSpec::<i64, _>::new(name)).copied()));
    }
    let id = context.id().to_string();
    let looks = format!("{id}: {number:?} {own:?} {text:?} {table:?} {buffer:?} {late:?}");
    context.emit(LOOKS, looks);
}

/// What was sent, by whom and in which order.
fn second(context: &mut Typed<'_>, text: &TypedValue) -> FunctionResult {
    let text: String = text.read()?;
    let caller = context.caller().map(|caller| caller.to_string());
    let number = context.update(NUMBER, |number| *number += 1);
    context.emit(LOOKS, format!("{} of {caller:?}: {text}, {number}", context.address()));
    Ok(())
}

fn first_function(has_all: bool) -> Function<TypedValue, String> {
    let act = move |context: &mut Typed<'_>, program: &String| act(context, program, has_all);
    let function = Function::new(act).value(NUMBER).value(OWN).value(TEXT);
    let function = match has_all {
        true => function.table(TABLE).buffer(BUFFER).registry(2),
        false => function,
    };
    function.on_failure(OnFailure::DeadLetter).retry(Retry::attempts(1))
}

fn second_function() -> Function<TypedValue, String> {
    let second = |context: &mut Typed<'_>, text: &String| second(context, &TypedValue::of(text));
    Function::new(second).value(NUMBER)
}

fn embedded(has_all: bool) -> Functions<TypedValue> {
    Functions::new()
        .embedded(FIRST, first_function(has_all))
        .embedded(SECOND, second_function())
        .typed_egress(LOOKS)
}

fn called(batch_max: usize) -> Functions<TypedValue> {
    let endpoint = Endpoint::at("http://served.example/{function.name}")
        .batch_messages_max(batch_max)
        .retry_if(|_| false)
        .on_failure(OnFailure::DeadLetter);
    Functions::new().remote(FIRST, endpoint.clone()).remote(SECOND, endpoint).typed_egress(LOOKS)
}

fn served(has_all: bool) -> ServedFunctions {
    serve(move || embedded(has_all))
}

/// Answers one of the requests that are open. Says whether there was one.
fn answer_one(endpoint: &TestEndpoint, served: &ServedFunctions, random: &mut Random) -> bool {
    let mut open = Vec::new();
    while let Some(request) = endpoint.take_request() {
        open.push(request);
    }
    if open.is_empty() {
        return false;
    }
    // All of them, in any order.
    while !open.is_empty() {
        let request = open.swap_remove(random.below(open.len() as u64) as usize);
        match wait(served.answer(request.body().clone())) {
            Ok(answer) => request.answer(FromFunction::decode(answer).unwrap()),
            Err(refusal) => request.answer_with(refusal.status(), &[], refusal.to_string()),
        }
    }
    true
}

fn run_called(
    program: &mut TestProgram<TypedValue>,
    served: &ServedFunctions,
    random: &mut Random,
    rounds: u64,
) {
    let endpoint = program.endpoint();
    program.run();
    for _ in 0..rounds {
        if !answer_one(&endpoint, served, random) {
            return;
        }
        program.run();
    }
}

/// What there is to see at the end: the looks at each address in order, and how many messages were given up.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    looks: BTreeMap<String, Vec<String>>,
    given_up: BTreeMap<String, Vec<String>>,
}

impl Seen {
    fn take(&mut self, program: &mut TestProgram<TypedValue>) {
        for (_, look) in program.take(LOOKS) {
            let (who, _) = look.split_once(':').unwrap();
            self.looks.entry(who.to_owned()).or_default().push(look);
        }
        for (_, letter) in program.take_dead_letters() {
            let text: String = letter.message.read().unwrap();
            self.given_up.entry(letter.target.id.to_string()).or_default().push(text);
        }
    }
}

// The model.

#[derive(Clone, Default)]
struct Address {
    number: Option<i32>,
    own: Option<u64>,
    text: Option<String>,
    table: BTreeMap<String, i64>,
    buffer: Vec<i32>,
    late: BTreeMap<String, i64>,
    /// How many messages the second function had.
    sent: i32,
}

#[derive(Default)]
struct Model {
    addresses: BTreeMap<String, Address>,
    seen: Seen,
}

impl Model {
    fn message(&mut self, id: &str, program: &str, has_all: bool) {
        let before = self.addresses.entry(id.to_owned()).or_default().clone();
        let mut after = before.clone();
        let mut looks = Vec::new();
        for step in program.split(' ') {
            let (step, with) = step.split_once('=').unwrap_or((step, ""));
            match step {
                "number" => after.number = Some(with.parse().unwrap()),
                "add" => after.number = Some(after.number.unwrap_or(0) + 1),
                "forget" => after.number = None,
                "own" => after.own = Some(after.own.unwrap_or(0) + 1),
                "text" => after.text = Some(with.to_owned()),
                "untext" => after.text = None,
                "send" => {
                    after.sent += 1;
                    let (who, caller) = (format!("test/second {id}"), format!("test/first {id}"));
                    let look = format!("{who} of {:?}: {with}, {}", Some(caller), after.sent);
                    looks.push((format!("{who} of {:?}", Some(format!("test/first {id}"))), look));
                }
                "look" => {
                    let late = ["x", "y"].map(|name| after.late.get(name).copied());
                    let late = if has_all { late.to_vec() } else { Vec::new() };
                    let Address { number, own, text, table, buffer, .. } = &after;
                    let state =
                        format!("{number:?} {own:?} {text:?} {table:?} {buffer:?} {late:?}");
                    looks.push((id.to_owned(), format!("{id}: {state}")));
                }
                "fail" => {
                    let given_up = self.seen.given_up.entry(id.to_owned()).or_default();
                    return given_up.push(program.to_owned());
                }
                _ if !has_all => {}
                "put" => *after.table.entry(with.to_owned()).or_default() += 1,
                "take" => _ = after.table.remove(with),
                "clear" => after.table.clear(),
                "append" => after.buffer.push(with.parse().unwrap()),
                "empty" => after.buffer.clear(),
                "replace" => after.buffer = vec![1, 2, 3],
                "late" => *after.late.entry(with.to_owned()).or_default() += 1,
                other => panic!("{other}"),
            }
        }
        self.addresses.insert(id.to_owned(), after);
        for (who, look) in looks {
            self.seen.looks.entry(who).or_default().push(look);
        }
    }
}

fn program(random: &mut Random) -> String {
    let any = |random: &mut Random| random.below(3).to_string();
    let mut steps = Vec::new();
    for _ in 0..1 + random.below(5) {
        let with = any(random);
        steps.push(match random.below(18) {
            0 => format!("number={with}"),
            1 => "add".to_owned(),
            2 => "forget".to_owned(),
            3 => "own".to_owned(),
            4 => format!("text={with}"),
            5 => "untext".to_owned(),
            6 | 7 => format!("put={with}"),
            8 => format!("take={with}"),
            9 if random.below(3) == 0 => "clear".to_owned(),
            9 | 10 => format!("append={with}"),
            11 if random.below(3) == 0 => "empty".to_owned(),
            11 if random.below(3) == 0 => "replace".to_owned(),
            12 => "late=x".to_owned(),
            13 => "late=y".to_owned(),
            14 | 15 => format!("send={with}"),
            16 if random.below(3) == 0 => "fail".to_owned(),
            _ => "look".to_owned(),
        });
    }
    steps.join(" ")
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("STATEFUN_ALIKE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STATEFUN_ALIKE_SEEDS").unwrap_or(count),
    }
}

fn message(random: &mut Random) -> (String, String) {
    (random.below(IDS as u64).to_string(), program(random))
}

#[test]
fn embedded_and_served_functions_do_the_same() {
    let begun = Instant::now();
    let served = served(true);
    let (mut looks, mut given_up, mut requests) = (0, 0, 0);
    let seeds = seeds(25);
    for seed in seeds.clone() {
        println!("STATEFUN_ALIKE_SEED={seed}");
        let mut random = Random(seed);
        let batch_max = 1 + random.below(6) as usize;
        let mut here = TestProgram::new(|| embedded(true));
        let mut there = TestProgram::new(move || called(batch_max));
        let endpoint = there.endpoint();
        let mut model = Model::default();
        let (mut seen_here, mut seen_there) = (Seen::default(), Seen::default());
        for time in 0..1 + random.below(6) {
            for _ in 0..random.below(12) {
                let (id, program) = message(&mut random);
                model.message(&id, &program, true);
                here.send(FIRST.message(&*id, program.clone()));
                there.send(FIRST.message(&*id, program));
            }
            here.run();
            let rounds = random.below(4);
            run_called(&mut there, &served, &mut random, rounds);
            here.advance_to(time + 1);
            there.advance_to(time + 1);
        }
        here.close();
        there.close();
        here.run();
        run_called(&mut there, &served, &mut random, u64::MAX);
        assert!(there.frontier().is_empty(), "all of it is over");
        seen_here.take(&mut here);
        seen_there.take(&mut there);
        assert_eq!(seen_here, model.seen, "embedded");
        assert_eq!(seen_there, model.seen, "served");
        looks += model.seen.looks.values().map(Vec::len).sum::<usize>();
        given_up += model.seen.given_up.values().map(Vec::len).sum::<usize>();
        requests += endpoint.requests();
    }
    println!("{looks} looks, {given_up} given up, {requests} requests, {:?}", begun.elapsed());
    assert!(seeds.end - seeds.start < 20 || (looks > 100 && given_up > 10 && requests > 100));
}

#[test]
fn a_function_that_becomes_served_or_embedded_again_keeps_its_state() {
    let begun = Instant::now();
    let served = served(false);
    let mut turns = 0;
    for seed in seeds(12) {
        println!("STATEFUN_ALIKE_SEED={seed}");
        let mut random = Random(seed);
        let is_served = Rc::new(Cell::new(random.below(2) == 0));
        let make = {
            let is_served = Rc::clone(&is_served);
            move || if is_served.get() { called(3) } else { embedded(false) }
        };
        let mut running = TestProgram::new(make);
        let mut model = Model::default();
        let mut seen = Seen::default();
        let mut time = 0;
        for _ in 0..2 + random.below(4) {
            for _ in 0..random.below(10) {
                let (id, program) = message(&mut random);
                model.message(&id, &program, false);
                running.send(FIRST.message(&*id, program));
            }
            run_called(&mut running, &served, &mut random, u64::MAX);
            time += 1;
            running.advance_to(time);
            running.run();
            seen.take(&mut running);
            running.snapshot();
            let was = is_served.replace(random.below(2) == 0);
            turns += usize::from(was != is_served.get());
            running.crash();
        }
        for id in 0..IDS {
            model.message(&id.to_string(), "look", false);
            running.send(FIRST.message(&*id.to_string(), "look".to_owned()));
        }
        run_called(&mut running, &served, &mut random, u64::MAX);
        seen.take(&mut running);
        assert_eq!(seen, model.seen);
    }
    println!("{turns} turns, {:?}", begun.elapsed());
}
