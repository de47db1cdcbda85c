//! How messages cross from one worker to another: moved within a process, as bytes between processes.
//!
//! This takes the place of timely's exchange of vectors, and differs from it in the bytes alone: a batch
//! is written at once instead of being measured first, and what one record has in common with
//! the one before, its time and who sent it, is not written again. It keeps the order of records, and
//! what arrives is what was sent; it knows neither keys nor cuts.
//!
//! A message can have [bytes of its own](OwnBytes) here.

mod format;
mod own_bytes;

pub use format::{Error, read, write};
pub use own_bytes::{OwnBytes, deserialize, serialize};

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::communication::{Pull, Push};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{LogPuller, LogPusher, ParallelizationContract};
use timely::dataflow::channels::pushers::Exchange;
use timely::dataflow::channels::pushers::exchange::DrainContainerDistributor;
use timely::dataflow::channels::{ContainerBytes, Message};
use timely::logging::TimelyLogger;
use timely::progress::Timestamp;
use timely::worker::Worker;

/// What crosses: a message behind a head, which many of a batch have in common.
pub(crate) trait Crossing: Send + Sized + 'static {
    type Head: Serialize + DeserializeOwned + Send + 'static;
    type Message: Serialize + DeserializeOwned + Send + 'static;

    fn head(&self) -> Self::Head;
    fn message(&self) -> &Self::Message;
    fn has(&self, head: &Self::Head) -> bool;
    fn new(head: &Self::Head, message: Self::Message) -> Self;
}

/// Sends each record to the worker that a route, modulo the number of workers, says.
pub(crate) struct ByRoute<F>(pub(crate) F);

type ToWorkers<T, R> = Packing<LogPusher<Box<dyn Push<Message<T, Parcel<R>>>>>>;
type FromWorkers<T, R> = LogPuller<Box<dyn Pull<Message<T, Parcel<R>>>>>;

impl<T, R, F> ParallelizationContract<T, Vec<R>> for ByRoute<F>
where
    T: Timestamp,
    R: Crossing,
    F: FnMut(&R) -> u64 + 'static,
{
    type Pusher = Exchange<
        T,
        ToWorkers<T, R>,
        DrainContainerDistributor<CapacityContainerBuilder<Vec<R>>, F>,
    >;
    type Puller = Unpacking<T, R, FromWorkers<T, R>>;

    fn connect(
        self,
        worker: &Worker,
        identifier: usize,
        address: Rc<[usize]>,
        logging: Option<TimelyLogger>,
    ) -> (Self::Pusher, Self::Puller) {
        let (senders, receiver) = worker.allocate::<Message<T, Parcel<R>>>(identifier, address);
        let (index, peers) = (worker.index(), worker.peers());
        let senders = senders.into_iter().enumerate().map(|(to, sender)| {
            Packing(LogPusher::new(sender, index, to, identifier, logging.clone()))
        });
        let distributor = DrainContainerDistributor::new(self.0, peers);
        let receiver = LogPuller::new(receiver, index, identifier, logging.clone());
        (Exchange::new(senders.collect(), distributor), Unpacking { receiver, current: None })
    }
}

/// Makes parcels of batches.
pub(crate) struct Packing<P>(P);

impl<T, R, P: Push<Message<T, Parcel<R>>>> Push<Message<T, Vec<R>>> for Packing<P> {
    #[inline]
    fn push(&mut self, element: &mut Option<Message<T, Vec<R>>>) {
        let mut parcel = element.take().map(|message| {
            let Message { time, data, from, seq } = message;
            Message { time, data: Parcel::new(data), from, seq }
        });
        self.0.push(&mut parcel);
        *element = parcel.map(unpack);
    }
}

/// Takes batches out of parcels.
pub(crate) struct Unpacking<T, R, P> {
    receiver: P,
    current: Option<Message<T, Vec<R>>>,
}

impl<T, R, P: Pull<Message<T, Parcel<R>>>> Pull<Message<T, Vec<R>>> for Unpacking<T, R, P> {
    #[inline]
    fn pull(&mut self) -> &mut Option<Message<T, Vec<R>>> {
        self.current = self.receiver.recv().map(unpack);
        &mut self.current
    }
}

fn unpack<T, R>(message: Message<T, Parcel<R>>) -> Message<T, Vec<R>> {
    let Message { time, data, from, seq } = message;
    Message { time, data: data.records, from, seq }
}

/// A batch on its way.
pub(crate) struct Parcel<R> {
    records: Vec<R>,
    /// Its bytes, from when their number is asked for until they are sent.
    written: Cell<Vec<u8>>,
}

/// Bytes that a worker keeps for the next batch at most.
const KEPT_MAX: usize = 1 << 20;

thread_local! {
    /// Space for the bytes of a batch.
    static SPACE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<R> Parcel<R> {
    fn new(records: Vec<R>) -> Self {
        Parcel { records, written: Cell::default() }
    }
}

impl<R> Accountable for Parcel<R> {
    fn record_count(&self) -> i64 {
        self.records.record_count()
    }
}

impl<R: Crossing> Parcel<R> {
    /// The number of records, and then as often as needed: how many have the same head, that head, and
    /// their messages.
    fn write(&self) -> Vec<u8> {
        let mut to = SPACE.take();
        to.clear();
        if let Err(error) = write_batch(&self.records, &mut to) {
            panic!("a message cannot be sent to another process: {error}");
        }
        to
    }
}

fn write_batch<R: Crossing>(mut records: &[R], to: &mut Vec<u8>) -> Result<(), Error> {
    format::write_length(records.len(), to);
    while let Some(first) = records.first() {
        let head = first.head();
        let alike = 1 + records[1..].iter().take_while(|record| record.has(&head)).count();
        format::write_length(alike, to);
        write(&head, to)?;
        let (these, rest) = records.split_at(alike);
        for record in these {
            write(record.message(), to)?;
        }
        records = rest;
    }
    Ok(())
}

fn read_batch<R: Crossing>(from: &mut &[u8]) -> Result<Vec<R>, Error> {
    let mut left = format::read_length(from)?;
    // Messages without bytes are few, whatever is said of their number.
    let mut records = Vec::with_capacity(left.min(from.len()));
    while left > 0 {
        let alike = format::read_length(from)?;
        left = left.checked_sub(alike).filter(|_| alike > 0).ok_or_else(Error::of_batch)?;
        let head = format::read_first(from)?;
        for _ in 0..alike {
            records.push(R::new(&head, format::read_first(from)?));
        }
    }
    Ok(records)
}

/// What timely's messages are a multiple of.
const WORD: usize = 8;

impl<R: Crossing> ContainerBytes for Parcel<R> {
    fn from_bytes(bytes: Bytes) -> Self {
        let mut from = &bytes[..];
        let records = read_batch(&mut from);
        let records = records.and_then(|records| match from.len() {
            left if left < WORD => Ok(records),
            _ => Err(Error::of_batch()),
        });
        // A worker that goes on without these messages would make all that comes of them wrong.
        let records = records.unwrap_or_else(|error| {
            panic!("messages from another process cannot be read: {error}");
        });
        Parcel::new(records)
    }

    fn length_in_bytes(&self) -> usize {
        let written = self.write();
        let length = written.len().next_multiple_of(WORD);
        self.written.set(written);
        length
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let mut written = self.written.take();
        if written.is_empty() {
            written = self.write();
        }
        let length = written.len();
        let filled = writer
            .write_all(&written)
            .and_then(|()| writer.write_all(&[0; WORD][..length.next_multiple_of(WORD) - length]));
        filled.expect("there is room for as many bytes as were announced");
        if written.capacity() <= KEPT_MAX {
            SPACE.set(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Admitted, GateAddress, Record};
    use timely::bytes::arc::BytesMut;

    /// As timely does it: measured, written, and read from as many bytes.
    fn crossed<R: Crossing>(records: Vec<R>) -> (Vec<R>, usize) {
        let parcel = Parcel::new(records);
        let length = parcel.length_in_bytes();
        let mut bytes = Vec::new();
        parcel.into_bytes(&mut bytes);
        assert_eq!((bytes.len(), length % WORD), (length, 0));
        // Also where nobody asked for the length before.
        let mut again = Vec::new();
        parcel.into_bytes(&mut again);
        assert_eq!(bytes, again);
        let read = Parcel::<R>::from_bytes(BytesMut::from(bytes).freeze());
        (read.records, length)
    }

    fn record(time: u64, from: u32, message: String) -> Record<u64, String> {
        Record { time, from, message }
    }

    #[test]
    fn batches_arrive_as_they_were_sent() {
        let mut random = 1_u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % bound
        };
        for _ in 0..500 {
            let records: Vec<_> = (0..below(40))
                .map(|_| record(below(3), below(2) as u32, "x".repeat(below(20) as usize)))
                .collect();
            assert_eq!(crossed(records.clone()).0, records);
            let admitted: Vec<_> = (0..below(40))
                .map(|_| {
                    let gate = GateAddress { worker: below(2) as u32, gate: below(300) as u32 };
                    Admitted { time: below(2), gate, message: below(1 << 31) }
                })
                .collect();
            assert_eq!(crossed(admitted.clone()).0, admitted);
        }
    }

    #[test]
    fn what_records_have_in_common_is_written_once() {
        let bytes = |times: u64| {
            crossed((0..100).map(|at| record(at % times, 7, String::new())).collect()).1
        };
        assert!(bytes(1) <= 120, "{}", bytes(1));
        assert!(bytes(2) > 1000, "{}", bytes(2));
    }

    #[test]
    fn a_batch_that_is_cut_off_or_longer_is_refused() {
        let records = vec![record(1, 1, "Ada".to_owned()), record(2, 1, "Ben".to_owned())];
        let mut bytes = Vec::new();
        write_batch(&records, &mut bytes).unwrap();
        for end in 0..bytes.len() {
            read_batch::<Record<u64, String>>(&mut &bytes[..end]).expect_err("a part of it");
        }
        assert_eq!(read_batch::<Record<u64, String>>(&mut &bytes[..]).unwrap(), records);
        // More records with one head than there are records; and none, for ever.
        for wrong in [vec![1, 2], vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            read_batch::<Record<u64, String>>(&mut &wrong[..]).expect_err("it does not add up");
        }
    }

    #[test]
    #[should_panic(expected = "messages from another process cannot be read")]
    fn a_worker_does_not_go_on_without_messages() {
        Parcel::<Record<u64, String>>::from_bytes(BytesMut::from(vec![3; 8]).freeze());
    }
}
