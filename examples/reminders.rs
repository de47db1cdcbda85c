//! Reminds people of things, some of which they cancel, and forgets notes that nobody reads.
//!
//! A day passes in no time: the program turns the clock, an hour at a time, and each time waits until
//! everything that was due has happened.
//!
//! `cargo run --release --example reminders`

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely_statefun::{AtClose, Clock, Context, Egress, Envelope, Expiration, Function};
use timely_statefun::{FunctionResult, FunctionType, Functions, StatefulFunctions, ValueSpec};

const HOUR: Duration = Duration::from_secs(60 * 60);
const HOUR_MS: u64 = 60 * 60 * 1000;

const PERSON: FunctionType<Message> = FunctionType::new("example/person");
/// Forgotten three hours after it was last written or read.
const NOTE: ValueSpec<String> =
    ValueSpec::new("note").expiring(Expiration::after_read_or_write(Duration::from_secs(3 * 3600)));
/// What was said to whom, with the hour of the clock.
const SAID: Egress<(u64, String)> = Egress::new("example/said");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    Remind { of: String, in_hours: u32 },
    Cancel(String),
    Due(String),
    Note(String),
    Read,
}

fn person(context: &mut Context<'_, Message>, message: &Message) -> FunctionResult {
    let said = match message {
        Message::Remind { of, in_hours } => {
            let (delay, due) = (HOUR * *in_hours, Message::Due(of.clone()));
            let this = context.id().clone();
            // The token is what it is about: a person has one reminder of each thing.
            match context.send_after_unless_cancelled(of, delay, PERSON, this, due) {
                Ok(()) => return Ok(()),
                Err(_) => format!("you will be reminded of {of} already"),
            }
        }
        Message::Cancel(of) => match context.cancel(of) {
            true => return Ok(()),
            false => format!("there is no reminder of {of}"),
        },
        Message::Due(of) => format!("remember {of}"),
        Message::Note(text) => {
            context.set(NOTE, text.clone());
            return Ok(());
        }
        Message::Read => match context.get(NOTE) {
            Some(text) => format!("you noted: {text}"),
            None => "you noted nothing".to_owned(),
        },
    };
    context.emit(SAID, (context.now_ms() / HOUR_MS, format!("{}, {said}", context.id())));
    Ok(())
}

/// What people ask for, by the hour.
fn day() -> Vec<(u64, &'static str, Message)> {
    let remind = |of: &str, in_hours| Message::Remind { of: of.to_owned(), in_hours };
    let cancel = |of: &str| Message::Cancel(of.to_owned());
    vec![
        (8, "Ada", remind("lunch", 4)),
        (8, "Ada", remind("lunch", 5)),
        (8, "Grace", remind("lunch", 4)),
        (8, "Grace", Message::Note("ask Ada about the engine".to_owned())),
        (9, "Ada", remind("the dentist", 5)),
        (10, "Grace", Message::Read),
        (11, "Grace", cancel("lunch")), // Hers, not Ada's.
        (12, "Grace", Message::Read),
        (13, "Ada", cancel("lunch")), // It was an hour ago.
        (16, "Grace", Message::Read), // She last looked four hours ago.
        (17, "Ada", remind("the milk", 14)),
    ]
}

const SAID_IN_ALL: [(u64, &str); 8] = [
    (8, "Ada, you will be reminded of lunch already"),
    (10, "Grace, you noted: ask Ada about the engine"),
    (12, "Ada, remember lunch"),
    (12, "Grace, you noted: ask Ada about the engine"),
    (13, "Ada, there is no reminder of lunch"),
    (14, "Ada, remember the dentist"),
    (16, "Grace, you noted nothing"),
    (18, "Ada, remember the milk"), // The program ends: what waits is sent off at once.
];

fn main() {
    let workers = timely_statefun::execute_from_args(std::env::args(), |worker| {
        // Each worker has a clock of its own, which it turns in step with its input.
        let (clock, hands) = Clock::turned(8 * HOUR_MS);
        let said = Rc::new(RefCell::new(Vec::new()));
        let hear = Rc::clone(&said);
        let (mut input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
            let functions = Functions::new()
                .embedded(PERSON, Function::new(person).value(NOTE))
                .egress(SAID)
                .clock(clock)
                .at_close(AtClose::SendNow);
            let egresses = stream.stateful_functions(functions).expect("bound once each");
            let stream = egresses.stream(SAID).expect("SAID is bound");
            let stream = stream.exchange(|_| 0);
            let stream = stream.inspect(move |said| hear.borrow_mut().push(said.clone()));
            (input, stream.probe().0, egresses.handle())
        });
        for hour in 8..18 {
            if worker.index() == 0 {
                let now = day().into_iter().filter(|(at, ..)| *at == hour);
                now.for_each(|(_, who, message)| input.send(PERSON.message(who, message)));
            }
            let (asked, turned) = (2 * hour, 2 * hour + 1);
            input.advance_to(asked);
            handle.run_while(worker, || probe.less_than(&asked)).expect("nothing fails");
            // What is due happens in this step, while the input still stands at its time.
            hands.advance(HOUR);
            worker.step();
            input.advance_to(turned);
            handle.run_while(worker, || probe.less_than(&turned)).expect("nothing fails");
        }
        input.close();
        handle.run(worker).expect("nothing fails");
        (worker.index() == 0).then(|| said.take())
    });
    let workers = workers.expect("no worker fails");
    // Everything was said to worker 0, which one process has.
    for mut said in workers.into_iter().flatten() {
        said.sort();
        for (hour, said) in &said {
            println!("{hour:>2}:00  {said}");
        }
        let said = said.iter().map(|(hour, said)| (*hour, said.as_str()));
        assert!(said.eq(SAID_IN_ALL), "something else was to be said");
    }
}
