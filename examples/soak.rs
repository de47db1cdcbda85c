//! Hours of a program's life in seconds: visitors come and go, sessions open, are kept alive, close by
//! themselves and are forgotten, snapshots are taken every minute and deleted when they are old. When it has
//! run for some hours, it needs as much memory as after any other hour.
//!
//! `cargo run --release --example soak -- --hours 24` (default 6). The clock is turned, so that nothing waits
//! for it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::testing::Random;
use timely_statefun::{
    AtClose, Clock, Context, Egress, Expiration, Function, FunctionResult, FunctionType, Functions,
    SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, TableSpec,
    ValueSpec,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const VISITOR: FunctionType<u64> = FunctionType::new("soak/visitor");
const PAGE: FunctionType<u64> = FunctionType::new("soak/page");
const CLOSED: Egress<u64> = Egress::new("soak/closed");

/// What a visitor is told when a session has lasted long enough.
const CLOSE: u64 = u64::MAX;
const SESSION_MAX: Duration = Duration::from_secs(120);
const CLICKS: ValueSpec<u64> = ValueSpec::new("clicks");
/// How often each page was seen in the last ten minutes by somebody or other.
const SEEN: TableSpec<u64, u64> =
    TableSpec::new("seen").expiring(Expiration::after_write(Duration::from_secs(600)));

/// Visitors that are there at a time, of which each second some are new for ever.
const VISITORS: u64 = 2_000;
const NEW_A_SECOND: u64 = 5;
const CLICKS_A_SECOND: u64 = 100;
const PAGES: u64 = 500;
/// Hours after which as much is kept as ever will be: tables and queues have grown to what they need.
const WARM: usize = 4;
/// How much more memory may be needed after a later hour than after these.
const GROWTH_MAX: f64 = 1.05;

fn visitor(context: &mut Context<'_, u64>, page: &u64) -> FunctionResult {
    if *page == CLOSE {
        if let Some(clicks) = context.get(CLICKS).copied() {
            context.emit(CLOSED, clicks);
        }
        context.clear(CLICKS);
        return Ok(());
    }
    // Another click keeps the session alive: it is closed later than it was to be.
    let this = context.id().clone();
    context.cancel("close");
    context.send_after_unless_cancelled("close", SESSION_MAX, VISITOR, this, CLOSE)?;
    context.update(CLICKS, |clicks| *clicks += 1);
    let visitor = context.id().as_number().ok_or("visitors have numbers")?;
    context.send(PAGE, *page, visitor);
    Ok(())
}

fn page(context: &mut Context<'_, u64>, visitor: &u64) -> FunctionResult {
    context.table(SEEN).update(*visitor, |times| *times += 1);
    Ok(())
}

fn functions(clock: &Clock) -> Functions<u64> {
    Functions::new()
        .embedded(VISITOR, Function::new(visitor).value(CLICKS))
        .embedded(PAGE, Function::new(page).table(SEEN))
        .egress(CLOSED)
        .at_close(AtClose::SendNow)
        .clock(clock.clone())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let hours = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Some(6),
        (Some("--hours"), Some(hours)) => hours.parse().ok().filter(|hours| *hours > WARM as u64),
        _ => None,
    };
    let Some(hours) = hours else {
        eprintln!(
            "soak: --hours N, more than {WARM} and 6 if nobody says otherwise, is all there is"
        );
        return ExitCode::from(2);
    };
    match timely::execute_directly(move |worker| soak(worker, hours)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("soak: {why}");
            ExitCode::FAILURE
        }
    }
}

fn soak(worker: &mut timely::worker::Worker, hours: u64) -> Result<String, String> {
    let began = Instant::now();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let (clock, hands) = Clock::turned(1_700_000_000_000);
    let store = SnapshotStore::open("memory:", SnapshotOptions::default());
    let store = store.map_err(|error| error.to_string())?;
    let policy = SnapshotPolicy::new("soak").on_request().clock(clock.clone());
    let snapshots = Snapshots::<u64>::begin(worker, &store, runtime.handle(), &policy);
    let snapshots = snapshots.map_err(|error| error.to_string())?;
    let (mut input, probe, handle) = worker
        .dataflow(|scope| {
            let (input, clicks) = scope.new_input::<Vec<_>>();
            let clicks = snapshots.unreplayed("clicks", clicks);
            let egresses = clicks.stateful_functions(functions(&clock))?;
            let (probe, _) = egresses.stream(CLOSED)?.inspect(|_| ()).probe();
            Ok((input, probe, egresses.handle()))
        })
        .map_err(|error: timely_statefun::Error| error.to_string())?;

    let (mut random, mut first, mut after) = (Random::new(1), 0, Vec::new());
    for second in 0..hours * 3600 {
        for _ in 0..CLICKS_A_SECOND {
            let visitor = first + random.below(VISITORS);
            input.send(VISITOR.message(visitor, random.below(PAGES)));
        }
        first += NEW_A_SECOND;
        input.advance_to(second + 1);
        hands.advance(Duration::from_secs(1));
        while probe.less_than(&(second + 1)) {
            worker.step();
            if let Some(stopped) = handle.stopped() {
                return Err(format!("the program stopped: {stopped}"));
            }
        }
        if second % 60 == 59 {
            let before = snapshots.status().last_committed;
            snapshots.request();
            while snapshots.status().last_committed == before {
                worker.step();
                std::thread::yield_now();
            }
        }
        if second % 3600 == 3599 {
            let mebibytes = MEMORY.current_usage_as_mb();
            println!("after {} hours: {mebibytes:.1} MiB", second / 3600 + 1);
            after.push(mebibytes);
        }
    }
    input.close();
    handle.run(worker).map_err(|stopped| format!("the program stopped: {stopped}"))?;
    let stats = handle.stats();
    let most = after[WARM..].iter().copied().fold(0.0, f32::max);
    if f64::from(most) > f64::from(after[WARM - 1]) * GROWTH_MAX {
        return Err(format!("memory grows: {after:.1?} MiB after each hour"));
    }
    Ok(format!(
        "{hours} hours in {:.1} s: {} messages, and never more than {most:.1} MiB, as after {WARM} hours",
        began.elapsed().as_secs_f64(),
        stats.handled,
    ))
}
