//! Who talks to whom: passengers, rides, cells of the map, and drivers.
//!
//! Each knows only what it must. A passenger knows of its ride, a cell which drivers wait in it, a driver where it is
//! and for whom it drives; a ride brings them together.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use timely_statefun::{
    Context, Egress, Function, FunctionResult, FunctionType, Functions, ValueSpec,
};

use crate::map::{Cell, RADIUS, Trip, cells, likes};

/// Somebody who wants to get somewhere, once.
pub const PASSENGER: FunctionType<ToPassenger> = FunctionType::new("ride-sharing/passenger");
/// A ride, by the number of its passenger.
pub const RIDE: FunctionType<ToRide> = FunctionType::new("ride-sharing/ride");
/// A cell of the map, by its number.
pub const CELL: FunctionType<ToCell> = FunctionType::new("ride-sharing/cell");
pub const DRIVER: FunctionType<ToDriver> = FunctionType::new("ride-sharing/driver");

/// What passengers see on their phones.
pub const TO_PASSENGERS: Egress<PassengerTold> = Egress::new("ride-sharing/to-passengers");
/// What drivers see on theirs.
pub const TO_DRIVERS: Egress<DriverTold> = Egress::new("ride-sharing/to-drivers");

const DRIVERS: ValueSpec<BTreeSet<u64>> = ValueSpec::typed("drivers", "ride-sharing/drivers");
const PLACE: ValueSpec<Cell> = ValueSpec::typed("place", "ride-sharing/place");
/// The passenger for whom a driver drives.
const FARE: ValueSpec<u64> = ValueSpec::new("fare");
const SEARCH: ValueSpec<Search> = ValueSpec::typed("search", "ride-sharing/search");

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ToPassenger {
    /// From the passenger's phone.
    Request(Trip),
    /// From the ride.
    Tell(News),
}

/// What a passenger learns of the ride.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// A driver is on the way, after so many others had said no.
    Started {
        driver: u64,
        rejected: usize,
    },
    Ended,
    /// There is nobody who would drive.
    Failed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToRide {
    /// From the passenger.
    Find(Trip),
    /// From a cell: a driver who waits there and has not rejected, if there is one.
    Candidate(Option<u64>),
    /// From a driver.
    Joined,
    Rejected,
    Ended,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToCell {
    /// From a driver, who waits here or does so no more.
    Enter,
    Leave,
    /// From a ride: who waits, but for these?
    Find {
        rejected: BTreeSet<u64>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ToDriver {
    /// From the driver's phone: where it is.
    At(Cell),
    /// From the driver's phone: the passenger is out.
    Arrived,
    /// From a ride.
    Pickup(Trip),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PassengerTold {
    pub passenger: u64,
    pub news: News,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DriverTold {
    pub driver: u64,
    pub passenger: u64,
    pub trip: Trip,
}

/// A ride that looks for a driver.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Search {
    trip: Trip,
    /// How many cells have nobody for it.
    cells_passed: usize,
    rejected: BTreeSet<u64>,
}

timely_statefun::messages! {
    /// What travels in the city.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Message {
        Passenger(ToPassenger),
        Ride(ToRide),
        Cell(ToCell),
        Driver(ToDriver),
    }
}

pub fn functions() -> Functions<Message> {
    Functions::new()
        .named("ride sharing")
        .embedded(PASSENGER, Function::new(passenger))
        .embedded(RIDE, Function::new(ride).value(SEARCH))
        .embedded(CELL, Function::new(cell).value(DRIVERS))
        .embedded(DRIVER, Function::new(driver).value(PLACE).value(FARE))
        .egress(TO_PASSENGERS)
        .egress(TO_DRIVERS)
}

fn own(context: &Context<'_, Message>) -> Result<u64, &'static str> {
    context.id().as_number().ok_or("everybody has a number")
}

fn caller(context: &Context<'_, Message>) -> Result<u64, &'static str> {
    context.caller().and_then(|caller| caller.id.as_number()).ok_or("nobody with a number said so")
}

/// Has a ride, and nothing to remember.
fn passenger(context: &mut Context<'_, Message>, told: &ToPassenger) -> FunctionResult {
    let passenger = own(context)?;
    match *told {
        ToPassenger::Request(trip) => context.send(RIDE, passenger, ToRide::Find(trip)),
        ToPassenger::Tell(news) => context.emit(TO_PASSENGERS, PassengerTold { passenger, news }),
    }
    Ok(())
}

/// Asks cell after cell for drivers, and each driver, until one joins.
fn ride(context: &mut Context<'_, Message>, told: &ToRide) -> FunctionResult {
    let passenger = own(context)?;
    match told {
        ToRide::Find(trip) => {
            let search = Search { trip: *trip, cells_passed: 0, rejected: BTreeSet::new() };
            look(context, search)?;
        }
        ToRide::Candidate(None) => {
            let mut search = context.get(SEARCH).cloned().ok_or("nobody was asked for")?;
            search.cells_passed += 1;
            look(context, search)?;
        }
        ToRide::Candidate(Some(driver)) => {
            let search = context.get(SEARCH).ok_or("nobody was asked for")?;
            let trip = search.trip;
            context.send(DRIVER, *driver, ToDriver::Pickup(trip));
        }
        ToRide::Rejected => {
            let driver = caller(context)?;
            let mut search = context.get(SEARCH).cloned().ok_or("nobody was asked")?;
            search.rejected.insert(driver);
            look(context, search)?;
        }
        ToRide::Joined => {
            let driver = caller(context)?;
            let search = context.get(SEARCH).ok_or("nobody was asked")?;
            let news = News::Started { driver, rejected: search.rejected.len() };
            context.clear(SEARCH);
            context.send(PASSENGER, passenger, ToPassenger::Tell(news));
        }
        ToRide::Ended => context.send(PASSENGER, passenger, ToPassenger::Tell(News::Ended)),
    }
    Ok(())
}

/// Asks the nearest cell that has not said that it has nobody, or gives up if there is none near enough.
fn look(context: &mut Context<'_, Message>, search: Search) -> FunctionResult {
    let from = search.trip.from;
    let mut near: Vec<Cell> = cells().filter(|cell| cell.distance(from) <= RADIUS).collect();
    near.sort_by_key(|cell| cell.distance(from));
    if let Some(cell) = near.get(search.cells_passed) {
        let rejected = search.rejected.clone();
        context.send(CELL, cell.number(), ToCell::Find { rejected });
        context.set(SEARCH, search);
    } else {
        let passenger = own(context)?;
        context.clear(SEARCH);
        context.send(PASSENGER, passenger, ToPassenger::Tell(News::Failed));
    }
    Ok(())
}

/// Knows who waits in it. It may offer one driver to several rides: the driver decides.
fn cell(context: &mut Context<'_, Message>, told: &ToCell) -> FunctionResult {
    match told {
        ToCell::Enter => {
            let driver = caller(context)?;
            context.update(DRIVERS, |drivers| _ = drivers.insert(driver));
        }
        ToCell::Leave => {
            let driver = caller(context)?;
            let left = context.update(DRIVERS, |drivers| drivers.retain(|one| *one != driver));
            if left.is_empty() {
                context.clear(DRIVERS);
            }
        }
        ToCell::Find { rejected } => {
            let waiting = context.get(DRIVERS).into_iter().flatten();
            let candidate = waiting.copied().find(|driver| !rejected.contains(driver));
            context.reply(ToRide::Candidate(candidate))?;
        }
    }
    Ok(())
}

/// Is in its cell while it waits, and in none while it drives for somebody.
fn driver(context: &mut Context<'_, Message>, told: &ToDriver) -> FunctionResult {
    let driver = own(context)?;
    let place = context.get(PLACE).copied();
    let fare = context.get(FARE).copied();
    match *told {
        ToDriver::At(cell) => {
            context.set(PLACE, cell);
            if fare.is_none() && place != Some(cell) {
                if let Some(place) = place {
                    context.send(CELL, place.number(), ToCell::Leave);
                }
                context.send(CELL, cell.number(), ToCell::Enter);
            }
        }
        ToDriver::Pickup(trip) => {
            let place = place.ok_or("a driver whom nobody has seen")?;
            // Another ride may have been faster.
            if fare.is_some() || !likes(driver, trip) {
                context.reply(ToRide::Rejected)?;
                return Ok(());
            }
            let passenger = caller(context)?;
            context.set(FARE, passenger);
            context.send(CELL, place.number(), ToCell::Leave);
            context.reply(ToRide::Joined)?;
            context.emit(TO_DRIVERS, DriverTold { driver, passenger, trip });
        }
        ToDriver::Arrived => {
            let place = place.ok_or("a driver whom nobody has seen")?;
            let passenger = fare.ok_or("a driver arrived with nobody")?;
            context.clear(FARE);
            context.send(CELL, place.number(), ToCell::Enter);
            context.send(RIDE, passenger, ToRide::Ended);
        }
    }
    Ok(())
}
