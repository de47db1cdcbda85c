//! Which build of a program this process runs: a number made of the file that it was started from.
//!
//! Layouts of memory are the compiler's business, so nothing less tells whether those of two processes are
//! the same. It never takes another file for the same, but for a chance of one in 2^64.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

/// The number of the build that this process runs. Read once, when it is first asked for: that takes some ten
/// milliseconds for a large program.
///
/// Messages are compared with it one by one. A program that gives it to `timely_statefun` as its fingerprint
/// (`ExecuteOptions::fingerprint`) finds out before anything runs.
///
/// All processes must run the same file. Code that comes from elsewhere, from shared libraries that are not
/// part of the system, is not in it.
///
/// # Errors
///
/// If the file cannot be read.
pub fn build_id() -> Result<u64, &'static str> {
    static READ: OnceLock<Result<u64, String>> = OnceLock::new();
    let read = READ.get_or_init(|| {
        own_file().and_then(id).map_err(|error| format!("the program's own file: {error}"))
    });
    read.as_ref().map(|id| *id).map_err(String::as_str)
}

fn own_file() -> io::Result<File> {
    // What runs, also where another file has its name by now.
    if cfg!(target_os = "linux") {
        return File::open("/proc/self/exe");
    }
    File::open(std::env::current_exe()?)
}

fn id(mut file: impl Read) -> io::Result<u64> {
    let (mut id, mut length) = ([0x243f_6a88_85a3_08d3_u64, 0x1319_8a2e_0370_7344], 0_u64);
    let mut bytes = vec![0; 1 << 16];
    loop {
        let read = fill(&mut file, &mut bytes)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        bytes[read..].fill(0);
        for (at, word) in bytes[..read.next_multiple_of(8)].chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes are eight bytes"));
            let part = &mut id[at % 2];
            *part = (*part ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    let mixed = (id[0] ^ id[1].rotate_left(32) ^ length).wrapping_mul(0xff51_afd7_ed55_8ccd);
    Ok(mixed ^ mixed >> 32)
}

/// Reads as much as there is room for.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_and_so_does_the_length() {
        let bytes: Vec<u8> = (0..200_003_u32).map(|at| (at * 7 % 251) as u8).collect();
        let whole = id(&bytes[..]).unwrap();
        assert_eq!(whole, id(&bytes[..]).unwrap());
        for at in (0..bytes.len()).step_by(997).chain([bytes.len() - 1]) {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(id(&other[..]).unwrap(), whole, "byte {at}");
        }
        assert_ne!(id(&bytes[..bytes.len() - 1]).unwrap(), whole);
        assert_ne!(id(&[][..]).unwrap(), id(&[0][..]).unwrap());
        assert_ne!(id(&[0][..]).unwrap(), id(&[0, 0][..]).unwrap());
    }

    #[test]
    fn a_process_has_one_build() {
        assert_eq!(build_id(), build_id());
        build_id().unwrap();
    }
}
