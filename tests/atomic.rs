//! An invocation takes effect altogether or not at all: what it writes, sends and emits.
//!
//! Random invocations, some of which fail at the very end, are compared with a model that never
//! heard of those. Then, one by one, the ways in which an invocation fails for a use of the context
//! that does not fit, and what its dead letter says.

mod support;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{Random, Running};
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::{
    Buffer, BufferSpec, Carries, Context, DeadLetter, Egress, Envelope, Expiration, Function,
    FunctionResult, FunctionType, Functions, Mismatch, OnFailure, Reason, StatefulFunctions,
    Stopped, Table, TableSpec, ValueSpec,
};

/// An account, what it held before a step, and the step's amount.
type Before = (u64, Option<u64>, Option<String>, u64);

const ACCOUNT: FunctionType<Step> = FunctionType::new("atomic/account");
const AUDIT: FunctionType<u64> = FunctionType::new("atomic/audit");
const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
const NOTE: ValueSpec<String> = ValueSpec::new("note");
const STEPS: Egress<Before> = Egress::new("atomic/steps");
const AUDITED: Egress<u64> = Egress::new("atomic/audited");
const UNBOUND: Egress<u64> = Egress::new("atomic/unbound");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum End {
    Well,
    Error,
    Panic,
    /// Uses the context as the row of this number in [`misuses`] does, and then returns `Ok`.
    Misuse(usize),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    amount: u64,
    /// Whether the account's note is taken away rather than written.
    clear: bool,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Message {
    Step(Step),
    Audit(u64),
}

impl Carries<Step> for Message {
    fn pack(step: Step) -> Self {
        Message::Step(step)
    }
    fn unpack<R>(&self, read: impl FnOnce(&Step) -> R) -> Result<R, Mismatch> {
        match self {
            Message::Step(step) => Ok(read(step)),
            Message::Audit(_) => Err(Mismatch::new("a step", "an audit")),
        }
    }
}

impl Carries<u64> for Message {
    fn pack(amount: u64) -> Self {
        Message::Audit(amount)
    }
    fn unpack<R>(&self, read: impl FnOnce(&u64) -> R) -> Result<R, Mismatch> {
        match self {
            Message::Audit(amount) => Ok(read(amount)),
            Message::Step(_) => Err(Mismatch::new("an audit", "a step")),
        }
    }
}

type Misuse = (fn(&mut Context<'_, Message>), Reason);

fn undeclared() -> Reason {
    Reason::UndeclaredState("other".into())
}

fn state_type(used: &str) -> Reason {
    let (state, declared) = ("total".into(), "rust/u64".into());
    Reason::StateType { state, declared, used: used.into() }
}

/// Whether a table that is used wrongly finds nothing and keeps nothing.
fn finds_nothing(table: &mut Table<'_, u64, u64>) -> bool {
    let kept = table.insert(1, 1) || table.update(2, |n| *n += 1) != 1 || table.remove(&1);
    table.clear();
    let found = table.contains_key(&1) || table.get(&2).is_some() || !table.is_empty();
    !kept && !found && table.iter().count() == 0
}

/// Whether a buffer that is used wrongly gathers nothing.
fn gathers_nothing(buffer: &mut Buffer<'_, u64>) -> bool {
    buffer.append(1);
    buffer.extend([2, 3]);
    buffer.replace([4]);
    let kept = !buffer.is_empty() || buffer.iter().next().is_some();
    buffer.clear();
    !kept
}

/// Uses of a context that do not fit, and what they make an invocation fail with.
fn misuses() -> Vec<Misuse> {
    const OTHER: ValueSpec<u64> = ValueSpec::new("other");
    const AS_BOOL: ValueSpec<bool> = ValueSpec::new("total");
    const RENAMED: ValueSpec<u64> = ValueSpec::typed("total", "atomic/total");
    const OTHER_TABLE: TableSpec<u64, u64> = TableSpec::new("other");
    const OTHER_BUFFER: BufferSpec<u64> = BufferSpec::new("other");
    const AS_TABLE: TableSpec<u64, u64> = TableSpec::new("total");
    const AS_BUFFER: BufferSpec<u64> = BufferSpec::new("total");
    const FLEETING: ValueSpec<u64> =
        ValueSpec::new("total").expiring(Expiration::after_write(Duration::from_millis(1)));
    let total_as = |used: &str| {
        let (state, declared) = ("total".into(), "value".into());
        Reason::StateKind { state, declared, used: used.into() }
    };
    let fleeting = {
        let (declared, used) = ("never".into(), "1 ms after write".into());
        Reason::StateExpiration { state: "total".into(), declared, used }
    };
    const AS_TEXT: Egress<String> = Egress::new("atomic/audited");
    let (bound, used) = ("u64".into(), "alloc::string::String".into());
    let egress = "atomic/audited".into();
    vec![
        (|context| assert_eq!(context.get(OTHER), None), undeclared()),
        (|context| context.set(OTHER, 1), undeclared()),
        (|context| context.clear(OTHER), undeclared()),
        (|context| assert_eq!(context.update(OTHER, |n| *n += 1), 1), undeclared()),
        (|context| assert_eq!(context.get(AS_BOOL), None), state_type("io.statefun.types/bool")),
        (|context| context.set(AS_BOOL, true), state_type("io.statefun.types/bool")),
        (|context| context.clear(RENAMED), state_type("atomic/total")),
        (|context| assert!(finds_nothing(&mut context.table(OTHER_TABLE))), undeclared()),
        (|context| assert!(finds_nothing(&mut context.table(AS_TABLE))), total_as("table")),
        (|context| assert!(gathers_nothing(&mut context.buffer(OTHER_BUFFER))), undeclared()),
        (|context| assert!(gathers_nothing(&mut context.buffer(AS_BUFFER))), total_as("buffer")),
        (|context| assert_eq!(context.get(FLEETING), None), fleeting.clone()),
        (|context| context.set(FLEETING, 1), fleeting),
        (|context| context.emit(UNBOUND, 1), Reason::UnknownEgress("atomic/unbound".into())),
        (|context| context.emit(AS_TEXT, "one".into()), Reason::EgressType { egress, bound, used }),
    ]
}

fn step(context: &mut Context<'_, Message>, step: &Step) -> FunctionResult {
    let account = context.id().as_number().ok_or("accounts have numbers")?;
    let (total, note) = (context.get(TOTAL).copied(), context.get(NOTE).cloned());
    context.emit(STEPS, (account, total, note, step.amount));
    context.set(TOTAL, 1_000_000);
    context.send(AUDIT, account + step.amount % 2, step.amount);
    context.set(TOTAL, total.unwrap_or(0) + step.amount);
    match step.clear {
        true => context.clear(NOTE),
        false => context.set(NOTE, format!("after {}", step.amount)),
    }
    context.emit(STEPS, (account, total, None, step.amount + 1));
    match step.end {
        End::Well => Ok(()),
        End::Error => Err("enough".into()),
        End::Panic => panic!("too much of {}", step.amount),
        End::Misuse(number) => {
            (misuses()[number].0)(context);
            Ok(())
        }
    }
}

fn functions(policy: OnFailure) -> Functions<Message> {
    let audit = Function::new(|context, amount: &u64| {
        context.emit(AUDITED, *amount);
        Ok(())
    });
    Functions::new()
        .embedded(ACCOUNT, Function::new(step).value(TOTAL).value(NOTE).on_failure(policy))
        .embedded(AUDIT, audit.on_failure(policy))
        .egress(STEPS)
        .egress(AUDITED)
}

/// What left the functions, with the ingress times.
#[derive(Default)]
struct Left {
    steps: Vec<(u64, Before)>,
    audited: Vec<(u64, u64)>,
    letters: Vec<(u64, DeadLetter<Message>)>,
}

/// Runs functions over messages, the first at time 0, the next at time 1, and so on.
fn run(
    functions: impl Fn() -> Functions<Message> + Send + Sync + 'static,
    messages: Vec<Envelope<Message>>,
) -> (Left, Result<(), Stopped>) {
    timely::execute_directly(move |worker| {
        let left = Rc::new(RefCell::new(Left::default()));
        let (steps, audited, letters) = (left.clone(), left.clone(), left.clone());
        let (mut input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
            let egresses = stream.stateful_functions(functions()).unwrap();
            let out = egresses.stream(STEPS).unwrap();
            out.inspect_time(move |time, s| steps.borrow_mut().steps.push((*time, s.clone())));
            let out = egresses.stream(AUDITED).unwrap();
            out.inspect_time(move |time, a| audited.borrow_mut().audited.push((*time, *a)));
            let out = egresses.dead_letters().unwrap().probe();
            out.1
                .inspect_time(move |time, l| letters.borrow_mut().letters.push((*time, l.clone())));
            (input, out.0, egresses.handle())
        });
        for (time, message) in messages.into_iter().enumerate() {
            input.send(message);
            input.advance_to(time as u64 + 1);
        }
        input.close();
        let end = handle.run(worker);
        assert_eq!(probe.done(), end.is_ok());
        (left.take(), end)
    })
}

fn reason_of(step: &Step) -> Option<Reason> {
    match &step.end {
        End::Well => None,
        End::Error => Some(Reason::Failed("enough".into())),
        End::Panic => Some(Reason::Panicked(format!("too much of {}", step.amount))),
        End::Misuse(number) => Some(misuses()[*number].1.clone()),
    }
}

#[test]
fn a_failed_invocation_leaves_no_trace_and_another_leaves_all() {
    let misuses = misuses().len() as u64;
    for seed in 0..40 {
        let _running = Running(format!("seed {seed}"));
        let mut random = Random(seed);
        let steps: Vec<(u64, Step)> = (0..200)
            .map(|_| {
                let end = match random.below(6) {
                    0 => End::Error,
                    1 => End::Panic,
                    2 => End::Misuse(random.below(misuses) as usize),
                    _ => End::Well,
                };
                let (amount, clear) = (random.below(100), random.below(2) == 0);
                (random.below(8), Step { amount, clear, end })
            })
            .collect();
        let mut model: HashMap<u64, (Option<u64>, Option<String>)> = HashMap::new();
        let mut expected = Left::default();
        for (time, (account, step)) in steps.iter().enumerate() {
            let (time, state) = (time as u64, model.entry(*account).or_default());
            if let Some(reason) = reason_of(step) {
                let (target, message) = (ACCOUNT.at(*account), Message::Step(step.clone()));
                let letter = DeadLetter { target, caller: None, message, reason, attempts: 1 };
                expected.letters.push((time, letter));
                continue;
            }
            expected.steps.push((time, (*account, state.0, state.1.clone(), step.amount)));
            expected.steps.push((time, (*account, state.0, None, step.amount + 1)));
            expected.audited.push((time, step.amount));
            state.0 = Some(state.0.unwrap_or(0) + step.amount);
            state.1 = (!step.clear).then(|| format!("after {}", step.amount));
        }
        let messages = steps.into_iter().map(|(account, step)| ACCOUNT.message(account, step));
        let (left, end) = run(|| functions(OnFailure::DeadLetter), messages.collect());
        assert_eq!(end, Ok(()));
        assert_eq!(left.steps, expected.steps);
        assert_eq!(left.audited, expected.audited);
        assert_eq!(left.letters, expected.letters);
    }
}

#[test]
fn a_failure_that_stops_leaves_no_trace_either() {
    let misuses = (0..misuses().len()).map(End::Misuse);
    for end in [End::Error, End::Panic].into_iter().chain(misuses) {
        let failing = Step { amount: 5, clear: true, end };
        let well = Step { amount: 1, clear: true, end: End::Well };
        let steps = [failing.clone(), well];
        let messages = steps.into_iter().map(|step| ACCOUNT.message(3, step)).collect();
        let (left, end) = run(|| functions(OnFailure::Stop), messages);
        let reason = reason_of(&failing).unwrap();
        assert_eq!(end, Err(Stopped { address: Some(ACCOUNT.at(3)), reason, worker: 0 }));
        assert!(left.steps.is_empty() && left.audited.is_empty() && left.letters.is_empty());
    }
}

/// The first thing that did not fit is the reason, whatever the function made of it.
#[test]
fn a_misuse_outweighs_what_the_function_returns() {
    let functions = || {
        let function = Function::new(|context: &mut Context<'_, Message>, _: &Step| {
            context.emit(UNBOUND, 1);
            context.set(NOTE, "undeclared here".into());
            Err("and so it goes wrong".into())
        });
        Functions::new()
            .embedded(ACCOUNT, function.on_failure(OnFailure::DeadLetter))
            .egress(STEPS)
            .egress(AUDITED)
    };
    let step = Step { amount: 1, clear: true, end: End::Well };
    let (left, _) = run(functions, vec![ACCOUNT.message(1, step)]);
    assert_eq!(left.letters[0].1.reason, Reason::UnknownEgress("atomic/unbound".into()));
}

#[test]
fn there_is_no_reply_to_nobody() {
    let functions = || {
        let function = Function::new(|context: &mut Context<'_, Message>, _: &Step| {
            let told = context.reply(1u64).unwrap_err();
            assert_eq!(
                told.to_string(),
                "nobody sent this message, so there is nobody to reply to"
            );
            Ok(context.reply(1u64)?)
        });
        Functions::new()
            .embedded(ACCOUNT, function.on_failure(OnFailure::DeadLetter))
            .egress(STEPS)
            .egress(AUDITED)
    };
    let step = Step { amount: 1, clear: true, end: End::Well };
    let (left, _) = run(functions, vec![ACCOUNT.message(1, step)]);
    let text = "nobody sent this message, so there is nobody to reply to";
    assert_eq!(left.letters[0].1.reason, Reason::Failed(text.into()));
}

#[test]
fn a_message_of_another_variant_is_a_dead_letter_with_all_there_is_to_know() {
    let functions = || {
        let forwarding = Function::new(|context: &mut Context<'_, Message>, amount: &u64| {
            context.forward(ACCOUNT.at(7), Message::Audit(*amount));
            Ok(())
        });
        Functions::new()
            .embedded(AUDIT, forwarding)
            .embedded(ACCOUNT, Function::new(step).on_failure(OnFailure::DeadLetter))
            .egress(STEPS)
            .egress(AUDITED)
    };
    let (left, end) = run(functions, vec![AUDIT.message("a", 1), AUDIT.message("b", 2)]);
    assert_eq!(end, Ok(()));
    let letter = |sender, amount| DeadLetter {
        target: ACCOUNT.at(7),
        caller: Some(AUDIT.at(sender)),
        message: Message::Audit(amount),
        reason: Reason::WrongInput(Mismatch::new("a step", "an audit")),
        attempts: 1,
    };
    assert_eq!(left.letters, [(0, letter("a", 1)), (1, letter("b", 2))]);
    assert_eq!(
        left.letters[0].1.reason.to_string(),
        "the message is of another type: an audit where a step is wanted"
    );
}

/// Types of one's own may share a name by mistake. A reason that names it twice would not help.
#[test]
fn a_reason_of_two_types_tells_them_apart() {
    const SMALL: ValueSpec<u32> = ValueSpec::typed("total", "atomic/number");
    const LARGE: ValueSpec<u64> = ValueSpec::typed("total", "atomic/number");
    let functions = || {
        let function = Function::new(|context: &mut Context<'_, Message>, _: &Step| {
            context.set(LARGE, 1);
            Ok(())
        });
        Functions::new()
            .embedded(ACCOUNT, function.value(SMALL).on_failure(OnFailure::DeadLetter))
            .egress(STEPS)
            .egress(AUDITED)
    };
    let step = Step { amount: 1, clear: true, end: End::Well };
    let (left, _) = run(functions, vec![ACCOUNT.message(1, step)]);
    let Reason::StateType { declared, used, .. } = &left.letters[0].1.reason else {
        panic!("{:?}", left.letters[0].1.reason);
    };
    assert_ne!(declared, used);
}
