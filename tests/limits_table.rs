//! The tables of `docs/limits.md` say what the code says: each default, and all limits that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use timely_statefun::metering::Metering;
use timely_statefun::serve::{Answer, RequestReply, ServedOptions, Server};
use timely_statefun::sink::{FileSink, Sink, SinkError};
use timely_statefun::{
    BINS, Endpoint, ExecuteOptions, Limits, Retry, STOP_GRACE_STEPS, STOP_STEPS, SnapshotOptions,
    SnapshotPolicy,
};

const FILES: &str = "src/source/files/mod.rs";
const INGRESS: &str = "src/playground/ingress.rs";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What a cell or a debug format says of how much: all numbers, in nanoseconds where they are times. Where there are
/// none, its first word.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Numbers(Vec<f64>),
    Word(String),
}

/// What one unit is, in nanoseconds or in bytes.
fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "min" => 60e9,
        "h" => 3600e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    })
}

fn said(text: &str) -> Said {
    let mut numbers = Vec::new();
    let is_inside = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '_');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let name_before = rest[..at].ends_with(|c: char| c.is_alphabetic() || c == '_');
        rest = &rest[at..];
        let end = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
        let digits = rest[..end].trim_end_matches(['.', ',']).replace([',', '_'], "");
        rest = &rest[end..];
        let word = rest.trim_start_matches(' ');
        let word = &word[..word.find(|c: char| !c.is_alphabetic()).unwrap_or(word.len())];
        if !name_before {
            let number: f64 = digits.parse().unwrap_or_else(|_| panic!("{digits:?} in {text:?}"));
            numbers.push(number * unit(word).unwrap_or(1.0));
        }
    }
    if numbers.is_empty() {
        let word = text.trim_matches(['"', ' ']).split([' ', ',']).next().unwrap_or_default();
        return Said::Word(word.to_lowercase());
    }
    Said::Numbers(numbers)
}

/// Of the page: what stands in code in the first cell of a row, without the path of a link, and the second cell.
fn rows(page: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(name) = cells[0].split('`').nth(1) else { continue };
        let before = rows.insert(name.to_owned(), cells[1].to_owned());
        assert!(before.is_none(), "{name} has two rows");
    }
    rows
}

/// The fields that a debug format shows, also of what is in it, each with what it says.
fn fields(debug: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in debug.match_indices(": ") {
        let name = debug[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
        let rest = &debug[at + 2..];
        let mut depth = 0;
        let end = rest.find(|c| {
            match c {
                '(' | '{' | '[' => depth += 1,
                ')' | '}' | ']' => depth -= 1,
                _ => {}
            }
            depth < 0 || depth == 0 && c == ','
        });
        let value = rest[..end.unwrap_or(rest.len())].trim();
        if !name.is_empty() {
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    found
}

/// All that is in the debug format of a value is a row, but for what is no limit.
fn expect(expected: &mut BTreeMap<String, Said>, of: &str, value: &impl Debug, no_limits: &[&str]) {
    let found = fields(&format!("{value:?}"));
    assert!(found.len() > 1, "{of}: {value:?}");
    for other in no_limits {
        assert!(found.iter().any(|(name, _)| name == other), "{of} has no {other}: {found:?}");
    }
    for (name, text) in found.iter().filter(|(name, _)| !no_limits.contains(&name.as_str())) {
        let text = text.trim_start_matches("Some(").trim_end_matches(')');
        expected.insert(format!("{of}::{name}"), said(text));
    }
}

/// The value that stands behind a text in a source: a number, or a time.
fn written(file: &str, behind: &str) -> Said {
    let source = read(file);
    let expressions = source
        .match_indices(behind)
        .map(|(at, _)| source[at + behind.len()..].split([';', ',', '\n']).next().unwrap());
    let is_value = |text: &&str| {
        text.starts_with("Duration::from_") || text.starts_with(|c: char| c.is_ascii_digit())
    };
    let mut found = expressions.filter(is_value);
    let expression = found.next().unwrap_or_else(|| panic!("{file} has no {behind:?}"));
    assert!(found.next().is_none(), "{file} has {behind:?} more than once");
    let (nanoseconds, expression) = [("secs", 1e9), ("millis", 1e6)]
        .iter()
        .find_map(|(unit, of)| {
            let inside = expression.strip_prefix(&format!("Duration::from_{unit}("))?;
            Some((*of, inside.trim_end_matches(')')))
        })
        .unwrap_or((1.0, expression));
    let number = |text: &str| -> f64 {
        let digits = text.trim().replace('_', "");
        digits.parse().unwrap_or_else(|_| panic!("{file}: {behind:?} is {expression:?}"))
    };
    let product = |text: &str| text.split('*').map(number).product::<f64>();
    let value = match expression.split_once("<<") {
        Some((number, shift)) => product(number) * 2f64.powf(product(shift)),
        None => product(expression),
    };
    Said::Numbers(vec![value * nanoseconds])
}

struct Nobody;

impl RequestReply for Nobody {
    fn answer(&self, _: bytes::Bytes) -> Answer {
        Box::pin(std::future::pending())
    }
}

impl Sink<String> for Nobody {
    fn last(&self, _: u32) -> Result<Option<u64>, SinkError> {
        Ok(None)
    }
    fn write(&self, _: u32, _: u64, _: &[String]) -> Result<(), SinkError> {
        Ok(())
    }
}

/// What the code says.
fn defaults() -> BTreeMap<String, Said> {
    let mut expected = BTreeMap::new();
    let e = &mut expected;
    expect(e, "Limits", &Limits::default(), &[]);
    let others = ["url", "headers", "http2", "grpc", "detached"];
    let tls = ["trusted_roots", "client_cert", "client_key"];
    let endpoint = Endpoint::at("anywhere");
    expect(e, "Endpoint", &endpoint, &[&others[..], &tls].concat());
    expect(e, "Server", &Server::new(Nobody), &["served", "health", "scheme"]);
    expect(e, "ServedOptions", &ServedOptions::default(), &["threads"]);
    let policy = SnapshotPolicy::new("program");
    expect(e, "SnapshotPolicy", &policy, &["program", "restore", "verify", "clock"]);
    let of_retry = ["attempts_max", "first", "longest", "jitter"];
    let others = [&of_retry[..], &["cloud"]].concat();
    expect(e, "SnapshotOptions", &SnapshotOptions::default(), &others);
    expect(e, "ExecuteOptions", &ExecuteOptions::default(), &[]);
    expect(e, "Metering", &Metering::<u64>::new(), &["knows_times"]);
    expect(e, "Retry", &Retry::attempts(1), &["attempts_max"]);
    let sink: &dyn Sink<String> = &Nobody;
    e.insert("Sink::retry".to_owned(), said(&format!("{:?}", sink.retry())));
    e.insert("Sink::shards".to_owned(), Said::Numbers(vec![sink.shards().into()]));
    let file = |shards| FileSink::<String>::lines("", "").divided(shards).shards();
    let divided = [FileSink::<String>::lines("", "").shards(), file(u32::MAX)];
    e.insert("FileSink::divided".to_owned(), Said::Numbers(divided.map(f64::from).into()));
    e.insert("BINS".to_owned(), Said::Numbers(vec![BINS as f64]));
    e.insert("STOP_STEPS".to_owned(), Said::Numbers(vec![STOP_STEPS.into()]));
    e.insert("STOP_GRACE_STEPS".to_owned(), Said::Numbers(vec![STOP_GRACE_STEPS.into()]));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(ServedOptions::default().threads, threads);
    e.insert("ServedOptions::threads".to_owned(), said("as many as the system runs at once"));
    for (name, file, behind) in [
        ("Server::handshake_timeout", "src/serve/server.rs", "handshake_timeout: "),
        ("Simulation::messages", "src/testing/simulation/mod.rs", " messages: "),
        ("Simulation::workers_max", "src/testing/simulation/mod.rs", " workers_max: "),
        ("Source::batch_max", "src/dataflow/sources.rs", "const BATCH_MAX: usize = "),
        ("Times::every", "src/source/times.rs", "const EVERY: Duration = "),
        ("Files::record_bytes_max", FILES, "const RECORD_BYTES_MAX: usize = "),
        ("Files, batches that are read ahead", FILES, "const AHEAD_TIMES: usize = "),
        ("Files, records of such a batch", FILES, "const AHEAD_RECORDS: usize = "),
        ("Files, bytes of such a batch", FILES, "const AHEAD_BYTES: usize = "),
        ("Ingress::waiting_max", INGRESS, "waiting_max: "),
        ("Ingress::answer_timeout", INGRESS, "let answer_timeout = "),
        ("Ingress, bytes of a body", INGRESS, "const BODY_BYTES_MAX: usize = "),
        ("Ingress, connections", INGRESS, "const CONNECTIONS_MAX: usize = "),
        (
            "Topics, requests that wait for a record",
            "src/playground/topics.rs",
            "const WAITING_MAX: usize = ",
        ),
        ("Topics, how long they may", "src/playground/egress.rs", "const WAIT_MAX: Duration = "),
        ("Topics, bytes of a body", "src/playground/egress.rs", "const BODY_BYTES_MAX: usize = "),
        ("Topics, connections", "src/playground/egress.rs", "const CONNECTIONS_MAX: usize = "),
        (
            "metrics, function types",
            "src/dataflow/meters/functions.rs",
            "const FUNCTIONS_MAX: usize = ",
        ),
        ("archive, records in memory when read", "src/archive/reading.rs", "const AT_ONCE: u64 = "),
        (
            "archive, records in memory when written",
            "src/archive/writing.rs",
            "const MEMORY: usize = ",
        ),
        ("Module, bytes of a file", "src/modules/tree.rs", "const BYTES_MAX: usize = "),
        (
            "Module, lists and mappings in one another",
            "src/modules/tree.rs",
            "const DEPTH_MAX: usize = ",
        ),
        (
            "Module, values, with what aliases stand for",
            "src/modules/tree.rs",
            "const NODES_MAX: usize = ",
        ),
        (
            "Module, bytes that placeholders fill in",
            "src/modules/tree.rs",
            "const FILLED_MAX: usize = ",
        ),
        ("values, levels", "src/codec.rs", "const DEEPEST: usize = "),
        (
            "answers of functions, bytes of a name",
            "src/remote/wire.rs",
            "const NAME_BYTES_MAX: usize = ",
        ),
        (
            "answers of functions, bytes that are read of an error",
            "src/remote/client.rs",
            "const REMARK_BYTES: usize = ",
        ),
        (
            "answers of functions, attempts of several messages together",
            "src/remote/client.rs",
            "const TOGETHER: u32 = ",
        ),
        (
            "snapshots, attempts at the last one while egress is held",
            "src/dataflow/snapshots/chair.rs",
            "const LAST_TRIED_MAX: u32 = ",
        ),
        (
            "processes, an answer of one that is dialed",
            "src/execute/connect.rs",
            "const ANSWER_MAX: Duration = ",
        ),
        (
            "processes, those that dialed and have not said who they are",
            "src/execute/connect.rs",
            "const UNKNOWN_MAX: usize = ",
        ),
        ("manifests, bytes", "src/snapshot/survey.rs", "const MANIFEST_BYTES_MAX: u64 = "),
        (
            "processes, waiting for a port that is in use",
            "src/execute/connect.rs",
            "const LISTEN_MAX: Duration = ",
        ),
        (
            "processes, telling others why it ends",
            "src/execute/network.rs",
            "const FAREWELL_MAX: Duration = ",
        ),
        (
            "SqliteSink, waiting for others that write",
            "src/sink/sqlite.rs",
            "const BUSY_MAX: Duration = ",
        ),
    ] {
        e.insert(name.to_owned(), written(file, behind));
    }
    // From its least to its most.
    let silence = "ExecuteOptions::peer_silence_max";
    for constant in ["const MIN: Duration = ", "const MAX: Duration = "] {
        let bound = written("src/execute/silence.rs", constant);
        let (Some(Said::Numbers(all)), Said::Numbers(bound)) = (e.get_mut(silence), bound) else {
            panic!("{silence} is no time");
        };
        all.extend(bound);
    }
    expected
}

/// What differs between the page and the code.
fn problems(page: &str, expected: &BTreeMap<String, Said>) -> Vec<String> {
    let rows = rows(page);
    let names: BTreeSet<&String> = rows.keys().chain(expected.keys()).collect();
    let problem = |name: &String| match (rows.get(name), expected.get(name)) {
        (Some(row), Some(expected)) if said(row) == *expected => None,
        (Some(row), Some(expected)) => Some(format!("{name} is {expected:?}, not \"{row}\"")),
        (None, Some(expected)) => Some(format!("there is no row for {name}: {expected:?}")),
        (_, None) => Some(format!("there is a row for {name}, which is not there")),
    };
    names.into_iter().filter_map(problem).collect()
}

#[test]
fn the_tables_have_all_limits_with_the_defaults_that_there_are() {
    let problems = problems(&read("docs/limits.md"), &defaults());
    assert!(problems.is_empty(), "docs/limits.md:\n{}", problems.join("\n"));
}

#[test]
fn what_differs_is_found() {
    let (page, expected) = (read("docs/limits.md"), defaults());
    for (right, wrong, said) in [
        ("| 4,096 | other operators", "| 4,097 | other operators", "Limits::budget_messages is"),
        ("| 1 ms | the same", "| 1 s | the same", "Limits::activation_max is"),
        ("| stop | what that means", "| skip | what that means", "Limits::when_full is"),
        ("| 8 MiB | the same;", "| 8 KiB | the same;", "Endpoint::batch_bytes_max is"),
        ("[`Endpoint::states_max`]", "[`Endpoint::states`]", "no row for Endpoint::states_max"),
        ("`Server::grace`", "`Server::graces`", "a row for Server::graces, which is not there"),
        (
            "up to 10 s, less a part of up to 0.5 | the program",
            "up to 9 s | the program",
            "Sink::retry is",
        ),
        ("from 3 s to 24 h", "from 3 s to 23 h", "ExecuteOptions::peer_silence_max is"),
        ("| 50,000 |", "| 60,000 |", "Module, values, with what aliases stand for is"),
    ] {
        assert_eq!(page.matches(right).count(), 1, "{right}");
        let problems = problems(&page.replace(right, wrong), &expected);
        assert!(problems.iter().any(|problem| problem.contains(said)), "{wrong}: {problems:?}");
    }
}
