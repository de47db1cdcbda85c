//! Finds drivers for passengers: the ride sharing of Apache Flink's Stateful Functions.
//!
//! `cargo run --release --example ride_sharing`, or `-- -w 2` for two workers
//!
//! Passengers, rides, drivers and the cells of a map are functions, and nobody has a list of all drivers. A ride
//! asks the cells around its passenger, nearest first, who waits there, and asks that driver, who may have been
//! taken by another ride meanwhile, or may not like the trip. Then it asks again, until somebody joins or nobody
//! is left.
//!
//! What drives around is a city outside of the dataflow, which reports where drivers are and does as people are
//! told on their phones. It notices what must not be: a driver with two passengers, a passenger who is told
//! nothing or two things, one who is told that nobody drives while somebody would. Which driver
//! it is depends on who is asked first, so on several workers the picture at the end is another each time.
//!
//! The order of reading: `functions.rs`, `pipeline.rs`, `city.rs`, `map.rs`.

mod city;
mod functions;
mod map;
mod pipeline;

use city::City;

fn main() {
    let workers = timely_statefun::execute_from_args(std::env::args(), |worker| {
        let mut city = City::new();
        let look = |city: &City| city.progress().into_iter().for_each(|line| println!("{line}"));
        let ran = pipeline::run(worker, &mut city, look);
        ran.map_err(|stopped| stopped.to_string())?;
        // Worker 0 has a city, and others have one in which nothing happened.
        Ok((worker.index() == 0).then_some(city))
    });
    let workers: Result<Vec<_>, String> = workers.expect("no worker fails").into_iter().collect();
    for city in workers.expect("no function fails").into_iter().flatten() {
        println!("{}", city.picture());
        println!("{}", city.summary());
    }
}
