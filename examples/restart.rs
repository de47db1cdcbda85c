//! Greets people, remembers how often it has seen each, and goes on where it was: the example `greeter` with
//! snapshots.
//!
//! `cargo run --release --example restart -- names.txt greeter-snapshots 2` greets everybody in the file, a name a line,
//! on two workers, and keeps what it knows in the directory. When it is run again it greets whoever has been added, on
//! however many workers. Without arguments it does that with a file of its own, and checks what it says.

use std::error::Error;
use std::path::Path;

use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::{Egress, Envelope, Function, FunctionType, Functions, StatefulFunctions};
use timely_statefun::{SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, ValueSpec};

const PERSON: FunctionType<String> = FunctionType::new("example/person");
const SEEN: ValueSpec<u64> = ValueSpec::new("seen");
const GREETINGS: Egress<String> = Egress::new("example/greetings");

fn functions() -> Functions<String> {
    let person = Function::new(|context, name: &String| {
        let seen = context.update(SEEN, |seen| *seen += 1);
        context.emit(GREETINGS, format!("Hello, {name}, for the {seen}. time!"));
        Ok(())
    });
    Functions::new().embedded(PERSON, person.value(SEEN)).egress(GREETINGS)
}

type Failure = Box<dyn Error + Send + Sync>;

/// Greets everybody in the file who was not greeted before.
fn greet(file: &Path, directory: &Path, workers: usize) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = std::fs::read_to_string(file)?.lines().map(str::to_owned).collect();
    let store = SnapshotStore::directory(directory, SnapshotOptions::default())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let runtime_handle = runtime.handle().clone();
    let config = timely::Config::process(workers);
    let greetings = timely_statefun::execute(config, move |worker| {
        // Which snapshot there is to go on from, all workers learn before anything is built.
        let policy = SnapshotPolicy::new("greeter");
        let snapshots = Snapshots::<u64>::begin(worker, &store, &runtime_handle, &policy)?;
        let (greeted, greetings) = std::sync::mpsc::channel();
        let (mut input, handle) = worker.dataflow(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<String>>>();
            let names = snapshots.replayed("names", stream);
            let egresses = names.stateful_functions(functions()).expect("bound once each");
            let stream = egresses.stream(GREETINGS).expect("GREETINGS is bound");
            stream.inspect(move |greeting| drop(greeted.send(greeting.clone())));
            (input, egresses.handle())
        });
        // The snapshot says up to which line of the file it knows everybody. One worker reads on.
        let next = snapshots.positions("names").get(&0).map_or(0, |last| last + 1);
        if worker.index() == 0 {
            for (line, name) in (0..).zip(&names).filter(|(line, _)| *line >= next) {
                input.send(PERSON.message(name, name.clone()).read_at(0, line));
            }
        }
        input.close();
        // A last snapshot is taken when nothing is left to do.
        handle.run(worker)?;
        Ok::<Vec<String>, Failure>(greetings.try_iter().collect())
    })?;
    let mut all = Vec::new();
    for of_worker in greetings {
        all.extend(of_worker?);
    }
    Ok(all)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [file, directory, workers] = &arguments[..] {
        let greetings = greet(Path::new(file), Path::new(directory), workers.parse()?)?;
        greetings.iter().for_each(|greeting| println!("{greeting}"));
        return Ok(());
    }
    if !arguments.is_empty() {
        return Err("usage: restart [NAMES-FILE SNAPSHOTS-DIRECTORY WORKERS]".into());
    }
    let directory = tempfile::tempdir()?;
    let (file, store) = (directory.path().join("names.txt"), directory.path().join("snapshots"));
    let mut names = "Ada\nGrace\nAda\n".to_owned();
    let runs = [
        (1, "", ["Ada, for the 1.", "Ada, for the 2.", "Grace, for the 1."]),
        (
            2,
            "Grace\nAda\nBarbara\n",
            ["Ada, for the 3.", "Barbara, for the 1.", "Grace, for the 2."],
        ),
    ];
    for (workers, added, expected) in runs {
        names += added;
        std::fs::write(&file, &names)?;
        let mut greetings = greet(&file, &store, workers)?;
        println!("workers: {workers}");
        greetings.iter().for_each(|greeting| println!("  {greeting}"));
        greetings.sort();
        assert_eq!(greetings, expected.map(|seen| format!("Hello, {seen} time!")));
    }
    // There is nobody whom it has not greeted.
    assert!(greet(&file, &store, 1)?.is_empty());
    Ok(())
}
