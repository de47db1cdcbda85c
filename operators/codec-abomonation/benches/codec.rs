//! What does it cost to send a message to another process as bytes, and does a copy of memory make it cheaper?
//!
//! Batches of 8 KiB are written to a buffer and read from it, one codec after the other in this process. Times
//! are those of the best of many rounds. The *ceiling* copies as many bytes as a message has, there and back,
//! and makes nothing of them. In reading, most codecs make a message that a function can own; those called
//! *view* leave it where it is, and only look at all of its parts.
//!
//! Messages are 32, 128 or 1,024 bytes: numbers, or a number and a text. *default* is what loops do without this
//! crate, *bincode* what timely does, and what loops did. *abomonated* is this crate, *abomonation* the crate
//! it builds upon, with whole batches. In the end, messages wander between two workers that speak to each other in
//! bytes, as two processes do.
//!
//! `cargo bench -p timely-statefun-codec-abomonation`, or `-- --quick` for some seconds. Each figure is one line of
//! JSON; tables for people go to the standard error.

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use columnar::bytes::indexed;
use columnar::{Borrow, BorrowedOf, Clear, Columnar, FromBytes, Index, Len, Push};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Input;
use timely_statefun_codec_abomonation::{Abomonable, Abomonated, abomonable};
use timely_statefun_operators::{Handler, KeyedLoop, LoopConfig, Outbox, Verdict, crossing};

/// Bytes of the messages of a batch together.
const BATCH: usize = 1 << 13;

abomonable! {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Columnar)]
    struct Text {
        to: u64,
        text: String,
    }
}

/// A message whose parts can be looked at, also where it lies in columns.
trait Message:
    Abomonable + Serialize + DeserializeOwned + PartialEq + Columnar + Send + 'static
{
    const NAME: &'static str;

    /// One of this many bytes.
    fn of(bytes: usize, number: u64) -> Self;

    fn look(&self) -> u64;

    fn look_at_columns(columns: BorrowedOf<'_, Self>) -> u64;
}

macro_rules! numbers {
    ($($of:ty: $flat:expr, $look:expr;)*) => { $(
        impl Message for $of {
            const NAME: &'static str = "numbers";

            fn of(bytes: usize, number: u64) -> Self {
                assert_eq!(bytes, size_of::<Self>());
                $flat(number)
            }

            fn look(&self) -> u64 {
                self.as_flattened_numbers().iter().fold(0, |all, one| all ^ one)
            }

            fn look_at_columns(columns: BorrowedOf<'_, Self>) -> u64 {
                (0..columns.len()).fold(0, |all, at| all ^ $look(columns.get(at)))
            }
        }
    )* };
}

/// Numbers in a row.
trait Flattened {
    fn as_flattened_numbers(&self) -> &[u64];
}

impl Flattened for [u64; 4] {
    fn as_flattened_numbers(&self) -> &[u64] {
        self
    }
}

impl Flattened for [u64; 16] {
    fn as_flattened_numbers(&self) -> &[u64] {
        self
    }
}

impl Flattened for [[u64; 32]; 4] {
    fn as_flattened_numbers(&self) -> &[u64] {
        self.as_flattened()
    }
}

fn look_at<'a, S>(numbers: S) -> u64
where
    S: Len + Index<Ref = &'a u64>,
{
    (0..numbers.len()).fold(0, |all, at| all ^ numbers.get(at))
}

numbers! {
    [u64; 4]: |number| [number; 4], look_at;
    [u64; 16]: |number| [number; 16], look_at;
    [[u64; 32]; 4]: |number| [[number; 32]; 4], |rows: columnar::Slice<_>| {
        (0..rows.len()).fold(0, |all, at| all ^ look_at(rows.get(at)))
    };
}

impl Message for Text {
    const NAME: &'static str = "text";

    fn of(bytes: usize, to: u64) -> Self {
        let text = "the quick brown fox jumps over ".chars().cycle().skip(to as usize % 31);
        Text { to, text: text.take(bytes - 8).collect() }
    }

    fn look(&self) -> u64 {
        self.to ^ look_at_text(self.text.as_bytes())
    }

    fn look_at_columns(columns: BorrowedOf<'_, Self>) -> u64 {
        let look = |at| {
            let text = columns.get(at);
            text.to ^ look_at_text(text.text)
        };
        (0..columns.len()).fold(0, |all, at| all ^ look(at))
    }
}

fn look_at_text(text: &[u8]) -> u64 {
    text.len() as u64 ^ u64::from(text[text.len() - 1])
}

fn look_at_all<M: Message>(messages: &[M]) -> u64 {
    messages.iter().fold(0, |all, message| all ^ message.look())
}

/// The least time that one of many rounds took.
fn least(quick: bool, mut round: impl FnMut()) -> Duration {
    let (rounds, of) = if quick { (20, 50) } else { (100, 100) };
    let timed = (0..rounds).map(|_| {
        let began = Instant::now();
        (0..of).for_each(|_| round());
        began.elapsed() / of
    });
    timed.min().expect("there are rounds")
}

struct Bench<'a, M> {
    quick: bool,
    bytes: usize,
    messages: &'a [M],
    /// What looking at all messages comes to.
    seen: u64,
}

impl<M: Message> Bench<'_, M> {
    fn measure(
        &self,
        codec: &str,
        space: &mut Vec<u8>,
        mut write: impl FnMut(&[M], &mut Vec<u8>),
        mut read: impl FnMut(&mut [u8]) -> u64,
    ) {
        let written = least(self.quick, || {
            space.clear();
            write(black_box(self.messages), space);
            black_box(&space);
        });
        let read = least(self.quick, || {
            assert_eq!(read(black_box(&mut *space)), self.seen, "{codec} reads something else");
        });
        self.say(codec, space.len(), written, read);
    }

    fn say(&self, codec: &str, bytes: usize, write: Duration, read: Duration) {
        let each = self.messages.len() as f64;
        let case = format!("{} of {} bytes", M::NAME, self.bytes);
        let (write, read) = (write.as_nanos() as f64 / each, read.as_nanos() as f64 / each);
        let figures = [("write_ns", write), ("read_ns", read), ("bytes", bytes as f64 / each)];
        for (metric, value) in figures {
            println!(
                r#"{{"bench":"codec","case":"{case}, {codec}","metric":"{metric}","value":{value:.1}}}"#
            );
        }
        let (sum, bytes) = (write + read, figures[2].1);
        eprintln!("| {case} | {codec} | {write:.0} | {read:.0} | {sum:.0} | {bytes:.0} |");
    }
}

fn codecs<M: Message>(quick: bool, bytes: usize)
where
    M::Container: for<'a> Push<&'a M>,
{
    let messages: Vec<M> = (0..BATCH / bytes).map(|at| M::of(bytes, at as u64)).collect();
    let seen = look_at_all(&messages);
    let bench = Bench { quick, bytes, messages: &messages, seen };
    let mut space = Vec::new();

    // Not at the same place of two pages, which slows some processors down.
    const APART: usize = 1 << 10;
    let (from, mut to) = (vec![1_u8; BATCH], vec![0_u8; BATCH + APART]);
    let copy = least(quick, || {
        to[APART..].copy_from_slice(black_box(&from));
        black_box(&mut to);
    });
    bench.say("ceiling", BATCH, copy, copy);

    // As it is sent: at once, and from there into a buffer that the network has.
    let mut at_once = Vec::new();
    let write = |messages: &[M], to: &mut Vec<u8>| {
        at_once.clear();
        crossing::write(messages, &mut at_once).expect("it can be written");
        to.extend_from_slice(&at_once);
    };
    bench.measure("default", &mut space, write, |from| {
        look_at_all::<M>(&crossing::read::<Vec<M>>(from).expect("it was written"))
    });

    // Timely asks for the length first.
    let write = |messages: &[M], to: &mut Vec<u8>| {
        let length = bincode::serialized_size(messages).expect("it has one");
        to.resize(length as usize, 0);
        bincode::serialize_into(&mut to[..], messages).expect("it can be written");
    };
    bench.measure("bincode", &mut space, write, |from| {
        look_at_all::<M>(&bincode::deserialize::<Vec<M>>(from).expect("it was written"))
    });

    let write = |messages: &[M], to: &mut Vec<u8>| {
        let written = std::mem::take(to);
        *to = postcard::to_extend(messages, written).expect("it can be written");
    };
    bench.measure("postcard", &mut space, write, |from| {
        look_at_all::<M>(&postcard::from_bytes::<Vec<M>>(from).expect("it was written"))
    });

    let copies: Vec<_> = messages.iter().cloned().map(Abomonated).collect();
    let mut at_once = Vec::new();
    let write = |_: &[M], to: &mut Vec<u8>| {
        at_once.clear();
        crossing::write(black_box(&copies), &mut at_once).expect("it can be written");
        to.extend_from_slice(&at_once);
    };
    bench.measure("abomonated", &mut space, write, |from| {
        let copies = crossing::read::<Vec<Abomonated<M>>>(from).expect("it was written");
        copies.iter().fold(0, |all, copy| all ^ copy.look())
    });

    let batch = messages.clone();
    let write = |_: &[M], to: &mut Vec<u8>| {
        // SAFETY: as in this crate, and messages have no bytes between their fields.
        unsafe { abomonation::encode(black_box(&batch), to) }.expect("a vector has room");
    };
    bench.measure("abomonation (view)", &mut space, write, |from| {
        // SAFETY: these bytes were written by this very process, and the allocator aligns what is that large.
        let (batch, _) = unsafe { abomonation::decode::<Vec<M>>(from) }.expect("it was written");
        look_at_all::<M>(batch)
    });

    let mut columns = M::Container::default();
    let mut words: Vec<u64> = Vec::new();
    let written = least(quick, || {
        columns.clear();
        black_box(&messages).iter().for_each(|message| columns.push(message));
        words.clear();
        indexed::encode(&mut words, &columns.borrow());
        black_box(&words);
    });
    let read = least(quick, || {
        let mut slices = indexed::decode(black_box(&words));
        let columns = <BorrowedOf<'_, M>>::from_bytes(&mut slices);
        assert_eq!(M::look_at_columns(columns), seen, "columns say something else");
    });
    bench.say("columnar (view)", 8 * words.len(), written, read);
}

/// A message that is sent on as often as it says.
#[derive(Clone, Serialize, Deserialize)]
struct Wandering<P> {
    to: u64,
    left: u32,
    payload: P,
}

struct Wander<P>(PhantomData<P>);

impl<P: timely::ExchangeData + Clone> Handler<u64> for Wander<P> {
    type Message = Wandering<P>;
    type Output = ();
    type Failure = String;

    fn route(message: &Wandering<P>) -> u64 {
        message.to
    }

    fn handle(
        &mut self,
        message: Wandering<P>,
        outbox: &mut Outbox<'_, u64, Wandering<P>>,
    ) -> Verdict<String> {
        if let Some(left) = message.left.checked_sub(1) {
            outbox.send(Wandering { to: message.to + 1, left, payload: message.payload });
        }
        Verdict::Done
    }
}

/// Time for each message that goes from one worker to the other, as bytes.
fn wander<P: timely::ExchangeData + Clone + Sync>(quick: bool, payload: P) -> f64 {
    let (tokens, hops) = (4096, if quick { 100 } else { 300 });
    let communication = timely::CommunicationConfig::ProcessBinary(2);
    let config = timely::Config { communication, worker: timely::WorkerConfig::default() };
    let guards = timely::execute(config, move |worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Wandering<P>>>();
            let wander = Wander(PhantomData);
            (input, stream.keyed_loop("wander", LoopConfig::default(), None, wander).1)
        });
        let began = Instant::now();
        for _ in 0..tokens {
            let to = worker.index() as u64;
            input.send(Wandering { to, left: hops, payload: payload.clone() });
        }
        input.close();
        handle.run(worker).expect("nothing fails");
        let stats = handle.stats();
        assert!(stats.sent_away >= u64::from(hops) * tokens, "messages stayed where they were");
        began.elapsed().as_nanos() as f64 / stats.sent_away as f64
    });
    let ends = guards.expect("two workers can be started").join();
    ends.into_iter().map(|end| end.expect("no worker panics")).fold(0.0, f64::max)
}

fn loops<M: Message + Sync>(quick: bool, bytes: usize) {
    let case = format!("{} of {bytes} bytes", M::NAME);
    let mut best = [f64::MAX; 2];
    for _ in 0..if quick { 2 } else { 4 } {
        let figures = [wander(quick, M::of(bytes, 7)), wander(quick, Abomonated(M::of(bytes, 7)))];
        best = [0, 1].map(|at| best[at].min(figures[at]));
    }
    for (codec, value) in [("default", best[0]), ("abomonated", best[1])] {
        println!(
            r#"{{"bench":"codec","case":"{case}, {codec}","metric":"ns_in_a_loop","value":{value:.0}}}"#
        );
    }
    eprintln!("| {case} | {:.0} | {:.0} |", best[0], best[1]);
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    eprintln!(
        "| message | codec | ns to write | ns to read | both | bytes |\n|---|---|--:|--:|--:|--:|"
    );
    codecs::<[u64; 4]>(quick, 32);
    codecs::<[u64; 16]>(quick, 128);
    codecs::<[[u64; 32]; 4]>(quick, 1024);
    codecs::<Text>(quick, 32);
    codecs::<Text>(quick, 128);
    codecs::<Text>(quick, 1024);
    eprintln!(
        "\n| message in a loop of two workers | ns, default | ns, abomonated |\n|---|--:|--:|"
    );
    loops::<[u64; 4]>(quick, 32);
    loops::<[u64; 16]>(quick, 128);
    loops::<[[u64; 32]; 4]>(quick, 1024);
    loops::<Text>(quick, 32);
    loops::<Text>(quick, 128);
    loops::<Text>(quick, 1024);
}
