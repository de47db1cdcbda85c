//! Spans are there at their levels, with the fields that are promised; calls say to which trace they belong, where
//! the program says so; and timely's own logging goes on beside it.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use protocol::*;
use server::Server;
use timely::dataflow::operators::Input;
use timely::logging::{TimelyEvent, TimelyEventBuilder};
use timely_statefun::{
    Endpoint, Envelope, Function, FunctionType, Functions, StatefulFunctions, TraceContext,
    TypedValue,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// A span or an event.
#[derive(Clone, Debug, Default)]
struct Seen {
    target: &'static str,
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// What all threads of this process tell, down to a level.
#[derive(Default)]
struct Recorder {
    /// 0 for nothing, and 5 for traces.
    depth: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

impl Recorder {
    fn push(&self, of: &'static Metadata<'static>, record: impl FnOnce(&mut Seen)) -> u64 {
        let mut seen = Seen { target: of.target(), name: of.name(), ..Seen::default() };
        record(&mut seen);
        let mut all = self.seen.lock().unwrap();
        all.push(seen);
        all.len() as u64
    }
}

struct Recording(Arc<Recorder>);

impl Subscriber for Recording {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        let at = levels.iter().position(|level| level == of.level()).unwrap();
        at < self.0.depth.load(SeqCst) && of.target().starts_with("timely_statefun::")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Id::from_u64(self.0.push(span.metadata(), |seen| span.record(seen)))
    }
    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.0.seen.lock().unwrap();
        values.record(&mut all[span.into_u64() as usize - 1]);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.0.push(event.metadata(), |seen| event.record(seen));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What is told while something runs, down to the level of this depth. One at a time.
fn told<R>(depth: usize, run: impl FnOnce() -> R) -> (R, Vec<Seen>) {
    static ONE: Mutex<()> = Mutex::new(());
    static RECORDER: OnceLock<Arc<Recorder>> = OnceLock::new();
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let recorder = RECORDER.get_or_init(|| {
        let recorder = Arc::<Recorder>::default();
        tracing::subscriber::set_global_default(Recording(Arc::clone(&recorder))).unwrap();
        recorder
    });
    recorder.depth.store(depth, SeqCst);
    let result = run();
    recorder.depth.store(0, SeqCst);
    (result, std::mem::take(&mut recorder.seen.lock().unwrap()))
}

/// Greets, and says with which trace contexts it was called.
fn greeted(
    functions: impl Fn(Endpoint) -> Functions<TypedValue> + Send + Sync + 'static,
    messages: Vec<(u64, Envelope<TypedValue>)>,
) -> Vec<Option<String>> {
    let asked = Arc::<Mutex<Vec<_>>>::default();
    let heard = Arc::clone(&asked);
    let server = Server::start(move |request| {
        let found = request.headers.iter().filter(|(name, _)| name == "traceparent");
        let mut found: Vec<_> = found.map(|(_, value)| value.clone()).collect();
        assert!(found.len() <= 1, "{found:?}");
        heard.lock().unwrap().push(found.pop());
        greeter(&batch(&request))
    });
    let url = format!("http://{}/", server.address);
    let count = messages.len();
    let ran = run_on(1, move || functions(Endpoint::at(&url)), messages);
    assert_eq!(ran.greetings.len(), count, "{ran:?}");
    asked.lock().unwrap().clone()
}

fn spans<'a>(told: &'a [Seen], name: &str) -> Vec<&'a Seen> {
    told.iter().filter(|seen| seen.name == name).collect()
}

#[test]
fn each_call_says_the_numbers_that_its_span_has() {
    let messages = vec![greet(0, "ann"), greet(0, "bob")];
    let (asked, told) = told(4, || greeted(|at| remote(at).traced(), messages));
    let calls = spans(&told, "call");
    // Each is asked for its state first.
    assert_eq!((calls.len(), asked.len()), (4, 4));
    let said: BTreeSet<String> = asked.into_iter().map(|said| said.unwrap()).collect();
    let number = |call: &Seen, field| call.fields[field].clone();
    let spanned: BTreeSet<String> = calls
        .iter()
        .map(|call| format!("00-{}-{}-01", number(call, "trace_id"), number(call, "span_id")))
        .collect();
    assert_eq!(said, spanned);
    let traces: BTreeSet<u128> =
        said.iter().map(|said| said.parse::<TraceContext>().unwrap().trace_id()).collect();
    assert_eq!((said.len(), traces.len()), (4, 4), "each is a trace of its own");
    for call in calls {
        assert_eq!(call.target, "timely_statefun::call");
        assert_eq!(call.fields["function"], "example/greeter");
        assert!(["ann", "bob"].contains(&call.fields["id"].as_str()), "{call:?}");
        assert_eq!(call.fields["messages"], "1");
    }
}

#[test]
fn a_call_goes_on_with_the_trace_that_a_message_carries() {
    let carried = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let of = |message: &TypedValue| match message.read::<String>().ok()?.as_str() {
        "panics" => panic!("it was told to"),
        text => text.parse().ok(),
    };
    let messages = vec![
        (0, GREETER.message("ann", carried.to_owned())),
        (1, GREETER.message("bob", "panics".to_owned())),
    ];
    let functions = move |at| remote(at).traced_by(of);
    let (asked, told) = told(5, || greeted(functions, messages));
    let carried: TraceContext = carried.parse().unwrap();
    let asked: Vec<TraceContext> =
        asked.into_iter().map(|said| said.unwrap().parse().unwrap()).collect();
    let (its, others): (Vec<TraceContext>, Vec<TraceContext>) =
        asked.into_iter().partition(|said| said.trace_id() == carried.trace_id());
    assert_eq!((its.len(), others.len()), (2, 2));
    assert!(its.iter().all(|said| !said.is_sampled() && said.parent_id() != carried.parent_id()));
    assert!(others.iter().all(|said| said.is_sampled()), "nothing is said of theirs");
    // What the answers do is done in the traces of their messages.
    let invocations = spans(&told, "invocation");
    let traces: BTreeMap<&str, Option<&String>> = invocations
        .iter()
        .map(|span| (span.fields["id"].as_str(), span.fields.get("trace_id")))
        .collect();
    let trace = format!("{:032x}", carried.trace_id());
    assert_eq!(traces, BTreeMap::from([("ann", Some(&trace)), ("bob", None)]));
}

#[test]
fn by_default_nothing_is_said_and_spans_are_there_at_their_levels() {
    let run = |depth| {
        let echo = || {
            Function::<TypedValue, String>::new(|context, text: &String| {
                context.send(GREETER, "ann", text.clone());
                Ok(())
            })
        };
        const ECHO: FunctionType<String> = FunctionType::new("example/echo");
        let messages = vec![(0, ECHO.message("e", "Ann".to_owned()))];
        let functions = move |at| remote(at).embedded(ECHO, echo());
        let (asked, told) = told(depth, || greeted(functions, messages));
        assert_eq!(asked, [None, None]);
        let named: Vec<(&str, String)> = told
            .iter()
            .filter(|seen| ["call", "invocation"].contains(&seen.name))
            .map(|seen| (seen.name, format!("{} {}", seen.fields["function"], seen.fields["id"])))
            .collect();
        assert!(told.iter().all(|seen| !seen.fields.contains_key("trace_id")));
        named
    };
    let greeter = || "example/greeter ann".to_owned();
    assert_eq!(run(3), []);
    assert_eq!(run(4), [("call", greeter()), ("call", greeter())]);
    let all = run(5);
    assert_eq!(all[0], ("invocation", "example/echo e".to_owned()));
    assert_eq!(all[1..], [("call", greeter()), ("call", greeter()), ("invocation", greeter())]);
}

#[test]
fn attempts_that_fail_are_told_in_the_logs() {
    let served = AtomicUsize::new(0);
    let server = Server::start(move |request| match served.fetch_add(1, SeqCst) {
        0 => server::Answer::status(503, "not yet"),
        _ => greeter(&batch(&request)),
    });
    let url = format!("http://{}/", server.address);
    let (ran, told) = told(4, || {
        let quick = move || remote(Endpoint::at(&url).retry_first(Duration::from_millis(1)));
        run_on(1, quick, vec![greet(0, "ann")])
    });
    assert_eq!(ran.greetings.len(), 1, "{ran:?}");
    let message = |seen: &&Seen| {
        seen.fields.get("message").map(String::as_str) == Some("an attempt at a call failed")
    };
    let failed: Vec<&Seen> = told.iter().filter(message).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].fields["error"].contains("503"), "{failed:?}");
}

/// Nobody need know how functions are built of operators to see which of them are busy.
#[test]
fn timelys_own_logging_has_the_operators_by_name() {
    // What is told here is none of the business of tests that hear what is told.
    let ((names, scheduled), _) = told(0, || {
        timely::execute_directly(|worker| {
            let names: Rc<RefCell<BTreeMap<usize, String>>> = Rc::default();
            let scheduled: Rc<RefCell<BTreeSet<usize>>> = Rc::default();
            let (known, busy) = (Rc::clone(&names), Rc::clone(&scheduled));
            let mut log = worker.log_register().expect("this worker logs");
            log.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
                for (_, event) in events.iter().flat_map(|events| events.iter()) {
                    match event {
                        TimelyEvent::Operates(operator) => {
                            known.borrow_mut().insert(operator.id, operator.name.clone());
                        }
                        TimelyEvent::Schedule(schedule) => {
                            busy.borrow_mut().insert(schedule.id);
                        }
                        _ => {}
                    }
                }
            });
            drop(log);
            let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input();
                let person = Function::<u64, u64>::new(|_, _| Ok(()));
                const PERSON: FunctionType<u64> = FunctionType::new("example/person");
                let functions = Functions::new().named("people").embedded(PERSON, person);
                (input, stream.stateful_functions(functions).unwrap().handle())
            });
            input.send(FunctionType::<u64>::new("example/person").message("Ada", 1));
            input.close();
            handle.run(worker).unwrap();
            worker.log_register().expect("this worker logs").remove("timely");
            (names.take(), scheduled.take())
        })
    });
    for name in ["Loop [people]", "Gate [people 0]"] {
        let id = names.iter().find(|(_, known)| *known == name).map(|(id, _)| *id);
        let id = id.unwrap_or_else(|| panic!("there is no {name}: {names:?}"));
        assert!(scheduled.contains(&id), "{name} was never scheduled");
    }
}
