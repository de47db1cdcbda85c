//! Runs an application of StateFun's playground: the functions that a module names, wherever they are served, with an
//! ingress and an egress over HTTP. Kill it at any moment and start it again: it goes on where it was.
//!
//! `cargo run --release --example playground -- module.yaml` (`-- --help` for all options)
//!
//! ```console
//! curl -X PUT -H 'Content-Type: application/vnd.example/GreetRequest' -d '{"name": "Bob"}' \
//!     localhost:8090/example/person/Bob
//! curl localhost:8091/greetings
//! ```
//!
//! `PUT` succeeds when what was sent is durable. Ctrl-C stops it at a savepoint, `stopped`. Messages that fail are told, and
//! are gone; with `--stop-on-failure` the program stops instead, and tries them again when it is started.
//!
//! Without a module, the example checks itself: it serves a greeter, runs it in a process of its own, and kills that.

mod application;
mod check;
mod client;
mod greeter;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use application::{Application, Ended};

/// Between two snapshots, if nothing else is said: as long as a `PUT` may take.
const INTERVAL: Duration = Duration::from_millis(200);

enum Asked {
    Help(String),
    Check,
    Run(Application),
}

fn main() -> ExitCode {
    let asked = match arguments() {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("playground: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let ended = match asked {
        Asked::Help(text) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Asked::Check => check::run(),
        Asked::Run(application) => application::run(application).map(|ended| match ended {
            Ended::AtSavepoint { name, cut } => {
                println!("stopped at savepoint {name}, which is cut {cut}");
            }
            Ended::Done => println!("all is done"),
        }),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("playground: {why}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Asked, String> {
    let mut options = getopts::Options::new();
    let store = "where snapshots are kept (default: statefun-data, beside the module)";
    options.optopt("", "store", store, "DIR");
    options.optopt("", "host", "the address to listen at (default 127.0.0.1)", "ADDRESS");
    let interval = format!("between two snapshots (default {})", INTERVAL.as_millis());
    options.optopt("", "interval", &interval, "MILLISECONDS");
    options.optflag("", "stop-on-failure", "stops where a message fails, instead of telling of it");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Runs an application of StateFun's playground, and keeps what it knows. Without a module, \
            checks itself.\n\nUsage: playground [OPTIONS] [MODULE]";
        return Ok(Asked::Help(options.usage(brief).trim_end().to_owned()));
    }
    let timely = timely::Config::from_matches(&matches)?;
    if !matches!(
        timely.communication,
        timely::CommunicationConfig::Thread | timely::CommunicationConfig::Process(_)
    ) {
        return Err("it runs in one process".to_owned());
    }
    let [module] = &matches.free[..] else {
        return match matches.free.get(1) {
            None => Ok(Asked::Check),
            Some(extra) => Err(format!("unexpected argument \"{extra}\"")),
        };
    };
    let module = PathBuf::from(module);
    let beside = || module.with_file_name("statefun-data");
    let interval = match matches.opt_str("interval") {
        None => INTERVAL,
        Some(text) => match text.parse() {
            Ok(number) => Duration::from_millis(number),
            Err(_) => return Err(format!("--interval \"{text}\" is not a whole number")),
        },
    };
    let host = matches.opt_str("host").unwrap_or_else(|| "127.0.0.1".to_owned());
    let host: IpAddr = host.parse().map_err(|_| format!("--host \"{host}\" is no IP address"))?;
    Ok(Asked::Run(Application {
        store: matches.opt_str("store").map_or_else(beside, PathBuf::from),
        host,
        interval,
        stops_on_failure: matches.opt_present("stop-on-failure"),
        timely,
        module,
    }))
}
