//! What instances report, beside what is expected of them.
//!
//! It does not know how reports travel or when they are asked for.

use serde::{Deserialize, Serialize};

use crate::commands::VerificationResult;

/// Something was lost, or happened twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Wrong {
    #[error(
        "instance {id} counted {actual} where {expected} are expected: something happened twice \
         (instances with too much: {many})"
    )]
    Over { id: usize, expected: i64, actual: i64, many: usize },
    #[error(
        "instance {id} counted {actual} where {expected} are expected: something is lost \
         (instances that lack something: {short})"
    )]
    Under { id: usize, expected: i64, actual: i64, short: usize },
    #[error("instance {id} was asked for its count once, and reported {times} times")]
    Reports { id: i32, times: usize },
    #[error("instance {id} was asked about {expected} increments, and reported on {found}")]
    OtherQuestion { id: i32, expected: i64, found: i64 },
    #[error("instances were told {actual} messages where {expected} are expected")]
    Told { expected: u64, actual: u64 },
    #[error("{actual} records were emitted to be discarded where {expected} are expected")]
    Discards { expected: u64, actual: u64 },
}

/// The counts of all instances, if each reported once.
pub fn counts(expected: &[i64], reports: &[VerificationResult]) -> Result<Vec<i64>, Wrong> {
    let mut counts = vec![None; expected.len()];
    for report in reports {
        let VerificationResult { id, expected: found, actual } = *report;
        let times = || reports.iter().filter(|other| other.id == id).count();
        let place = usize::try_from(id).ok().and_then(|id| counts.get_mut(id));
        match place.map(|count| count.replace(actual)) {
            Some(None) => {}
            Some(Some(_)) | None => return Err(Wrong::Reports { id, times: times() }),
        }
        let expected = expected[id as usize];
        if found != expected {
            return Err(Wrong::OtherQuestion { id, expected, found });
        }
    }
    let silent = |id: usize| Wrong::Reports { id: id as i32, times: 0 };
    counts.into_iter().enumerate().map(|(id, count)| count.ok_or_else(|| silent(id))).collect()
}

/// What is wrong if an instance counted too much; the first of them is named.
pub fn over(expected: &[i64], counts: &[i64]) -> Option<Wrong> {
    let (id, many) = first(expected, counts, |expected, actual| actual > expected)?;
    Some(Wrong::Over { id, expected: expected[id], actual: counts[id], many })
}

/// What is wrong if no instance will count any more and one counted too little.
pub fn under(expected: &[i64], counts: &[i64]) -> Option<Wrong> {
    let (id, short) = first(expected, counts, |expected, actual| actual < expected)?;
    Some(Wrong::Under { id, expected: expected[id], actual: counts[id], short })
}

/// The first instance for which something is so, and for how many it is.
fn first(
    expected: &[i64],
    counts: &[i64],
    is_so: impl Fn(i64, i64) -> bool,
) -> Option<(usize, usize)> {
    let pairs = expected.iter().zip(counts).enumerate();
    let mut found = pairs.filter(|(_, (expected, actual))| is_so(**expected, **actual));
    let (id, _) = found.next()?;
    Some((id, 1 + found.count()))
}
