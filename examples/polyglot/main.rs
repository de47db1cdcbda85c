//! Phone bills whose prices are somebody else's affair: a tariff in Python, JavaScript, Java or Go.
//!
//! `cargo run --release --example polyglot -- -w 2` (`-- --help` for all options)
//!
//! Real calls are read, and become messages for the accounts of those who placed them, all in Rust.
//! What a call costs an account asks a function that remembers how long its phone has been used. The
//! price comes back as a message, and leaves as a stream. That function is part of this program, or,
//! with `--remote URL`, one of `server.py`, `server.js`, `server/Server.java` and `server.go`, each of
//! which says how it is started. Whoever changes the prices restarts that server, and nothing else.
//!
//! The order of reading: `functions.rs`, `pipeline.rs`, and a server.

mod functions;
mod pipeline;

use std::process::ExitCode;
use std::time::Duration;

use pipeline::Findings;
use timely_statefun::Endpoint;

const CALLS: &str = include_str!("../data/calls.txt");
/// How long the tariff may take to answer, with all attempts.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let (endpoint, timely) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("polyglot: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("the system lets threads start");
    let handle = runtime.handle().clone();
    if let Err(wrong) = functions::functions(endpoint.clone(), handle.clone()).check() {
        eprintln!("polyglot: {wrong}");
        return ExitCode::from(2);
    }
    let workers = timely_statefun::execute(timely, move |worker| {
        let functions = functions::functions(endpoint.clone(), handle.clone());
        pipeline::run(worker, functions, CALLS).map_err(|stopped| stopped.to_string())
    });
    let workers = workers.map_err(|error| error.to_string());
    let workers = workers.and_then(|findings| findings.into_iter().collect::<Result<Vec<_>, _>>());
    match workers.and_then(|findings| findings.iter().flatten().try_for_each(report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("polyglot: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was found, if it is right.
fn report(findings: &Findings) -> Result<(), String> {
    let expected = pipeline::expected(CALLS);
    for (phone, owed) in &expected.bills {
        let found = findings.bills.get(phone).copied().unwrap_or(0);
        if found != *owed {
            return Err(format!("phone {phone} owes {owed} cents, and not {found}"));
        }
    }
    if *findings != expected {
        return Err("the bills are right, but not the calls or notices".to_owned());
    }
    let Findings { calls, bills, notices } = findings;
    let mut largest: Vec<_> = bills.iter().collect();
    largest.sort_by_key(|(phone, owed)| (std::cmp::Reverse(**owed), *phone));
    for (phone, owed) in largest.iter().take(5) {
        println!("phone {phone} owes {}.{:02}", *owed / 100, *owed % 100);
    }
    let (phones, over, owed) = (bills.len(), notices.len(), bills.values().sum::<u64>());
    println!("{calls} calls of {phones} phones, {over} with no free hours left, {owed} cents owed");
    Ok(())
}

/// The command line: where the tariff is, if not here, and timely's own. `None` if it asks for help,
/// which was given.
fn arguments() -> Result<Option<(Option<Endpoint>, timely::Config)>, String> {
    let mut options = getopts::Options::new();
    let remote = "a tariff that is served elsewhere, such as http://localhost:8000/ \
        (default: one that is part of this program)";
    options.optopt("", "remote", remote, "URL");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Makes phone bills of real calls, with prices by a function in any language.\n\n\
            Usage: polyglot [OPTIONS]";
        println!("{}", options.usage(brief).trim_end());
        return Ok(None);
    }
    if let Some(extra) = matches.free.first() {
        return Err(format!("unexpected argument \"{extra}\""));
    }
    let endpoint = matches.opt_str("remote").map(|url| Endpoint::at(url).call_timeout(PATIENCE));
    Ok(Some((endpoint, timely::Config::from_matches(&matches)?)))
}
