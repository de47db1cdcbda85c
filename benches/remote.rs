//! How close do calls of remote functions come to bare `reqwest`, and functions served to a bare server?
//!
//! * *Calls*: 1, 16 and 256 in flight, over HTTP/1.1 and HTTP/2 with prior knowledge, each about one
//!   message for an address of its own, which answers with an egress record. The *ceiling* is as many
//!   tasks on the same runtime that post a request of the same bytes and read the answer, with one
//!   `reqwest` client and nothing else. Both run in turn, three times; what is shown is the median.
//! * *Latency*: from giving a message to the dataflow until its egress record comes out of it; for
//!   `reqwest`, from sending to having read the answer. Median and 99th percentile, in microseconds.
//! * *Processor time* of this process for each call, which the machine's other work disturbs least.
//! * *Backlog*: messages for 10 and for 1,000 addresses, given as fast as the dataflow takes them, so that
//!   they travel in batches; messages each second, and messages in a call.
//!
//! * *Served*: the same tasks with `reqwest` call the bare server and one of `serve`, each of which says what it
//!   was asked; both run in turn, three times. Calls each second, and processor time of the server for each.
//!
//! The bare server is a process of its own (`hyper`, one thread), which reads each request with the same
//! messages that the library uses. That of `serve` is one as well, with one thread for functions and one for HTTP.
//!
//! `cargo bench --bench remote`, or `-- --quick` for about a minute; `only=h2c-256`,
//! `only=http1-backlog-10` or `only=served-http1-16` for a single case. Each figure is one line of JSON; what
//! a person wants to know goes to the standard error.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::{Input, Inspect};
use timely::worker::Worker;
use timely_statefun::serve::{self, ServedFunctions, ServedOptions};
use timely_statefun::{
    Context, Egress, Endpoint, Envelope, Function, FunctionType, Functions, Handle, Limits,
    StatefulFunctions, TypedValue,
};
use timely_statefun_proto::reqreply::from_function::{self, EgressMessage, InvocationResponse};
use timely_statefun_proto::reqreply::to_function::{Invocation, InvocationBatchRequest};
use timely_statefun_proto::reqreply::{self, FromFunction, ToFunction, to_function};
use timely_statefun_proto::{BuiltIn, Message as _};
use tokio::runtime::Runtime;

const ECHO: FunctionType<i64> = FunctionType::new("bench/echo");
const ECHOES: Egress<i64> = Egress::new("bench/echoes");
const OCTETS: &str = "application/octet-stream";
const CALLS: &[usize] = &[1, 16, 256];
/// What an echo says: its address, and when it was asked for.
const ADDRESS_BITS: u32 = 10;

fn exit_with_input() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}

/// Serves an echo as a function until the standard input is closed, and says where.
fn serve_functions() {
    exit_with_input();
    let echo = || {
        let echo = Function::new(|context: &mut Context<'_, TypedValue>, said: &i64| {
            context.emit(ECHOES, *said);
            Ok(())
        });
        Functions::<TypedValue>::new().embedded(ECHO, echo).typed_egress(ECHOES)
    };
    let options = ServedOptions { threads: 1, ..ServedOptions::default() };
    let served = ServedFunctions::with(options, echo).expect("an echo can be served");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(async move {
        let server = serve::Server::new(served).streams_max(2048);
        let serving = server.bind("127.0.0.1:0").await.expect("there is a free port");
        println!("{}", serving.local_addr().expect("it has one").port());
        std::future::pending::<()>().await;
    });
}

/// Serves until the standard input is closed, and says where.
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    println!("{}", listener.local_addr().expect("it has one").port());
    listener.set_nonblocking(true).expect("it can be");
    exit_with_input();
    let calls = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
        loop {
            let (stream, _) = listener.accept().await.expect("connections come");
            stream.set_nodelay(true).expect("it is a socket");
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().max_concurrent_streams(2048);
                let answer = service_fn(move |request| answer(request, Arc::clone(&calls)));
                // A client that goes away is no concern of the server's.
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
}

async fn answer(
    request: Request<Incoming>,
    calls: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = if request.uri().path() == "/calls" {
        Bytes::from(calls.swap(0, Relaxed).to_string())
    } else {
        calls.fetch_add(1, Relaxed);
        let body = request.into_body().collect().await.expect("the body comes").to_bytes();
        let asked = ToFunction::decode(body).expect("it is a request").request;
        let Some(to_function::Request::Invocation(batch)) = asked else { panic!("it is a batch") };
        let echoes = batch.invocations.into_iter().map(|invocation| EgressMessage {
            egress_namespace: "bench".to_owned(),
            egress_type: "echoes".to_owned(),
            argument: invocation.argument,
        });
        let outgoing_egresses = echoes.collect();
        let result = InvocationResponse { outgoing_egresses, ..InvocationResponse::default() };
        let response = Some(from_function::Response::InvocationResult(result));
        FromFunction { response }.encode_to_vec().into()
    };
    let response = Response::builder().header(header::CONTENT_TYPE, OCTETS).body(Full::new(body));
    Ok(response.expect("it is a response"))
}

/// The server, while it is needed.
struct Server {
    process: Child,
    base: String,
}

impl Server {
    /// With what this program does when it is told so.
    fn start(task: &str) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut process = Command::new(program)
            .arg(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let mut port = String::new();
        let said = process.stdout.take().expect("it is a pipe");
        BufReader::new(said).read_line(&mut port).expect("it says where it listens");
        Server { process, base: format!("http://127.0.0.1:{}", port.trim()) }
    }

    fn cpu(&self) -> Duration {
        cpu_of(&self.process.id().to_string())
    }

    fn url(&self) -> String {
        format!("{}/{{function.name}}", self.base)
    }

    /// How many calls there were since this was last asked.
    fn calls(&self, runtime: &Runtime) -> usize {
        let url = format!("{}/calls", self.base);
        let asked = runtime.block_on(async { reqwest::get(url).await?.text().await });
        asked.expect("the server answers").parse().expect("it is a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a run came to.
struct Figures {
    per_second: f64,
    median_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

/// Processor time that this process has used (Linux; elsewhere 0).
fn cpu() -> Duration {
    cpu_of("self")
}

fn cpu_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in parentheses; times are the 14th and 15th, in hundredths.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|time| time.parse().ok());
    Duration::from_millis(ticks.map(|ticks: u64| ticks * 10).sum())
}

fn figures(mut latencies: Vec<Duration>, elapsed: Duration, cpu: Duration) -> Figures {
    assert!(!latencies.is_empty(), "nothing was answered");
    latencies.sort_unstable();
    let at =
        |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let per_second = latencies.len() as f64 / elapsed.as_secs_f64();
    let cpu_us = cpu.as_secs_f64() * 1e6 / latencies.len() as f64;
    Figures { per_second, median_us: at(0.5), p99_us: at(0.99), cpu_us }
}

/// The request of one message, as the library makes it.
fn request() -> Bytes {
    let target = reqreply::Address {
        namespace: "bench".to_owned(),
        r#type: "echo".to_owned(),
        id: "100".to_owned(),
    };
    let argument = reqreply::TypedValue {
        typename: "io.statefun.types/long".to_owned(),
        has_value: true,
        value: BuiltIn::to_bytes(&i64::MAX),
    };
    let invocations = vec![Invocation { caller: None, argument: Some(argument) }];
    let batch = InvocationBatchRequest { target: Some(target), invocations, ..Default::default() };
    ToFunction { request: Some(to_function::Request::Invocation(batch)) }.encode_to_vec().into()
}

/// Calls with `reqwest` and nothing else.
fn bare(
    runtime: &Runtime,
    server: &Server,
    http2: bool,
    in_flight: usize,
    lasts: Duration,
) -> Figures {
    let builder = reqwest::Client::builder().pool_max_idle_per_host(1024).no_proxy();
    let builder = if http2 { builder.http2_prior_knowledge() } else { builder };
    let client = builder.build().expect("a client can be built");
    let (url, body) = (format!("{}/echo", server.base), request());
    let (began, used) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, url, body) = (client.clone(), url.clone(), body.clone());
            runtime.spawn(async move {
                let mut latencies = Vec::new();
                while began.elapsed() < lasts {
                    let asked = Instant::now();
                    let post = client.post(&url).header(header::CONTENT_TYPE, OCTETS);
                    let answer = post.body(body.clone()).send().await.expect("it answers");
                    assert!(!answer.bytes().await.expect("it goes on").is_empty());
                    latencies.push(asked.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(runtime.block_on(task).expect("it does not panic"));
    }
    figures(latencies, began.elapsed(), cpu() - used)
}

/// A dataflow that calls the server, and what comes out of it.
struct Echoes<'a> {
    worker: &'a mut Worker,
    input: InputHandleVec<u64, Envelope<TypedValue>>,
    handle: Handle<u64>,
    echoes: Rc<RefCell<Vec<i64>>>,
}

fn with_echoes<R: Send + 'static>(
    runtime: &Runtime,
    endpoint: Endpoint,
    run: impl FnOnce(&mut Echoes<'_>) -> R + Send + Sync + 'static,
) -> R {
    let on = runtime.handle().clone();
    timely::execute_directly(move |worker| {
        let echoes = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&echoes);
        let (input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let functions: Functions<TypedValue> = Functions::new()
                .remote(ECHO, endpoint)
                .typed_egress(ECHOES)
                .limits(Limits { in_flight_max: 2048, ..Limits::default() })
                .runtime(on);
            let egresses = stream.stateful_functions(functions).expect("all is bound once");
            let stream = egresses.stream(ECHOES).expect("it is bound");
            stream.inspect(move |echo| heard.borrow_mut().push(*echo));
            (input, egresses.handle())
        });
        let mut bench = Echoes { worker, input, handle, echoes };
        let result = run(&mut bench);
        let Echoes { input, handle, worker, .. } = bench;
        input.close();
        handle.run(worker).expect("nothing fails");
        result
    })
}

/// Calls with the library: an echo is asked for again as soon as it has come.
fn library(
    runtime: &Runtime,
    server: &Server,
    http2: bool,
    in_flight: usize,
    lasts: Duration,
) -> Figures {
    let endpoint = Endpoint::at(server.url()).http2(http2).in_flight_max(1024);
    with_echoes(runtime, endpoint, move |bench| {
        let (began, used) = (Instant::now(), cpu());
        let (mut latencies, mut outstanding) = (Vec::new(), 0);
        let mut next: Vec<i64> = (0..in_flight as i64).collect();
        while !next.is_empty() || outstanding > 0 {
            let now = began.elapsed();
            bench.input.advance_to(now.as_millis() as u64);
            for address in next.drain(..) {
                let asked = now.as_nanos() as i64;
                let said = (asked << ADDRESS_BITS) | address;
                bench.input.send(ECHO.message(address as u64, said));
                outstanding += 1;
            }
            bench.input.flush();
            bench.worker.step_or_park(Some(Duration::from_millis(100)));
            let now = began.elapsed();
            for echo in bench.echoes.borrow_mut().drain(..) {
                outstanding -= 1;
                latencies.push(now - Duration::from_nanos((echo >> ADDRESS_BITS) as u64));
                if now < lasts {
                    next.push(echo & ((1 << ADDRESS_BITS) - 1));
                }
            }
        }
        figures(latencies, began.elapsed(), cpu() - used)
    })
}

/// Messages each second, when they come as fast as they are taken.
fn backlog(
    runtime: &Runtime,
    server: &Server,
    http2: bool,
    addresses: usize,
    messages: usize,
) -> f64 {
    with_echoes(runtime, Endpoint::at(server.url()).http2(http2), move |bench| {
        let began = Instant::now();
        let (mut given, mut answered) = (0, 0);
        while answered < messages {
            while given < messages && bench.handle.ready() {
                for number in given..(given + 1000).min(messages) {
                    bench.input.send(ECHO.message((number % addresses) as u64, number as i64));
                }
                given = (given + 1000).min(messages);
                bench.input.flush();
                bench.worker.step();
            }
            bench.worker.step_or_park(Some(Duration::from_millis(100)));
            answered += bench.echoes.borrow_mut().drain(..).count();
        }
        messages as f64 / began.elapsed().as_secs_f64()
    })
}

/// Calls of a server, with its processor time for each.
fn served(
    runtime: &Runtime,
    server: &Server,
    http2: bool,
    in_flight: usize,
    lasts: Duration,
) -> Figures {
    let used = server.cpu();
    let began = Instant::now();
    let calls = bare(runtime, server, http2, in_flight, lasts);
    let count = calls.per_second * began.elapsed().as_secs_f64();
    let cpu_us = (server.cpu() - used).as_secs_f64() * 1e6 / count;
    Figures { cpu_us, ..calls }
}

fn show(line: String) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("the standard output is there");
}

/// The median of what runs came to, by calls each second.
fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}

fn main() {
    if std::env::args().any(|argument| argument == "serve") {
        return serve();
    }
    if std::env::args().any(|argument| argument == "serve-functions") {
        return serve_functions();
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let only =
        std::env::args().find_map(|argument| argument.strip_prefix("only=").map(str::to_owned));
    let wanted = |case: &str| only.as_ref().is_none_or(|only| case == only);
    let lasts = Duration::from_millis(if quick { 1500 } else { 8000 });
    let runtime = Runtime::new().expect("a runtime can be built");
    let server = Server::start("serve");
    let functions = Server::start("serve-functions");
    for http2 in [false, true] {
        let protocol = if http2 { "h2c" } else { "http1" };
        for &in_flight in CALLS {
            if !wanted(&format!("{protocol}-{in_flight}")) {
                continue;
            }
            let (mut bare_runs, mut library_runs) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                bare_runs.push(bare(&runtime, &server, http2, in_flight, lasts));
                library_runs.push(library(&runtime, &server, http2, in_flight, lasts));
            }
            let (bare, library) = (median(bare_runs), median(library_runs));
            let ratio = library.per_second / bare.per_second;
            eprintln!(
                "{protocol:8} {in_flight:3} in flight: {:6.1} k calls/s of {:6.1} ({ratio:.2}); \
                 p50 {:.0} us of {:.0}, p99 {:.0} us of {:.0}; processor {:.1} us of {:.1}",
                library.per_second / 1e3,
                bare.per_second / 1e3,
                library.median_us,
                bare.median_us,
                library.p99_us,
                bare.p99_us,
                library.cpu_us,
                bare.cpu_us,
            );
            for (what, figures) in [("library", &library), ("reqwest", &bare)] {
                show(format!(
                    "{{\"bench\":\"remote\",\"case\":\"calls\",\"protocol\":\"{protocol}\",\
                     \"in_flight\":{in_flight},\"with\":\"{what}\",\"calls_per_second\":{:.0},\
                     \"p50_us\":{:.1},\"p99_us\":{:.1},\"cpu_us\":{:.2}}}",
                    figures.per_second, figures.median_us, figures.p99_us, figures.cpu_us
                ));
            }
        }
        for &in_flight in CALLS {
            if !wanted(&format!("served-{protocol}-{in_flight}")) {
                continue;
            }
            let (mut bare_runs, mut served_runs) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                bare_runs.push(served(&runtime, &server, http2, in_flight, lasts));
                served_runs.push(served(&runtime, &functions, http2, in_flight, lasts));
            }
            let (bare, served) = (median(bare_runs), median(served_runs));
            let ratio = served.per_second / bare.per_second;
            eprintln!(
                "{protocol:8} {in_flight:3} in flight: serve answers {:6.1} k calls/s, a bare server {:6.1} \
                 ({ratio:.2}); p50 {:.0} us of {:.0}; processor {:.1} us of {:.1}",
                served.per_second / 1e3,
                bare.per_second / 1e3,
                served.median_us,
                bare.median_us,
                served.cpu_us,
                bare.cpu_us,
            );
            for (what, figures) in [("serve", &served), ("bare", &bare)] {
                show(format!(
                    "{{\"bench\":\"remote\",\"case\":\"served\",\"protocol\":\"{protocol}\",\
                     \"in_flight\":{in_flight},\"with\":\"{what}\",\"calls_per_second\":{:.0},\
                     \"p50_us\":{:.1},\"p99_us\":{:.1},\"cpu_us\":{:.2}}}",
                    figures.per_second, figures.median_us, figures.p99_us, figures.cpu_us
                ));
            }
        }
        server.calls(&runtime);
        for addresses in [10, 1000] {
            if !wanted(&format!("{protocol}-backlog-{addresses}")) {
                continue;
            }
            let messages = if quick { 200_000 } else { 2_000_000 };
            let per_second = backlog(&runtime, &server, http2, addresses, messages);
            let batch = messages as f64 / server.calls(&runtime) as f64;
            eprintln!(
                "{protocol:8} {addresses:4} addresses, backlog: {:.0} k messages/s, {batch:.1} in a call",
                per_second / 1e3
            );
            show(format!(
                "{{\"bench\":\"remote\",\"case\":\"backlog\",\"protocol\":\"{protocol}\",\
                 \"addresses\":{addresses},\"messages_per_second\":{per_second:.0},\
                 \"messages_per_call\":{batch:.2}}}"
            ));
        }
    }
}
