//! This library with the StateFun SDKs of other languages, unmodified.
//!
//! `tests/interop/run` installs the SDKs, makes a server of each, and runs this with them:
//! `cargo test --release --test interop -- python=PATH javascript=PATH` takes for each language an
//! executable that serves the functions of `functions.rs`, and fails if there is none, or a check fails.
//! It needs the release build of the example `smoke`.

mod across;
mod checks;
mod forwarder;
mod functions;
mod later;
mod offline;
mod program;
mod replaced;
mod server;
mod smoke;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use server::Server;

/// How much of a log is printed after a check that failed.
const LOG_LINES: usize = 30;

/// A language, and what serves its functions.
struct Language {
    name: String,
    serve: PathBuf,
}

impl Language {
    /// Starts a server. It ends when it is dropped.
    fn serve(&self, version: u32) -> Server {
        Server::start(&self.serve, version)
    }

    /// Prints the last that its servers logged.
    fn print_log(&self) {
        let log = server::log_of(&self.serve);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        println!("    the end of {}:", log.display());
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            println!("    {line}");
        }
    }
}

/// Where a check is made.
struct Site<'a> {
    url: &'a str,
    workers: usize,
}

type Check = (&'static str, fn(&Site<'_>));

/// What every server is asked to do, on one worker and on two.
const CHECKS: &[Check] = &[
    ("greeters keep their state", checks::greeters_keep_their_state),
    ("a greeter replies to an embedded caller", checks::a_greeter_replies),
    ("every type is message and state", values::every_type_is_message_and_state),
    ("state expires as the function says", later::state_expires),
    ("delayed messages come, or are cancelled", later::delayed_messages_come),
    ("state that was written offline is there", offline::state_that_was_written_offline_is_there),
    ("messages reach embedded functions", checks::messages_reach_embedded_functions),
    ("records for Kafka and Kinesis are complete", checks::records_are_complete),
    ("what waits goes in batches, in order", checks::what_waits_goes_in_batches),
    ("one message that fails is given up alone", checks::one_message_fails_alone),
    ("a namespace is served at one URL", checks::a_namespace_is_served),
];

/// Counts the checks, and says how each went.
struct Report<'a> {
    subject: String,
    languages: &'a [Language],
    began: Instant,
    passed: usize,
    failed: usize,
}

impl<'a> Report<'a> {
    fn of(subject: &str, languages: &'a [Language]) -> Self {
        let subject = subject.to_owned();
        Report { subject, languages, began: Instant::now(), passed: 0, failed: 0 }
    }

    fn check(&mut self, what: &str, check: impl FnOnce()) {
        let began = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(check)).is_ok();
        let (count, end) = match passed {
            true => (&mut self.passed, "ok"),
            false => (&mut self.failed, "FAILED"),
        };
        *count += 1;
        let took = began.elapsed().as_secs_f64();
        println!("interop: {}: {what}: {end} in {took:.1} s", self.subject);
        if !passed {
            self.languages.iter().for_each(Language::print_log);
        }
    }

    /// Whether all went well.
    fn end(self) -> bool {
        let Report { subject, began, passed, failed, .. } = self;
        let took = began.elapsed().as_secs_f64();
        match failed {
            0 => println!("interop: {subject} {passed} checks passed in {took:.0} s"),
            _ => println!("interop: {subject} {failed} checks FAILED, {passed} passed"),
        }
        failed == 0 && passed > 0
    }
}

fn main() -> ExitCode {
    let languages = match std::env::args().skip(1).map(language).collect::<Result<Vec<_>, _>>() {
        Ok(languages) if !languages.is_empty() => languages,
        Ok(_) => {
            eprintln!("interop: name a server, such as python=PATH (tests/interop/run does it)");
            return ExitCode::from(2);
        }
        Err(wrong) => {
            eprintln!("interop: {wrong}");
            return ExitCode::from(2);
        }
    };
    let mut passed = true;
    for language in &languages {
        let mut report = Report::of(&language.name, std::slice::from_ref(language));
        for workers in [1, 2] {
            let server = language.serve(1);
            let site = Site { url: &server.url(), workers };
            for (what, check) in CHECKS {
                let workers = if workers == 1 { "1 worker" } else { "2 workers" };
                report.check(&format!("{workers}: {what}"), || check(&site));
            }
        }
        let replaced = "a server is replaced while messages flow";
        report.check(replaced, || replaced::a_server_is_replaced(language));
        report.check("smoke", || smoke::all_counts_are_exact(&language.serve(1).url()));
        passed &= report.end();
    }
    if languages.len() > 1 {
        let mut report = Report::of("across languages", &languages);
        report.check("one reads what another wrote", || {
            across::one_reads_what_another_wrote(&languages)
        });
        report.check("one sends to another", || across::one_sends_to_another(&languages));
        passed &= report.end();
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads `python=PATH`.
fn language(argument: String) -> Result<Language, String> {
    let (name, serve) = argument
        .split_once('=')
        .ok_or_else(|| format!("\"{argument}\" is not a language and a path, such as go=PATH"))?;
    let serve = PathBuf::from(serve);
    if !serve.is_file() {
        return Err(format!("{name}: there is no file {}", serve.display()));
    }
    // Each run has logs of its own.
    let _ = std::fs::remove_file(server::log_of(&serve));
    Ok(Language { name: name.to_owned(), serve })
}
