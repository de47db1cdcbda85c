//! The example checks itself: a program leaves a snapshot, and another goes on from a copy of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::{
    BufferSpec, Clock, Context, Egress, Expiration, Function, FunctionType, Functions, RestoreFrom,
    SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, TableSpec,
    ValueSpec,
};

use crate::lines::footer;
use crate::{Selection, archive, export_to, import, list, say, show};

const CART: FunctionType<(String, u32)> = FunctionType::new("shop/cart");
const TOTALS: Egress<(u64, u32)> = Egress::new("shop/totals");
const OWNER: ValueSpec<Owner> = ValueSpec::typed("owner", "shop/owner");
const PIECES: TableSpec<String, u32> = TableSpec::new("pieces");
const SEEN: BufferSpec<f64> =
    BufferSpec::new("seen").expiring(Expiration::after_write(Duration::from_secs(3600)));
const CARTS: u64 = 40;
const START_MS: u64 = 1_000_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Owner {
    name: String,
    since: Option<u64>,
    key: (u8, char),
}

/// Puts things into carts; each is reminded later of what it has.
fn functions(clock: &Clock) -> Functions<(String, u32)> {
    let cart =
        Function::new(|context: &mut Context<'_, (String, u32)>, (thing, more): &(String, u32)| {
            let id = context.id().as_number().ok_or("carts are numbers")?;
            if thing == "remind" {
                let total: u32 = context.table(PIECES).values().sum();
                context.emit(TOTALS, (id, total));
                return Ok(());
            }
            if context.get(OWNER).is_none() {
                let owner =
                    Owner { name: format!("number {id}"), since: Some(id), key: (id as u8, 'ä') };
                context.set(OWNER, owner);
                context.send_after(Duration::from_secs(60), CART, id, ("remind".to_owned(), 0));
            }
            context.table(PIECES).update(thing.clone(), |pieces| *pieces += more);
            context.buffer(SEEN).append(f64::from(*more) / 8.0);
            Ok(())
        });
    let cart = cart.value(OWNER).table(PIECES).buffer(SEEN);
    Functions::new().named("carts").embedded(CART, cart).egress(TOTALS).clock(clock.clone())
}

/// Runs the program to its end, or until it is killed when its snapshot is durable. Gives what it emitted.
fn program(directory: &Path, workers: usize, give: bool) -> Result<BTreeMap<u64, u32>, String> {
    let store = SnapshotStore::directory(directory, SnapshotOptions::default());
    let store = store.map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let handle = runtime.handle().clone();
    let (clock, hands) = Clock::turned(START_MS);
    let totals = Arc::new(Mutex::new(BTreeMap::new()));
    let emitted = Arc::clone(&totals);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let policy = SnapshotPolicy::new("carts").on_request().restore(RestoreFrom::Newest);
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy)
            .map_err(|error| error.to_string())?;
        let emitted = Arc::clone(&emitted);
        let (mut input, handle, probe) = worker.dataflow(|scope| {
            let (input, stream) = scope.new_input();
            let egresses = snapshots
                .replayed("things", stream)
                .stateful_functions(functions(&clock))
                .expect("it is put together rightly");
            let totals =
                egresses.stream(TOTALS).expect("it is bound").inspect(move |(id, total)| {
                    emitted.lock().expect("nobody panicked").insert(*id, *total);
                });
            (input, egresses.handle(), totals.probe().0)
        });
        let index = worker.index() as u64;
        if give {
            for at in 0..CARTS * 5 {
                let message = CART.message(at % CARTS, (format!("thing {}", at % 3), at as u32));
                if index == 0 {
                    input.send(message.read_at(0, at));
                }
            }
            input.advance_to(1);
            let savepoint =
                snapshots.stop_at_savepoint("filled").map_err(|error| error.to_string())?;
            drop(input);
            let stopped = handle.run(worker);
            drop(savepoint);
            return match stopped {
                Err(stopped) if stopped.at_savepoint().is_some() => Ok(()),
                other => Err(format!("it did not stop at its savepoint: {other:?}")),
            };
        }
        // Nobody is reminded before all is in the carts.
        input.advance_to(1);
        let wait = handle.run_while(worker, || probe.less_than(&1));
        wait.map_err(|stopped| stopped.to_string())?;
        drop(input);
        hands.advance(Duration::from_secs(100));
        handle.run(worker).map_err(|stopped| stopped.to_string())
    });
    guards?
        .join()
        .into_iter()
        .try_for_each(|worker| worker.map_err(|error| error.to_string())?)?;
    let totals = totals.lock().map_err(|error| error.to_string())?.clone();
    Ok(totals)
}

pub fn check(out: &mut impl Write) -> Result<(), String> {
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let [taken, copied] = ["taken", "copied"].map(|name| root.path().join(name));
    let [first, second] = ["first.jsonl", "second.jsonl"].map(|name| root.path().join(name));
    program(&taken, 2, true)?;
    list(&archive(&taken)?, out)?;
    let filled = Selection { savepoint: Some("filled".to_owned()), ..Selection::default() };
    show(&archive(&taken)?, &filled, out)?;
    let records = export_to(&archive(&taken)?, &filled, &first)?;
    import(&copied, &first, false, Some("filled"))?;
    export_to(&archive(&copied)?, &filled, &second)?;
    let read = |file: &Path| std::fs::read_to_string(file).map_err(|error| error.to_string());
    let (one, other) = (read(&first)?, read(&second)?);
    if one != other {
        return Err("what was imported is exported as something else".to_owned());
    }
    for line in one.lines().take(4) {
        say(out, line)?;
    }
    let mut expected = BTreeMap::new();
    for at in 0..CARTS * 5 {
        *expected.entry(at % CARTS).or_default() += at as u32;
    }
    for directory in [&taken, &copied] {
        let totals = program(directory, 3, false)?;
        if totals != expected {
            return Err(format!("a program goes on to {totals:?} and not to {expected:?}"));
        }
    }
    let refused = refuse(root.path(), &one)?;
    say(out, &format!("{refused} files that are wrong are refused, with the line and the reason"))?;
    say(
        out,
        &format!("{records} records were exported, imported and exported again, and are the same"),
    )
}

/// A line that says something else of a name.
fn with(line: &str, name: &str, value: Json) -> String {
    let mut line: Map<String, Json> = serde_json::from_str(line).expect("it is a record");
    line.insert(name.to_owned(), value);
    Json::Object(line).to_string()
}

/// Files that are wrong, each in its own way, are refused with the line and the reason, and nothing comes of
/// them. Gives how many.
fn refuse(root: &Path, exported: &str) -> Result<usize, String> {
    let mut lines = exported.lines();
    let header = lines.next().ok_or("nothing was exported")?;
    let value = lines.find(|line| line.contains(r#""kind":"value""#)).ok_or("there is no value")?;
    let other = |name: &str, to: Json| with(&with(value, "id", "another".into()), name, to);
    let end = footer(1);
    let without_text = |name: &str| value.replace(&format!("\"{name}\":"), "\"nothing\":");
    let cases: &[(&[&str], &str)] = &[
        (&[], ":1: it is empty"),
        (&["carts"], ":1: it is no JSON: expected value at line 1 column 1"),
        (&["{}"], r#":1: there is no "snapshot""#),
        (&[&with(header, "cut", (-1).into())], r#":1: "cut" is no whole number"#),
        (&[&with(header, "cuts", 1.into())], r#":1: nothing is known of "cuts" here"#),
        (&[header, "{} {}"], ":2: it is no JSON: trailing characters at line 1 column 4"),
        (&[header, "[]"], ":2: it is no JSON object"),
        (&[header, "\u{fffd}"], ":2: it is not UTF-8"),
        (&[header, &value[..value.len() - 1]], ":2: it is no JSON: EOF while parsing an object"),
        (&[header, &without_text("kind")], r#":2: there is no "kind""#),
        (&[header, value, &other("kind", "values".into())], r#":3: there is no kind "values""#),
        (&[header, value, &other("lives", 1.into())], r#":3: nothing is known of "lives" here"#),
        (&[header, value, &other("bytes", "".into())], r#":3: there is neither "value" nor"#),
        (
            &[header, &with(&without_text("value"), "bytes", "".into())],
            r#":2: nothing is known of "#,
        ),
        (&[header, value, &other("function", "cart".into())], ":3: "),
        (&[header, value, &other("lives_ms", 5.into())], r#":3: there is no "lives_on_when_read""#),
        (
            &[header, value, &other("state", "owners".into()), value, &footer(3)],
            ":4: records 1 and 3",
        ),
        (&[header, value], ":2: the file ends here, without the line that counts its records"),
        (&[header, value, &footer(2)], ":3: there should be 2 records before it, not 1"),
        (&[header, value, &end, value], ":4: there is a line after the last one"),
    ];
    let (file, directory) = (root.join("wrong.jsonl"), root.join("nothing"));
    for (lines, expected) in cases {
        let mut bytes = Vec::new();
        for line in *lines {
            // U+FFFD stands for a byte that no text has.
            bytes.extend(if *line == "\u{fffd}" { b"\xff" } else { line.as_bytes() });
            bytes.push(b'\n');
        }
        std::fs::write(&file, bytes).map_err(|error| error.to_string())?;
        let said = match import(&directory, &file, false, None) {
            Ok(_) => return Err(format!("a file of {lines:?} was imported")),
            Err(said) => said,
        };
        let expected = format!("{}{expected}", file.display());
        if !said.starts_with(&expected) {
            return Err(format!("instead of {expected:?} it says {said:?}"));
        }
        if directory.is_dir() && !archive(&directory)?.list().is_ok_and(|list| list.is_empty()) {
            return Err(format!("there is a snapshot of {lines:?}"));
        }
    }
    Ok(cases.len())
}
