//! An answer takes no more memory than a few times its bytes, whatever it lists.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use peak_alloc::PeakAlloc;
use protocol::*;
use server::{Answer, Server};
use timely_statefun::{Endpoint, OnFailure};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

/// A field with a length, and so many bytes in it.
fn field(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut field = key.to_vec();
    while length >= 0x80 {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    [&field, bytes].concat()
}

/// Two bytes can be a message to nobody, a delayed one, a record, a change of state or a missing state.
#[test]
fn an_answer_of_empty_elements_takes_a_few_times_its_bytes() {
    const BYTES: usize = 24 * MIB;
    let lists: [(&[u8], u8); 5] = [
        (&[0xa2, 0x06], 0x0a),
        (&[0xa2, 0x06], 0x12),
        (&[0xa2, 0x06], 0x1a),
        (&[0xa2, 0x06], 0x22),
        (&[0xaa, 0x06], 0x0a),
    ];
    for (key, list) in lists {
        let answer = field(key, &[list, 0].repeat(BYTES / 2));
        let server = Server::start(move |_| Answer::Ok(answer.clone()));
        let url = server.url();
        let endpoint = move || Endpoint::at(&url).on_failure(OnFailure::DeadLetter);
        // The answer as it was made, as it is sent, and as it is read.
        let before = PEAK.current_usage();
        PEAK.reset_peak_usage();
        let ran = run_on(1, move || remote(endpoint()), vec![greet(0, "x")]);
        let peak = PEAK.peak_usage() - before;
        let [letter] = &ran.letters[..] else { panic!("{ran:?}") };
        let text = letter.reason.to_string();
        assert!(text.contains("lists 12582912 effects or states (effects_max: 100000)"), "{text}");
        assert!(peak < 6 * BYTES, "{} MiB for {} MiB", peak / MIB, BYTES / MIB);
    }
}

/// As many as there may be are read, and take what they take.
#[test]
fn an_answer_may_list_as_much_as_the_option_says() {
    for (listed, may) in [(1000, true), (1001, false)] {
        let server = Server::start(move |request| {
            let batch = batch(&request);
            let greeting = |number: usize| egress(&format!("{} {number}", id(&batch)));
            done(timely_statefun_proto::reqreply::from_function::InvocationResponse {
                outgoing_egresses: (0..listed).map(greeting).collect(),
                ..Default::default()
            })
        });
        let url = server.url();
        let endpoint =
            move || Endpoint::at(&url).on_failure(OnFailure::DeadLetter).effects_max(1000);
        let ran = run_on(1, move || remote(endpoint()), vec![greet(0, "x")]);
        let expected = if may { (1000, 0) } else { (0, 1) };
        assert_eq!((ran.greetings.len(), ran.letters.len()), expected);
    }
}
