//! The rules of the house, which ARCHITECTURE.md explains, read off the sources: who may know whom,
//! what is never named where, and that the code map shows every file.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that are state machines, and the words that everybody uses.
const CORE: &[&str] = &["src/dispatch", "src/state"];
const WORDS: &[&str] = &[
    "src/address.rs",
    "src/message.rs",
    "src/messages.rs",
    "src/value.rs",
    "src/table.rs",
    "src/buffer.rs",
    "src/expiration.rs",
    "src/egress.rs",
    "src/dead_letter.rs",
    "src/call_error.rs",
    "src/metering",
    "src/trace.rs",
    "src/error.rs",
    "src/records.rs",
];
const ALL: &[&str] = &["src", "operators", "proto", "examples", "tests", "benches"];

/// A source file: its path from the root, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines that are code, numbered from one. Comments may name what code may not.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files at or below the given places, of which each must have some.
fn sources(places: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for place in places {
        let before = sources.len();
        gather(&root().join(place), &mut sources);
        assert!(sources.len() > before, "there is no Rust file at {place}");
    }
    sources
}

fn gather(at: &Path, sources: &mut Vec<Source>) {
    if at.is_dir() {
        let entries = fs::read_dir(at).unwrap();
        let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        let built = |path: &PathBuf| path.file_name().is_some_and(|name| name == "target");
        entries.iter().filter(|path| !built(path)).for_each(|path| gather(path, sources));
    } else if at.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(at).unwrap();
        let path = at.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        sources.push(Source { path, text });
    }
}

/// Where code in `sources` names one of `words`, each as a whole word.
fn named(sources: &[Source], words: &[&str]) -> Vec<String> {
    assert!(!sources.is_empty() && !words.is_empty(), "a rule that reads nothing holds always");
    let mut found = Vec::new();
    for source in sources {
        for (at, line) in source.code() {
            for word in words.iter().filter(|word| contains_word(line, word)) {
                found.push(format!("{}:{at} names {word}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

/// Whether `line` contains `word`, and not only as a part of a longer one.
fn contains_word(line: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let (first, last) = (word.chars().next(), word.chars().next_back());
        let joined = |one: Option<char>, other: Option<char>| {
            one.is_some_and(letter) && other.is_some_and(letter)
        };
        !joined(before, first) && !joined(last, after)
    })
}

#[track_caller]
fn never(places: &[&str], words: &[&str]) {
    let found = named(&sources(places), words);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Like [`never`], except in the file or the folder `door`, where it must be named.
#[track_caller]
fn only_in(door: &str, places: &[&str], words: &[&str]) {
    let behind = |source: &Source| source.path == door || source.path.starts_with(door);
    let (inside, outside): (Vec<_>, Vec<_>) = sources(places).into_iter().partition(behind);
    let found = named(&outside, words);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!named(&inside, words).is_empty(), "{door} names none of {words:?}: is it elsewhere?");
}

/// The crates that a manifest depends on, of whatever kind the dependency is.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let mut dependencies = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies");
            dependencies
                .extend(section.split_once("dependencies.").map(|(_, name)| name.to_owned()));
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap();
            dependencies.push(name.to_owned());
        }
    }
    dependencies
}

#[test]
fn the_core_knows_no_dataflow_no_clock_and_no_files() {
    never(CORE, &["timely", "differential_dataflow", "timely_statefun_operators", "tokio"]);
    never(CORE, &["Instant", "SystemTime", "UNIX_EPOCH", "sleep", "Clock", "crate::clock"]);
    never(
        CORE,
        &["std::fs", "std::io", "std::net", "std::env", "std::thread", "println", "eprintln"],
    );
    never(CORE, &["crate::dataflow", "super::dataflow", "crate::snapshot", "StatefulFunctions"]);
    never(CORE, &["crate::serve"]);
}

#[test]
fn state_does_not_know_the_dispatcher() {
    never(&["src/state"], &["crate::dispatch", "crate::function", "crate::message", "Context"]);
}

#[test]
fn words_know_neither_the_core_nor_the_shell() {
    never(WORDS, &["crate::dataflow", "crate::dispatch", "crate::state", "crate::functions"]);
    never(WORDS, &["timely", "differential_dataflow", "timely_statefun_operators"]);
}

#[test]
fn capabilities_are_never_named_above_the_operators() {
    never(&["src"], &["Capability", "InputCapability", "CapabilityRef", "CapabilitySet"]);
    only_in("operators/src/holdings.rs", &["operators/src"], &["Capability", "InputCapability"]);
}

#[test]
fn operators_and_proto_know_neither_each_other_nor_the_library() {
    let codec = "operators/codec-abomonation/Cargo.toml";
    let known = dependencies(codec).into_iter().filter(|d| d.starts_with("timely-statefun"));
    assert_eq!(known.collect::<Vec<_>>(), ["timely-statefun-operators"]);
    for manifest in ["operators/Cargo.toml", "proto/Cargo.toml"] {
        let dependencies = dependencies(manifest);
        let known: Vec<_> =
            dependencies.iter().filter(|d| d.starts_with("timely-statefun")).collect();
        assert!(known.is_empty(), "{manifest} depends on {known:?}");
    }
    assert!(dependencies("operators/Cargo.toml").contains(&"timely".to_owned()));
    assert!(dependencies("Cargo.toml").contains(&"timely-statefun-operators".to_owned()));
    never(&["operators"], &["timely_statefun", "timely_statefun_proto"]);
    never(&["proto"], &["timely_statefun", "timely_statefun_operators", "timely::dataflow"]);
}

#[test]
fn only_the_built_in_types_and_remote_functions_know_the_wire() {
    // Whoever answers remote functions in a test speaks with them.
    let tests = "src/testing/";
    let words = ["src/value.rs", "src/typed.rs", "src/formats.rs", "src/grpc.rs"];
    let doors = [&words[..], &["src/remote/", "src/serve/", tests]].concat();
    let behind = |source: &Source| doors.iter().any(|door| source.path.starts_with(door));
    let (inside, outside): (Vec<_>, Vec<_>) = sources(&["src"]).into_iter().partition(behind);
    let found = named(&outside, &["timely_statefun_proto"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!named(&inside, &["timely_statefun_proto"]).is_empty(), "is it elsewhere?");
    only_in("src/remote/", &["src"], &["reqwest"]);
    only_in("src/remote/tls.rs", &["src/remote"], &["std::fs", "pkcs8", "rustls_native_certs"]);
    let doors = ["src/grpc.rs", "src/remote/grpc.rs", "src/serve/grpc.rs"];
    let (inside, outside): (Vec<_>, Vec<_>) =
        sources(&["src"]).into_iter().partition(|source| doors.contains(&&*source.path));
    let found = named(&outside, &["tonic"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!named(&inside, &["tonic"]).is_empty(), "is it elsewhere?");
}

#[test]
fn what_serves_functions_knows_neither_loops_nor_snapshots() {
    never(&["src/serve"], &["crate::dataflow", "crate::snapshot", "crate::execute"]);
    never(&["src/serve"], &["timely_statefun_operators", "differential_dataflow", "crate::state"]);
}

#[test]
fn modules_are_read_in_one_room_that_knows_no_dataflow() {
    only_in("src/modules/tree.rs", &["src"], &["saphyr_parser"]);
    never(&["src", "operators/src", "proto/src"], &["saphyr"]);
    let others = ["dataflow", "dispatch", "state", "snapshot", "archive", "execute", "serve"];
    let others: Vec<String> = others.iter().map(|room| format!("crate::{room}")).collect();
    never(&["src/modules"], &others.iter().map(String::as_str).collect::<Vec<_>>());
    never(&["src/modules"], &["timely::", "timely_statefun_operators", "differential_dataflow"]);
    only_in("src/modules/placeholders.rs", &["src/modules"], &["std::env"]);
}

#[test]
fn the_playground_speaks_through_the_doors_that_are_there() {
    // Sockets, hyper and files have theirs, which it is not among.
    never(&["src/serve", "src/modules", "src/source"], &["crate::playground"]);
    let pure = ["request", "record", "shelves", "spec"].map(|of| format!("src/playground/{of}.rs"));
    let pure: Vec<&str> = pure.iter().map(String::as_str).collect();
    never(&pure, &["timely::", "tokio", "crate::dataflow", "crate::serve", "crate::source"]);
    only_in("src/playground/receive.rs", &["src/playground"], &["crate::dataflow", "timely::"]);
    only_in("src/serve/pages.rs", &["src/serve"], &["trait Pages"]);
}

#[test]
fn unsafe_code_has_one_crate_and_only_tests_know_it() {
    // In two parts, so that this file does not name it.
    only_in("operators/codec-abomonation/", ALL, &[concat!("uns", "afe")]);
    never(&["src", "operators/src", "proto", "examples"], &["timely_statefun_codec_abomonation"]);
    never(&["src", "operators/src", "proto", "examples"], &["abomonation"]);
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, dependencies) = text.split_once("[dependencies]").unwrap();
    let (dependencies, _) = dependencies.split_once("[dev-dependencies]").unwrap();
    assert!(!dependencies.contains("abomonation"), "it is not for everybody");
}

#[test]
fn the_recorder_of_metrics_is_told_in_one_place() {
    // Functions count for themselves, under names of their own.
    let own = |source: &Source| source.path == "src/dispatch/meters.rs";
    let (_, others): (Vec<_>, Vec<_>) = sources(&["src"]).into_iter().partition(own);
    let told = |source: &Source| source.path.starts_with("src/metering/");
    let (inside, outside): (Vec<_>, Vec<_>) = others.into_iter().partition(told);
    let found = named(&outside, &["use metrics", "metrics::with_recorder", "metrics::Key"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!named(&inside, &["use metrics"]).is_empty(), "is it elsewhere?");
    let others = ["dataflow", "dispatch", "state", "functions", "remote", "snapshot"];
    let others: Vec<String> = others.iter().map(|room| format!("crate::{room}")).collect();
    never(&["src/metering"], &others.iter().map(String::as_str).collect::<Vec<_>>());
    never(&["operators"], &["metrics", "tracing"]);
}

#[test]
fn only_the_dataflow_knows_the_operators_at_work() {
    only_in("src/dataflow/", &["src/dataflow", "src/dispatch", "src/state"], &["keyed_loop"]);
}

#[test]
fn files_have_one_door_and_know_nothing_of_what_is_in_them() {
    // One that fails when a test says so is a store as well. A sink has files of its own, and so have
    // certificates and keys, and modules, and files that a source reads. The file of a Unix socket is a name for it and holds nothing. What is sorted and does
    // not fit into memory is in files that have no names.
    let doors = [
        "src/snapshot/",
        "src/archive/sort.rs",
        "src/testing/store.rs",
        "src/sink/",
        "src/source/files/reading.rs",
        "src/serve/unix.rs",
        "src/remote/tls.rs",
        "src/modules/file.rs",
    ];
    let behind = |source: &Source| doors.iter().any(|door| source.path.starts_with(door));
    let (inside, outside): (Vec<_>, Vec<_>) = sources(&["src"]).into_iter().partition(behind);
    let found = named(&outside, &["object_store", "std::fs"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!named(&inside, &["object_store"]).is_empty(), "is it elsewhere?");
    never(&["src/testing/store.rs"], &["std::fs"]);
    never(&["src/source"], &["object_store", "crate::snapshot", "crate::dispatch", "crate::state"]);
    never(&["src/sink"], &["object_store", "timely::", "tokio", "crate::snapshot"]);
    only_in("src/sink/sqlite.rs", &["src"], &["rusqlite"]);
    only_in("src/archive/sort.rs", &["src"], &["tempfile"]);
    never(&["src/archive"], &["object_store", "timely", "timely_statefun_operators"]);
    let others = ["dataflow::StatefulFunctions", "function", "functions", "remote", "execute"];
    let others: Vec<String> = others.iter().map(|room| format!("crate::{room}")).collect();
    never(&["src/archive"], &others.iter().map(String::as_str).collect::<Vec<_>>());
    never(&["src/snapshot"], &["timely", "differential_dataflow", "timely_statefun_operators"]);
    let others = ["dataflow", "dispatch", "state", "function", "functions", "remote", "message"];
    let others: Vec<String> = others.iter().map(|room| format!("crate::{room}")).collect();
    never(&["src/snapshot"], &others.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn sockets_have_their_doors_and_know_nothing_of_functions() {
    // What is called over HTTP is called through a client that has its own; what is served has a door of its own.
    let sockets = ["TcpStream", "TcpListener", "UnixListener", "std::net", "tokio::net"];
    let doors = ["src/execute/", "src/serve/"];
    let behind = |source: &Source| doors.iter().any(|door| source.path.starts_with(door));
    let (_, outside): (Vec<_>, Vec<_>) = sources(&["src"]).into_iter().partition(behind);
    let found = named(&outside, &sockets);
    assert!(found.is_empty(), "{}", found.join("\n"));
    for door in doors {
        assert!(!named(&sources(&[door]), &["TcpListener"]).is_empty(), "is {door} elsewhere?");
    }
    // Who listens, and who speaks HTTP there, knows neither who answers nor a dataflow.
    only_in("src/serve/", &["src"], &["hyper", "hyper_util", "tower_service", "UnixListener"]);
    let http =
        ["accept", "activity", "body", "connection", "health", "server", "service", "tls", "unix"];
    let http: Vec<String> = http.iter().map(|file| format!("src/serve/{file}.rs")).collect();
    let http: Vec<&str> = http.iter().map(String::as_str).collect();
    never(&http, &["crate::remote", "timely::", "timely_statefun_proto", "crate::function"]);
    only_in("src/execute/", &["src"], &["socket2", "CommunicationConfig"]);
    let others = ["dataflow", "dispatch", "state", "function", "functions", "remote", "message"];
    let others: Vec<String> = others.iter().map(|room| format!("crate::{room}")).collect();
    never(&["src/execute"], &others.iter().map(String::as_str).collect::<Vec<_>>());
    never(&["src/execute"], &["timely_statefun_operators", "crate::snapshot"]);
}

#[test]
fn an_id_becomes_a_bin_in_one_place() {
    // Files of snapshots have checksums of the same kind, which are made in one place as well.
    let doors = ["src/placement.rs", "src/snapshot/encoding.rs"];
    let doored = |source: &Source| doors.contains(&&*source.path);
    let (inside, outside): (Vec<_>, Vec<_>) = sources(&["src"]).into_iter().partition(doored);
    let found = named(&outside, &["twox_hash", "XxHash3_64"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(named(&inside, &["use twox_hash::XxHash3_64"]).len(), doors.len());
    // `Hash::hash` is generic, and what keys of tables are hashed with places nothing.
    only_in("src/placement.rs", &["src"], &["fn bin", "fn hash("]);
    never(&["operators", "proto"], &["twox_hash", "XxHash3_64"]);
}

#[test]
fn nothing_is_left_open_and_no_test_is_left_out() {
    // In two parts each, so that this file does not name them.
    let words = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!")];
    never(ALL, &words);
    never(ALL, &[concat!("#[ig", "nore")]);
}

#[test]
fn the_code_map_shows_every_file_and_no_other() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, map) = text.split_once("## Code map").expect("there is a code map");
    let map = map.split("\n## ").next().unwrap();
    let shown: Vec<&str> = map.split('`').skip(1).step_by(2).collect();
    let sources = sources(ALL);
    for source in &sources {
        assert!(shown.contains(&source.path.as_str()), "the code map lacks {}", source.path);
    }
    let files = shown.iter().filter(|name| name.ends_with(".rs"));
    for file in files {
        let there = sources.iter().any(|source| source.path == *file);
        assert!(there, "the code map shows {file}, which is not there");
    }
}

/// The checks themselves: what they must find, they find, and no more.
#[test]
fn a_broken_rule_is_found() {
    let found = |text: &str, word: &str| {
        let source = Source { path: "src/state/x.rs".to_owned(), text: text.to_owned() };
        named(&[source], &[word]).len()
    };
    assert_eq!(found("use timely::order;", "timely"), 1);
    assert_eq!(found("let x = std::time::Instant::now();", "Instant"), 1);
    assert_eq!(found("fn bin(hash: u64)", "fn bin"), 1);
    assert_eq!(found("    #[cold = 1]", "#[cold"), 1);
    assert_eq!(found("    #[colder]", "#[cold"), 0);
    assert_eq!(found("// of timely::order", "timely"), 0);
    assert_eq!(found("use timely_statefun_proto::x;", "timely"), 0);
    assert_eq!(found("let combined = rebin(0);", "bin"), 0);
}

#[test]
#[should_panic(expected = "there is no Rust file")]
fn a_rule_that_reads_no_file_fails() {
    sources(&["tests/vectors"]);
}
