//! A shop whose stock is never less than nothing, and loses nothing: the shopping cart of Apache Flink's Stateful
//! Functions.
//!
//! `cargo run --release --example shopping_cart -- --remote -w 2` (`-- --help` for all options)
//!
//! What a customer wants, the cart asks of the item's stock, which hands it over or is out of it. A cart that is
//! cleared gives all of it back, and so does one that nobody has put anything into for four hours: a message that
//! the cart sends itself with a delay, and cancels when something comes. With `--remote` the same functions
//! are not part of the dataflow but served over HTTP, by this program itself, and all else is the same.
//!
//! What the functions keep is watched. After every hour all that was ever delivered is in stock, in carts, or sold,
//! and everything is as a model has it that knows of no functions. In the last hour everybody wants the same
//! thing, of which there is not enough.
//!
//! The order of reading: `functions.rs`, `pipeline.rs`, `model.rs`, `audit.rs`, `customers.rs`.

mod audit;
mod customers;
mod functions;
mod model;
mod pipeline;

use std::process::ExitCode;
use std::time::Duration;

use audit::Audit;
use timely_statefun::Endpoint;
use timely_statefun::serve::{ServedFunctions, Server, Serving};
use tokio::runtime::Runtime;

/// How long a call may take, with all attempts.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let (is_remote, timely) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("shopping_cart: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let runtime = Runtime::new().expect("the system lets threads start");
    let serving = is_remote.then(|| serve(&runtime));
    let endpoint = serving.as_ref().map(|at| Endpoint::at(at.url()).call_timeout(PATIENCE));
    let handle = runtime.handle().clone();
    let workers = timely_statefun::execute(timely, move |worker| {
        let functions = functions::functions(endpoint.clone()).runtime(handle.clone());
        let hours = customers::hours();
        let mut audit = Audit::new(hours.clone());
        let ran = pipeline::run(worker, functions, &hours, |hour, seen| audit.check(hour, seen));
        ran.map_err(|stopped| stopped.to_string())
    });
    if let Some(serving) = serving {
        runtime.block_on(serving.shutdown());
    }
    let workers = workers.map_err(|error| error.to_string());
    match workers.and_then(|workers| workers.into_iter().collect::<Result<Vec<()>, String>>()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("shopping_cart: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the functions to this program, at a port of the system's choice.
fn serve(runtime: &Runtime) -> Serving {
    let served = ServedFunctions::new(|| functions::functions(None));
    let served = served.expect("these functions can be served");
    let serving = runtime.block_on(Server::new(served).bind("127.0.0.1:0"));
    serving.expect("there is a free port")
}

/// The command line: whether the functions are called, and timely's own. `None` if it asks for help, which
/// was given.
fn arguments() -> Result<Option<(bool, timely::Config)>, String> {
    let mut options = getopts::Options::new();
    options.optflag("", "remote", "serve the functions over HTTP, and call them there");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Sells things, and looks for each piece every hour.\n\n\
            Usage: shopping_cart [OPTIONS]";
        println!("{}", options.usage(brief).trim_end());
        return Ok(None);
    }
    if let Some(extra) = matches.free.first() {
        return Err(format!("unexpected argument \"{extra}\""));
    }
    Ok(Some((matches.opt_present("remote"), timely::Config::from_matches(&matches)?)))
}
