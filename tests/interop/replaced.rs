//! A server is replaced by one of a new version while messages flow: no restart, nothing lost or doubled.

use std::collections::BTreeMap;

use timely_statefun::TypedValue;

use crate::Language;
use crate::forwarder::Forwarder;
use crate::functions::{ALL, Record};
use crate::program::Program;

const ADDRESSES: u64 = 50;
/// To each address.
const MESSAGES: u64 = 80;
const WORKERS: usize = 2;

/// The counts in `first=N second=M`.
fn counts(record: &Record) -> (u64, Option<u64>) {
    let text = record.text();
    let counts = text.strip_prefix("first=").and_then(|rest| rest.split_once(" second="));
    let (first, second) = counts.unwrap_or_else(|| panic!("{text:?}"));
    (first.parse().unwrap(), second.parse().ok())
}

pub fn a_server_is_replaced(language: &Language) {
    let (old, new) = (language.serve(1), language.serve(2));
    let forwarder = Forwarder::to(old.port);
    let mut old = Some(old);
    let mut program = Program::remote_namespace(WORKERS, &forwarder.url(), ALL);
    let message = |function: &str, id: u64| {
        ALL.message(function, id, TypedValue::of(&"x".to_owned())).unwrap()
    };
    for round in 0..MESSAGES {
        program.send((0..ADDRESSES).map(|id| message("changing", id)));
        if round == MESSAGES / 2 {
            // In the middle of what was sent, with calls under way.
            program.wait_for((ADDRESSES * MESSAGES / 4) as usize);
            forwarder.switch(new.port);
            drop(old.take());
        }
    }
    let records = program.finish();
    // Each address counts from one: each number comes once for each address.
    let mut firsts = BTreeMap::new();
    for (first, _) in records.iter().map(counts) {
        *firsts.entry(first).or_insert(0) += 1;
    }
    let expected = (1..=MESSAGES).map(|first| (first, ADDRESSES));
    assert_eq!(firsts, expected.collect(), "each number once for each address");
    let by_new = records.iter().filter(|record| counts(record).1.is_some()).count() as u64;
    assert!((1..ADDRESSES * MESSAGES).contains(&by_new), "{by_new} were counted by the new server");

    // One more for each, which says what it has come to.
    let mut seconds = 0;
    for id in 0..ADDRESSES {
        let records = program.ask([message("changing", id)]);
        let (first, second) = counts(&records[0]);
        let second = second.expect("the new server answers");
        assert_eq!((records.len(), first), (1, MESSAGES + 1));
        assert!(second <= first, "{second} of {first}");
        seconds += second - 1;
    }
    assert_eq!(seconds, by_new, "the state that has appeared is exact as well");

    // A function that nobody had heard of when the program started.
    let records = program.ask([message("appeared", 0)]);
    assert_eq!(records.iter().map(Record::text).collect::<Vec<_>>(), ["appeared x"]);
    assert!(program.dead_letters().is_empty());
}
