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
use support::{Random, Running};
use timely_statefun::archive::{
    Archive, ArchiveError, Attempt, Changes, Content, Description, Draft, HeldRecord, Kind,
    MessageRecord, Record, Standing, Stored, Waits,
};
use timely_statefun::testing::{FaultyStore, StoreCall, StoreFault};
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
        assert_eq!(other.info().cut, one.info().cut);
        assert_eq!(other.description(), one.description());
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
        assert_eq!((info.cut, info.savepoint.as_deref()), (5, Some("first")), "as what is held");
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

/// A store whose remote greeter has greeted before it ever ran, and whose keepers know things.
#[test]
fn a_snapshot_written_offline_is_what_embedded_and_remote_functions_begin_with() {
    for workers in [1, 2, 4] {
        let (store, draft) = (memory(), Draft::of("functions").written_at(START_MS));
        let mut records = Vec::new();
        for number in 0..20i32 {
            let (id, seen) = (number as u64, TypedValue::of(&(number * 10)));
            let never = Expiration::never();
            records.push(draft.remote(GREETER, id, "seen", never, &seen));
            records.push(draft.value(KEEPER, id, SUM, &i64::from(number)));
            let text = TypedValue::of(&"bb".to_owned());
            records.push(draft.delayed(&Envelope::new(KEEPER.at(id), text), START_MS + 1000));
        }
        archive(&store).write(&beginning(), records).unwrap();
        let (server, _) = serve();
        let (url, (clock, hands)) = (server.url(), Clock::turned(START_MS));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let greeted = Arc::clone(&seen);
        let count = Arc::new(AtomicUsize::new(0));
        let script = move |run: &mut Run<'_>| {
            let all: Source<TypedValue> =
                (0..20).map(|id| (0, GREETER.message(id, "hello".to_owned()))).collect();
            run.give(&all);
            run.input.as_mut().unwrap().advance_to(1);
            hands.advance(Duration::from_millis(1));
            let mut before = 0;
            run.until("all is greeted", |run| {
                let seen = run.seen.borrow().len();
                count.fetch_add(seen - std::mem::replace(&mut before, seen), SeqCst);
                hands.advance(Duration::from_millis(1));
                count.load(SeqCst) >= 40
            });
            let own = run.seen.borrow().iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
            greeted.lock().unwrap().extend(own);
        };
        let functions = move || {
            let keeper = Function::new(|context: &mut Context<'_, TypedValue>, text: &String| {
                let sum = context.update(SUM, |sum| *sum += text.len() as i64);
                context.emit(GREETINGS, format!("{} {sum}", context.id()));
                Ok(())
            });
            let functions = Functions::new().embedded(KEEPER, keeper.value(SUM));
            let functions = functions.remote(GREETER, Endpoint::at(&url)).clock(clock.clone());
            functions.typed_egress(GREETINGS).runtime(threads().handle().clone())
        };
        run(workers, &store, &on_request(), functions, GREETINGS, script).unwrap();
        let seen = seen.lock().unwrap().clone();
        for number in 0..20 {
            let greeting = format!("hello {}", number * 10 + 1);
            assert!(seen.contains(&greeting), "{greeting} of {seen:?} on {workers} workers");
            let sum = format!("{number} {}", number + 2);
            assert!(seen.contains(&sum), "{sum} of {seen:?} on {workers} workers");
        }
    }
}

/// What an address keeps, as the test thinks.
type Kept = (Option<i64>, BTreeMap<String, u32>, Vec<i64>);

#[test]
fn what_increments_come_to_is_what_functions_have() {
    for seed in 1..=6 {
        let running = Running(format!("seed {seed}"));
        let mut random = Random(seed);
        let workers = 1 + random.below(2) as usize;
        let (mut source, mut cuts) = (Source::new(), Vec::new());
        let mut model: BTreeMap<u64, Kept> = BTreeMap::new();
        let mut models = Vec::new();
        for time in 0..5 {
            for _ in 0..random.below(60) {
                let texts = ["a", "bb", "forget", "ccc", "a!", "bb!"];
                let (id, text) = (random.below(12), texts[random.below(6) as usize]);
                source.push((time, KEEPER.message(id, text.to_owned())));
                let (sum, counts, all) = model.entry(id).or_default();
                if text == "forget" {
                    (*sum, *counts, *all) = Default::default();
                }
                *sum = Some(sum.unwrap_or_default() + text.len() as i64);
                *counts.entry(text.to_owned()).or_default() += 1;
                counts.remove(&format!("{text}!"));
                all.push(text.len() as i64);
            }
            cuts.push(source.len());
            models.push(model.clone());
        }
        let (server, _) = serve();
        let (url, (clock, _hands)) = (server.url(), Clock::turned(START_MS));
        let script = move |run: &mut Run<'_>| {
            for (time, end) in (1..).zip(&cuts) {
                run.give(&source[..*end]);
                run.settle(time);
                run.cut();
            }
            run.snapshots.execution()
        };
        let part_bytes = if seed % 2 == 0 { 300 } else { 1 << 20 };
        let options = SnapshotOptions { part_bytes, keep: 9, ..SnapshotOptions::default() };
        let store = SnapshotStore::open("memory:", options).unwrap();
        let functions = move || program(&clock, &url);
        run(workers, &store, &on_request(), functions, MARKS, script).unwrap();
        let archive = archive(&store);
        let mut list: Vec<_> =
            archive.list().unwrap().into_iter().map(|info| info.unwrap()).collect();
        list.reverse();
        for (info, model) in list.iter().zip(&models) {
            let mut found: BTreeMap<u64, Kept> = BTreeMap::new();
            let snapshot = archive.cut(info.cut).unwrap();
            for record in snapshot.records().of_function(KEEPER) {
                let Record::State(record) = record.unwrap() else { continue };
                let id = record.address.id.as_number().unwrap();
                let number = |stored: &Stored| {
                    let value = TypedValue::new("io.statefun.types/long", stored.bytes.clone());
                    value.unwrap().read::<i64>().unwrap()
                };
                let (sum, counts, all) = found.entry(id).or_default();
                match (record.state.name.as_str(), &record.content) {
                    ("sum", Content::Value(value)) => *sum = Some(number(value)),
                    ("counts", Content::Entry { key, value }) => {
                        let key = TypedValue::new("io.statefun.types/string", key.clone()).unwrap();
                        let count = rmp_serde::from_slice(&value.bytes).unwrap();
                        counts.insert(key.read().unwrap(), count);
                    }
                    ("all", Content::Buffer(elements)) => {
                        *all = elements.iter().map(number).collect()
                    }
                    ("last" | "recent", _) => {}
                    other => panic!("nobody keeps {other:?}"),
                }
            }
            assert_eq!(found, *model, "cut {} on {workers} workers", info.cut);
        }
        assert!(list.len() == 5 && list.iter().any(|info| info.chain.len() > 2), "{list:?}");
        drop(running);
    }
}

#[test]
fn what_waited_at_a_cut_and_was_done_since_is_in_no_later_one() {
    let (server, _) = serve();
    let (url, (clock, hands)) = (server.url(), Clock::turned(START_MS));
    let script = move |run: &mut Run<'_>| {
        let others = (0..100).map(|id| (0, KEEPER.message(id, "a".to_owned())));
        let all: Vec<_> = others.chain([(1, KEEPER.message(7, "never".to_owned()))]).collect();
        run.give(&all);
        run.until("all are there", |run| run.handle.stats().admitted == 101);
        run.settle(1);
        for _ in 0..200 {
            run.worker.step();
        }
        run.cut();
        hands.advance(Duration::from_secs(200));
        run.settle(2);
        run.cut();
    };
    let store = memory();
    run(1, &store, &on_request(), move || program(&clock, &url), MARKS, script).unwrap();
    let archive = archive(&store);
    let last = archive.newest().unwrap();
    assert_eq!(last.info().chain.len(), 2, "the last cut builds on the first: {:?}", last.info());
    let messages = |snapshot: &timely_statefun::archive::Snapshot| {
        let records = snapshot.records().map(Result::unwrap);
        records.filter(|record| matches!(record, Record::Message(_))).map(|r| r.kind()).collect()
    };
    let first: Vec<Kind> = messages(&archive.cut(last.info().chain[0]).unwrap());
    assert_eq!((first, messages(&last)), (vec![Kind::Retrying], Vec::new()));
}

fn error_of<X>(result: Result<X, ArchiveError>) -> (ArchiveError, String) {
    let error = result.err().expect("it is wrong");
    let text = error.to_string();
    (error, text)
}

#[test]
fn two_records_of_one_thing_are_an_error_that_names_both_and_nothing_comes_of_it() {
    let draft = Draft::of("functions");
    let value = |id: u64| draft.value(ACCOUNT, id, SUM, &1).unwrap();
    let entry = |key: &str| draft.entry(ACCOUNT, 1, COUNTS, &key.to_owned(), &1).unwrap();
    let envelope = Envelope::new(ACCOUNT.at(1), 1u64).with_caller(OTHER.at("x"));
    let token = |token| draft.delayed_with_token(&envelope, 1, token).unwrap();
    let buffer = |_| draft.buffer(ACCOUNT, 1, ALL, [&1]).unwrap();
    let cases: [(Vec<Record>, &str); 4] = [
        (
            vec![value(1), value(2), value(1)],
            r#"records 1 and 3 are both the value "sum" of "archive/account 1""#,
        ),
        (
            vec![entry("a"), entry("b"), entry("b"), value(1)],
            r#"records 2 and 3 are both an entry of the table "counts" of "archive/account 1""#,
        ),
        (
            vec![buffer(1), buffer(2)],
            r#"records 1 and 2 are both the buffer "all" of "archive/account 1""#,
        ),
        (
            vec![token("a"), token("b"), value(3), token("a")],
            r#"records 1 and 4 are both delayed messages of "archive/other x" with token "a""#,
        ),
    ];
    let store = memory();
    let archive = archive(&store);
    for (records, message) in cases {
        for memory in [1, 1 << 20] {
            let mut writer = archive.writer(&beginning()).memory(memory);
            records.iter().for_each(|record| writer.push(record.clone()).unwrap());
            let (error, text) = error_of(writer.finish());
            assert_eq!(text, message);
            assert!(error.is_duplicate() && error.records().len() == 2);
            let (error, _) = error_of(archive.newest());
            assert!(error.snapshot_error().unwrap().is_no_snapshot());
        }
    }
    // What is not the same is none.
    let same = [
        token("a"),
        value(1),
        value(2),
        entry("a"),
        entry("b"),
        draft.delayed(&envelope, 1).unwrap(),
    ];
    let twice = draft.delayed(&envelope, 1).unwrap();
    archive.write(&beginning(), same.into_iter().chain([twice]).map(Ok)).unwrap();
}

#[test]
fn a_store_with_snapshots_is_left_alone_unless_it_is_to_branch_and_a_failure_changes_nothing() {
    let faulty = FaultyStore::new();
    let store =
        faulty.store(SnapshotOptions { retry: Retry::attempts(1), ..SnapshotOptions::default() });
    let archive = archive(&store);
    let draft = Draft::of("functions");
    let value = |id: u64, sum: i64| draft.value(ACCOUNT, id, SUM, &sum);
    let first = archive.write(&beginning(), [value(1, 1)]).unwrap();
    let (error, _) = error_of(archive.write(&beginning(), [value(1, 2)]));
    assert!(error.is_not_empty(), "{error}");
    let files = faulty.files();
    // Nothing was even claimed.
    assert_eq!(files.len(), 3, "{files:?}");

    // Another program's.
    let mut writer = archive.writer(&Description::beginning("other", &0u64).unwrap()).branch();
    writer.push(value(1, 2).unwrap()).unwrap();
    let (error, _) = error_of(writer.finish());
    assert!(error.snapshot_error().unwrap().is_foreign(), "{error}");

    // Whatever fails, what was there is what a program goes on from.
    let (refused, lost) = (StoreFault::Refused, StoreFault::ReplyLost);
    for (of, n, fault) in [
        ("part/", 1, refused),
        ("manifest/", 1, refused),
        ("manifest/", 1, lost),
        ("manifest/", 2, refused),
    ] {
        faulty.fail_nth(StoreCall::Put, of, n, fault);
        let mut writer = archive.writer(&beginning()).branch();
        writer.push(value(1, 3).unwrap()).unwrap();
        let (error, text) = error_of(writer.finish());
        faulty.heal();
        assert!(error.snapshot_error().unwrap().is_unavailable(), "{text}");
        assert_eq!(archive.newest().unwrap().info(), &first, "{of} {n} {fault:?}");
        assert_eq!(read(&archive), [value(1, 1).unwrap()]);
    }
    let mut writer = archive.writer(archive.newest().unwrap().description()).branch();
    writer.push(value(1, 4).unwrap()).unwrap();
    let branch = writer.finish().unwrap();
    assert!(branch.cut > first.cut);
    assert_eq!(read(&archive), [value(1, 4).unwrap()]);
    assert_eq!(archive.cut(first.cut).unwrap().records().count(), 1, "it is kept");
}

#[test]
fn what_no_snapshot_can_have_is_an_error_that_says_which_record_and_why() {
    let draft = Draft::of("functions").written_at(START_MS);
    let state = |change: &dyn Fn(&mut timely_statefun::archive::StateRecord)| {
        let Record::State(mut record) = draft.value(ACCOUNT, 1, LAST, &"x".to_owned()).unwrap()
        else {
            unreachable!()
        };
        change(&mut record);
        Record::State(record)
    };
    let message = |waits, standing| {
        let (set, target, is_bound, caller) = ("functions".into(), ACCOUNT.at(1), true, None);
        let (depth, message) = (0, Bytes::new());
        Record::Message(MessageRecord {
            set,
            waits,
            target,
            is_bound,
            caller,
            depth,
            standing,
            message,
        })
    };
    let held = |egress: &str, cut, bin| {
        let (set, egress) = ("functions".into(), egress.to_owned());
        Record::Held(HeldRecord { set, egress, cut, bin, time: Bytes::new(), record: Bytes::new() })
    };
    let stored = |deadline_ms| Stored { bytes: Bytes::new(), deadline_ms };
    let info = |change: &dyn Fn(&mut timely_statefun::archive::StateInfo)| {
        state(&|record| change(Arc::make_mut(&mut record.state)))
    };
    let deep = Standing::At { time: Bytes::new(), depth: u64::MAX, is_ingress: false };
    let tried = Waits::Retrying(Some(Attempt { attempts: u32::MAX, due_ms: 0 }));
    let cases = [
        (state(&|record| record.content = Content::Value(stored(None))), "no deadline"),
        (state(&|record| record.content = Content::Buffer(vec![])), "another kind"),
        (info(&|info| info.name = "a b".to_owned()), "not a valid name"),
        (info(&|info| info.type_name = "none".to_owned()), "not a valid name"),
        (info(&|info| info.key_type = "a/b".to_owned()), "has keys"),
        (info(&|info| info.kind = Kind::Held), "no state of its kind"),
        (info(&|info| info.expiration = Expiration::never()), "does not expire"),
        (info(&|info| info.expiration = Expiration::after_write(Duration::ZERO)), "means nothing"),
        (message(Waits::Queued, Standing::Event), "not at a time"),
        (message(Waits::Operation, deep), "deeper"),
        (message(tried, Standing::Event), "more often"),
        (held("archive/held", 1, 4096), "no bin 4096"),
        (held("held", 1, 1), "not a valid name"),
    ];
    let archive = archive(&memory());
    for (record, why) in cases {
        let mut writer = archive.writer(&beginning());
        writer.push(draft.value(ACCOUNT, 2, SUM, &1).unwrap()).unwrap();
        let (error, text) = error_of(writer.push(record));
        assert!(text.starts_with("record 2 cannot be written: ") && text.contains(why), "{text}");
        assert!(error.is_invalid() && error.records() == [2]);
    }
    let wrong = FunctionType::<()>::new("nowhere");
    let record = draft.value(wrong, 1, SUM, &1).unwrap();
    let (error, text) = error_of(archive.write(&beginning(), [Ok(record)]));
    assert!(error.is_invalid() && text.contains("\"nowhere\" is not a valid name"), "{text}");
    let mut description = beginning();
    description.complete = vec![Bytes::from_static(&[0xc1])];
    let (error, text) = error_of(archive.write(&description, []));
    assert!(error.is_invalid() && text.contains("a time of the description"), "{text}");
    let none = archive.write(&beginning(), [Err(ArchiveError::input("no more"))]);
    assert!(error_of(none).0.is_input());
    let temporary = archive.writer(&beginning()).temporary("/nowhere/at/all").memory(1);
    let mut temporary = temporary;
    temporary.push(draft.value(ACCOUNT, 2, SUM, &1).unwrap()).unwrap();
    let (error, text) = error_of(temporary.push(draft.value(ACCOUNT, 3, SUM, &1).unwrap()));
    assert!(error.is_temporary() && text.contains("/nowhere/at/all"), "{text}");
    assert!(archive.list().unwrap().is_empty());
}

/// Every byte of every file is changed in turn, and every file is missing or cut short.
#[test]
fn damage_is_an_error_that_names_the_file_or_changes_nothing() {
    let faulty = FaultyStore::new();
    let store =
        faulty.store(SnapshotOptions { retry: Retry::attempts(1), ..SnapshotOptions::default() });
    let archive = archive(&store);
    let records: Vec<_> = some_records().into_iter().step_by(23).collect();
    archive.write(&beginning(), records.iter().cloned().map(Ok)).unwrap();
    let expected = read(&archive);
    let all = || archive.newest()?.records().collect::<Result<Vec<_>, _>>();
    let mut noticed = 0;
    for (file, bytes) in faulty.files() {
        let mut changed: Vec<Option<Vec<u8>>> = vec![None];
        for at in 0..bytes.len() {
            let mut other = bytes.to_vec();
            other[at] ^= 1 << (at % 8);
            changed.push(Some(other));
        }
        changed.extend(
            [0, 1, bytes.len() / 2, bytes.len() - 1].map(|end| Some(bytes[..end].to_vec())),
        );
        changed.push(Some([&bytes[..], &[0]].concat()));
        for other in changed {
            let (lost, what) = (other.is_none(), format!("{file} {other:02x?}"));
            faulty.damage(&file, other.map(Bytes::from));
            match all() {
                // A claim says nothing that is read here.
                Ok(found) => assert!(found == expected && file.ends_with("1"), "{what}"),
                Err(error) => {
                    noticed += 1;
                    let text = error.to_string();
                    let none =
                        lost && error.snapshot_error().is_some_and(|error| error.is_no_snapshot());
                    assert!(none || text.contains(&file), "{text}: {what}");
                    let of_file = error.snapshot_error().is_some_and(|error| {
                        error.is_missing() || error.is_newer_version() || error.is_no_snapshot()
                    });
                    assert!(error.is_damaged() || of_file, "{text}: {what}");
                }
            }
            faulty.damage(&file, Some(bytes.clone()));
        }
    }
    assert!(noticed > 1000, "{noticed}");
    assert_eq!(all().unwrap(), expected);
}

#[test]
fn changes_rename_drop_and_convert_on_the_way() {
    const CENTS: ValueSpec<i64> = ValueSpec::new("cents");
    const SIZES: TableSpec<u64, String> = TableSpec::new("sizes");
    const WORDS: BufferSpec<u64> = BufferSpec::new("words");
    const NEW: FunctionType<String> = FunctionType::new("archive/new");
    let (from, to) = (archive(&memory()), archive(&memory()));
    let draft = Draft::of("functions").written_at(START_MS);
    let name = "a name".to_owned();
    let envelope = Envelope::new(ACCOUNT.at(3), 1u64).with_caller(OTHER.at(3));
    let seen = |seen: i32| TypedValue::of(&seen);
    let never = Expiration::never();
    let records = [
        draft.value(ACCOUNT, 1, SUM, &7),
        draft.entry(ACCOUNT, 1, COUNTS, &name, &3),
        draft.buffer(ACCOUNT, 1, RECENT, [&name, &"bb".to_owned()]),
        draft.value(OTHER, 1, SUM, &9),
        draft.delayed(&envelope, 5),
        draft.delayed(&Envelope::new(OTHER.at(3), 1u64), 5),
        draft.remote(GREETER, 1, "seen", never, &seen(1)),
        draft.remote(GREETER, 1, "old", never, &seen(1)),
        draft.value(KEEPER, 1, SUM, &1),
    ];
    from.write(&beginning(), records).unwrap();
    let changes = Changes::new()
        .convert_value(ACCOUNT, SUM, CENTS, |sum| Ok(sum * 100))
        .convert_table(ACCOUNT, COUNTS, SIZES, |key, count| {
            Ok((key.len() as u64, count.to_string()))
        })
        .convert_buffer(ACCOUNT, RECENT, WORDS, |text| Ok(text.len() as u64))
        .convert_bytes(GREETER, "seen", "io.statefun.types/string", |_| {
            Ok(TypedValue::of(&"once".to_owned()).bytes().clone())
        })
        .drop_function(OTHER)
        .drop_state(GREETER, "old")
        .rename_function(ACCOUNT, NEW)
        .rename_function(OTHER, FunctionType::<()>::new("archive/another"))
        .rename_state(KEEPER, "sum", "total")
        .rename_set("functions", "renamed");
    let snapshot = from.newest().unwrap();
    to.write(snapshot.description(), changes.of(snapshot.records())).unwrap();
    let draft = Draft::of("renamed").written_at(START_MS);
    let another = FunctionType::<()>::new("archive/another");
    let envelope = Envelope::new(NEW.at(3), 1u64).with_caller(another.at(3));
    const TOTAL: ValueSpec<i64> = ValueSpec::new("total");
    let expected: Result<Vec<_>, _> = [
        draft.value(NEW, 1, CENTS, &700),
        draft.entry(NEW, 1, SIZES, &6, &"3".to_owned()),
        // What has expired by now is not there for ever.
        draft.delayed(&envelope, 5),
        draft.remote(GREETER, 1, "seen", never, &TypedValue::of(&"once".to_owned())),
        draft.value(KEEPER, 1, TOTAL, &1),
    ]
    .into_iter()
    .collect();
    assert_eq!(sorted(&read(&to)), sorted(&expected.unwrap()));

    let wrong = Changes::new().convert_value(ACCOUNT, LAST, CENTS, |_| Ok(0)).convert_value(
        ACCOUNT,
        SUM,
        CENTS,
        |sum| Err(format!("{sum} is too much").into()),
    );
    let (error, text) = error_of(wrong.of(snapshot.records()).collect::<Result<Vec<_>, _>>());
    assert_eq!(text, r#"the value "sum" of "archive/account 1" cannot be converted"#);
    assert!(error.is_conversion());
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(why, "7 is too much");
    const WRONG: ValueSpec<String> = ValueSpec::new("sum");
    let wrong = Changes::new().convert_value(ACCOUNT, WRONG, CENTS, |_| Ok(0));
    let (error, _) = error_of(wrong.of(snapshot.records()).collect::<Result<Vec<_>, _>>());
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("io.statefun.types/long") && error.is_conversion(), "{why}");
}
