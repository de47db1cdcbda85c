//! What functions have emitted to egresses whose records are held until their cut is durable: beside each
//! record the bin of the address that emitted it, and how records become bytes and back.
//!
//! It holds nothing itself. Whoever takes what was emitted does.

use std::any::Any;
use std::marker::PhantomData;

use super::egresses::{AnyBuffer, Buffer};
use super::{Dispatcher, Head};
use crate::address::TypeName;
use crate::codec::{Codec, CodecError, Unwritable};
use crate::placement;
use crate::value::Value;

/// A record and the bin of the address that emitted it.
pub(crate) type OfBin<E> = (u16, E);

/// Records of a held egress whose type is not in sight: a `Vec<OfBin<E>>`.
pub(crate) struct HeldRecords<'a>(pub(crate) &'a dyn Any);

type Store = fn(&dyn Any, usize, &mut Vec<u8>, bool) -> Result<(), Unwritable>;
type Read = fn(&mut Option<Box<dyn Any>>, u16, &[u8]) -> Result<(), CodecError>;

/// How the records of one egress are held.
pub(crate) struct Holding<T> {
    note_emitter: fn(&mut dyn AnyBuffer<T>, u16),
    len: fn(&dyn Any) -> usize,
    bins: fn(&dyn Any) -> Vec<u16>,
    store: Store,
    read: Read,
    #[cfg(feature = "testing")]
    bare: fn(Box<dyn Any>) -> Box<dyn Any>,
    time: PhantomData<fn(T)>,
}

impl<T> Clone for Holding<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Holding<T> {}

fn records_of<E: 'static>(records: &dyn Any) -> &Vec<OfBin<E>> {
    records.downcast_ref().expect("an egress carries one type")
}

impl<T: Clone + PartialEq + 'static> Holding<T> {
    pub(crate) fn of<E: Value>() -> Self {
        Holding {
            note_emitter: |buffer, bin| {
                let buffer: Option<&mut Buffer<T, E>> = buffer.as_any_mut().downcast_mut();
                buffer.expect("the buffer was made for this egress").note_emitter(bin);
            },
            len: |records| records_of::<E>(records).len(),
            bins: |records| records_of::<E>(records).iter().map(|(bin, _)| *bin).collect(),
            store: |records, at, to, reads_back| {
                Codec::SERDE.store(&records_of::<E>(records)[at].1, to, reads_back)
            },
            read: |records, bin, bytes| {
                let record: E = Codec::SERDE.read(bytes)?;
                let records = records.get_or_insert_with(|| Box::new(Vec::<OfBin<E>>::new()));
                let records: Option<&mut Vec<OfBin<E>>> = records.downcast_mut();
                records.expect("an egress carries one type").push((bin, record));
                Ok(())
            },
            #[cfg(feature = "testing")]
            bare: |records| {
                let records: Result<Box<Vec<OfBin<E>>>, _> = records.downcast();
                let records = records.expect("an egress carries one type");
                Box::new(records.into_iter().map(|(_, record)| record).collect::<Vec<E>>())
            },
            time: PhantomData,
        }
    }
}

impl<T> Holding<T> {
    /// Notes who has emitted what the running invocation emitted.
    pub(super) fn note_emitter(&self, buffer: &mut dyn AnyBuffer<T>, bin: u16) {
        (self.note_emitter)(buffer, bin);
    }

    /// How many records there are.
    pub(crate) fn len(&self, records: HeldRecords<'_>) -> usize {
        (self.len)(records.0)
    }

    /// The bin of each record.
    pub(crate) fn bins(&self, records: HeldRecords<'_>) -> Vec<u16> {
        (self.bins)(records.0)
    }

    /// Adds the bytes of a record for a snapshot.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or not be read again if that is asked for.
    pub(crate) fn store(
        &self,
        records: HeldRecords<'_>,
        at: usize,
        to: &mut Vec<u8>,
        reads_back: bool,
    ) -> Result<(), Unwritable> {
        (self.store)(records.0, at, to, reads_back)
    }

    /// Adds a record that was stored.
    ///
    /// # Errors
    ///
    /// If the bytes are none of its egress.
    pub(crate) fn read(
        &self,
        records: &mut Option<Box<dyn Any>>,
        bin: u16,
        bytes: &[u8],
    ) -> Result<(), CodecError> {
        (self.read)(records, bin, bytes)
    }

    /// The records without their bins: a `Vec<E>`.
    #[cfg(feature = "testing")]
    pub(crate) fn bare(&self, records: Box<dyn Any>) -> Box<dyn Any> {
        (self.bare)(records)
    }
}

/// What an egress is called where function types have names.
pub(crate) fn type_of(egress: &str) -> TypeName {
    TypeName::new(&format!("egress:{egress}")).expect("egresses have such names")
}

/// The egress that is called so there.
pub(crate) fn egress_of(name: &TypeName) -> Option<&str> {
    name.as_str().strip_prefix("egress:")
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// Notes who has emitted what the running invocation emitted to egresses that are held.
    pub(super) fn note_emitter(&mut self, head: &Head) {
        self.egresses.note_emitter(placement::bin(head.hash) as u16);
    }
}
