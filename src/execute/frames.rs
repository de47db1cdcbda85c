//! Where messages begin and end in the bytes that timely sends to another process.
//!
//! Timely ends a stream with a message without content, so that an end that was meant can be told
//! from one that was not. Processes here have one more message, a *farewell*: the last words of one
//! that gives up. Nothing here reads what a message says, and nothing is copied but a farewell.
//!
//! The layout is that of `timely_communication`'s `MessageHeader`: six big-endian numbers of 64 bits.

use std::ops::Range;

/// Bytes of a message's header.
pub(super) const HEADER_BYTES: usize = 48;
/// The channel of a farewell. Timely counts channels from zero.
const FAREWELL: u64 = u64::MAX;
/// Bytes of a farewell's text; more are cut off.
const FAREWELL_BYTES_MAX: usize = 1 << 14;

/// A place in a stream of messages.
pub(super) struct Frames {
    /// Whom messages of this stream may be for: numbers of workers.
    workers: Range<u64>,
    /// The header that is under way, as far as it has come.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// What is missing of the content that is under way.
    content_left: usize,
    farewell: Option<Vec<u8>>,
    ended: bool,
}

impl Frames {
    /// The beginning of a stream whose messages are for these workers.
    pub(super) fn new(workers: Range<u64>) -> Self {
        let header = [0; HEADER_BYTES];
        Frames { workers, header, header_bytes: 0, content_left: 0, farewell: None, ended: false }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// Says what is wrong with them. The place is meaningless then.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            if self.ended {
                return Err("bytes after its last message");
            } else if self.content_left > 0 {
                let (content, rest) = bytes.split_at(bytes.len().min(self.content_left));
                self.content_left -= content.len();
                if let Some(farewell) = &mut self.farewell {
                    farewell.extend_from_slice(content);
                }
                bytes = rest;
            } else if self.farewell.is_some() {
                return Err("bytes after its farewell");
            } else {
                let missing = HEADER_BYTES - self.header_bytes;
                let (part, rest) = bytes.split_at(bytes.len().min(missing));
                self.header[self.header_bytes..][..part.len()].copy_from_slice(part);
                self.header_bytes += part.len();
                bytes = rest;
                if self.header_bytes == HEADER_BYTES {
                    self.header_bytes = 0;
                    self.begin()?;
                }
            }
        }
        Ok(())
    }

    /// Begins what the header announces.
    fn begin(&mut self) -> Result<(), &'static str> {
        let [channel, _source, from, to, length, _number] = numbers(&self.header);
        if channel == FAREWELL {
            if length == 0 || length > FAREWELL_BYTES_MAX as u64 {
                return Err("a farewell of no length that one has");
            }
            self.farewell = Some(Vec::new());
        } else if length == 0 {
            self.ended = true;
        } else if from < self.workers.start || to <= from || self.workers.end < to {
            return Err("a message for workers that are elsewhere");
        }
        self.content_left =
            usize::try_from(length).map_err(|_| "a message that is larger than memory")?;
        Ok(())
    }

    /// How many bytes surely belong to the message that is under way; zero between messages.
    pub(super) fn rest(&self) -> usize {
        match (self.content_left, self.header_bytes) {
            (0, 0) => 0,
            (0, header_bytes) => HEADER_BYTES - header_bytes,
            (content_left, _) => content_left,
        }
    }

    /// Whether the stream has come to the end that was meant.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether a farewell has begun: no more messages come.
    pub(super) fn in_farewell(&self) -> bool {
        self.farewell.is_some()
    }

    /// The farewell's text, or as much as has come of it.
    pub(super) fn farewell(&self) -> Option<String> {
        self.farewell.as_ref().map(|text| String::from_utf8_lossy(text).into_owned())
    }
}

fn numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    std::array::from_fn(|at| {
        let number = bytes[8 * at..][..8].try_into().expect("eight bytes are eight bytes");
        u64::from_be_bytes(number)
    })
}

/// The bytes of a farewell. A text that is too long is cut off; one that is empty is a dot.
pub(super) fn farewell(text: &str) -> Vec<u8> {
    let mut end = text.len().min(FAREWELL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = if end == 0 { "." } else { &text[..end] };
    let header = [FAREWELL, 0, 0, 0, text.len() as u64, 0];
    let mut bytes: Vec<u8> = header.iter().flat_map(|number| number.to_be_bytes()).collect();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Whether a stream begins with a farewell.
pub(super) fn begins_with_farewell(bytes: &[u8]) -> bool {
    bytes.starts_with(&FAREWELL.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Random, fuzz, within};
    use timely::communication::networking::MessageHeader;

    /// A message as timely writes it.
    fn message(length: usize, workers: Range<usize>) -> Vec<u8> {
        let (channel, source, seqno) = (7, 8, 9);
        let (target_lower, target_upper) = (workers.start, workers.end);
        let header = MessageHeader { channel, source, target_lower, target_upper, length, seqno };
        let mut bytes = Vec::new();
        header.write_to(&mut bytes).unwrap();
        assert_eq!(bytes.len(), HEADER_BYTES);
        // A content that looks like an end, or like a farewell, is neither.
        bytes.resize(HEADER_BYTES + length, if length.is_multiple_of(2) { 0 } else { 0xff });
        bytes
    }

    #[test]
    fn messages_begin_and_end_where_timely_wrote_them_however_they_are_cut() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let (mut stream, mut bounds) = (Vec::new(), vec![0]);
            for _ in 0..random.below(12) {
                let from = 4 + random.below(3);
                let to = from + 1 + random.below(7 - from);
                stream.extend(message(1 + random.below(200), from..to));
                bounds.push(stream.len());
            }
            let last = random.below(3);
            match last {
                0 => stream.extend(message(0, 0..0)),
                1 => stream.extend(farewell("it was good")),
                _ => (),
            }
            bounds.push(stream.len());
            let mut frames = Frames::new(4..7);
            let mut at = 0;
            while at < stream.len() {
                let next = at + 1 + random.below((stream.len() - at).min(120));
                frames.pass(&stream[at..next]).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                at = next;
                let rest = bounds.iter().find(|bound| **bound >= at).unwrap() - at;
                assert_eq!(frames.rest() == 0, rest == 0, "seed {seed} at {at}");
                assert!(frames.rest() <= rest, "seed {seed} at {at}");
                let all = at == stream.len();
                assert_eq!(frames.has_ended(), all && last == 0, "seed {seed} at {at}");
            }
            let said = (last == 1).then(|| "it was good".to_owned());
            assert_eq!((frames.farewell(), frames.in_farewell()), (said, last == 1), "seed {seed}");
            if last < 2 {
                frames.pass(&message(1, 4..5)).expect_err("nothing comes after that");
            }
        }
    }

    /// What a stream says, told by somebody who has all of it: what is missing of the last message, and
    /// whether it is at its end. `None` if it is none.
    fn told(workers: &Range<u64>, mut bytes: &[u8]) -> Option<(usize, bool, Option<String>)> {
        while let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) {
            let [channel, _, from, to, length, _] = numbers(header);
            let content = &rest[..rest.len().min(usize::try_from(length).ok()?)];
            let missing = length as usize - content.len();
            let over = content.len() == rest.len();
            match (channel, length) {
                (u64::MAX, 1..=16_384) if over => {
                    let text = String::from_utf8_lossy(content).into_owned();
                    return Some((missing, false, Some(text)));
                }
                (u64::MAX, _) => return None,
                (_, 0) => return over.then_some((0, true, None)),
                _ if from < workers.start || workers.end < to || to <= from => return None,
                _ if missing > 0 => return Some((missing, false, None)),
                _ => bytes = &rest[content.len()..],
            }
        }
        let missing = if bytes.is_empty() { 0 } else { HEADER_BYTES - bytes.len() };
        Some((missing, false, None))
    }

    /// Reads any bytes as a stream, in pieces of any length. Whether they are one.
    fn any_stream(input: &[u8]) -> bool {
        let mut random = Random(input.iter().map(|byte| u64::from(*byte)).sum());
        let mut pieces = Vec::new();
        let mut left = input;
        while !left.is_empty() {
            let (piece, rest) = left.split_at(1 + random.below(left.len().min(70)));
            pieces.push(piece);
            left = rest;
        }
        let found = within(4 * input.len(), || {
            let mut frames = Frames::new(4..7);
            let passed = pieces.iter().try_for_each(|piece| frames.pass(piece));
            passed.map(|()| (frames.rest(), frames.has_ended(), frames.farewell()))
        });
        assert_eq!(found.clone().ok(), told(&(4..7), input), "{found:?}");
        found.is_ok()
    }

    #[test]
    fn any_bytes_are_a_stream_or_an_error_however_they_are_cut() {
        let streams = [
            [message(1, 4..5), message(300, 4..7), message(0, 0..0)].concat(),
            [message(8, 5..6), message(48, 6..7), farewell("it was good")].concat(),
            [message(96, 4..6), message(17, 4..5)].concat(),
            farewell("ä"),
        ];
        fuzz("frames", 200_000, &streams, any_stream);
    }

    #[test]
    fn what_is_for_nobody_here_is_an_error() {
        for workers in [0..1, 3..4, 3..5, 4..8, 7..8] {
            Frames::new(4..7).pass(&message(8, workers)).expect_err("it is for somebody else");
        }
        let nobody = Range { start: 6, end: 5 };
        Frames::new(4..7).pass(&message(8, nobody)).expect_err("it is for nobody");
        Frames::new(4..7).pass(&message(8, 4..7)).expect("it is for all");
    }

    #[test]
    fn a_farewell_has_a_length_that_is_bounded() {
        let long = "ä".repeat(FAREWELL_BYTES_MAX) + "end";
        for (text, said) in [("", "."), ("x", "x"), (&long, &long[..FAREWELL_BYTES_MAX])] {
            let bytes = farewell(text);
            assert!(begins_with_farewell(&bytes));
            let mut frames = Frames::new(0..1);
            frames.pass(&bytes).unwrap();
            assert_eq!((frames.farewell().as_deref(), frames.rest()), (Some(said), 0));
        }
        assert_eq!(farewell(&format!("x{long}")).len(), HEADER_BYTES + FAREWELL_BYTES_MAX - 1);
        for length in [0, FAREWELL_BYTES_MAX as u64 + 1, u64::MAX] {
            let mut bytes = farewell("x");
            bytes[32..40].copy_from_slice(&length.to_be_bytes());
            Frames::new(0..1).pass(&bytes).expect_err("nobody says that");
        }
    }
}
