//! Snapshots that are written without a program are what functions in other languages begin with, and what they
//! leave is read without one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::archive::{Archive, Content, Description, Draft, Record};
use timely_statefun::{
    Egress, Endpoint, Envelope, Expiration, FunctionType, Functions, SnapshotOptions,
    SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, TypedValue,
};

use crate::Site;
use crate::functions::{ADDER, GREETER};
use crate::program::runtime;

const PROGRAM: &str = "interop";
const TEXTS: Egress<String> = Egress::new("interop/texts");
const SUMS: Egress<i32> = Egress::new("interop/sums");
const ADDRESSES: i32 = 100;

/// What a state of a function has, by id.
fn contents<I>(archive: &Archive, of: FunctionType<I>, name: &str) -> BTreeMap<i32, i32> {
    let snapshot = archive.newest().unwrap();
    let records = snapshot.records().of_function(of);
    let contents = records.map(|record| match record.unwrap() {
        Record::State(record) => {
            let Content::Value(value) = record.content else { panic!("{record:?}") };
            assert_eq!(record.state.name, name);
            let id = record.address.id.to_string().parse().unwrap();
            let value = TypedValue::new(&record.state.type_name, value.bytes).unwrap();
            (id, value.read().unwrap())
        }
        other => panic!("there is only state: {other}"),
    });
    contents.collect()
}

/// Has each of some addresses greet and add 1, from the newest snapshot on. Gives what was emitted.
fn run(store: &SnapshotStore, site: &Site<'_>) -> Vec<String> {
    let (store, url, workers) = (store.clone(), site.url.to_owned(), site.workers);
    let said = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&said);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let policy = SnapshotPolicy::new(PROGRAM).on_request();
        let handle = runtime().handle();
        let snapshots = Snapshots::<u64>::begin(worker, &store, handle, &policy).unwrap();
        let after = snapshots.positions("asked").get(&0).map_or(0, |last| last + 1);
        let (texts, sums) = (Arc::clone(&all), Arc::clone(&all));
        let (mut input, handle) = worker.dataflow(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let endpoint = Endpoint::at(&url);
            let functions = Functions::new().remote(GREETER, endpoint.clone());
            let functions = functions.remote(ADDER, endpoint).runtime(handle.clone());
            let functions = functions.typed_egress(TEXTS).typed_egress(SUMS);
            let asked = snapshots.replayed("asked", stream);
            let egresses = asked.stateful_functions(functions).unwrap();
            egresses.stream(TEXTS).unwrap().inspect(move |text| {
                texts.lock().unwrap().push(text.clone());
            });
            egresses.stream(SUMS).unwrap().inspect(move |sum| {
                sums.lock().unwrap().push(sum.to_string());
            });
            (input, egresses.handle())
        });
        if worker.index() == 0 {
            let messages = (0..ADDRESSES).flat_map(|id| {
                let id = id.to_string();
                [GREETER.message(&*id, id.clone()), ADDER.message(&*id, 1)]
            });
            for (position, message) in (after..).zip(messages) {
                input.send(message.read_at(0, position));
            }
        }
        input.close();
        handle.run(worker).unwrap();
    });
    guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    std::mem::take(&mut said.lock().unwrap())
}

pub fn state_that_was_written_offline_is_there(site: &Site<'_>) {
    let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
    let (archive, draft) = (Archive::of(&store).unwrap(), Draft::of("functions"));
    let records = (0..ADDRESSES).flat_map(|id| {
        let (never, of) = (Expiration::never(), id.to_string());
        [
            draft.remote(GREETER, &*of, "seen", never, &TypedValue::of(&(id + 1))),
            draft.remote(ADDER, &*of, "sum", never, &TypedValue::of(&(1000 * id))),
        ]
    });
    archive.write(&Description::beginning(PROGRAM, &0u64).unwrap(), records).unwrap();
    for round in 1..3 {
        let mut said = run(&store, site);
        said.sort();
        let expected = (0..ADDRESSES).flat_map(|id| {
            let greeting = format!("Hello {id}, for the {}th time", id + 1 + round);
            [greeting, (1000 * id + round).to_string()]
        });
        let mut expected: Vec<_> = expected.collect();
        expected.sort();
        assert_eq!(said, expected);
        let seen = (0..ADDRESSES).map(|id| (id, id + 1 + round)).collect::<BTreeMap<_, _>>();
        assert_eq!(contents(&archive, GREETER, "seen"), seen);
        let sums = (0..ADDRESSES).map(|id| (id, 1000 * id + round)).collect::<BTreeMap<_, _>>();
        assert_eq!(contents(&archive, ADDER, "sum"), sums);
    }
}
