//! The map: cells in a grid, how far they are from each other, and which trips drivers like.

use serde::{Deserialize, Serialize};

pub const WIDTH: u64 = 18;
pub const HEIGHT: u64 = 10;
/// How many cells away from a passenger drivers are looked for.
pub const RADIUS: u64 = 3;
/// The longest trip that every driver makes.
const SHORT: u64 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    pub x: u64,
    pub y: u64,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    pub from: Cell,
    pub to: Cell,
}

impl Cell {
    /// Where it is among [all](cells).
    pub fn number(self) -> u64 {
        self.y * WIDTH + self.x
    }

    /// How many cells one drives to another.
    pub fn distance(self, other: Cell) -> u64 {
        self.x.abs_diff(other.x) + self.y.abs_diff(other.y)
    }
}

/// All cells, line by line.
pub fn cells() -> impl Iterator<Item = Cell> {
    (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| Cell { x, y }))
}

/// Whether a driver makes a trip: every third does not like long ones.
pub fn likes(driver: u64, trip: Trip) -> bool {
    !driver.is_multiple_of(3) || trip.from.distance(trip.to) <= SHORT
}
