//! What is sent over HTTP is answered when it is durable and not before, and what is taken over HTTP was durable, comes
//! in order, and comes again until its cut is acknowledged.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use timely_statefun::playground::{Ack, EGRESS, EgressRecord, Ingress, Rejected, Topics};
use timely_statefun::serve::Serving;
use timely_statefun::source::{self, Times};
use timely_statefun::testing::{FaultyStore, StoreCall, StoreFault};
use timely_statefun::{
    Envelope, Function, FunctionType, Functions, SnapshotOptions, SnapshotPolicy, Snapshots,
    StatefulFunctions, TypedValue, ValueSpec,
};
use tokio::runtime::Runtime;

/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(20);
const PERSON: FunctionType<String> = FunctionType::new("example/person");
const SEEN: ValueSpec<i32> = ValueSpec::new("seen");

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "it never came that {what}");
        std::thread::yield_now();
    }
}

/// Counts what each person says, and emits it to the topic that stands before a colon.
fn functions() -> Functions<TypedValue> {
    let person = Function::new(|context, said: &String| {
        let seen = context.update(SEEN, |seen| *seen += 1);
        let record = match said.split_once(':') {
            Some(("none", _)) => TypedValue::of(&seen),
            Some((topic, what)) => {
                let payload = format!("{} {seen}: {what}", context.id());
                TypedValue::of(&EgressRecord::new(topic, payload))
            }
            None => TypedValue::new("io.statefun.playground/EgressRecord", "{").unwrap(),
        };
        context.emit(EGRESS, record);
        Ok(())
    });
    Functions::new().embedded(PERSON, person.value(SEEN)).held_typed_egress(EGRESS)
}

/// What the workers of a program are told, and tell.
#[derive(Default)]
struct Watched {
    asks: AtomicBool,
    ends: AtomicBool,
    /// By worker, how many messages it has handled.
    handled: Mutex<BTreeMap<usize, u64>>,
    /// How many cuts were not acknowledged.
    unacknowledged: AtomicUsize,
}

/// A program at work, with its servers.
struct Program {
    watched: Arc<Watched>,
    topics: Topics,
    rejected: Arc<Mutex<Vec<Rejected>>>,
    ingress: Option<Serving>,
    egress: Serving,
    running: Option<JoinHandle<()>>,
}

impl Program {
    fn begin(
        store: &FaultyStore,
        workers: usize,
        how: impl FnOnce(Ingress<TypedValue>) -> Ingress<TypedValue>,
    ) -> Self {
        let watched = Arc::<Watched>::default();
        let rejected = Arc::<Mutex<Vec<Rejected>>>::default();
        let told = Arc::clone(&rejected);
        let topics = Topics::reporting(["greetings", "other topic"], move |rejected| {
            told.lock().unwrap().push(rejected.clone());
        });
        let (sender, channel) = source::channel::<Envelope<TypedValue>>(8);
        let ingress = how(Ingress::new(sender)).server().bind("127.0.0.1:0");
        let ingress = runtime().block_on(ingress).unwrap();
        let egress = runtime().block_on(topics.server().bind("127.0.0.1:0")).unwrap();
        let store = store.store(SnapshotOptions::default());
        let (given, state, channel) =
            (topics.clone(), Arc::clone(&watched), Mutex::new(Some(channel)));
        let program = move |worker: &mut timely::worker::Worker| {
            let policy = SnapshotPolicy::new("test").on_request().unacknowledged_cuts_max(1000);
            let snapshots = Snapshots::begin(worker, &store, runtime().handle(), &policy).unwrap();
            let channel = channel.lock().unwrap().take().unwrap_or_default();
            let dataflow = worker.next_dataflow_index();
            let handle = worker.dataflow::<u64, _, _>(|scope| {
                let source = channel.source(scope, "playground", Times::fixed(0));
                let ingress = source.unreplayed(&snapshots, |envelope| envelope);
                let egresses = ingress.stateful_functions(functions()).unwrap();
                given.receive(egresses.held(EGRESS).unwrap());
                egresses.handle()
            });
            while worker.installed_dataflows().contains(&dataflow) && !state.ends.load(SeqCst) {
                assert_eq!(handle.stopped(), None);
                if worker.index() == 0 && state.asks.swap(false, SeqCst) {
                    snapshots.request();
                }
                state.handled.lock().unwrap().insert(worker.index(), handle.stats().handled);
                if worker.index() == 0 {
                    let unacknowledged = snapshots.status().unacknowledged;
                    state.unacknowledged.store(unacknowledged.len(), SeqCst);
                }
                worker.step_or_park(Some(Duration::from_micros(500)));
            }
            if worker.installed_dataflows().contains(&dataflow) {
                worker.drop_dataflow(dataflow);
            }
        };
        let running = std::thread::spawn(move || {
            timely_statefun::execute(timely::Config::process(workers), program).unwrap();
        });
        let (ingress, running) = (Some(ingress), Some(running));
        Program { watched, topics, rejected, ingress, egress, running }
    }

    fn ingress(&self) -> SocketAddr {
        self.ingress.as_ref().and_then(Serving::local_addr).unwrap()
    }

    fn egress(&self) -> SocketAddr {
        self.egress.local_addr().unwrap()
    }

    /// Sends what a person says, on a thread that waits for the answer.
    fn put(&self, id: &str, says: &str) -> JoinHandle<Answer> {
        let request = request("PUT", &format!("/example/person/{id}"), &[], says.as_bytes());
        let ingress = self.ingress();
        std::thread::spawn(move || ask(ingress, &request))
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.egress(), &request("GET", path, &[], b""))
    }

    /// Takes a record that is there.
    #[track_caller]
    fn takes(&self, topic: &str, payload: &str) {
        let answer = self.get(topic);
        assert_eq!((answer.status, &*answer.body), (200, payload));
    }

    fn handled(&self) -> u64 {
        self.watched.handled.lock().unwrap().values().sum()
    }

    /// Has snapshots taken until something is so.
    #[track_caller]
    fn cut_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        until(what, || {
            self.watched.asks.store(true, SeqCst);
            holds()
        });
    }

    /// How many records have come out.
    fn released(&self) -> u64 {
        let status = self.topics.status();
        status.waiting.values().sum::<usize>() as u64 + status.taken + status.rejected
    }

    /// Sends what people say, one after the other, until all of it is durable and has come out.
    #[track_caller]
    fn say(&self, said: &[(&str, &str)]) {
        for (id, says) in said {
            let (put, before) = (self.put(id, says), self.released());
            self.cut_until("a record is durable", || put.is_finished());
            assert_eq!(put.join().unwrap().status, 200);
            self.cut_until("what it led to is released", || self.released() > before);
        }
    }

    /// Ends it with all that waits: whoever goes on has what was durable.
    fn crash(mut self) {
        self.watched.ends.store(true, SeqCst);
        self.running.take().unwrap().join().unwrap();
        let left: usize = self.topics.status().waiting.values().sum();
        assert_eq!(left, 0, "it would be handed out twice");
    }

    /// Lets it come to its end: when nobody can send any more, and all was taken.
    fn end(mut self) {
        let ended = runtime().block_on(self.ingress.take().unwrap().shutdown());
        assert_eq!(ended.requests_cut, 0);
        let running = self.running.take().unwrap();
        until("it ends", || running.is_finished());
        running.join().unwrap();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn request(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("it has a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A store that takes no manifest until it is healed, with how many it has refused.
fn stalled() -> (FaultyStore, Arc<AtomicUsize>) {
    let (store, refused) = (FaultyStore::new(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&refused);
    let is_claim = AtomicBool::new(true);
    store.plan(move |call, file| {
        let is_manifest = call == StoreCall::Put && file.starts_with("manifest/");
        // The first is how an execution begins.
        if !is_manifest || is_claim.swap(false, SeqCst) {
            return StoreFault::Nothing;
        }
        counted.fetch_add(1, SeqCst);
        StoreFault::Refused
    });
    (store, refused)
}

fn same(ingress: Ingress<TypedValue>) -> Ingress<TypedValue> {
    ingress
}

/// Answered before, a record would be lost with the next failure, and what is taken would be undone.
#[test]
fn a_record_is_answered_and_handed_out_when_its_cut_is_durable_and_not_before() {
    for workers in [1, 2] {
        let (store, refused) = stalled();
        let program = Program::begin(&store, workers, same);
        let put = program.put("Ada", "greetings:hello");
        until("it was handled", || program.handled() == 1);
        let before = refused.load(SeqCst);
        program.cut_until("its cut was written", || refused.load(SeqCst) > before + 1);
        assert!(!put.is_finished(), "it was answered and is not durable");
        let answer = program.get("/greetings");
        assert_eq!((answer.status, &*answer.body), (404, "nothing waits in topic \"greetings\"\n"));
        store.heal();
        program.cut_until("it is durable", || put.is_finished());
        let answer = put.join().unwrap();
        assert_eq!((answer.status, &*answer.body), (200, ""));
        until("it is released", || program.topics.status().waiting["greetings"] == 1);
        let answer = program.get("/greetings");
        assert_eq!((answer.status, &*answer.body), (200, "Ada 1: hello"));
        assert!(answer.head.contains("content-type: text/plain; charset=utf-8"), "{}", answer.head);
        assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
        program.end();
    }
}

#[test]
fn a_record_that_is_only_accepted_is_answered_at_once_and_may_be_lost() {
    let (store, _) = stalled();
    let program = Program::begin(&store, 1, |ingress| ingress.ack(Ack::Accepted));
    assert_eq!(program.put("Ada", "greetings:hello").join().unwrap().status, 202);
    until("it was handled", || program.handled() == 1);
    program.crash();
    store.heal();
    let program = Program::begin(&store, 1, same);
    program.say(&[("Ada", "greetings:hello again")]);
    until("it is released", || program.topics.status().waiting["greetings"] == 1);
    program.takes("/greetings", "Ada 1: hello again");
    program.end();
}

#[test]
fn records_are_taken_in_order_and_come_again_until_their_cut_is_acknowledged() {
    for workers in [1, 2] {
        let store = FaultyStore::new();
        let waits = |program: &Program, records: usize| {
            let waiting = || program.topics.status().waiting.values().sum::<usize>();
            until("all is released", || waiting() >= records);
            assert_eq!(waiting(), records);
            until("it is known", || program.watched.unacknowledged.load(SeqCst) > 0);
        };
        let program = Program::begin(&store, workers, same);
        // Nobody takes the first of either of them, so no cut of a record is acknowledged.
        program.say(&[
            ("Ada", "other topic:a"),
            ("Ben", "other topic:b"),
            ("Ada", "greetings:c"),
            ("Ben", "greetings:d"),
            ("Ada", "greetings:e"),
        ]);
        waits(&program, 5);
        let greetings = ["Ada 2: c", "Ben 2: d", "Ada 3: e"];
        greetings.iter().for_each(|greeting| program.takes("/greetings", greeting));
        assert_eq!(program.get("/greetings").status, 404);
        program.crash();
        let program = Program::begin(&store, workers, same);
        waits(&program, 5);
        greetings.iter().for_each(|greeting| program.takes("/greetings", greeting));
        ["Ada 1: a", "Ben 1: b"].iter().for_each(|other| program.takes("/other%20topic", other));
        until("all is acknowledged", || program.watched.unacknowledged.load(SeqCst) == 0);
        program.say(&[("Ada", "greetings:f"), ("Ada", "other topic:g")]);
        waits(&program, 2);
        // Of a later cut than what nobody takes.
        program.takes("/other%20topic", "Ada 5: g");
        program.crash();
        let program = Program::begin(&store, workers, same);
        waits(&program, 2);
        program.say(&[("Ben", "greetings:h")]);
        waits(&program, 3);
        program.takes("/other%20topic", "Ada 5: g");
        assert!(program.watched.unacknowledged.load(SeqCst) > 0, "one of an older cut waits");
        program.takes("/greetings", "Ada 4: f");
        program.takes("/greetings", "Ben 3: h");
        program.end();
        let program = Program::begin(&store, workers, same);
        program.say(&[("Ben", "greetings:i")]);
        waits(&program, 1);
        program.takes("/greetings", "Ben 4: i");
        assert_eq!(program.topics.status().taken, 1);
        program.end();
    }
}

#[test]
fn what_is_no_record_of_a_topic_is_told_and_keeps_nothing_waiting() {
    let store = FaultyStore::new();
    let program = Program::begin(&store, 1, same);
    program.say(&[
        ("Ada", "none:"),
        ("Ada", "no JSON"),
        ("Ada", "nowhere:x"),
        ("Ada", "greetings:y"),
    ]);
    until("all is released", || program.topics.status().waiting["greetings"] == 1);
    let status = program.topics.status();
    assert_eq!((status.rejected, status.taken), (3, 0));
    let told: Vec<_> = program.rejected.lock().unwrap().drain(..).map(|told| told.why).collect();
    assert!(told[0].starts_with("io.statefun.types/int where io.statefun.playground/EgressRecord"));
    assert!(told[1].contains("that is none") || told[1].contains("is none"), "{}", told[1]);
    assert_eq!(told[2], "there is no topic \"nowhere\"; topics are \"greetings\", \"other topic\"");
    program.takes("/greetings", "Ada 4: y");
    until("all is acknowledged", || program.watched.unacknowledged.load(SeqCst) == 0);
    program.end();
}

#[test]
fn requests_that_mean_nothing_are_told_so() {
    let program = Program::begin(&FaultyStore::new(), 1, same);
    let string = "content-type: application/vnd.io.statefun.types/string";
    let large = vec![b'x'; (1 << 20) + 1];
    let to = |at: SocketAddr, method, path, headers: &[&str], body: &[u8], status, why: &str| {
        let answer = ask(at, &request(method, path, headers, body));
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.body);
        assert!(answer.body.contains(why) || method == "HEAD", "{method} {path}: {}", answer.body);
        answer
    };
    let ingress = program.ingress();
    to(ingress, "PUT", "/example/person", &[], b"x", 404, "/namespace/function/id");
    to(ingress, "PUT", "/example/person/", &[], b"x", 404, "the id is empty");
    to(ingress, "POST", "/example/per%20son/Ada", &[], b"x", 404, "white space");
    for method in ["GET", "DELETE", "HEAD"] {
        let answer = to(ingress, method, "/example/person/Ada", &[], b"", 405, "not PUT, POST");
        assert!(answer.head.contains("allow: put, post"), "{}", answer.head);
    }
    to(ingress, "PUT", "/example/person/Ada", &[], &large, 413, "larger than 1048576 bytes");
    to(ingress, "PUT", "/example/person/Ada", &[string], b"Ada", 400, "that is none");
    to(ingress, "PUT", "/example/person/Ada", &["content-encoding: gzip"], b"x", 415, "gzip");
    let excel = "content-type: application/vnd.ms-excel";
    to(ingress, "PUT", "/example/person/Ada", &[excel], b"x", 415, "ms-excel");
    let egress = program.egress();
    to(egress, "GET", "/nowhere", &[], b"", 404, "there is no topic \"nowhere\"");
    to(egress, "GET", "/", &[], b"", 404, "there is no topic \"\"");
    to(egress, "GET", "/greetings", &[], b"", 404, "nothing waits");
    to(egress, "GET", "/greetings?wait=1ms", &[], b"", 404, "nothing waits");
    to(egress, "GET", "/greetings?wait=soon", &[], b"", 400, "does not begin with a number");
    to(egress, "GET", "/greetings?wiat=1s", &[], b"", 400, "\"wiat\"");
    for method in ["PUT", "HEAD"] {
        let answer = to(egress, method, "/greetings", &[], b"", 405, "not GET");
        assert!(answer.head.contains("allow: get"), "{}", answer.head);
    }
    // Nothing of it has come to anybody.
    program.say(&[("Ada", "greetings:x")]);
    until("it is released", || program.topics.status().waiting["greetings"] == 1);
    program.takes("/greetings", "Ada 1: x");
    program.end();
}

#[test]
fn who_waits_for_a_record_gets_it_when_it_comes() {
    let program = Program::begin(&FaultyStore::new(), 2, same);
    let egress = program.egress();
    let waiting = [(); 2].map(|()| {
        let request = request("GET", "/greetings?wait=1min", &[], b"");
        std::thread::spawn(move || ask(egress, &request).body)
    });
    program.say(&[("Ada", "greetings:x"), ("Ada", "greetings:y")]);
    let mut found = waiting.map(|waiting| waiting.join().unwrap());
    found.sort();
    assert_eq!(found, ["Ada 1: x", "Ada 2: y"]);
    program.end();
}

#[test]
fn no_more_records_wait_than_may_and_one_whose_sender_is_gone_counts() {
    let (store, _) = stalled();
    let program = Program::begin(&store, 1, |ingress| ingress.waiting_max(1));
    let request = request("PUT", "/example/person/Ada", &[], b"greetings:x");
    let mut gone = TcpStream::connect(program.ingress()).unwrap();
    gone.write_all(&request).unwrap();
    until("it was handled", || program.handled() == 1);
    drop(gone);
    let refused = program.put("Ada", "greetings:y").join().unwrap();
    assert_eq!((refused.status, refused.head.contains("retry-after: 1")), (503, true));
    assert!(refused.body.contains("too many records wait"), "{}", refused.body);
    store.heal();
    program.cut_until("there is room", || {
        let answer = program.put("Ben", "none:");
        // Once it has been let in, it waits until it is durable.
        until_durable(&program, answer) == 200
    });
    until("it is released", || program.topics.status().waiting["greetings"] == 1);
    program.takes("/greetings", "Ada 1: x");
    program.end();
}

fn until_durable(program: &Program, put: JoinHandle<Answer>) -> u16 {
    program.cut_until("it is answered", || put.is_finished());
    put.join().unwrap().status
}

#[test]
fn a_record_that_waits_when_the_program_ends_is_not_said_to_be_durable() {
    let (store, _) = stalled();
    let program = Program::begin(&store, 1, same);
    let put = program.put("Ada", "greetings:x");
    until("it was handled", || program.handled() == 1);
    let (ingress, topics) = (program.ingress(), program.topics.clone());
    program.watched.ends.store(true, SeqCst);
    let answer = put.join().unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("not known to be durable"), "{}", answer.body);
    let request = request("PUT", "/example/person/Ada", &[], b"greetings:x");
    let answer = ask(ingress, &request);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("was not taken"), "{}", answer.body);
    assert_eq!(topics.status().waiting["greetings"], 0);
    program.crash();
}

#[test]
fn a_record_that_is_not_durable_in_time_is_told_to_be_taken() {
    let (store, _) = stalled();
    let short = |ingress: Ingress<TypedValue>| ingress.answer_timeout(Duration::from_millis(20));
    let program = Program::begin(&store, 1, short);
    let answer = program.put("Ada", "greetings:x").join().unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("not durable yet"), "{}", answer.body);
    program.crash();
}
