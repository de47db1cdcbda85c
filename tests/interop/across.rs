//! Languages with one another: what one wrote another reads, and one sends to another.

use timely_statefun::Endpoint;

use crate::Language;
use crate::forwarder::Forwarder;
use crate::functions::{FAILING, FORWARDER, Record, SHARED};
use crate::program::Program;
use crate::server::Server;

fn servers(languages: &[Language]) -> Vec<(&str, Server)> {
    languages.iter().map(|language| (language.name.as_str(), language.serve(1))).collect()
}

/// Every language with every other one.
fn pairs<'a>(
    servers: &'a [(&'a str, Server)],
) -> impl Iterator<Item = (&'a (&'a str, Server), &'a (&'a str, Server))> {
    let pairs = servers.iter().flat_map(|one| servers.iter().map(move |other| (one, other)));
    pairs.filter(|((one, _), (other, _))| one != other)
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

/// One program, one URL, behind which now this, now that language is served.
pub fn one_reads_what_another_wrote(languages: &[Language]) {
    let servers = servers(languages);
    let forwarder = Forwarder::to(servers[0].1.port);
    let mut program = Program::remote(2, &forwarder.url(), &[SHARED]);
    for ((writer, written_by), (reader, read_by)) in pairs(&servers) {
        // For each pair another address, and one for all.
        let number = -(writer.len() as i32) * 1_000_003;
        for id in [&format!("{writer}-{reader}"), "all"] {
            let mut ask =
                |message: &str| texts(&program.ask([SHARED.message(id, message.to_owned())]));
            forwarder.switch(read_by.port);
            assert_eq!(ask("read").len(), 1);
            forwarder.switch(written_by.port);
            assert!(ask(&format!("write {writer}☃ {number}")).is_empty());
            forwarder.switch(read_by.port);
            let expected = format!("{writer}☃ {number} {writer}☃");
            assert_eq!(ask("read"), [expected], "{reader} reads what {writer} wrote");
        }
    }
    let nobody = program.ask([SHARED.message("nobody", "read".to_owned())]);
    assert_eq!(texts(&nobody), ["- - -"]);
}

/// A function in one language sends to one in another.
pub fn one_sends_to_another(languages: &[Language]) {
    let servers = servers(languages);
    for ((sender, from), (receiver, to)) in pairs(&servers) {
        let (from, to) = (Endpoint::at(from.url()), Endpoint::at(to.url()));
        let mut program = Program::start(2, move |bound| {
            bound.remote(FORWARDER, from.clone()).remote(FAILING, to.clone())
        });
        let text = |number: i32| format!("{sender}-{receiver}-{number}");
        let messages = (0..100)
            .map(|number| FORWARDER.message("x", format!("interop/failing y {}", text(number))));
        let expected: Vec<_> = (0..100).map(text).collect();
        assert_eq!(texts(&program.ask(messages)), expected, "all, in order");
    }
}
