//! The interpreter of this program, served to others.

use std::io::{Write, copy, sink, stdin, stdout};
use std::process::ExitCode;

use timely_statefun::serve::{ServedFunctions, Server, Serving};
use tokio::runtime::Runtime;

use crate::interpreter::{Interpreter, functions};

/// Serves until the standard input ends, so that nothing is left when whoever started this is gone.
pub fn serve(place: &str) -> ExitCode {
    let runtime = Runtime::new().expect("the system lets threads start");
    let served = match serving(place, &runtime) {
        Ok(serving) => serving,
        Err(why) => {
            eprintln!("smoke: {why}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", served.url());
    // Who reads it wants to know at once; who does not want to is no reason to stop.
    let _ = stdout().flush();
    let _ = copy(&mut stdin().lock(), &mut sink());
    let ended = runtime.block_on(served.shutdown());
    match ended.requests_cut {
        0 => ExitCode::SUCCESS,
        cut => {
            eprintln!("smoke: {cut} requests were not answered");
            ExitCode::FAILURE
        }
    }
}

fn serving(place: &str, runtime: &Runtime) -> Result<Serving, String> {
    let handle = runtime.handle().clone();
    let make = move || functions(&Interpreter::Embedded, handle.clone());
    let functions = ServedFunctions::new(make).map_err(|error| error.to_string())?;
    let server = Server::new(functions);
    let serving = match place.contains('/') {
        #[cfg(unix)]
        true => runtime.block_on(server.bind_unix(place)),
        _ => runtime.block_on(server.bind(place)),
    };
    serving.map_err(|error| error.to_string())
}
