//! How much an answer lists, found out before any of it takes memory.
//!
//! Two bytes of an answer can be an element of a list, which takes a hundred times as much once it is
//! read. This counts elements and judges nothing else: what is malformed is noticed by whoever reads it.

/// The fields of an answer that hold lists.
const RESULT: u64 = 100;
const INCOMPLETE: u64 = 101;

/// How many elements the lists of an answer have, all together. Stops at what it cannot read.
pub(crate) fn count(answer: &[u8]) -> usize {
    let lists = Fields(answer).filter(|(number, _)| matches!(*number, RESULT | INCOMPLETE));
    lists.map(|(_, list)| Fields(list).count()).sum()
}

/// The fields of a message that have a length, each with its number.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let key = self.varint()?;
            match key & 7 {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    return Some((key >> 3, self.take(length)?));
                }
                // Where a group begins or ends; what is in it counts as if it were not.
                3 | 4 => {}
                5 => drop(self.take(4)?),
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use timely_statefun_proto::Message;
    use timely_statefun_proto::reqreply::FromFunction;
    use timely_statefun_proto::reqreply::from_function::{
        IncompleteInvocationContext, InvocationResponse, Response,
    };

    use super::count;

    #[test]
    fn what_is_counted_is_what_is_listed() {
        let result = InvocationResponse {
            state_mutations: vec![Default::default(); 3],
            outgoing_messages: vec![Default::default(); 5],
            delayed_invocations: vec![Default::default(); 7],
            outgoing_egresses: vec![Default::default(); 300],
        };
        let result = FromFunction { response: Some(Response::InvocationResult(result)) };
        let incomplete =
            IncompleteInvocationContext { missing_values: vec![Default::default(); 9] };
        let incomplete =
            FromFunction { response: Some(Response::IncompleteInvocationContext(incomplete)) };
        let (result, incomplete) = (result.encode_to_vec(), incomplete.encode_to_vec());
        assert_eq!((count(&result), count(&incomplete), count(&[])), (315, 9, 0));
        // Fields come in any order and any number, beside others that are not known.
        let other = [0x08, 0xff, 0x01, 0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x0b, 0x0c];
        let all = [&other[..], &result, &other, &result, &incomplete].concat();
        assert_eq!(count(&all), 639);
        assert!(FromFunction::decode(&all[..]).is_ok(), "and this is how it is read");
    }

    #[test]
    fn what_is_malformed_is_counted_as_far_as_it_goes() {
        for malformed in [&[0xff; 20][..], &[0xa2], &[0xa2, 0x06, 0x0f], &[0x0f], &[0x01, 1]] {
            assert_eq!(count(malformed), 0, "{malformed:?}");
            assert!(FromFunction::decode(malformed).is_err());
        }
    }
}
