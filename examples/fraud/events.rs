//! What happens from day to day. It is the same each time.

use crate::functions::Transaction;

pub const ACCOUNTS: u64 = 200;
const MERCHANTS: u64 = 60;
const DAYS: u64 = 120;
const TRANSACTIONS_A_DAY: u64 = 100;
const CONFIRMATIONS_A_DAY: u64 = 4;

/// One day: what people find out in the morning, and what they buy afterwards.
#[derive(Clone, Debug)]
pub struct Day {
    /// Accounts on which a fraud is confirmed, as often as there was one.
    pub confirmed: Vec<u64>,
    pub transactions: Vec<Transaction>,
}

/// A number that looks like chance and follows from some others (the finalizer of SplitMix64).
pub fn mixed(numbers: [u64; 3]) -> u64 {
    numbers.into_iter().fold(0, |before, number| {
        let x = (before ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

pub fn days() -> Vec<Day> {
    (0..DAYS).map(day).collect()
}

fn day(day: u64) -> Day {
    let confirmed = (0..CONFIRMATIONS_A_DAY).map(|number| {
        // Every other fraud is on one of a few accounts whose cards were copied.
        let chance = mixed([11, day, number]);
        if number % 2 == 0 { chance % 8 } else { chance % ACCOUNTS }
    });
    let transactions = (0..TRANSACTIONS_A_DAY).map(|at| {
        let number = day * TRANSACTIONS_A_DAY + at;
        let below = |what, bound| mixed([what, number, 0]) % bound;
        Transaction {
            number,
            account: below(12, ACCOUNTS),
            merchant: below(13, MERCHANTS),
            amount: 1 + below(14, 120_000),
        }
    });
    Day { confirmed: confirmed.collect(), transactions: transactions.collect() }
}
