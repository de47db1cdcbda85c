//! What every server does on being asked: greet, reply, forward, emit, add, fail.

use std::time::Duration;

use timely_statefun::{Endpoint, Envelope, OnFailure, TypedValue};
use timely_statefun_proto::Message;
use timely_statefun_proto::egress::{KafkaProducerRecord, KinesisEgressRecord};
use timely_statefun_proto::type_names::{KAFKA_RECORD, KINESIS_RECORD};

use crate::Site;
use crate::forwarder::Forwarder;
use crate::functions::{
    ADDER, ALL, CALLER, FAILING, FORWARDER, GREETER, RECORDS, REQUESTS, Record,
};
use crate::program::Program;

/// Ids that somebody might take for something else.
const IDS: [&str; 5] = ["Ada", "7", "a b", "x/y#z", "Zoë ☃"];

fn greeting(name: &str, count: usize) -> String {
    format!("Hello {name}, for the {count}th time")
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

pub fn greeters_keep_their_state(site: &Site<'_>) {
    let mut program = Program::remote(site.workers, site.url, &[GREETER]);
    for round in 0..3 {
        // Two at once for each: one batch, or two.
        let messages = IDS.iter().flat_map(|id| [id, id]);
        let messages = messages.map(|id| GREETER.message(*id, (*id).to_owned()));
        let records = program.ask(messages);
        let counts = [2 * round + 1, 2 * round + 2];
        let expected = IDS.iter().flat_map(|id| counts.map(|count| greeting(id, count)));
        assert_eq!(sorted(texts(&records)), sorted(expected));
    }
    assert_eq!(texts(&program.ask([GREETER.message("nobody", String::new())])), [greeting("", 1)]);
}

pub fn a_greeter_replies(site: &Site<'_>) {
    let mut program = Program::remote(site.workers, site.url, &[GREETER]);
    let callers = ["one", "other"];
    let ask = callers.map(|id| CALLER.message(id, "ask Ada".to_owned()));
    let records = program.ask(ask);
    let (heard, emitted): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| record.egress.starts_with("driver/"));
    assert_eq!(texts(&emitted), [greeting("Ada", 1), greeting("Ada", 2)]);
    let heard = sorted(heard.iter().map(Record::heard));
    let says = |id: &str, count| {
        format!("driver/caller {id}: interop/greeter Ada says {}", greeting("Ada", count))
    };
    let either = [[says("one", 1), says("other", 2)], [says("one", 2), says("other", 1)]];
    assert!(either.contains(&heard.clone().try_into().unwrap()), "{heard:?}");
}

pub fn messages_reach_embedded_functions(site: &Site<'_>) {
    let mut program = Program::remote(site.workers, site.url, &[FORWARDER]);
    let messages = (0..50).map(|number| {
        FORWARDER.message(number % 5, format!("driver/caller é/{} text{number}", number % 5))
    });
    let records = program.ask(messages);
    let mut heard: Vec<_> = records.iter().map(Record::heard).collect();
    // In order for each; stable, so the order within each stays.
    heard.sort_by_key(|heard| heard.split_once(':').map(|(who, _)| who.to_owned()));
    let expected = (0..5).flat_map(|id| {
        (0..10).map(move |step| {
            let number = 5 * step + id;
            format!("driver/caller é/{id}: interop/forwarder {id} says text{number}")
        })
    });
    assert_eq!(heard, expected.collect::<Vec<_>>());
}

pub fn records_are_complete(site: &Site<'_>) {
    let mut program = Program::remote(site.workers, site.url, &[RECORDS]);
    let mut emitted = |text: &str| {
        let records = program.ask([RECORDS.message("x", text.to_owned())]);
        assert_eq!(records.len(), 1, "{records:?}");
        records[0].record().clone()
    };
    let value = emitted("kafka orders key-1 dreißig☃");
    assert_eq!(value.type_name(), KAFKA_RECORD);
    let found = KafkaProducerRecord::decode(value.bytes().clone()).unwrap();
    let value_bytes = "dreißig☃".into();
    let expected =
        KafkaProducerRecord { key: "key-1".to_owned(), value_bytes, topic: "orders".to_owned() };
    assert_eq!(found, expected);

    let value = emitted("kinesis clicks part☃ x");
    assert_eq!(value.type_name(), KINESIS_RECORD);
    let found = KinesisEgressRecord::decode(value.bytes().clone()).unwrap();
    let expected = KinesisEgressRecord {
        partition_key: "part☃".to_owned(),
        value_bytes: "x".into(),
        stream: "clicks".to_owned(),
        explicit_hash_key: String::new(),
    };
    assert_eq!(found, expected);
}

pub fn what_waits_goes_in_batches(site: &Site<'_>) {
    const MESSAGES: i32 = 1000;
    const ADDRESSES: i32 = 4;
    /// By which the sums of addresses differ.
    const APART: i32 = 10_000_000;
    let endpoint = Endpoint::at(site.url);
    let mut program = Program::start(site.workers, move |bound| {
        bound.remote(ADDER, endpoint.clone()).remote(REQUESTS, endpoint.clone())
    });
    let mut requests = || program.ask([REQUESTS.message("x", String::new())])[0].sum();
    let before = requests();
    let number = |address: i32, at: i32| if at == 0 { address * APART } else { at };
    let messages = (0..MESSAGES).flat_map(|at| {
        (0..ADDRESSES).map(move |address| ADDER.message(address as u64, number(address, at)))
    });
    let records = program.ask(messages);
    let mut sums: Vec<_> = records.iter().map(Record::sum).collect();
    sums.sort_by_key(|sum| sum / APART);
    let expected = (0..ADDRESSES).flat_map(|address| {
        (0..MESSAGES).scan(0, move |sum, at| {
            *sum += number(address, at);
            Some(*sum)
        })
    });
    assert!(expected.eq(sums), "every sum, in order");
    let after = program.ask([REQUESTS.message("x", String::new())])[0].sum();
    let sent = after - before;
    assert!(sent < MESSAGES / 5, "{sent} requests for {} messages", MESSAGES * ADDRESSES);
    println!("    {} messages in {sent} requests", MESSAGES * ADDRESSES);
}

pub fn one_message_fails_alone(site: &Site<'_>) {
    // What fails may be a passing condition, and is tried until this time is up. No call that succeeds
    // takes nearly as long.
    let endpoint = Endpoint::at(site.url).call_timeout(Duration::from_secs(2));
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter);
    let mut program =
        Program::start(site.workers, move |bound| bound.remote(FAILING, endpoint.clone()));
    let texts_sent =
        || (0..20).map(|at| if at == 13 { "fail".to_owned() } else { format!("{at}") });
    let messages = texts_sent().map(|text| FAILING.message("x", text));
    let records = program.ask(messages.collect::<Vec<Envelope<TypedValue>>>());
    let expected: Vec<_> = texts_sent().filter(|text| text != "fail").collect();
    assert_eq!(texts(&records), expected, "all others, in order");
    let letters = program.dead_letters();
    let given_up: Vec<_> =
        letters.iter().map(|letter| letter.message.read::<String>().unwrap()).collect();
    assert_eq!(given_up, ["fail"], "{letters:?}");
    assert_eq!(letters[0].target, FAILING.at("x"));
}

pub fn a_namespace_is_served(site: &Site<'_>) {
    // Somebody between, who sees which paths are asked for.
    let port = site.url.split(['/', ':']).nth(4).unwrap().parse().unwrap();
    let forwarder = Forwarder::to(port);
    let mut program = Program::remote_namespace(site.workers, &forwarder.url(), ALL);
    let message =
        |function: &str, id: &str, value: TypedValue| ALL.message(function, id, value).unwrap();
    let text = |text: &str| TypedValue::of(&text.to_owned());
    for count in 1..3 {
        let records = program.ask([message("greeter", "Ada", text("Ada"))]);
        assert_eq!(texts(&records), [greeting("Ada", count)]);
        let records = program.ask([message("adder", "Ada", TypedValue::of(&7))]);
        assert_eq!(records[0].sum(), 7 * count as i32);
    }
    let there = text("interop/failing y this");
    assert_eq!(texts(&program.ask([message("forwarder", "x", there)])), ["this"]);
    let lines = forwarder.first_lines();
    let line = "POST /functions/greeter HTTP/1.1".to_owned();
    assert!(lines.contains(&line), "{lines:?}");
}
