//! The example `smoke` counts exactly what it was told to count, wherever its commands are followed, and
//! notices everything that is lost or happens twice.
//!
//! The interpreter that is served elsewhere is written anew here, and fails in several ways.
//!
//! The test of the program itself needs it built: `cargo test` does so. Before `cargo test --test
//! smoke`, which does not, run `cargo build --example smoke`.

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
#[path = "../examples/smoke/commands.rs"]
mod commands;
#[path = "../examples/smoke/generator.rs"]
mod generator;
#[path = "../examples/smoke/interpreter.rs"]
mod interpreter;
#[path = "../examples/smoke/pipeline.rs"]
mod pipeline;
#[path = "../examples/smoke/protobuf.rs"]
mod protobuf;
#[path = "support/server.rs"]
mod server;
#[path = "../examples/smoke/tracker.rs"]
mod tracker;
#[path = "../examples/smoke/verification.rs"]
mod verification;

use std::path::Path;
use std::process::Command as Program;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use commands::{
    Command, Commands, DISCARDS, INTERPRETER, RESULTS, SourceCommand, VerificationResult,
};
use generator::Plan;
use interpreter::{Interpreter, OPERATIONS, STATE, interpret};
use pipeline::{Break, Failure, Outcome};
use server::{Answer, Request, Server};
use timely_statefun::serve::{self, ServedFunctions, ServedOptions};
use timely_statefun::{Context, Endpoint, Function, FunctionResult, Functions, Typed, TypedValue};
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, EgressMessage, IncompleteInvocationContext, Invocation, InvocationResponse,
    PersistedValueMutation, PersistedValueSpec, Response,
};
use timely_statefun_proto::reqreply::{self, FromFunction, ToFunction, to_function};
use timely_statefun_proto::{Message, type_names};
use tokio::runtime::Runtime;
use tracker::Tracker;
use verification::Wrong;

fn plan(seed: u64, messages: u64, instances: u64) -> Plan {
    Plan { seed, messages, instances, depth: 10, embedded: true, operations: true }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

fn config(workers: usize) -> timely::Config {
    match workers {
        1 => timely::Config::thread(),
        _ => timely::Config::process(workers),
    }
}

/// Runs a plan with these functions, and gives what every worker of this process returned.
fn run_with(
    config: timely::Config,
    functions: impl Fn() -> Functions<TypedValue> + Send + Sync + 'static,
    plan: &Plan,
    broken: Option<Break>,
) -> Vec<Result<Option<Outcome>, Failure>> {
    let (plan, expected) = (plan.clone(), Tracker::of(plan));
    let guards = timely::execute(config, move |worker| {
        pipeline::run(worker, functions(), None, &plan, &expected, broken)
    });
    guards.unwrap().join().into_iter().map(|outcome| outcome.unwrap()).collect()
}

fn run(
    config: timely::Config,
    interpreter: Interpreter,
    plan: &Plan,
    broken: Option<Break>,
) -> Vec<Result<Option<Outcome>, Failure>> {
    let functions = move || interpreter::functions(&interpreter, runtime().handle().clone());
    run_with(config, functions, plan, broken)
}

/// What is wrong, which all workers must agree on.
#[track_caller]
fn wrong(outcomes: Vec<Result<Option<Outcome>, Failure>>) -> Wrong {
    let wrong = outcomes.into_iter().map(|outcome| match outcome {
        Err(Failure::Wrong(wrong)) => wrong,
        other => panic!("nothing was found: {other:?}"),
    });
    let mut wrong: Vec<Wrong> = wrong.collect();
    wrong.dedup();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    wrong.remove(0)
}

/// The one outcome, of which worker 0 of all processes has it.
#[track_caller]
fn exact(outcomes: Vec<Result<Option<Outcome>, Failure>>) -> Option<Outcome> {
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
    assert!(outcomes[1..].iter().all(Option::is_none));
    outcomes[0]
}

#[test]
fn every_count_is_exact_on_any_number_of_workers() {
    for (seed, workers) in (1..).zip([1, 2, 4]) {
        let plan = plan(seed, 20_000, 200);
        let expected = Tracker::of(&plan);
        let outcome = exact(run(config(workers), Interpreter::Embedded, &plan, None)).unwrap();
        let work = outcome.work;
        assert_eq!(work.delivered, expected.told + work.rounds * plan.instances, "seed {seed}");
        assert_eq!(work.discards, expected.discards, "seed {seed}");
        assert_eq!(work.crossed > 0, workers > 1, "seed {seed}");
        assert!(!outcome.took.is_zero());
    }
}

#[test]
fn few_messages_for_few_instances_are_counted_as_well() {
    for (messages, instances, depth) in [(1, 1, 1), (1, 50, 10), (50, 1, 10), (500, 3, 30)] {
        let plan = Plan { depth, ..plan(messages, messages, instances) };
        exact(run(config(2), Interpreter::Embedded, &plan, None)).unwrap();
    }
}

#[test]
fn two_processes_count_exactly() {
    let plan = plan(7, 20_000, 200);
    if let Some(config) = cluster::member() {
        if let Some(outcome) = exact(run(config, Interpreter::Embedded, &plan, None)) {
            assert!(outcome.work.crossed > 0);
            cluster::report("exact");
        }
        return;
    }
    let outcomes = cluster::run("two_processes_count_exactly", 2, 2);
    assert!(outcomes.iter().all(|outcome| outcome.success), "{}", outcomes[0].output);
    assert_eq!((&*outcomes[0].lines, &*outcomes[1].lines), (&["exact".to_owned()][..], &[][..]));
}

#[test]
fn a_lost_message_and_a_doubled_one_are_found_on_every_worker() {
    let plan = plan(3, 5000, 100);
    // The first that counts anything is lost, or doubled.
    let mut broken = Tracker::of(&Plan { messages: 0, ..plan.clone() });
    let mut messages = (0..plan.messages).map(|number| plan.message(number));
    broken.apply(&messages.find(|message| tracker::counts(&message.commands)).unwrap());
    let first = broken.counts.iter().position(|count| *count > 0).unwrap();
    let changed = broken.counts.iter().filter(|count| **count > 0).count();
    let by = broken.counts[first];
    let total = Tracker::of(&plan).counts[first];
    for workers in [1, 3] {
        let run = |how| wrong(run(config(workers), Interpreter::Embedded, &plan, Some(how)));
        let lost = Wrong::Under { id: first, expected: total, actual: total - by, short: changed };
        assert_eq!(run(Break::Lose), lost, "{workers} workers");
        // Part of it may be seen before the rest.
        let Wrong::Over { id, expected, actual, many } = run(Break::Double) else {
            panic!("a doubled message was not found as such");
        };
        assert!(expected < actual && (1..=changed).contains(&many), "instance {id}");
    }
}

/// An embedded interpreter with mistakes.
fn mistaken(
    mistake: impl Fn(&mut Context<'_, TypedValue>, &Commands) -> FunctionResult + 'static,
) -> Functions<TypedValue> {
    let function = Function::new(mistake).value(STATE).operations(OPERATIONS);
    let functions = Functions::new().runtime(runtime().handle().clone());
    functions.embedded(INTERPRETER, function).typed_egress(DISCARDS).typed_egress(RESULTS)
}

#[test]
fn what_no_count_shows_is_found_too() {
    let plan = plan(4, 2000, 50);
    let expected = Tracker::of(&plan);

    let never_cancels = || {
        mistaken(|context, commands| {
            let cancels = |command: &Command| matches!(command, Command::CancelSendAfter { .. });
            let left = commands.0.iter().filter(|command| !cancels(command)).cloned().collect();
            interpret(context, &Commands(left))
        })
    };
    let Wrong::Told { expected: told, actual } =
        wrong(run_with(config(2), never_cancels, &plan, None))
    else {
        panic!("a cancelled message was sent and not found");
    };
    assert!(told == expected.told && actual > told);

    let emits_twice = || {
        mistaken(|context, commands| {
            if commands.0.contains(&Command::SendEgress) {
                context.emit(DISCARDS, TypedValue::of(&true));
            }
            interpret(context, commands)
        })
    };
    let Wrong::Discards { expected: discards, actual } =
        wrong(run_with(config(2), emits_twice, &plan, None))
    else {
        panic!("a second record was not found");
    };
    assert!(discards == expected.discards && actual > discards);

    let silent = || {
        mistaken(|context, commands| match (context.id().as_number(), &commands.0[..]) {
            (Some(17), [Command::Verify { .. }]) => Ok(()),
            _ => interpret(context, commands),
        })
    };
    let found = wrong(run_with(config(1), silent, &plan, None));
    assert_eq!(found, Wrong::Reports { id: 17, times: 0 });

    let fails = || mistaken(|_, _| Err("it does not want to".into()));
    let outcomes = run_with(config(2), fails, &plan, None);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Failure::Stopped(_)))));
}

/// What an interpreter that is served elsewhere does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Mistake {
    None,
    /// Every third call fails, after it was worked on.
    Fails,
    /// The first increment of all is lost.
    Loses,
    /// Every message is sent twice.
    Doubles,
    /// What is to be sent in a millisecond is sent in a second. StateFun's own interpreter in JavaScript
    /// does so, and the instances that lacked something meanwhile were said to have lost it.
    Dawdles,
}

/// An interpreter that is served elsewhere.
struct Elsewhere {
    mistake: Mistake,
    calls: AtomicUsize,
    has_lost: AtomicBool,
}

impl Elsewhere {
    /// Serves it.
    fn start(mistake: Mistake) -> Server {
        let (calls, has_lost) = (AtomicUsize::new(0), AtomicBool::new(false));
        let elsewhere = Elsewhere { mistake, calls, has_lost };
        Server::start(move |request| elsewhere.serve(&request))
    }

    /// Follows commands as the interpreters of other languages do: a batch at a time, given the state.
    fn serve(&self, request: &Request) -> Answer {
        assert_eq!(request.path, "/command-interpreter-fn");
        let request = ToFunction::decode(&request.body[..]).unwrap().request.unwrap();
        let to_function::Request::Invocation(batch) = request;
        let target = batch.target.unwrap();
        let name = format!("{}/{}", target.namespace, target.r#type);
        assert_eq!(name, "statefun.smoke.e2e/command-interpreter-fn");
        let Some(state) = batch.state.iter().find(|state| state.state_name == "state") else {
            let missing = PersistedValueSpec {
                state_name: "state".to_owned(),
                expiration_spec: None,
                type_typename: type_names::INT.to_owned(),
            };
            let incomplete = IncompleteInvocationContext { missing_values: vec![missing] };
            return answer(Response::IncompleteInvocationContext(incomplete));
        };
        let before = state.state_value.as_ref().map(|value| value.typed().unwrap().read().unwrap());
        let before: i32 = before.unwrap_or(0);
        let (mut count, mut result) = (before, InvocationResponse::default());
        for invocation in batch.invocations {
            let argument = invocation.argument.unwrap();
            assert_eq!(argument.typename, "statefun.smoke.e2e/commands");
            for command in Commands::from_bytes(&argument.value).unwrap().0 {
                follow(&command, &target, &mut count, &mut result);
            }
        }
        if self.mistake == Mistake::Dawdles {
            result.delayed_invocations.iter_mut().for_each(|delayed| delayed.delay_in_ms = 1000);
        }
        match self.mistake {
            Mistake::Fails if self.calls.fetch_add(1, SeqCst) % 3 == 2 => {
                let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
                return Answer::Raw(head.as_bytes().to_vec());
            }
            Mistake::Loses if count > before && !self.has_lost.swap(true, SeqCst) => count -= 1,
            Mistake::Doubles => {
                result.outgoing_messages.extend(result.outgoing_messages.clone());
            }
            _ => {}
        }
        let state_value = Some(reqreply::TypedValue::of(&count));
        let state_name = "state".to_owned();
        result.state_mutations =
            vec![PersistedValueMutation { mutation_type: 1, state_name, state_value }];
        answer(Response::InvocationResult(result))
    }
}

fn answer(response: Response) -> Answer {
    Answer::Ok(FromFunction { response: Some(response) }.encode_to_vec())
}

fn follow(
    command: &Command,
    this: &reqreply::Address,
    count: &mut i32,
    result: &mut InvocationResponse,
) {
    let instance = |id: &i32| Some(reqreply::Address { id: id.to_string(), ..this.clone() });
    let value = |value: TypedValue| {
        Some(reqreply::TypedValue::new(value.type_name(), value.bytes().clone()).unwrap())
    };
    let record = |egress: &str, argument| EgressMessage {
        egress_namespace: "statefun.smoke.e2e".to_owned(),
        egress_type: egress.to_owned(),
        argument,
    };
    match command {
        Command::Increment => *count += 1,
        Command::Send { target, commands } => {
            let (target, argument) = (instance(target), value(TypedValue::of(commands)));
            result.outgoing_messages.push(Invocation { target, argument });
        }
        Command::SendAfter { target, commands, token } => {
            assert!(token.is_empty(), "interpreters elsewhere cancel nothing");
            let (target, argument) = (instance(target), value(TypedValue::of(commands)));
            let delayed =
                DelayedInvocation { delay_in_ms: 1, target, argument, ..Default::default() };
            result.delayed_invocations.push(delayed);
        }
        Command::SendEgress => {
            let anything = Some(reqreply::TypedValue::of(&"discarded".to_owned()));
            result.outgoing_egresses.push(record("discard-sink", anything));
        }
        Command::Verify { expected } => {
            let (id, actual) = (this.id.parse().unwrap(), i64::from(*count));
            let report = VerificationResult { id, expected: *expected, actual };
            let report = record("verification-sink", value(TypedValue::of(&report)));
            result.outgoing_egresses.push(report);
        }
        Command::AsyncOperation { .. } | Command::CancelSendAfter { .. } => {
            panic!("interpreters elsewhere cannot do this: {command:?}")
        }
    }
}

/// Runs a plan with an interpreter that is served elsewhere.
fn run_remote(workers: usize, mistake: Mistake) -> Vec<Result<Option<Outcome>, Failure>> {
    let server = Elsewhere::start(mistake);
    // What is lost is waited for as long as commands are deep.
    let depth = if mistake == Mistake::Loses { 2 } else { 10 };
    let plan = Plan { embedded: false, operations: false, depth, ..plan(5, 1000, 40) };
    let endpoint = Endpoint::at(server.url());
    run(config(workers), Interpreter::Remote(endpoint), &plan, None)
}

#[test]
fn an_interpreter_that_is_served_elsewhere_counts_exactly() {
    for workers in [1, 2] {
        let outcome = exact(run_remote(workers, Mistake::None)).unwrap();
        assert_eq!(outcome.work.crossed > 0, workers > 1);
    }
}

/// With everything that an interpreter can do: operations are waited for within its calls.
#[test]
fn the_interpreter_of_this_program_counts_exactly_where_it_is_served() {
    let functions = || interpreter::functions(&Interpreter::Embedded, runtime().handle().clone());
    let options = ServedOptions { threads: 2, ..ServedOptions::default() };
    let served = ServedFunctions::with(options, functions).unwrap();
    let serving = serve::Server::new(served).bind("127.0.0.1:0");
    let serving = runtime().block_on(serving).unwrap();
    let plan = Plan { embedded: false, ..plan(11, 2000, 40) };
    for workers in [1, 2] {
        for endpoint in [Endpoint::at(serving.url()), Endpoint::at(serving.url()).grpc()] {
            exact(run(config(workers), Interpreter::Remote(endpoint), &plan, None)).unwrap();
        }
    }
    assert_eq!(runtime().block_on(serving.shutdown()).requests_cut, 0);
}

#[test]
fn calls_that_fail_count_once() {
    exact(run_remote(2, Mistake::Fails)).unwrap();
}

#[test]
fn an_interpreter_that_delays_for_longer_counts_exactly() {
    exact(run_remote(1, Mistake::Dawdles)).unwrap();
}

#[test]
fn what_an_interpreter_elsewhere_loses_or_doubles_is_found() {
    let lost = wrong(run_remote(1, Mistake::Loses));
    let Wrong::Under { expected, actual, short: 1, .. } = lost else { panic!("{lost}") };
    assert_eq!(actual + 1, expected);
    let doubled = wrong(run_remote(1, Mistake::Doubles));
    assert!(matches!(doubled, Wrong::Over { .. }), "{doubled}");
}

fn commands(commands: impl IntoIterator<Item = Command>) -> Commands {
    Commands(commands.into_iter().collect())
}

#[test]
fn messages_are_written_as_commands_proto_says() {
    let one = commands([Command::Increment]);
    let token = "to".to_owned();
    let cases: Vec<(Command, &[u8])> = vec![
        (Command::Increment, &[0x0a, 0]),
        (
            Command::Send { target: 300, commands: one.clone() },
            &[0x12, 9, 0x08, 0xac, 0x02, 0x12, 4, 0x0a, 2, 0x0a, 0],
        ),
        // Numbers that are zero are not written; messages that are empty are.
        (Command::Send { target: 0, commands: Commands::default() }, &[0x12, 2, 0x12, 0]),
        (
            Command::SendAfter { target: 1, commands: Commands::default(), token: token.clone() },
            &[0x1a, 8, 0x08, 1, 0x12, 0, 0x1a, 2, b't', b'o'],
        ),
        (Command::SendEgress, &[0x22, 0]),
        (
            Command::AsyncOperation { failure: true, resolved: one.clone() },
            &[0x2a, 8, 0x08, 1, 0x12, 4, 0x0a, 2, 0x0a, 0],
        ),
        (
            Command::Verify { expected: -1 },
            &[0x32, 11, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ),
        (Command::Verify { expected: 0 }, &[0x32, 0]),
        (Command::CancelSendAfter { target: 2, token }, &[0x3a, 6, 0x08, 2, 0x12, 2, b't', b'o']),
    ];
    for (command, expected) in cases {
        let all = commands([Command::SendEgress, command]);
        let expected = [&[0x0a, 2, 0x22, 0, 0x0a, expected.len() as u8], expected].concat();
        assert_eq!(all.to_bytes(), expected, "{all:?}");
        assert_eq!(Commands::from_bytes(&expected).unwrap(), all);
    }
    let source = SourceCommand { target: 7, commands: one };
    assert_eq!(source.to_bytes(), [0x08, 7, 0x12, 4, 0x0a, 2, 0x0a, 0][..]);
    let report = VerificationResult { id: 1, expected: 2, actual: 300 };
    assert_eq!(report.to_bytes(), [0x08, 1, 0x10, 2, 0x18, 0xac, 0x02][..]);
    assert_eq!(VerificationResult::from_bytes(&report.to_bytes()).unwrap(), report);
}

#[test]
fn messages_are_read_as_protobuf_allows_and_nothing_else_is() {
    // In another order, twice, in parts, and with fields that nobody knows.
    let bytes = [
        0x12, 4, 0x0a, 2, 0x0a, 0, 0x08, 1, 0x08, 2, 0x12, 4, 0x0a, 2, 0x22, 0, 0x98, 0x06, 5,
        0xa2, 0x06, 1, 9, 0x5d, 1, 2, 3, 4, 0x59, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    let both = commands([Command::Increment, Command::SendEgress]);
    let expected = SourceCommand { target: 2, commands: both };
    assert_eq!(SourceCommand::from_bytes(&bytes).unwrap(), expected);

    let malformed: [(&[u8], &str); 9] = [
        (&[0x08], "end within"),
        (&[0x12, 4, 0x0a, 2], "end within"),
        (&[0x59, 1], "end within"),
        (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "end within"),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "64 bits"),
        (&[0x00, 0], "field 0"),
        (&[0x0b], "field 1"),
        (&[0x10, 1], "field 2"),
        // A command that is none must not be passed over in silence.
        (&[0x12, 2, 0x0a, 0], "says nothing"),
    ];
    for (bytes, why) in malformed {
        let error = SourceCommand::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{bytes:02x?}: {error}");
    }
    assert!(Commands::from_bytes(&[0x0a, 5, 0x3a, 3, 0x12, 1, 0xff]).is_err());
}

#[test]
fn every_message_that_is_made_is_read_as_it_was() {
    let plan = Plan { depth: 30, ..plan(8, 2000, 1000) };
    for number in 0..plan.messages {
        let message = plan.message(number);
        let bytes = message.to_bytes();
        assert_eq!(SourceCommand::from_bytes(&bytes).unwrap(), message);
        for cut in 0..bytes.len() {
            let _ = SourceCommand::from_bytes(&bytes[..cut]);
        }
    }
}

/// How deep, and how many of each kind: increments, sent, delayed, egress, operations, cancelled.
fn census(commands: &Commands, kinds: &mut [u64; 6]) -> u64 {
    let mut depth = 0;
    assert!(!commands.0.is_empty() && commands.0.len() <= 4);
    for command in &commands.0 {
        let (kind, within) = match command {
            Command::Increment => (0, None),
            Command::Send { commands, .. } => (1, Some(commands)),
            Command::SendAfter { commands, token, .. } if token.is_empty() => (2, Some(commands)),
            Command::SendEgress => (3, None),
            Command::AsyncOperation { resolved, .. } => (4, Some(resolved)),
            Command::SendAfter { commands, .. } => {
                assert_eq!(commands.0, []);
                continue;
            }
            Command::CancelSendAfter { .. } => (5, None),
            Command::Verify { .. } => panic!("nothing is asked yet"),
        };
        kinds[kind] += 1;
        depth = depth.max(within.map_or(0, |within| 1 + census(within, kinds)));
    }
    depth
}

#[test]
fn commands_are_drawn_by_their_weights_and_no_deeper_than_planned() {
    for has_operations in [true, false] {
        let plan = Plan { operations: has_operations, ..plan(9, 100_000, 1000) };
        let mut kinds = [0; 6];
        let depths = (0..plan.messages).map(|number| {
            let message = plan.message(number);
            assert!((0..1000).contains(&message.target));
            census(&message.commands, &mut kinds)
        });
        assert_eq!(depths.max(), Some(plan.depth - 1), "{has_operations}");
        let [_, sent, delayed, egress, operations, cancelled] = kinds.map(|kind| kind as f64);
        let is_near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.1;
        assert!(is_near(sent / delayed, 9.0) && is_near(sent / egress, 30.0), "{kinds:?}");
        match has_operations {
            true => assert!(is_near(sent / operations, 9.0) && is_near(sent / cancelled, 9.0)),
            false => assert_eq!((kinds[4], kinds[5]), (0, 0)),
        }
    }
}

#[test]
fn what_commands_add_up_to_is_known() {
    let token = "t".to_owned();
    let within = commands([Command::Increment, Command::SendEgress, Command::Increment]);
    let cancelled = within.clone();
    let all = commands([
        Command::Increment,
        Command::Send { target: 1, commands: within.clone() },
        Command::SendAfter { target: 2, commands: within.clone(), token: String::new() },
        Command::AsyncOperation { failure: true, resolved: within },
        Command::SendAfter { target: 3, commands: cancelled, token: token.clone() },
        Command::CancelSendAfter { target: 3, token },
    ]);
    let mut tracker = Tracker { counts: vec![0; 4], ..Tracker::default() };
    tracker.apply(&SourceCommand { target: 0, commands: all });
    assert_eq!(tracker, Tracker { counts: vec![3, 2, 2, 0], told: 4, discards: 3 });
    assert_eq!(tracker.increments(), 7);
}

/// The example, which `cargo test` builds before it runs tests.
fn program() -> Program {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("smoke{}", std::env::consts::EXE_SUFFIX);
    let program = profile.join("examples").join(name);
    let missing = "is not built: run `cargo build --example smoke` first";
    assert!(program.exists(), "{} {missing}", program.display());
    let mut program = Program::new(program);
    program.args(["--messages", "3000", "--instances", "128"]);
    program
}

#[test]
fn the_program_says_that_all_is_well_or_what_is_not() {
    let plan = plan(1, 3000, 128);
    let increments = Tracker::of(&plan).increments();
    let expected =
        format!("smoke: 128 instances, 3000 messages, {increments} increments, all counts exact, ");
    for processes in [1, 2] {
        for (how, says) in [("", ""), ("lose", "something is lost"), ("double", "happened twice")] {
            let file = format!("smoke-hosts-{}", std::process::id());
            let hosts = std::env::temp_dir().join(file);
            let outcomes = cluster::run_command(processes, |process, addresses| {
                std::fs::write(&hosts, addresses.join("\n")).unwrap();
                let mut command = program();
                command.args(["-w", "2", "-h", hosts.to_str().unwrap()]);
                command.args(["-n", &processes.to_string(), "-p", &process.to_string()]);
                if !how.is_empty() {
                    command.args(["--break", how]);
                }
                command
            });
            std::fs::remove_file(&hosts).unwrap();
            for outcome in &outcomes {
                assert_eq!(outcome.success, how.is_empty(), "{}", outcome.output);
                assert!(outcome.output.contains(says), "{}", outcome.output);
            }
            let last = |at: usize| {
                outcomes[at].output.lines().filter(|line| line.starts_with(&expected)).count()
            };
            let exact: Vec<usize> = (0..processes).map(last).collect();
            assert_eq!(exact[0], usize::from(how.is_empty()), "{}", outcomes[0].output);
            assert!(exact[1..].iter().all(|lines| *lines == 0));
        }
    }
}

#[test]
fn the_program_drives_an_interpreter_elsewhere_and_reports_wrong_arguments() {
    let server = Elsewhere::start(Mistake::None);
    let output = program().args(["--remote", &server.url(), "-w", "2"]).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all counts exact"), "{out}{err}");

    let wrong = [
        &["--instances", "0"][..],
        &["--depth", "31"],
        &["--seed", "x"],
        &["--break", "all"],
        &["--remote", "ftp://localhost"],
        &["extra"],
    ];
    for wrong in wrong {
        let output = program().args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}");
    }
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--remote"));
}
