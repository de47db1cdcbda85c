//! A bank whose balances are data: their sum and the ten richest accounts are maintained while money moves.
//!
//! `cargo run --release --example bank -- -w 2` (`-- --help` for all options)
//!
//! Accounts and transfers are functions. What accounts hold is their own state, which nobody else can reach; it is
//! *watched*, and so it is a differential collection in the same dataflow. A transfer takes money from one account
//! and gives it to another by messages, all of one time. So at a time that is over there is as much money as there
//! was, if at that time the collection is what the accounts held when all messages up to it, and none later, had
//! been handled.
//!
//! That is so in *rounds*, where nothing is given before all that was before has happened, and in *time order*, where
//! the functions see to it themselves. Both are checked at every time. Otherwise functions handle messages *as they
//! come*, and some account has been changed by a message of a later time when one of an earlier comes. What happens to
//! it then happens, in the collection, at the later time: else it would have two balances at once. The other account
//! of the transfer changed at the earlier time, and in between the money is nowhere, or twice. In the end all is there.
//!
//! The order of reading: `functions.rs`, `pipeline.rs`.

mod functions;
mod pipeline;

use std::process::ExitCode;

use pipeline::{Mode, Report, Task};

fn main() -> ExitCode {
    let (modes, task, timely) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("bank: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let ran = modes.clone();
    let workers = timely_statefun::execute(timely, move |worker| {
        let reports = ran.iter().map(|mode| pipeline::run(worker, *mode, task));
        let reports: Result<Vec<_>, _> = reports.collect();
        // All was sent to worker 0.
        let is_first = worker.index() == 0;
        reports.map(|reports| is_first.then_some(reports)).map_err(|stopped| stopped.to_string())
    });
    let reports = workers.map_err(|error| error.to_string()).and_then(|workers| {
        let workers: Result<Vec<_>, String> = workers.into_iter().collect();
        Ok(workers?.into_iter().flatten().next().unwrap_or_default())
    });
    let checked = reports.and_then(|reports| {
        modes.iter().zip(&reports).try_for_each(|(mode, report)| show(*mode, report, task))
    });
    match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bank: {why}");
            ExitCode::FAILURE
        }
    }
}

type Arguments = (Vec<Mode>, Task, timely::Config);

/// The command line; `None` if it asks for help, which was given.
fn arguments() -> Result<Option<Arguments>, String> {
    let mut options = getopts::Options::new();
    options.optopt("", "mode", "rounds, order or arrival (default: one after the other)", "MODE");
    options.optopt("", "accounts", "how many accounts there are (default 1000)", "N");
    options.optopt("", "times", "at how many times there are transfers (default 200)", "N");
    options.optopt("", "transfers", "how many there are at each of them (default 100)", "N");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Moves money between accounts, and maintains the sum of all balances and the ten\n\
            richest accounts meanwhile.\n\nUsage: bank [OPTIONS]";
        println!("{}", options.usage(brief).trim_end());
        return Ok(None);
    }
    if let Some(extra) = matches.free.first() {
        return Err(format!("unexpected argument \"{extra}\""));
    }
    let number = |option: &str, default: u64| match matches.opt_str(option) {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("--{option} \"{text}\" is not a whole number above 0")),
        },
    };
    let task = Task {
        accounts: number("accounts", 1000)?,
        opening: 1000,
        times: number("times", 200)?,
        transfers: number("transfers", 100)?,
    };
    let modes = match matches.opt_str("mode").as_deref() {
        None => vec![Mode::Rounds, Mode::InTimeOrder, Mode::AsTheyCome],
        Some("rounds") => vec![Mode::Rounds],
        Some("order") => vec![Mode::InTimeOrder],
        Some("arrival") => vec![Mode::AsTheyCome],
        Some(other) => return Err(format!("--mode \"{other}\" is none of rounds, order, arrival")),
    };
    Ok(Some((modes, task, timely::Config::from_matches(&matches)?)))
}

/// Prints what was seen.
///
/// # Errors
///
/// What is wrong with it.
fn show(mode: Mode, report: &Report, task: Task) -> Result<(), String> {
    let total = task.accounts as i64 * task.opening;
    let name = match mode {
        Mode::Rounds => "in rounds",
        Mode::InTimeOrder => "in time order",
        Mode::AsTheyCome => "as they come",
    };
    let made = report.settled.iter().filter(|(_, settled)| settled.is_made).count();
    println!("{name}: {made} transfers made, {} refused", report.settled.len() - made);
    let settled = report.settled.len() as u64;
    if settled != task.times * task.transfers {
        return Err(format!("{name}, {settled} transfers were settled"));
    }
    let sums = report.sum_at(task.times);
    let wrong: Vec<_> = (0..).zip(&sums).filter(|(_, sum)| **sum != total).collect();
    let (found, expected) = (report.richest_at(task.times), report.expected_at(task));
    let differ = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
    if sums.last() != Some(&total) || found.last() != expected.last() {
        return Err(format!("{name}, the end is wrong: {:?} and {:?}", sums.last(), found.last()));
    }
    let times = sums.len();
    match mode {
        Mode::Rounds | Mode::InTimeOrder => {
            if let Some((time, sum)) = wrong.first() {
                return Err(format!("{name}, all balances are {sum} at {time}, not {total}"));
            }
            if differ > 0 || report.raised > 0 {
                let raised = report.raised;
                return Err(format!("{name}, {differ} rankings are wrong, {raised} stamps raised"));
            }
            println!("  all balances are {total} at each of {times} times");
            println!("  the ten richest are right at each of them");
        }
        Mode::AsTheyCome => {
            let most = wrong.iter().map(|(_, sum)| (**sum - total).abs()).max().unwrap_or(0);
            println!(
                "  all balances are {total} in the end, and not at {} of {times} times:",
                wrong.len()
            );
            println!("  {most} are missing or there twice at the worst of them");
            println!("  the ten richest are right in the end, and not at {differ} times");
        }
    }
    let (changes, raised) = (report.changes, report.raised);
    println!(
        "  {raised} of {changes} changes of balances happened later than their message's time"
    );
    if mode == Mode::AsTheyCome && raised > 0 {
        println!("    (their account had been changed by a message of a later time)");
    }
    println!("  {:>10} {:>10}", "account", "balance");
    for (balance, account) in found.last().into_iter().flatten() {
        println!("  {account:>10} {balance:>10}");
    }
    Ok(())
}
