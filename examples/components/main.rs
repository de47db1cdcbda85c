//! Finds the connected components of a graph, and how far each node is from a root: the internet's
//! autonomous systems and the links between them.
//!
//! `cargo run --release --example components -- -w 2` (`-- --help` for all options)
//!
//! Every system is an address with state of its own. It learns of its links from the input and tells
//! its neighbours the smallest system it is connected with and its distance from the root, until nobody
//! learns anything new. Links come in batches; components merge and distances shrink from batch to
//! batch. What the functions find leaves as differential collections, and after every batch each
//! single value is compared, in the same dataflow, with what differential dataflow's own iteration
//! computes from the same links. A value that differs ends the program with an error.
//!
//! The order of reading: `functions.rs`, `reference.rs`, `pipeline.rs`, `input.rs`.

mod functions;
mod input;
mod pipeline;
mod reference;

use std::path::PathBuf;
use std::process::ExitCode;

use pipeline::Outcome;

const GRAPH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/as20graph.txt");
const ROOT: u64 = 1;
const BATCHES: usize = 4;

struct Arguments {
    links: Vec<(u64, u64)>,
    root: u64,
    batches: usize,
    timely: timely::Config,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("components: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let Arguments { links, root, batches, timely } = arguments;
    let links_read = links.len();
    let workers = timely_statefun::execute(timely, move |worker| {
        let functions = functions::functions();
        let outcome = pipeline::run(worker, functions, &links, root, batches);
        outcome.map_err(|failure| failure.to_string())
    });
    // Nothing is printed before all workers of this process are known to have done their part.
    let workers = workers.map_err(|error| error.to_string());
    match workers.and_then(|outcomes| outcomes.into_iter().collect::<Result<Vec<_>, String>>()) {
        Ok(outcomes) => {
            // Only worker 0 has an outcome, so one process of all prints one.
            outcomes.iter().flatten().for_each(|outcome| print(outcome, links_read));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("components: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The command line, and the links of the file it names; `None` if it asks for help, which was given.
fn arguments() -> Result<Option<Arguments>, String> {
    let mut options = getopts::Options::new();
    options.optopt("", "file", "links (default: those that come with this)", "FILE");
    let root = format!("the node from which distances are counted (default {ROOT})");
    options.optopt("", "root", &root, "N");
    let batches = format!("how many batches the links come in (default {BATCHES})");
    options.optopt("", "batches", &batches, "N");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Finds the connected components of a graph, and distances from a root.\n\n\
            A line of the file is a link between two nodes, \"from to\", both whole numbers. Which of\n\
            them stands first does not matter, nor does how often a link is there. Lines that are\n\
            empty or begin with # are skipped.\n\n\
            Usage: components [OPTIONS]";
        println!("{}", options.usage(brief).trim_end());
        return Ok(None);
    }
    if let Some(extra) = matches.free.first() {
        return Err(format!("unexpected argument \"{extra}\""));
    }
    let number = |option: &str, default: u64| match matches.opt_str(option) {
        None => Ok(default),
        Some(text) => {
            text.parse().map_err(|_| format!("--{option} \"{text}\" is not a whole number"))
        }
    };
    let root = number("root", ROOT)?;
    let batches = number("batches", BATCHES as u64)?;
    let batches = usize::try_from(batches).ok().filter(|batches| *batches > 0);
    let batches = batches.ok_or("links come in at least one batch")?;
    let file = PathBuf::from(matches.opt_str("file").unwrap_or_else(|| GRAPH.to_owned()));
    let links =
        input::links(&file).map_err(|why| format!("cannot read \"{}\": {why}", file.display()))?;
    if !links.iter().any(|(one, other)| *one == root || *other == root) {
        return Err(format!("there is no node {root} in \"{}\"", file.display()));
    }
    let timely = timely::Config::from_matches(&matches)?;
    Ok(Some(Arguments { links, root, batches, timely }))
}

fn print(outcome: &Outcome, links_read: usize) {
    let Outcome { findings, work } = outcome;
    for (number, findings) in (1..).zip(findings) {
        println!("after batch {number}: {}", findings.summary());
    }
    let Some(last) = findings.last() else { return };
    println!("{:>10} {:>10}", "hops", "systems");
    for (hops, systems) in &last.distances {
        println!("{hops:>10} {systems:>10}");
    }
    println!("{links_read} links read, in {} batches", findings.len());
    println!("{} messages delivered, {} between workers", work.delivered, work.crossed);
    println!("after each batch, differential dataflow found the same for every system");
    println!("{}", last.summary());
}
