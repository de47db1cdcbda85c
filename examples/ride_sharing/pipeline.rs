//! The dataflow, and the phones: what the city says goes in, what it is told comes out.
//!
//! It neither checks nor prints.

use std::cell::RefCell;
use std::rc::Rc;

use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{Envelope, StatefulFunctions, Stopped};

use crate::city::{City, Report};
use crate::functions::{
    DRIVER, DriverTold, Message, News, PASSENGER, PassengerTold, TO_DRIVERS, TO_PASSENGERS,
    ToDriver, ToPassenger,
};

/// Lives in a city until it is quiet. Worker 0 has the city, and calls `look` after each minute; passengers,
/// rides, cells and drivers are on all workers.
///
/// # Errors
///
/// Why the functions stopped.
pub fn run(worker: &mut Worker, city: &mut City, look: impl Fn(&City)) -> Result<(), Stopped> {
    let told_passengers = Rc::new(RefCell::new(Vec::<PassengerTold>::new()));
    let told_drivers = Rc::new(RefCell::new(Vec::<DriverTold>::new()));
    let (to_passengers, to_drivers) = (Rc::clone(&told_passengers), Rc::clone(&told_drivers));
    let probe = ProbeHandle::new();
    let (mut passengers, mut drivers, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (passengers, requests) = scope.new_input::<Vec<Envelope<Message>>>();
        let (drivers, reports) = scope.new_input::<Vec<Envelope<Message>>>();
        let egresses = [requests, reports].stateful_functions(crate::functions::functions());
        let egresses = egresses.expect("functions and egresses are bound once each");
        let told = egresses.stream(TO_PASSENGERS).expect("it is bound").exchange(|_| 0);
        let told = told.inspect(move |told| to_passengers.borrow_mut().push(*told));
        told.probe_with(&probe);
        let told = egresses.stream(TO_DRIVERS).expect("it is bound").exchange(|_| 0);
        let told = told.inspect(move |told| to_drivers.borrow_mut().push(*told));
        told.probe_with(&probe);
        (passengers, drivers, egresses.handle())
    });

    if worker.index() == 0 {
        let mut now = 0;
        while !city.is_quiet() {
            for (driver, report) in city.drive() {
                let report = match report {
                    Report::At(cell) => ToDriver::At(cell),
                    Report::Arrived => ToDriver::Arrived,
                };
                drivers.send(DRIVER.message(driver, report));
            }
            // All drivers are where they are before somebody asks for one.
            now += 1;
            passengers.advance_to(now);
            drivers.advance_to(now);
            handle.run_while(worker, || probe.less_than(&now))?;
            for (passenger, trip) in city.ask() {
                passengers.send(PASSENGER.message(passenger, ToPassenger::Request(trip)));
            }
            now += 1;
            passengers.advance_to(now);
            drivers.advance_to(now);
            handle.run_while(worker, || probe.less_than(&now))?;
            tell(city, told_passengers.take(), told_drivers.take());
            look(city);
        }
    }
    passengers.close();
    drivers.close();
    handle.run(worker)
}

/// People look at their phones: drivers first, and passengers whom nobody drives last, so that it is known who is free.
fn tell(city: &mut City, passengers: Vec<PassengerTold>, drivers: Vec<DriverTold>) {
    for DriverTold { driver, passenger, trip } in drivers {
        city.take(driver, passenger, trip);
    }
    for PassengerTold { passenger, news } in &passengers {
        match news {
            News::Started { driver, rejected } => city.start(*passenger, *driver, *rejected),
            News::Ended => city.end(*passenger),
            News::Failed => {}
        }
    }
    let failed = passengers.iter().filter(|told| told.news == News::Failed);
    failed.for_each(|told| city.fail(told.passenger));
    city.check();
}
