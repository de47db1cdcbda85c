//! Which way a parcel goes, which depends on nothing but the parcel; and so what must become of it.

pub const OFFICES: u64 = 12;
pub const COURIERS: u64 = 3;

/// How a parcel leaves an office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It has come to its end.
    End,
    On,
    /// As two.
    Split,
    Later,
    /// On, while a decoy waits that is cancelled or not.
    Decoy,
    Courier,
    Ferry,
    /// By a function whose failures hold no time.
    Barge,
    Operation,
    /// It gets lost, as a dead letter.
    Customs,
}

impl Way {
    pub fn of(id: u64, hops: u64) -> Self {
        if hops == 0 {
            return Way::End;
        }
        match mix(id, hops) % 20 {
            0..=5 => Way::On,
            6 => Way::Barge,
            7 | 8 => Way::Split,
            9 | 10 => Way::Later,
            11 | 12 => Way::Decoy,
            13..=15 => Way::Courier,
            16 => Way::Ferry,
            17 | 18 => Way::Operation,
            _ => Way::Customs,
        }
    }

    pub fn halves(id: u64) -> [u64; 2] {
        [mix(id, 1) >> 1, mix(id, 2) >> 1]
    }
}

/// Whether a courier brings a parcel later, and not at once.
pub fn is_brought_later(id: u64) -> bool {
    mix(id, 14).is_multiple_of(3)
}

/// A number that looks like chance.
pub fn mix(one: u64, other: u64) -> u64 {
    let mut number = one ^ other.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    number = (number ^ number >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    number = (number ^ number >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    number ^ number >> 32
}

/// What must become of parcels.
#[derive(Debug, Default)]
pub struct Expected {
    pub arrived: Vec<(u64, i64)>,
    pub lost: Vec<(u64, i64)>,
    pub decoys: Vec<u64>,
    /// How often offices handled one.
    pub handled: u64,
}

impl Expected {
    pub fn add(&mut self, id: u64, hops: u64, amount: i64) {
        self.handled += 1;
        match Way::of(id, hops) {
            Way::End => self.arrived.push((id, amount)),
            Way::Customs => self.lost.push((id, amount)),
            Way::Split => {
                let [one, other] = Way::halves(id);
                self.add(one, hops - 1, amount / 2);
                self.add(other, hops - 1, amount - amount / 2);
            }
            way => {
                if way == Way::Decoy {
                    self.decoys.push(mix(id, hops) >> 8);
                }
                self.add(id, hops - 1, amount);
            }
        }
    }
}
