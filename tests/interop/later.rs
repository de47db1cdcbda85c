//! What functions do later, by a clock that is turned here: state that expires, delayed messages.

use crate::Site;
use crate::functions::{KEEPER, Record, SCHEDULER};
use crate::program::Program;

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

pub fn state_expires(site: &Site<'_>) {
    let mut program = Program::remote(site.workers, site.url, &[KEEPER]);
    let nothing: [&str; 0] = [];
    let steps: &[(u64, &str, &str)] = &[
        (0, "get", "written=- called=- kept=-"),
        (0, "set X", ""),
        (0, "get", "written=X called=X kept=X"),
        (600, "poke", ""),
        // 1,200 ms after the write, 600 after the last call.
        (600, "get", "written=- called=X kept=X"),
        (900, "get", "written=- called=X kept=X"),
        (1100, "get", "written=- called=- kept=X"),
        // All again, and the write counts anew.
        (0, "set Y", ""),
        (700, "set Z", ""),
        (700, "get", "written=Z called=Z kept=Z"),
        (400, "get", "written=- called=Z kept=Z"),
    ];
    for (later_ms, message, emitted) in steps {
        program.turn(*later_ms);
        let records = program.ask([KEEPER.message("x", (*message).to_owned())]);
        match *emitted {
            "" => assert_eq!(texts(&records), nothing, "after {message}"),
            emitted => assert_eq!(texts(&records), [emitted]),
        }
    }
}

pub fn delayed_messages_come(site: &Site<'_>) {
    let mut program = Program::remote(site.workers, site.url, &[SCHEDULER]);
    let message = |text: &str| SCHEDULER.message("x", text.to_owned());
    let nothing: [&str; 0] = [];
    let ask = |program: &mut Program, texts_sent: &[&str]| {
        texts(&program.ask(texts_sent.iter().map(|text| message(text))))
    };
    let sent = ["after 100 t1 one", "after 200 t2 two", "after 300 - three", "after 100 t3 four"];
    assert_eq!(ask(&mut program, &sent), nothing);
    assert_eq!(ask(&mut program, &["cancel t2"]), nothing);
    program.turn(99);
    assert_eq!(ask(&mut program, &["fired not-yet"]), ["not-yet"]);
    program.turn(1);
    assert_eq!(texts(&program.records(2)), ["one", "four"], "in the order they were sent");
    // What was cancelled would have come before this.
    program.turn(200);
    assert_eq!(texts(&program.records(1)), ["three"]);
    // To cancel what has been sent off does nothing, and its token is free again.
    assert_eq!(ask(&mut program, &["cancel t1", "after 50 t1 again"]), nothing);
    program.turn(50);
    assert_eq!(texts(&program.records(1)), ["again"]);
    // All in the order in which it was said, be it one batch or several.
    let sent = ["after 10 t never", "cancel t", "after 10 t ever", "after 20 - end"];
    assert_eq!(ask(&mut program, &sent), nothing);
    program.turn(20);
    assert_eq!(texts(&program.records(2)), ["ever", "end"]);
    // At once, and after more milliseconds than 32 bits can say.
    program.send([message("after 0 - now")]);
    assert_eq!(texts(&program.records(1)), ["now"]);
    assert_eq!(ask(&mut program, &["after 5000000000 - far"]), nothing);
    program.turn(4_999_999_999);
    assert_eq!(ask(&mut program, &["fired not-yet"]), ["not-yet"]);
    program.turn(1);
    assert_eq!(texts(&program.records(1)), ["far"]);
}
