//! The offers that there must be in each month, by counting calls without functions, streams or collections.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::calls::{self, LEAST_SECONDS};
use crate::metering::Level;
use crate::pipeline::Offer;
use crate::tariffs;

/// The offers after each month.
pub fn offers() -> Vec<BTreeSet<Offer>> {
    let mut seconds = BTreeMap::<u64, u64>::new();
    let mut spoken = BTreeMap::<u64, BTreeMap<u64, u64>>::new();
    let mut months = Vec::new();
    for (month, line) in calls::by_month() {
        while (months.len() as u64) < month {
            months.push(now(months.len() as u64, &seconds, &spoken));
        }
        let Some(call) = calls::parse(line) else { continue };
        if call.seconds < LEAST_SECONDS {
            continue;
        }
        *seconds.entry(call.caller).or_default() += call.seconds;
        for (one, other) in [(call.caller, call.callee), (call.callee, call.caller)] {
            *spoken.entry(one).or_default().entry(other).or_default() += 1;
        }
    }
    months.push(now(months.len() as u64, &seconds, &spoken));
    months
}

fn now(
    month: u64,
    seconds: &BTreeMap<u64, u64>,
    spoken: &BTreeMap<u64, BTreeMap<u64, u64>>,
) -> BTreeSet<Offer> {
    let offers = seconds.iter().map(|(phone, seconds)| {
        let level = match seconds {
            0..36_000 => Level::Basic,
            36_000..108_000 => Level::Plus,
            _ => Level::Premium,
        };
        let others = spoken[phone].iter();
        let favourite = others.max_by_key(|(other, calls)| (**calls, Reverse(**other)));
        let (favourite, _) = favourite.expect("who phones speaks with somebody");
        let cents = tariffs::price(level, month).expect("there is a price from the beginning");
        Offer { phone: *phone, favourite: *favourite, level, cents }
    });
    offers.collect()
}
