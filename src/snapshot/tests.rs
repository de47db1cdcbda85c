//! The store of snapshots: its files, and what happens to it.

mod begin;
mod damage;
mod execution;
mod format;
mod fuzz;
mod garbage;
mod log;
mod random;
mod savepoints;
mod store;

/// Numbers below others, that depend on nothing but a seed.
fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = seed;
    move |below| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    }
}
