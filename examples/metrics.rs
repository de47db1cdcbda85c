//! A program whose metrics are served to Prometheus, or to whoever else reads its format:
//!
//! ```sh
//! cargo run --release --example metrics
//! ```
//!
//! It fetches them itself, over loopback, checks that they say what it did, and shows some. A program that goes on
//! would be scraped at `/metrics` meanwhile.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::metering::{FUNCTION_DEAD_LETTERS, FUNCTION_IN, Metering};
use timely_statefun::{
    Egress, Function, FunctionType, Functions, OnFailure, StatefulFunctions, ValueSpec,
};
use tokio::net::TcpListener;

/// Is told of visits, and tells every tenth to the house.
const PERSON: FunctionType<u64> = FunctionType::new("example/person");
const HOUSE: FunctionType<u64> = FunctionType::new("example/house");
const VISITS: ValueSpec<u64> = ValueSpec::new("visits");
const ROUND: Egress<u64> = Egress::new("example/round");

const PEOPLE: u64 = 100;
const VISITS_EACH: u64 = 25;
const WORKERS: usize = 2;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn functions() -> Functions<u64> {
    let person = Function::new(|context, count: &u64| {
        if *count == 0 {
            return Err("nobody came".into());
        }
        let visits = context.update(VISITS, |visits| *visits += count);
        // A counter of its own, beside those that every function has.
        context.counter("example_visits").increment(*count);
        if visits % 10 == 0 {
            context.send(HOUSE, 0, visits);
        }
        Ok(())
    });
    let house = Function::new(|context, visits: &u64| {
        context.emit(ROUND, *visits);
        Ok(())
    });
    // What is told while it runs is at most so old. When it ends, everything is told.
    let metering =
        Metering::new().every(Duration::from_millis(500)).times_in_ms(|time| Some(*time));
    Functions::new()
        .named("visits")
        .embedded(PERSON, person.value(VISITS).on_failure(OnFailure::DeadLetter))
        .embedded(HOUSE, house)
        .egress(ROUND)
        .metering(metering)
}

/// Serves what is known at `/metrics`.
async fn serve(listener: TcpListener, shown: PrometheusHandle) {
    while let Ok((stream, _)) = listener.accept().await {
        let shown = shown.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let (status, text) = match request.uri().path() {
                "/metrics" => (StatusCode::OK, shown.render()),
                _ => (StatusCode::NOT_FOUND, String::new()),
            };
            let response = Response::builder().status(status);
            let response = response.header(CONTENT_TYPE, "text/plain; version=0.0.4");
            let response = response.body(Full::new(Bytes::from(text)));
            async move { response }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
    }
}

/// The sum of what all workers tell under a name, with labels that contain `of`.
fn sum(text: &str, name: &str, of: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let values = lines.filter(|line| line.contains(of)).map(|line| {
        let value = line.rsplit_once(' ').expect("a line ends with a value").1;
        value.parse::<f64>().expect("a value is a number")
    });
    values.sum()
}

fn main() -> Result<(), AnyError> {
    // Before any dataflow is built.
    let shown = PrometheusBuilder::new().install_recorder()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let url = format!("http://{}/metrics", listener.local_addr()?);
    let serving = runtime.spawn(serve(listener, shown));

    let guards = timely::execute(timely::Config::process(WORKERS), |worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input();
            let egresses = stream.stateful_functions(functions()).expect("they fit together");
            egresses.stream(ROUND).expect("it is bound").inspect(|_| {});
            egresses.dead_letters().expect("nobody else takes them").inspect(|_| {});
            (input, egresses.handle())
        });
        if worker.index() == 0 {
            for visit in 0..VISITS_EACH {
                for person in 0..PEOPLE {
                    input.send(PERSON.message(person, 1));
                }
                input.advance_to(visit + 1);
            }
            input.send(PERSON.message("nobody", 0));
        }
        input.close();
        handle.run(worker)
    })?;
    for ended in guards.join() {
        ended??;
    }

    let text = runtime.block_on(async { reqwest::get(&url).await?.text().await })?;
    serving.abort();
    let to = |function: &str| sum(&text, FUNCTION_IN.name, &format!("function=\"{function}\""));
    assert_eq!(to("example/person"), (PEOPLE * VISITS_EACH + 1) as f64);
    assert_eq!(to("example/house"), (PEOPLE * (VISITS_EACH / 10)) as f64);
    assert_eq!(sum(&text, FUNCTION_DEAD_LETTERS.name, "reason=\"failed\""), 1.0);
    assert_eq!(sum(&text, "example_visits", ""), (PEOPLE * VISITS_EACH) as f64);
    println!("{url} has {} lines, among them:", text.lines().count());
    let some = ["function_in", "function_out_", "dead_letters", "loop_", "bin_", "example_visits"];
    for line in text.lines().filter(|line| some.iter().any(|some| line.contains(some))) {
        println!("{line}");
    }
    Ok(())
}
