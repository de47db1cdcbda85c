//! Greets people, and remembers how often it has seen each.
//!
//! `cargo run --release --example greeter`

use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::{Egress, Envelope, Function, Functions, StatefulFunctions};
use timely_statefun::{FunctionType, ValueSpec};

const PERSON: FunctionType<String> = FunctionType::new("example/person");
const SEEN: ValueSpec<u64> = ValueSpec::new("seen");
const GREETINGS: Egress<String> = Egress::new("example/greetings");

fn functions() -> Functions<String> {
    let person = Function::new(|context, name: &String| {
        let seen = context.update(SEEN, |seen| *seen += 1);
        let greeting = match seen {
            1 => format!("Hello, {name}!"),
            _ => format!("Hello again, {name}, for the {seen}. time!"),
        };
        context.emit(GREETINGS, greeting);
        Ok(())
    });
    Functions::new().embedded(PERSON, person.value(SEEN)).egress(GREETINGS)
}

fn main() {
    let workers = timely_statefun::execute_from_args(std::env::args(), |worker| {
        let (mut names, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (names, stream) = scope.new_input::<Vec<Envelope<String>>>();
            let egresses = stream.stateful_functions(functions()).expect("bound once each");
            let greetings = egresses.stream(GREETINGS).expect("GREETINGS is bound");
            greetings.inspect(|greeting| println!("{greeting}"));
            (names, egresses.handle())
        });
        if worker.index() == 0 {
            for name in ["Ada", "Grace", "Ada", "Barbara", "Grace", "Ada"] {
                names.send(PERSON.message(name, name.to_owned()));
            }
        }
        names.close();
        handle.run(worker).expect("no greeting fails");
        handle.stats().handled
    });
    let handled: u64 = workers.expect("no worker fails").into_iter().sum();
    assert_eq!(handled, 6);
}
