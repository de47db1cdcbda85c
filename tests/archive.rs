//! Snapshots offline are what programs take: what is read of one is what the program had, what is written a
//! program goes on from, on any number of workers, and what is neither is an error that says where.

#[path = "support/executions.rs"]
mod executions;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use executions::{Execution, Source, memory, on_request, run, threads};
use protocol::{GREETER, GREETINGS, batch, greeter, id, read_text, state};
use server::{Answer, Server};
use support::Random;
use timely_statefun::archive::{
    Archive, Attempt, Description, Draft, HeldRecord, Kind, MessageRecord, Record, Standing, Waits,
};
use timely_statefun::{
    BufferSpec, Clock, Context, Egress, Endpoint, Envelope, Expiration, Function, FunctionType,
    Functions, Id, Outcome, Retry, SnapshotOptions, SnapshotStore, TableSpec, TypedValue,
    ValueSpec,
};

const KEEPER: FunctionType<String> = FunctionType::new("archive/keeper");
const HELD: Egress<String> = Egress::new("archive/held");
const MARKS: Egress<String> = Egress::new("archive/marks");
const START_MS: u64 = 1_000_000;
const LIFETIME: Duration = Duration::from_secs(1000);

const SUM: ValueSpec<i64> = ValueSpec::new("sum");
const LAST: ValueSpec<String> =
    ValueSpec::new("last").expiring(Expiration::after_read_or_write(LIFETIME));
const COUNTS: TableSpec<String, u32> = TableSpec::new("counts");
const RECENT: BufferSpec<String> =
    BufferSpec::new("recent").expiring(Expiration::after_write(LIFETIME));
const ALL: BufferSpec<i64> = BufferSpec::new("all");

/// Does what a text says, and keeps it: "later" sends one, "never" fails, "wait" is an operation that does not
/// end, "forget" forgets.
fn keeper() -> Function<TypedValue, String> {
    let keeper = Function::new(|context: &mut Context<'_, TypedValue>, text: &String| {
        let id = context.id().clone();
        match text.as_str() {
            "later" => {
                let delay = Duration::from_secs(50);
                context.send_after(delay, KEEPER, id.clone(), "was later".to_owned());
                let (delay, text) = (Duration::from_secs(60), "was later still".to_owned());
                let token = "a token";
                // One that waits already stays.
                drop(context.send_after_unless_cancelled(token, delay, KEEPER, id, text));
            }
            "cancel" => drop(context.cancel("a token")),
            "never" if context.now_ms() < START_MS + 100_000 => return Err("not yet".into()),
            "wait" => {
                context.start(
                    std::future::pending::<Result<(), String>>(),
                    |outcome| match outcome {
                        Outcome::Unknown => "the outcome is unknown".to_owned(),
                        _ => "it has ended".to_owned(),
                    },
                );
            }
            "forget" => {
                context.clear(SUM);
                context.table(COUNTS).clear();
                context.buffer(ALL).clear();
            }
            _ => {}
        }
        context.update(SUM, |sum| *sum += text.len() as i64);
        context.set(LAST, text.clone());
        context.table(COUNTS).update(text.clone(), |count| *count += 1);
        context.table(COUNTS).remove(&format!("{text}!"));
        context.buffer(RECENT).append(text.clone());
        context.buffer(ALL).append(text.len() as i64);
        let sum = context.get(SUM).copied().unwrap_or_default();
        context.emit(MARKS, format!("{} {text} {sum}", context.id()));
        context.emit(HELD, format!("{} {text}", context.id()));
        Ok(())
    });
    let keeper = keeper.value(SUM).value(LAST).table(COUNTS).buffer(RECENT).buffer(ALL);
    let every = Duration::from_secs(20);
    keeper.operations(100).retry(Retry::attempts(1000).first(every).longest(every))
}

fn program(clock: &Clock, url: &str) -> Functions<TypedValue> {
    let functions = Functions::new().embedded(KEEPER, keeper()).held_egress(HELD).egress(MARKS);
    let functions = functions.remote(GREETER, Endpoint::at(url).batch_messages_max(2));
    functions.typed_egress(GREETINGS).clock(clock.clone()).runtime(threads().handle().clone())
}

type Run<'w> = Execution<'w, TypedValue, String>;

/// Greets, but for those who say "held".
fn serve() -> (Server, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        let Some(seen) = state::<i32>(&batch, "seen") else { return greeter(&batch) };
        let texts = batch.invocations.iter().map(|one| read_text(one.argument.as_ref()));
        let texts: Vec<_> = texts.collect();
        let said = format!("{} {} {texts:?}", id(&batch), seen.unwrap_or_default());
        noted.lock().unwrap().push(said);
        match texts.iter().any(|text| text == "held") {
            true => Answer::never(|| {}),
            false => greeter(&batch),
        }
    });
    (server, asked)
}

fn source() -> Source<TypedValue> {
    let mut source = Source::new();
    for at in 0..60 {
        let texts = ["a", "bb", "later", "forget", "a", "cancel", "c!", "later"];
        let text = texts[(at as usize * 5) % texts.len()].to_owned();
        source.push((at / 20, KEEPER.message(at % 7, text)));
        source.push((at / 20, GREETER.message(at % 3, format!("greet {at}"))));
    }
    let more = [(7, "wait"), (8, "never"), (8, "behind"), (9, "later")];
    source.extend(more.map(|(id, text)| (3, KEEPER.message(id, text.to_owned()))));
    let more = [(10, "held"), (10, "behind it"), (10, "and more")];
    source.extend(more.map(|(id, text)| (3, GREETER.message(id, text.to_owned()))));
    source
}

/// Three cuts of the program, the last of which has something of everything, but what is on its way.
fn some_snapshots(workers: usize, store: &SnapshotStore) {
    let (server, asked) = serve();
    let (url, (clock, _hands)) = (server.url(), Clock::turned(START_MS));
    let begun = Arc::clone(&asked);
    let script = move |run: &mut Run<'_>| {
        let all = source();
        for (time, end) in [(1, 40), (2, 80), (3, 120)] {
            run.give(&all[..end]);
            run.settle(time);
            if time < 3 {
                run.cut();
            }
        }
        run.give(&all);
        run.until("it is called", |_| {
            begun.lock().unwrap().iter().any(|asked| asked.contains("held"))
        });
        let own = if run.worker.index() == 0 { all.len() as u64 } else { 0 };
        run.until("all are there", |run| run.handle.stats().admitted == own);
        run.input.as_mut().unwrap().advance_to(4);
        for _ in 0..200 {
            run.worker.step();
        }
        run.cut();
    };
    run(workers, store, &on_request(), move || program(&clock, &url), MARKS, script).unwrap();
}

fn archive(store: &SnapshotStore) -> Archive {
    Archive::of(store).unwrap()
}

fn read(archive: &Archive) -> Vec<Record> {
    archive.newest().unwrap().records().collect::<Result<_, _>>().unwrap()
}

/// The same records in another order, which is not that of messages for one address.
fn shuffled(records: &[Record], seed: u64) -> Vec<Record> {
    let mut random = Random(seed);
    let mut state: Vec<Record> = Vec::new();
    let mut others = Vec::new();
    for record in records {
        match record.kind().is_state() {
            true => state.insert(random.below(state.len() as u64 + 1) as usize, record.clone()),
            false => others.push(record.clone()),
        }
    }
    others.into_iter().chain(state).collect()
}

fn copy(from: &Archive, to: &Archive, seed: u64) {
    let snapshot = from.newest().unwrap();
    let records: Vec<_> = snapshot.records().collect::<Result<_, _>>().unwrap();
    // As little memory as makes many runs.
    let mut writer = to.writer(snapshot.description()).memory(2000);
    shuffled(&records, seed).into_iter().for_each(|record| writer.push(record).unwrap());
    writer.finish().unwrap();
}

/// What comes of a store when time has gone on: what was emitted, as much as this, and what was asked.
fn goes_on(workers: usize, store: &SnapshotStore, marks: usize) -> (Vec<String>, Vec<String>) {
    let (server, asked) = serve();
    let (url, (clock, hands)) = (server.url(), Clock::turned(START_MS + 10));
    let (noted, count) = (Arc::clone(&asked), Arc::new(AtomicUsize::new(0)));
    let script = move |run: &mut Run<'_>| {
        run.input.as_mut().unwrap().advance_to(5);
        let begun = || noted.lock().unwrap().iter().any(|asked| asked.contains("held"));
        run.until("the call is made again", |_| begun());
        let mut before = 0;
        run.until("all that waits is handled", |run| {
            let seen = run.seen.borrow().len();
            count.fetch_add(seen - std::mem::replace(&mut before, seen), SeqCst);
            if run.worker.index() == 0 {
                hands.advance(Duration::from_millis(100));
            }
            count.load(SeqCst) >= marks
        });
        run.seen.borrow().iter().map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    let seen = run(workers, store, &on_request(), move || program(&clock, &url), MARKS, script);
    let mut seen: Vec<_> = seen.unwrap().concat();
    seen.sort();
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    (seen, asked)
}

fn kinds(records: &[Record]) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    records.iter().for_each(|record| *kinds.entry(record.kind().name()).or_default() += 1);
    kinds
}

#[test]
fn what_is_written_from_what_was_read_is_read_again_and_programs_go_on_from_it() {
    for workers in [1, 2] {
        let (taken, once, twice) = (memory(), memory(), memory());
        some_snapshots(workers, &taken);
        let [from, to, again] = [&taken, &once, &twice].map(archive);
        let records = read(&from);
        for kind in Kind::ALL {
            let on_its_way = matches!(kind, Kind::Queued | Kind::Logged);
            let count = kinds(&records).get(kind.name()).copied().unwrap_or(0);
            assert!(count > 0 || on_its_way, "{kind} is missing: {:?}", kinds(&records));
        }
        assert_eq!(from.newest().unwrap().info().chain.len(), 3, "increments are merged");
        copy(&from, &to, 1);
        assert_eq!(read(&to), records);
        copy(&to, &again, 2);
        assert_eq!(read(&again), records);
        let (one, other) = (from.newest().unwrap(), again.newest().unwrap());
        let mut description = one.description().clone();
        assert!(other.info().cut > one.info().cut, "a sink takes it for newer");
        description.cut = other.info().cut;
        assert_eq!(other.description(), &description);
        assert_eq!(other.info().chain.len(), 1);
        let waits = |record: &&Record| !record.kind().is_state() && record.kind() != Kind::Held;
        let of_keepers = |record: &&Record| record.function_type() == Some(&KEEPER.name());
        let marks = records.iter().filter(waits).filter(of_keepers).count();
        let expected = goes_on(workers, &taken, marks);
        assert!(expected.0.iter().any(|text| text.contains("was later")), "{expected:?}");
        assert!(expected.0.iter().any(|text| text.contains("unknown")), "{expected:?}");
        for workers in [1, 2, 4] {
            let store = memory();
            copy(&from, &archive(&store), 3);
            assert_eq!(goes_on(workers, &store, marks), expected, "on {workers} workers");
        }
    }
}

const ACCOUNT: FunctionType<String> = FunctionType::new("archive/account");
const OTHER: FunctionType<String> = FunctionType::new("archive/other");

fn beginning() -> Description {
    Description::beginning("test", &0u64).unwrap()
}

/// Records of all kinds for one set, those included that are seldom met.
fn some_records() -> Vec<Record> {
    let draft = Draft::of("functions").written_at(START_MS);
    let mut records = Vec::new();
    for id in 0..50u64 {
        records.push(draft.value(ACCOUNT, id, SUM, &(id as i64)).unwrap());
        records.push(draft.value(OTHER, id, LAST, &format!("last {id}")).unwrap());
        for key in 0..id % 4 {
            let (key, value) = (format!("key {key}"), key as u32);
            records.push(draft.entry(ACCOUNT, id, COUNTS, &key, &value).unwrap());
        }
        let elements = ["one".to_owned(), format!("two {id}")];
        records.push(draft.buffer(OTHER, id, RECENT, &elements).unwrap());
        let envelope = Envelope::new(ACCOUNT.at(id), id).with_caller(OTHER.at(id + 1));
        records.push(draft.delayed(&envelope, START_MS + id % 5).unwrap());
        let token = format!("token {id}");
        records.push(draft.delayed_with_token(&envelope, START_MS, &token).unwrap());
    }
    let at = |depth| Standing::At { time: Bytes::from_static(&[7]), depth, is_ingress: depth == 0 };
    let attempt = Attempt { attempts: 3, due_ms: 9 };
    let waits = [
        (Waits::InFlight { is_first: true }, at(0)),
        (Waits::InFlight { is_first: false }, Standing::Came(Bytes::from_static(&[7]))),
        (Waits::Retrying(Some(attempt)), at(1)),
        (Waits::Retrying(None), Standing::Event),
        (Waits::Queued, at(2)),
        (Waits::Logged, at(3)),
        (Waits::Operation, Standing::Event),
    ];
    for number in 0..40u64 {
        for (waits, standing) in waits.clone() {
            records.push(Record::Message(MessageRecord {
                set: "functions".into(),
                waits,
                target: ACCOUNT.at(number % 8),
                is_bound: true,
                caller: (number % 2 == 0).then(|| OTHER.at("ä")),
                depth: number as u32,
                standing,
                message: vec![number as u8].into(),
            }));
        }
        records.push(Record::Held(HeldRecord {
            set: "others".into(),
            egress: "archive/held".to_owned(),
            cut: 3 + number % 3,
            bin: (number * 100) as u16,
            time: vec![7].into(),
            record: vec![number as u8].into(),
        }));
    }
    records
}

fn sorted(records: &[Record]) -> Vec<String> {
    let mut sorted: Vec<_> = records.iter().map(|record| format!("{record:?}")).collect();
    sorted.sort();
    sorted
}

#[test]
fn all_kinds_of_records_are_read_as_they_were_written_and_messages_keep_their_order() {
    let records = some_records();
    for part_bytes in [1, 500, 4 << 20] {
        let options = SnapshotOptions { part_bytes, ..SnapshotOptions::default() };
        let store = SnapshotStore::open("memory:", options).unwrap();
        let archive = archive(&store);
        let mut writer = archive.writer(&beginning()).memory(3000).named("first");
        records.iter().for_each(|record| writer.push(record.clone()).unwrap());
        assert_eq!(writer.records(), records.len() as u64);
        let info = writer.finish().unwrap();
        assert_eq!((info.cut, info.savepoint.as_deref()), (6, Some("first")), "above what is held");
        let found = read(&archive);
        assert_eq!(sorted(&found), sorted(&records));
        for kind in [Kind::InFlight, Kind::Retrying, Kind::Queued, Kind::Logged] {
            for id in 0..8u64 {
                let of = |records: &[Record]| -> Vec<Record> {
                    let wanted = |record: &&Record| {
                        record.kind() == kind && record.id() == Some(&Id::from(id))
                    };
                    records.iter().filter(wanted).cloned().collect()
                };
                assert_eq!(of(&found), of(&records), "{kind} of {id}");
            }
        }
        let snapshot = archive.savepoint("first").unwrap();
        let only = snapshot.records().of_function(ACCOUNT).of_kinds([Kind::Value, Kind::Delayed]);
        let only: Vec<_> = only.collect::<Result<_, _>>().unwrap();
        let is_it = |record: &&Record| {
            matches!(record.kind(), Kind::Value | Kind::Delayed)
                && record.function_type() == Some(&ACCOUNT.name())
        };
        let wanted: Vec<_> = records.iter().filter(is_it).cloned().collect();
        assert_eq!(sorted(&only), sorted(&wanted));
        let sets = snapshot.sets();
        assert_eq!(sets.len(), 2);
        assert_eq!(sets[0].functions["archive/account"].states.len(), 2);
        assert!(sets[1].egresses.contains("archive/held"), "{sets:?}");
    }
}
