//! Whatever bytes arrive, reading them ends with a message or an error, and takes no more memory than
//! bytes of that number can ask for.
//!
//! The inputs are recorded exchanges and messages with any content, of which parts were changed,
//! taken away, repeated or exchanged. A failure tells the input.

mod support;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use peak_alloc::PeakAlloc;
use support::samples::Sample;
use support::wire::{disturbed, write};
use support::{Random, Seeded};
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, InvocationResponse, Response,
};
use timely_statefun_proto::reqreply::to_function::Request;
use timely_statefun_proto::reqreply::{FromFunction, ToFunction, TypedValue};
use timely_statefun_proto::{BuiltIn, Bytes, Message, ValueError};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What other threads of the test program may take meanwhile, and what an error needs.
const SLACK: usize = 16 << 10;

/// Two bytes can be an empty element of a list, and elements are as large as this. While a list grows,
/// the old one and one of twice the size are there together.
const LIST_BYTES: usize = 3 * size_of::<DelayedInvocation>() / 2;

/// One measurement at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `read`, which may take this much memory.
#[track_caller]
fn within<T>(bytes: usize, read: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = read();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= bytes + SLACK, "took {taken} bytes, and not at most {bytes} or a little more");
    result
}

/// Reads any bytes as an answer, and all values in it. Whether there was one.
fn any_answer(input: &Bytes) -> bool {
    let room = LIST_BYTES * input.len();
    let copied = within(room, || FromFunction::decode(&input[..]));
    let shared = within(room, || FromFunction::decode(input.clone()));
    assert_eq!(copied, shared);
    let Ok(answer) = shared else { return false };
    assert_eq!(FromFunction::decode(&answer.encode_to_vec()[..]).as_ref(), Ok(&answer));
    if let Some(Response::InvocationResult(result)) = &answer.response {
        values_of(result).for_each(any_typed_value);
    }
    true
}

fn values_of(result: &InvocationResponse) -> impl Iterator<Item = &TypedValue> {
    let mutations = result.state_mutations.iter().map(|mutation| &mutation.state_value);
    let messages = result.outgoing_messages.iter().map(|message| &message.argument);
    let delayed = result.delayed_invocations.iter().map(|message| &message.argument);
    let egresses = result.outgoing_egresses.iter().map(|record| &record.argument);
    mutations.chain(messages).chain(delayed).chain(egresses).flatten()
}

/// Reads any bytes as a request. Whether there was one.
fn any_request(input: &Bytes) -> bool {
    let request = within(LIST_BYTES * input.len(), || ToFunction::decode(input.clone()));
    let Ok(request) = request else { return false };
    assert_eq!(ToFunction::decode(&request.encode_to_vec()[..]).as_ref(), Ok(&request));
    let Some(Request::Invocation(batch)) = &request.request else { return true };
    let state = batch.state.iter().filter_map(|state| state.state_value.as_ref());
    let arguments = batch.invocations.iter().filter_map(|message| message.argument.as_ref());
    state.chain(arguments).for_each(any_typed_value);
    true
}

/// Reads a value as every built-in type, and as what it says it is.
fn any_typed_value(value: &TypedValue) {
    let Some(typed) = value.typed() else { return };
    any_value(typed.bytes);
    match typed.read::<String>() {
        Err(ValueError::OtherType { found, .. }) => assert_eq!(found, typed.type_name),
        read => {
            assert_eq!(typed.type_name, String::TYPE_NAME);
            assert_eq!(read, String::from_bytes(typed.bytes));
        }
    }
}

/// Reads any bytes as a value of every built-in type. As how many there was one.
fn any_value(input: &[u8]) -> usize {
    fn one<V: BuiltIn>(input: &[u8]) -> usize {
        let Ok(value) = within(2 * input.len(), || V::from_bytes(input)) else { return 0 };
        let bytes = value.to_bytes();
        assert!(bytes.len() <= input.len(), "{bytes:02x?} is longer than what was read");
        assert_eq!(V::from_bytes(&bytes).map(|again| again.to_bytes()), Ok(bytes));
        1
    }
    one::<bool>(input)
        + one::<i32>(input)
        + one::<i64>(input)
        + one::<f32>(input)
        + one::<f64>(input)
        + one::<String>(input)
}

/// All that is recorded in hexadecimal: requests, answers and values.
fn recorded() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "json")) {
        let text = fs::read_to_string(path).unwrap();
        for after in text.split("_hex\": \"").skip(1) {
            let hex = after.split('"').next().unwrap().as_bytes();
            let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
            found.push(hex.chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect());
        }
    }
    assert!(found.len() > 500, "{} recordings", found.len());
    found
}

/// One of the inputs, changed in some places.
fn mutated(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.one_of(inputs);
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(12) + 1);
        let part = || bytes[at..end].to_vec();
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.any() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let repeated = part().repeat(1 + random.below(20));
                bytes.splice(at..at, repeated).for_each(drop);
            }
            5 => {
                let other = random.one_of(inputs);
                let from = random.below(other.len() + 1);
                bytes.splice(at..end, other[from..].iter().copied()).for_each(drop);
            }
            // Lengths and numbers that are as large as can be, or too large.
            6 => {
                let ends: [&[u8]; 4] = [&[0x01], &[0x7f], &[0xff, 0x01], &[0x00]];
                let mut large = vec![0xff; random.below(10)];
                large.extend(random.one_of(&ends));
                bytes.splice(at..end, large).for_each(drop);
            }
            _ => {
                let any = random.any().to_le_bytes();
                bytes.splice(at..end, any[..random.below(9)].iter().copied()).for_each(drop);
            }
        }
    }
    bytes
}

/// Says, if reading fails, what was being read.
struct Reading<'a>(&'a [u8]);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this happened with the input {:02x?}", self.0);
        }
    }
}

/// Messages with any content, in any form.
fn samples<M: Sample>(random: &mut Random) -> impl Iterator<Item = Vec<u8>> {
    (0..200).map(|_| write(&disturbed(&M::sample(random).fields(), random)))
}

#[test]
fn any_bytes_are_a_message_or_an_error() {
    let seed = 0x5eed_0004;
    let _alone = alone();
    let _seeded = Seeded(seed);
    let random = &mut Random(seed);
    let mut inputs = recorded();
    inputs.extend(samples::<FromFunction>(random));
    inputs.extend(samples::<ToFunction>(random));

    let (mut answers, mut requests) = (0, 0);
    let rounds = 1_000_000;
    for _ in 0..rounds {
        let input = Bytes::from(mutated(&inputs, random));
        let _reading = Reading(&input);
        answers += usize::from(any_answer(&input));
        requests += usize::from(any_request(&input));
    }
    println!("{answers} answers and {requests} requests in {rounds} rounds");
    assert!(answers.min(requests) > rounds / 50, "{answers} answers, {requests} requests");
    assert!(answers.max(requests) < rounds - rounds / 50, "hardly anything was changed");
}

#[test]
fn any_bytes_are_a_value_or_an_error() {
    let seed = 0x5eed_0005;
    let _alone = alone();
    let _seeded = Seeded(seed);
    let random = &mut Random(seed);
    let mut inputs: Vec<_> = recorded().into_iter().filter(|bytes| bytes.len() < 64).collect();
    for _ in 0..200 {
        let texts = random.text().to_bytes();
        let number = random.number();
        let numbers = [(number as i32).to_bytes(), (number as i64).to_bytes()];
        inputs.extend(numbers.iter().chain([&texts]).map(|bytes| bytes.to_vec()));
    }

    let mut values = 0;
    let rounds = 2_000_000;
    for _ in 0..rounds {
        let input = mutated(&inputs, random);
        let _reading = Reading(&input);
        values += any_value(&input);
    }
    println!("{values} values in {rounds} rounds");
    assert!(values > rounds / 10, "{values} values");
    assert!(values < 5 * rounds, "hardly anything was changed");
}

/// A length is believed only as far as there are bytes.
#[test]
fn a_length_that_lies_takes_no_memory() {
    let _alone = alone();
    for length in [&[0xff, 0xff, 0xff, 0x7f][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let lie = |tag: &[u8]| [tag, length, &[0; 100]].concat();
        for tag in [&[0x0a][..], &[0xa2, 0x06]] {
            assert_eq!(any_value(&lie(tag)), 0, "{tag:02x?} {length:02x?}");
            assert!(!any_answer(&lie(tag).into()), "{tag:02x?} {length:02x?}");
        }
        for tag in [0x0a, 0x12, 0x1a, 0x22] {
            let inner = lie(&[tag]);
            let input = [&[0xa2, 0x06, inner.len() as u8][..], &inner].concat();
            assert!(!any_answer(&input.into()), "{tag:02x?} {length:02x?}");
        }
    }
}

/// As many elements as fit, and just one more than a list had room for.
#[test]
fn a_list_of_nothing_takes_what_its_elements_take() {
    let _alone = alone();
    let count = (1 << 16) + 1;
    let length = [0x82, 0x80, 0x08];
    let input = [&[0xa2, 0x06][..], &length, &[0x1a, 0].repeat(count)].concat();
    assert!(any_answer(&input.clone().into()));
    let answer = FromFunction::decode(&input[..]).unwrap();
    let Some(Response::InvocationResult(result)) = answer.response else { panic!("{answer:?}") };
    assert_eq!(result.delayed_invocations.len(), count);
}
