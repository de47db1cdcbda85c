//! Tables, buffers and registered state take part in an invocation as values do: what it writes is
//! there afterwards if it succeeds, and not a trace of it otherwise.
//!
//! Random messages of several operations each, of which some fail at the end, are compared with a
//! model of plain maps and vectors.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use support::{Random, Running};
use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::{
    BufferSpec, Context, DeadLetter, Egress, Envelope, Function, FunctionResult, FunctionType,
    Functions, OnFailure, Reason, StatefulFunctions, TableSpec, ValueSpec,
};

const KEEPER: FunctionType<Message> = FunctionType::new("state/keeper");
const STOCK: TableSpec<String, u64> = TableSpec::new("stock");
const LINES: BufferSpec<String> = BufferSpec::new("lines");
const SEEN: Egress<(u64, Kept)> = Egress::new("state/seen");
const STATES_MAX: usize = 4;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Operation {
    Insert(String, u64),
    Add(String, u64),
    Remove(String),
    ClearStock,
    Append(Vec<String>),
    Replace(Vec<String>),
    ClearLines,
    /// Writes a value of a name that is not declared.
    Register(String, u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum End {
    Well,
    Error,
    Panic,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    operations: Vec<Operation>,
    end: End,
}

/// All that an address keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Kept {
    stock: BTreeMap<String, u64>,
    lines: Vec<String>,
    registered: BTreeMap<String, u64>,
}

/// Names to register, of which there are more than may be registered.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn keep(context: &mut Context<'_, Message>, message: &Message) -> FunctionResult {
    for operation in &message.operations {
        match operation.clone() {
            Operation::Insert(key, value) => {
                let mut stock = context.table(STOCK);
                let was_there = stock.contains_key(&key);
                assert_eq!(stock.insert(key, value), !was_there);
            }
            Operation::Add(key, value) => {
                let after = context.table(STOCK).update(key.clone(), |sum| *sum += value);
                assert_eq!(context.table(STOCK).get(&key), Some(&after));
            }
            Operation::Remove(key) => {
                let mut stock = context.table(STOCK);
                let was_there = stock.keys().any(|known| *known == key);
                assert_eq!(stock.remove(key.as_str()), was_there);
            }
            Operation::ClearStock => context.table(STOCK).clear(),
            Operation::Append(lines) => context.buffer(LINES).extend(lines),
            Operation::Replace(lines) => context.buffer(LINES).replace(lines),
            Operation::ClearLines => context.buffer(LINES).clear(),
            Operation::Register(name, value) => context.set(ValueSpec::new(&name), value),
        }
    }
    let mut stock = context.table(STOCK);
    let stock: BTreeMap<_, _> = stock.iter().map(|(key, value)| (key.clone(), *value)).collect();
    assert_eq!(context.table(STOCK).len(), stock.len());
    let lines: Vec<_> = context.buffer(LINES).iter().cloned().collect();
    let mut registered = BTreeMap::new();
    // A read registers as well, so only what this message writes is read.
    for operation in &message.operations {
        if let Operation::Register(name, _) = operation
            && let Some(value) = context.get::<u64>(ValueSpec::new(name))
        {
            registered.insert(name.clone(), *value);
        }
    }
    let number = context.id().as_number().ok_or("keepers have numbers")?;
    context.emit(SEEN, (number, Kept { stock, lines, registered }));
    match message.end {
        End::Well => Ok(()),
        End::Error => Err("enough".into()),
        End::Panic => panic!("too much"),
    }
}

/// The same with plain maps. An error is the reason why it must fail.
fn model(
    states: &mut Vec<String>,
    kept: &mut Kept,
    message: &Message,
) -> Result<BTreeMap<String, u64>, Reason> {
    let mut registered = BTreeMap::new();
    let mut mistake = Ok(());
    for operation in message.operations.clone() {
        match operation {
            Operation::Insert(key, value) => drop(kept.stock.insert(key, value)),
            Operation::Add(key, value) => *kept.stock.entry(key).or_default() += value,
            Operation::Remove(key) => drop(kept.stock.remove(&key)),
            Operation::ClearStock => kept.stock.clear(),
            Operation::Append(lines) => kept.lines.extend(lines),
            Operation::Replace(lines) => kept.lines = lines,
            Operation::ClearLines => kept.lines.clear(),
            Operation::Register(name, value) => {
                if !states.contains(&name) && states.len() == STATES_MAX {
                    mistake = Err(Reason::TooManyStates(STATES_MAX));
                } else {
                    if !states.contains(&name) {
                        states.push(name.clone());
                    }
                    kept.registered.insert(name.clone(), value);
                    registered.insert(name, value);
                }
            }
        }
    }
    mistake?;
    match message.end {
        End::Well => Ok(registered),
        End::Error => Err(Reason::Failed("enough".into())),
        End::Panic => Err(Reason::Panicked("too much".into())),
    }
}

fn functions() -> Functions<Message> {
    let keeper = Function::new(keep).table(STOCK).buffer(LINES).registry(STATES_MAX);
    Functions::new().embedded(KEEPER, keeper.on_failure(OnFailure::DeadLetter)).egress(SEEN)
}

type Left = (Vec<(u64, Kept)>, Vec<DeadLetter<Message>>);

/// Runs messages one after the other, and gives what left the functions in order.
fn run(messages: Vec<Envelope<Message>>) -> Left {
    timely::execute_directly(move |worker| {
        let left = Rc::new(RefCell::new(Left::default()));
        let (seen, letters) = (Rc::clone(&left), Rc::clone(&left));
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
            let egresses = stream.stateful_functions(functions()).unwrap();
            let out = egresses.stream(SEEN).unwrap();
            out.inspect(move |kept| seen.borrow_mut().0.push(kept.clone()));
            let out = egresses.dead_letters().unwrap();
            out.inspect(move |letter| letters.borrow_mut().1.push(letter.clone()));
            (input, egresses.handle())
        });
        messages.into_iter().for_each(|message| input.send(message));
        input.close();
        handle.run(worker).unwrap();
        left.take()
    })
}

fn operation(random: &mut Random) -> Operation {
    let key = format!("thing {}", random.below(6));
    let mut lines = || -> Vec<String> {
        let count = random.below(3);
        (0..count).map(|_| random.below(100).to_string()).collect()
    };
    let lines = lines();
    match random.below(20) {
        0..4 => Operation::Insert(key, random.below(100)),
        4..7 => Operation::Add(key, random.below(100)),
        7..9 => Operation::Remove(key),
        9 => Operation::ClearStock,
        10..15 => Operation::Append(lines),
        15 => Operation::Replace(lines),
        16 => Operation::ClearLines,
        _ => {
            let name = NAMES[random.below(NAMES.len() as u64) as usize];
            Operation::Register(name.to_owned(), random.below(100))
        }
    }
}

#[test]
fn state_of_every_kind_is_written_altogether_or_not_at_all() {
    let (mut failed, mut refused) = (0, 0);
    for seed in 0..60 {
        let _running = Running(format!("seed {seed}"));
        let mut random = Random(seed);
        let messages: Vec<(u64, Message)> = (0..150)
            .map(|_| {
                let end = match random.below(5) {
                    0 => End::Error,
                    1 => End::Panic,
                    _ => End::Well,
                };
                let operations = (0..random.below(6)).map(|_| operation(&mut random)).collect();
                (random.below(4), Message { operations, end })
            })
            .collect();
        let mut keepers: HashMap<u64, Kept> = HashMap::new();
        let mut states = Vec::new();
        let mut expected = Left::default();
        for (number, message) in &messages {
            let keeper = keepers.entry(*number).or_default();
            let (mut registered, mut kept) = (states.clone(), keeper.clone());
            match model(&mut registered, &mut kept, message) {
                Ok(read) => {
                    (states, *keeper) = (registered, kept.clone());
                    expected.0.push((*number, Kept { registered: read, ..kept }));
                }
                Err(reason) => {
                    failed += 1;
                    refused += u32::from(reason == Reason::TooManyStates(STATES_MAX));
                    let (target, message) = (KEEPER.at(*number), message.clone());
                    let letter = DeadLetter { target, caller: None, message, reason, attempts: 1 };
                    expected.1.push(letter);
                }
            }
        }
        let messages =
            messages.into_iter().map(|(number, message)| KEEPER.message(number, message));
        let (seen, letters) = run(messages.collect());
        assert_eq!(letters, expected.1);
        assert_eq!(seen, expected.0);
    }
    assert!(failed > 1000 && refused > 50, "too few failures: {failed}, {refused}");
}
