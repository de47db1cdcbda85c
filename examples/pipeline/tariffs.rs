//! The reference table: what a minute costs at each level, from month to month.

use crate::metering::Level;

/// Levels, and what a minute costs from a month on, in cents.
const TARIFFS: [(Level, u64, u64); 6] = [
    (Level::Basic, 0, 20),
    (Level::Plus, 0, 15),
    (Level::Premium, 0, 12),
    (Level::Plus, 4, 14),
    (Level::Basic, 8, 18),
    (Level::Premium, 8, 9),
];

/// What a minute costs in a month; nothing before there is a price.
pub fn price(level: Level, month: u64) -> Option<u64> {
    let of_level = TARIFFS.iter().filter(|(of, from, _)| *of == level && *from <= month);
    of_level.max_by_key(|(_, from, _)| *from).map(|(_, _, cents)| *cents)
}

/// How the table changes at the beginning of a month.
pub fn changes(month: u64) -> Vec<((Level, u64), isize)> {
    let mut changes = Vec::new();
    for (level, _, cents) in TARIFFS.iter().filter(|(_, from, _)| *from == month) {
        let before = month.checked_sub(1).and_then(|before| price(*level, before));
        changes.extend(before.map(|before| ((*level, before), -1)));
        changes.push(((*level, *cents), 1));
    }
    changes
}
