//! The input: lines of text, which are calls.

use serde::{Deserialize, Serialize};

pub const TEXT: &str = include_str!("../data/calls.txt");
/// What is shorter was a wrong number.
pub const LEAST_SECONDS: u64 = 5;

const SECONDS_OF_A_MONTH: u64 = 30 * 24 * 60 * 60;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub caller: u64,
    pub callee: u64,
    /// In Unix seconds.
    pub start: u64,
    pub seconds: u64,
}

/// A line is `caller callee start seconds`.
pub fn parse(line: &str) -> Option<Line> {
    let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
    let [caller, callee, start, seconds] = numbers?[..] else { return None };
    Some(Line { caller, callee, start, seconds })
}

/// The lines with the month that each is of, counted from the first, in order.
pub fn by_month() -> impl Iterator<Item = (u64, &'static str)> {
    let mut first = None;
    TEXT.lines().map(move |line| {
        let start = parse(line).expect("the lines are calls").start;
        let month = (start - *first.get_or_insert(start)) / SECONDS_OF_A_MONTH;
        (month, line)
    })
}
