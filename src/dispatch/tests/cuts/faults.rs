//! Messages that cannot be written, deltas that cannot be taken, and damaged records.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::*;
use crate::dead_letter::OnFailure;
use crate::dispatch::{
    Bound, Dispatcher, Egresses, Entrance, Names, Origin, Outcome, Place, Routed, Surroundings,
};
use crate::endpoint::Endpoint;
use crate::function::{Body, Function};
use crate::retry::Retry;
use crate::{DeadLetter, Egress, FunctionType, ValueSpec};

/// A type that does not do as it should, by its number. It is a message and a time.
#[derive(Clone, Debug, PartialEq)]
struct Odd(u8);

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            1 => Err(S::Error::custom("there is no form for it")),
            2 => panic!("written in vain"),
            number => number.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            3 => Err(D::Error::custom("it has another form")),
            4 => panic!("read in vain"),
            number => Ok(Odd(number)),
        }
    }
}

impl crate::Named for Odd {
    const TYPE_NAME: &'static str = "test/odd";
}

impl crate::Typed for Odd {
    fn to_bytes(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&[self.0])
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Odd(*bytes.first().ok_or("it is empty")?))
    }
}

const REMOTE: FunctionType<Odd> = FunctionType::new("test/remote");
const FAILING: FunctionType<Odd> = FunctionType::new("test/failing");
const SETTING: FunctionType<Odd> = FunctionType::new("test/setting");
const STARTING: FunctionType<Odd> = FunctionType::new("test/starting");
const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const LETTERS: Egress<DeadLetter<Odd>> = Egress::new("test/letters");

struct Loop {
    time: Odd,
    came: Vec<Routed<Odd>>,
}

impl Surroundings<Odd, Odd> for Loop {
    type Held = Odd;

    fn time(&self) -> &Odd {
        &self.time
    }
    fn frontier(&self) -> &[Odd] {
        &[]
    }
    fn send(&mut self, _: Routed<Odd>) -> bool {
        true
    }
    fn hold(&mut self) -> Odd {
        self.time.clone()
    }
    fn put_off(&mut self, _: bool) -> Odd {
        self.time.clone()
    }
    fn resume_first(&mut self, _: Option<Odd>, message: Routed<Odd>) {
        self.came.push(message);
    }
    fn expect_event(&mut self) {}
    fn release(&mut self, _: Odd) {}
    fn place(&self, held: &Odd) -> Place<Odd> {
        place(held)
    }
}

impl Entrance<Odd, Odd> for Loop {
    type Held = Odd;

    fn ingress_is_over(&self) -> bool {
        false
    }
    fn room(&self) -> usize {
        100
    }
    fn event(&mut self, message: Routed<Odd>) {
        self.came.push(message);
    }
    fn resume(&mut self, _: Option<Odd>, message: Routed<Odd>) {
        self.came.push(message);
    }
    fn let_pass(&mut self, _: &Odd, _: &mut Odd) -> bool {
        true
    }
    fn hold_later(&mut self, _: &Odd, time: Odd) -> Odd {
        time
    }
    fn resume_first(&mut self, _: Option<Odd>, message: Routed<Odd>) {
        self.came.push(message);
    }
    fn place(&self, held: &Odd) -> Place<Odd> {
        place(held)
    }
}

fn place(held: &Odd) -> Place<Odd> {
    Place { time: held.clone(), depth: 0, record: false }
}

type Oddly = Dispatcher<Odd, Odd, Odd>;

/// `unknown` makes the message for an outcome that is unknown.
fn dispatcher(unknown: fn() -> Odd) -> (Oddly, Names) {
    let failing = Function::<Odd, Odd, Odd>::new(|_, _| Err("not today".into()));
    let failing = failing.retry(Retry::attempts(2).first(Duration::from_secs(1)).jitter(0.0));
    let failing = failing.on_failure(OnFailure::DeadLetter);
    let setting = Function::<Odd, Odd, Odd>::new(|context, message: &Odd| {
        context.send_after(Duration::from_secs(5), FAILING, "x", message.clone());
        let count = context.get(COUNT).copied();
        match count {
            Some(_) => context.clear(COUNT),
            None => context.set(COUNT, 1),
        }
        Ok(())
    });
    let starting = Function::<Odd, Odd, Odd>::new(move |context, _: &Odd| {
        context.start(async { Ok::<_, Infallible>(()) }, move |outcome| match outcome {
            Outcome::Unknown => unknown(),
            _ => Odd(0),
        });
        Ok(())
    });
    let bodies = [
        Body::remote(Endpoint::at("http://localhost")),
        failing.body,
        setting.value(COUNT).body,
        starting.operations(2).body,
    ];
    let names = [REMOTE.name(), FAILING.name(), SETTING.name(), STARTING.name()];
    let bound = Bound {
        functions: names.clone().into_iter().zip(bodies.map(Rc::new)).collect(),
        namespaces: Vec::new(),
        depth_max: u32::MAX,
        delayed_messages_max: 1000,
        operations_max: 2,
        in_flight_max: 10,
        function_bytes_soft: 1_000_000,
        hurry_at_close: false,
        on_unbound: crate::OnUnbound::Fail,
        when_full: OnFailure::Stop,
        worker: 0,
    };
    let names = Names::new(names.into_iter(), Vec::new());
    let egresses = Egresses::new(Vec::new(), LETTERS, Rc::new(Cell::new(true)));
    let mut dispatcher = Dispatcher::new(bound, names.clone(), egresses);
    dispatcher.keep_cuts(100, Origin { execution: 1, worker: 0 });
    (dispatcher, names)
}

fn deliver(
    dispatcher: &mut Oddly,
    names: &mut Names,
    to: FunctionType<Odd>,
    (number, time): (u8, u8),
) {
    let mut outside = Loop { time: Odd(time), came: Vec::new() };
    dispatcher.deliver(names.route(to.message("x", Odd(number))), &mut outside);
}

/// Writes all there is of the open cut, and abandons it if it cannot be written.
fn write(dispatcher: &mut Oddly) -> String {
    let error = match dispatcher.write_cut(ALL, &place, &mut Part::default()) {
        Ok(is_all) => {
            assert!(is_all);
            dispatcher.commit_cut();
            return String::new();
        }
        Err(error) => error.to_string(),
    };
    let again = dispatcher.write_cut(ALL, &place, &mut Part::default());
    assert!(!again.unwrap(), "all is not well, and it was told");
    dispatcher.abandon_cut();
    assert!(dispatcher.cut_bytes() < 20, "nothing but what is known of one that went");
    error
}

const WHY: [(u8, &str); 4] = [
    (1, "cannot be written: there is no form for it"),
    (2, "cannot be written: it panicked: written in vain"),
    (3, "can be written, but not be read again: it has another form"),
    (4, "can be written, but not be read again: it panicked: read in vain"),
];

/// Has done with whatever waits, which is written first if a cut is open.
fn come_to_an_end(dispatcher: &mut Oddly) {
    for round in 1..4 {
        let mut outside = Loop { time: Odd(0), came: Vec::new() };
        dispatcher.note_time(round * 1_000_000);
        dispatcher.poll(&mut outside);
        for (key, _) in dispatcher.startable() {
            dispatcher.end_operation(key, Ok(Odd(0)), &mut outside);
        }
        let mut called = Vec::new();
        dispatcher.requests(&mut |key, _, _| called.push(key));
        for key in called {
            let answer = crate::dispatch::CallAnswer::Done(Default::default());
            dispatcher.end_call(key, Ok(answer), &mut outside);
        }
        while let Some(message) = outside.came.pop() {
            dispatcher.deliver(message, &mut outside);
        }
    }
}

#[test]
fn a_message_that_cannot_be_written_or_not_be_read_again_is_named_with_its_address() {
    for to in [REMOTE, FAILING, SETTING] {
        for (number, why) in WHY {
            // The message, or its time; a delayed message has none.
            for odd in [(number, 0), (0, number)] {
                let is_written = to.name() == SETTING.name() && odd.0 == 0;
                // What goes while the walk has not come to it fails as well.
                for is_overtaken in [false, true] {
                    let (mut dispatcher, mut names) = dispatcher(|| Odd(0));
                    deliver(&mut dispatcher, &mut names, to, odd);
                    dispatcher.take_cut(false);
                    if is_overtaken {
                        come_to_an_end(&mut dispatcher);
                    }
                    let error = write(&mut dispatcher);
                    let target = if to.name() == SETTING.name() { FAILING } else { to };
                    let expected = format!("a message for \"{}\" {why}", target.at("x"));
                    assert_eq!(error, if is_written { "" } else { &expected });
                    come_to_an_end(&mut dispatcher);
                    dispatcher.take_cut(false);
                    assert_eq!(write(&mut dispatcher), "", "life goes on");
                }
            }
        }
    }
}

#[test]
fn what_the_loop_hands_over_and_cannot_be_written_is_named_as_well() {
    let (mut dispatcher, mut names) = dispatcher(|| Odd(0));
    for is_logged in [false, true] {
        let routed = names.route(REMOTE.message("x", Odd(1)));
        dispatcher.take_cut(false);
        let part = &mut Part::default();
        let error = dispatcher.write_waiting(place(&Odd(0)), &routed, is_logged, part);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, format!("a message for \"test/remote x\" {}", WHY[0].1));
        dispatcher.write_waiting(place(&Odd(0)), &routed, is_logged, part).unwrap();
        assert!(!dispatcher.write_cut(ALL, &place, part).unwrap(), "it was told");
        dispatcher.abandon_cut();
    }
}

#[test]
fn an_operation_whose_outcome_cannot_be_unknown_is_named_with_its_address() {
    let at = STARTING.at("x");
    for is_overtaken in [false, true] {
        for (unknown, expected) in [
            (
                (|| panic!("it is known")) as fn() -> Odd,
                format!("\"{at}\" has no message for an unknown outcome: it panicked: it is known"),
            ),
            (|| Odd(1), format!("a message for \"{at}\" {}", WHY[0].1)),
        ] {
            let (mut dispatcher, mut names) = dispatcher(unknown);
            deliver(&mut dispatcher, &mut names, STARTING, (0, 0));
            dispatcher.take_cut(false);
            if is_overtaken {
                come_to_an_end(&mut dispatcher);
            }
            assert_eq!(write(&mut dispatcher), expected);
        }
    }
}

#[test]
fn a_delta_where_only_a_full_cut_can_follow_is_an_error_of_the_cut() {
    let (mut dispatcher, mut names) = dispatcher(|| Odd(0));
    let mut set = |dispatcher: &mut Oddly, count| {
        for id in 0..count {
            let mut outside = Loop { time: Odd(0), came: Vec::new() };
            dispatcher.deliver(names.route(SETTING.message(id, Odd(0))), &mut outside);
        }
    };
    set(&mut dispatcher, 30);
    dispatcher.take_cut(false);
    assert_eq!(write(&mut dispatcher), "");
    set(&mut dispatcher, 1);
    dispatcher.take_cut(true);
    assert_eq!((write(&mut dispatcher), dispatcher.wants_full()), (String::new(), false));
    // All values are taken away.
    set(&mut dispatcher, 30);
    assert!(dispatcher.wants_full());
    dispatcher.take_cut(true);
    let error = "the state of function type \"test/setting\" can only be written in full";
    assert_eq!(write(&mut dispatcher), error);
    dispatcher.take_cut(false);
    assert_eq!((write(&mut dispatcher), dispatcher.wants_full()), (String::new(), false));
    // All delayed messages are sent off.
    come_to_an_end(&mut dispatcher);
    assert!(dispatcher.wants_full());
    dispatcher.take_cut(true);
    assert_eq!(write(&mut dispatcher), "delayed messages can only be written in full");
    dispatcher.take_cut(false);
    assert_eq!((write(&mut dispatcher), dispatcher.wants_full()), (String::new(), false));
}

/// Whatever it is, it is not a panic.
#[test]
fn damaged_cuts_are_errors_or_other_cuts() {
    let (mut all_errors, mut all_restored) = (0, 0);
    for seed in 0..40 {
        let (errors, restored) = of_seed(seed, || Ok(damage_and_restore(seed)));
        all_errors += errors;
        all_restored += restored;
    }
    assert!(all_errors > 500 && all_restored > 500, "{all_errors} and {all_restored}");
}

/// Damages a chain in many ways, and counts how often that is an error, and how often it is restored.
fn damage_and_restore(seed: u64) -> (usize, usize) {
    let (mut errors, mut restored) = (0, 0);
    let mut draw = draws(seed);
    let chain = program::chain(seed);
    for _ in 0..100 {
        let mut damaged = chain.clone();
        for _ in 0..1 + draw(3) {
            let at = draw(damaged.len() as u64) as usize;
            let files = &mut damaged[at];
            let at = draw(files.len() as u64) as usize;
            damage(&mut files[at], &mut draw);
        }
        match program::go_on(&damaged, seed) {
            Ok(()) => restored += 1,
            Err(Failed(why)) => {
                assert!(!why.is_empty());
                errors += 1;
            }
        }
    }
    (errors, restored)
}

fn damage(file: &mut worker::File, draw: &mut impl FnMut(u64) -> u64) {
    if draw(10) == 0 {
        damage_bytes(&mut file.table, draw);
        return;
    }
    if file.records.is_empty() {
        return;
    }
    let at = draw(file.records.len() as u64) as usize;
    match draw(12) {
        0 => _ = file.records.remove(at),
        1 => {
            let twice = file.records[at].clone();
            file.records.push(twice);
        }
        2 => file.records[at].kind = RecordKind::ALL[draw(7) as usize],
        3 => file.records[at].bin ^= 1 << draw(12),
        _ => damage_bytes(&mut file.records[at].record, draw),
    }
}

fn damage_bytes(bytes: &mut Vec<u8>, draw: &mut impl FnMut(u64) -> u64) {
    let length = bytes.len() as u64;
    match draw(4) {
        _ if length == 0 => bytes.push(draw(256) as u8),
        0 => bytes.truncate(draw(length) as usize),
        1 => {
            let at = draw(length) as usize;
            bytes.splice(at..at, [0xff; 9].into_iter().take(draw(10) as usize));
        }
        2 => bytes[draw(length) as usize] ^= 1 << draw(8),
        _ => bytes[draw(length) as usize] = draw(256) as u8,
    }
}
