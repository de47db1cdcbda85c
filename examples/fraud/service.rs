//! The third party that knows merchants. It takes its time, and fails now and then.
//!
//! What it answers depends on nothing but what it is asked, so that it can be asked again by whoever checks.

use std::time::Duration;

use crate::events::mixed;

/// It is down at the moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer about merchant {0}, ask again")]
pub struct Unavailable(u64);

/// Asks how bad a merchant is, from 0 to 60. Those who were asked later may answer earlier.
pub async fn score(merchant: u64, transaction: u64, attempt: u32) -> Result<u64, Unavailable> {
    let millis = mixed([3, transaction, u64::from(attempt)]) % 3;
    tokio::time::sleep(Duration::from_millis(millis)).await;
    answer(merchant, transaction, attempt)
}

/// What it answers: one in three questions fails.
pub fn answer(merchant: u64, transaction: u64, attempt: u32) -> Result<u64, Unavailable> {
    match mixed([2, merchant, transaction + (u64::from(attempt) << 32)]) % 3 {
        0 => Err(Unavailable(merchant)),
        _ => Ok(mixed([1, merchant, 0]) % 61),
    }
}
