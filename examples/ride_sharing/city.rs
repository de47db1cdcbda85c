//! The city itself: drivers who drive, and people who want to get somewhere.
//!
//! It does what it is told on phones, and nothing else is known to it of functions. Whatever it is told must make
//! sense: it is what checks them.

use std::collections::BTreeMap;

use crate::map::{Cell, HEIGHT, RADIUS, Trip, WIDTH, cells, likes};

const DRIVERS: u64 = 70;
/// For how long people want to get somewhere.
const MINUTES: u64 = 150;
const PASSENGERS_A_MINUTE: u64 = 8;

/// Numbers that depend on nothing but a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    fn cell(&mut self) -> Cell {
        Cell { x: self.below(WIDTH), y: self.below(HEIGHT) }
    }

    /// A cell that is more likely in the middle of the city.
    fn central_cell(&mut self) -> Cell {
        let (one, other) = (self.cell(), self.cell());
        Cell { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 }
    }
}

struct Driver {
    at: Cell,
    drives: Option<Fare>,
}

struct Fare {
    passenger: u64,
    trip: Trip,
    is_picked_up: bool,
}

/// What has become of somebody who wants to get somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Asked,
    /// A driver has said so, and nobody else yet.
    Taken {
        driver: u64,
    },
    Rides {
        driver: u64,
    },
    Rode,
    Failed,
}

/// What a driver's phone says.
pub enum Report {
    At(Cell),
    Arrived,
}

pub struct City {
    random: Random,
    minute: u64,
    drivers: Vec<Driver>,
    passengers: Vec<(Trip, Wish)>,
    /// How many passengers had a driver only after others had said no.
    rejected: usize,
}

impl City {
    pub fn new() -> Self {
        let mut random = Random(1);
        let drivers = (0..DRIVERS).map(|_| Driver { at: random.cell(), drives: None });
        let drivers = drivers.collect();
        City { random, minute: 0, drivers, passengers: Vec::new(), rejected: 0 }
    }

    /// Whether nobody rides, and nobody wants to any more.
    pub fn is_quiet(&self) -> bool {
        self.minute >= MINUTES && self.drivers.iter().all(|driver| driver.drives.is_none())
    }

    /// Another minute: each driver drives one cell, or has a passenger get in or out.
    pub fn drive(&mut self) -> Vec<(u64, Report)> {
        let City { random, drivers, passengers, minute, .. } = self;
        *minute += 1;
        let mut reports = Vec::new();
        for (number, driver) in (0..).zip(drivers) {
            let goal = match &mut driver.drives {
                None => random.cell(),
                Some(fare) if !fare.is_picked_up && driver.at == fare.trip.from => {
                    fare.is_picked_up = true;
                    continue;
                }
                Some(fare) if !fare.is_picked_up => fare.trip.from,
                Some(fare) if driver.at != fare.trip.to => fare.trip.to,
                Some(fare) => {
                    let wish = passengers[fare.passenger as usize].1;
                    assert_eq!(wish, Wish::Rides { driver: number }, "{} is out", fare.passenger);
                    driver.drives = None;
                    reports.push((number, Report::Arrived));
                    continue;
                }
            };
            let Cell { x, y } = &mut driver.at;
            match (*x, *y) {
                (now, _) if now < goal.x => *x += 1,
                (now, _) if now > goal.x => *x -= 1,
                (_, now) if now < goal.y => *y += 1,
                (_, now) if now > goal.y => *y -= 1,
                _ => {}
            }
            reports.push((number, Report::At(driver.at)));
        }
        reports
    }

    /// Those who want to get somewhere now.
    pub fn ask(&mut self) -> Vec<(u64, Trip)> {
        let count = if self.minute <= MINUTES { PASSENGERS_A_MINUTE } else { 0 };
        let asked = (0..count).map(|_| {
            let trip = Trip { from: self.random.cell(), to: self.random.central_cell() };
            self.passengers.push((trip, Wish::Asked));
            (self.passengers.len() as u64 - 1, trip)
        });
        asked.collect()
    }

    fn passenger(&mut self, number: u64) -> &mut (Trip, Wish) {
        self.passengers.get_mut(number as usize).expect("it is somebody who asked")
    }

    /// A driver is told to drive.
    pub fn take(&mut self, number: u64, passenger: u64, trip: Trip) {
        let (asked, wish) = self.passenger(passenger);
        assert_eq!((*asked, *wish), (trip, Wish::Asked), "passenger {passenger} is to be driven");
        *wish = Wish::Taken { driver: number };
        let driver = &mut self.drivers[number as usize];
        let drives = driver.drives.as_ref().map(|fare| fare.passenger);
        assert_eq!(drives, None, "driver {number} is to drive {passenger} as well");
        assert!(driver.at.distance(trip.from) <= RADIUS, "driver {number} is too far away");
        assert!(likes(number, trip), "driver {number} does not like {trip:?}");
        driver.drives = Some(Fare { passenger, trip, is_picked_up: false });
    }

    /// A passenger is told that somebody comes.
    pub fn start(&mut self, passenger: u64, driver: u64, rejected: usize) {
        self.rejected += usize::from(rejected > 0);
        let (_, wish) = self.passenger(passenger);
        assert_eq!(*wish, Wish::Taken { driver }, "passenger {passenger} waits for {driver}");
        *wish = Wish::Rides { driver };
    }

    /// A passenger is told that this is the place.
    pub fn end(&mut self, passenger: u64) {
        let (_, wish) = *self.passenger(passenger);
        let Wish::Rides { driver } = wish else {
            panic!("the ride of passenger {passenger} is over: {wish:?}")
        };
        let drives = self.drivers[driver as usize].drives.as_ref().map(|fare| fare.passenger);
        assert_ne!(drives, Some(passenger), "driver {driver} has not arrived");
        self.passenger(passenger).1 = Wish::Rode;
    }

    /// A passenger is told that there is nobody. That must be so when all are told what they are told in this
    /// minute, since nobody became free in between.
    pub fn fail(&mut self, passenger: u64) {
        let (trip, wish) = *self.passenger(passenger);
        assert_eq!(wish, Wish::Asked, "passenger {passenger} is to stay");
        self.passenger(passenger).1 = Wish::Failed;
        let mut free = (0..).zip(&self.drivers).filter(|(_, driver)| driver.drives.is_none());
        let free = free.find(|(number, driver)| {
            driver.at.distance(trip.from) <= RADIUS && likes(*number, trip)
        });
        if let Some((number, Driver { at, .. })) = free {
            panic!("driver {number} at {at:?} is free, and {passenger} has none for {trip:?}");
        }
    }

    /// Everybody has been told something.
    pub fn check(&self) {
        for (number, (_, wish)) in self.passengers.iter().enumerate() {
            let is_open = matches!(wish, Wish::Asked | Wish::Taken { .. });
            assert!(!is_open, "passenger {number} does not know: {wish:?}");
        }
    }

    fn count(&self, holds: fn(&Wish) -> bool) -> usize {
        self.passengers.iter().filter(|(_, wish)| holds(wish)).count()
    }

    /// What there is to say in between; nothing in most minutes.
    pub fn progress(&self) -> Option<String> {
        self.minute.is_multiple_of(50).then(|| {
            let riding = self.count(|wish| matches!(wish, Wish::Rides { .. }));
            let rode = self.count(|wish| *wish == Wish::Rode);
            let failed = self.count(|wish| *wish == Wish::Failed);
            let minute = self.minute;
            format!("minute {minute:>3}: {riding:>2} ride, {rode:>4} rode, {failed:>3} had no ride")
        })
    }

    /// The city at the end: who is where, and from where people got a ride or not.
    pub fn picture(&self) -> String {
        let counted = |cells: &mut dyn Iterator<Item = Cell>| {
            let mut counts = BTreeMap::<Cell, usize>::new();
            cells.for_each(|cell| *counts.entry(cell).or_default() += 1);
            counts
        };
        let from = |end: Wish| {
            let ended = self.passengers.iter().filter(move |(_, wish)| *wish == end);
            counted(&mut ended.map(|(trip, _)| trip.from))
        };
        let drivers = counted(&mut self.drivers.iter().map(|driver| driver.at));
        let pictures = [drivers, from(Wish::Rode), from(Wish::Failed)];
        let width = WIDTH as usize + 2;
        let titles = ["drivers", "rides from here", "no ride from here"];
        let mut text: String = titles.map(|title| format!("{title:width$}")).concat();
        for cell in cells() {
            if cell.x == 0 {
                text.push('\n');
                for counts in &pictures {
                    let line = (0..WIDTH).map(|x| match counts.get(&Cell { x, y: cell.y }) {
                        None => '.',
                        Some(count) => u32::try_from(*count)
                            .ok()
                            .and_then(|count| char::from_digit(count, 10))
                            .unwrap_or('#'),
                    });
                    text.push_str(&format!("{:width$}", line.collect::<String>()));
                }
            }
        }
        text
    }

    /// The end, when it is quiet: everybody has come somewhere, or stayed.
    pub fn summary(&self) -> String {
        let asked = self.passengers.len();
        let rode = self.count(|wish| *wish == Wish::Rode);
        let failed = self.count(|wish| *wish == Wish::Failed);
        assert_eq!(rode + failed, asked, "those who rode and those who had to stay");
        let rejected = self.rejected;
        let shows_all = failed > 0 && rejected > 0;
        assert!(shows_all, "{failed} had no ride, {rejected} were rejected: this shows little");
        format!(
            "{asked} wanted to get somewhere: {rode} rode with {DRIVERS} drivers, {rejected} of them \
             after somebody said no, {failed} had no ride, and nobody was forgotten"
        )
    }
}
