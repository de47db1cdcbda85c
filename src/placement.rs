//! Where an address lives: the one place in which an id becomes a bin.
//!
//! Placement goes by id alone, so that all functions of one entity are on one worker. The hash is
//! XXH3 (64 bits, no seed) of the id's bytes and never changes: stored state is found by it. Its
//! high bits are the bin, its low bits serve hash tables.

use twox_hash::XxHash3_64;

use crate::address::Id;

/// Into how many bins addresses are divided. A worker owns whole bins.
pub const BINS: u64 = 4096;

/// The fixed hash of an id.
#[inline]
pub(crate) fn hash(id: &Id) -> u64 {
    id.with_bytes(XxHash3_64::oneshot)
}

/// The bin of an id with this hash.
#[inline]
pub(crate) fn bin(hash: u64) -> u64 {
    hash >> (64 - BINS.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the hash and bin of ids. They hold for ever: a change breaks every snapshot.
    #[test]
    fn ids_hash_and_are_placed_as_they_always_were() {
        let vectors = include_str!("../tests/vectors/placement.txt");
        let mut checked = 0;
        for line in vectors.lines().filter(|line| !line.starts_with('#')) {
            let (numbers, id) = line.split_once('\t').unwrap();
            let (hash_hex, bin_number) = numbers.split_once(' ').unwrap();
            let id = Id::new(id);
            assert_eq!(format!("{:016x}", hash(&id)), hash_hex, "hash of {id}");
            assert_eq!(bin(hash(&id)).to_string(), bin_number, "bin of {id}");
            checked += 1;
        }
        assert!(checked >= 10);
    }

    #[test]
    fn bins_are_used_evenly() {
        let mut bins = vec![0u32; BINS as usize];
        for number in 0..409_600u64 {
            bins[bin(hash(&Id::from(number))) as usize] += 1;
        }
        let (least, most) = (bins.iter().min().unwrap(), bins.iter().max().unwrap());
        assert!(*least > 50 && *most < 160, "{least} to {most}, 100 on average");
    }
}
