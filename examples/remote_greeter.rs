//! Greets people with functions that are part of the program, and with the same functions served elsewhere: over
//! TCP, over a Unix socket, and over gRPC. What comes out, and what is kept in the end, is the same.
//!
//! `cargo run --release --example remote_greeter`, or `-- -w 2` for two workers

use std::sync::{Arc, Mutex};
use std::time::Duration;

use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::serve::{ServedFunctions, Server};
use timely_statefun::{Context, FunctionResult, TableSpec, TypedValue, ValueSpec};
use timely_statefun::{
    Egress, Endpoint, Envelope, Function, FunctionType, Functions, StatefulFunctions,
};

const PERSON: FunctionType<String> = FunctionType::new("example/person");
const BOOK: FunctionType<String> = FunctionType::new("example/book");
const GREETINGS: Egress<String> = Egress::new("example/greetings");
const PAGES: Egress<String> = Egress::new("example/pages");
const SEEN: ValueSpec<i32> = ValueSpec::new("seen");
const GUESTS: TableSpec<String, i32> = TableSpec::new("guests");

const NAMES: [&str; 8] = ["Ada", "Grace", "Ada", "Barbara", "Alan", "Grace", "Ada", "Barbara"];
/// Asks for what is on a page of the book.
const QUESTION: &str = "?";

/// Greets somebody, and has the name written into the book, on the page of its first letter.
fn greet(context: &mut Context<'_, TypedValue>, name: &String) -> FunctionResult {
    let seen = context.update(SEEN, |seen| *seen += 1);
    let greeting = match seen {
        1 => format!("Hello, {name}!"),
        _ => format!("Hello again, {name}, for the {seen}. time!"),
    };
    context.emit(GREETINGS, greeting);
    context.send(BOOK, &name[..1], name.clone());
    Ok(())
}

fn write_down(context: &mut Context<'_, TypedValue>, name: &String) -> FunctionResult {
    if name == QUESTION {
        let mut guests = context.table(GUESTS);
        let mut guests: Vec<_> =
            guests.iter().map(|(name, times)| format!("{name} {times}")).collect();
        guests.sort_unstable();
        let page = context.id().clone();
        context.emit(PAGES, format!("page {page}: {}", guests.join(", ")));
    } else {
        context.table(GUESTS).update(name.clone(), |times| *times += 1);
    }
    Ok(())
}

fn egresses() -> Functions<TypedValue> {
    Functions::new().typed_egress(GREETINGS).typed_egress(PAGES)
}

/// The functions as part of a program.
fn embedded() -> Functions<TypedValue> {
    let person = Function::new(greet).value(SEEN);
    let book = Function::new(write_down).table(GUESTS);
    egresses().embedded(PERSON, person).embedded(BOOK, book)
}

/// The same functions, served elsewhere.
fn remote(endpoint: Endpoint) -> Functions<TypedValue> {
    egresses().remote(PERSON, endpoint.clone()).remote(BOOK, endpoint)
}

/// Greets everybody, and looks into the book. Gives all lines in alphabetical order.
fn run(functions: impl Fn() -> Functions<TypedValue> + Send + Sync + 'static) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&lines);
    let workers = timely_statefun::execute_from_args(std::env::args(), move |worker| {
        let (mut input, done, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let egresses = stream.stateful_functions(functions()).expect("bound once each");
            let [greetings, pages] = [GREETINGS, PAGES].map(|egress| {
                let lines = Arc::clone(&lines);
                let stream = egresses.stream(egress).expect("it is bound");
                stream.inspect(move |line| lines.lock().unwrap().push(line.clone()))
            });
            drop(pages);
            (input, greetings.probe().0, egresses.handle())
        });
        let is_first = worker.index() == 0;
        if is_first {
            NAMES.iter().for_each(|name| input.send(PERSON.message(*name, (*name).to_owned())));
        }
        input.advance_to(1);
        // Everybody is in the book when nothing can be caused any more that is of the time of the names.
        while done.less_than(&1) {
            worker.step_or_park(Some(Duration::from_millis(10)));
        }
        if is_first {
            for page in ["A", "B", "G"] {
                input.send(BOOK.message(page, QUESTION.to_owned()));
            }
        }
        input.close();
        handle.run(worker).map_err(|stopped| stopped.to_string())
    });
    let workers = workers.expect("no worker fails");
    workers.into_iter().for_each(|ended| ended.expect("no call fails"));
    let mut lines = std::mem::take(&mut *all.lock().unwrap());
    lines.sort_unstable();
    lines
}

fn main() {
    let expected = run(embedded);
    expected.iter().for_each(|line| println!("{line}"));

    let runtime = tokio::runtime::Runtime::new().expect("the system lets threads start");
    let served = ServedFunctions::new(embedded).expect("these functions can be served");
    let server = Server::new(served);
    let serving =
        runtime.block_on(server.clone().bind("127.0.0.1:0")).expect("there is a free port");
    let socket = std::env::temp_dir().join(format!("remote-greeter-{}.sock", std::process::id()));
    let beside = runtime.block_on(server.bind_unix(&socket)).expect("nobody is there");
    let ways = [
        ("over TCP", Endpoint::at(serving.url())),
        ("over a Unix socket", Endpoint::at(format!("{}/", beside.url()))),
        ("over gRPC", Endpoint::at(serving.url()).grpc()),
    ];
    let runtime_of_calls = runtime.handle().clone();
    for (way, endpoint) in ways {
        let runtime = runtime_of_calls.clone();
        let found = run(move || remote(endpoint.clone()).runtime(runtime.clone()));
        assert_eq!(found, expected, "{way}");
        println!("the same {way}");
    }
    for serving in [serving, beside] {
        let ended = runtime.block_on(serving.shutdown());
        assert_eq!(ended.requests_cut, 0);
    }
    println!("{} lines, four times the same", expected.len());
}
