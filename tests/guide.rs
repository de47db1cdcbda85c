//! What README and guide tell people to type is there, and what they quote is what runs.
//!
//! Rust code of all pages is compiled and run by rustdoc. The rest is looked at here: a command names an example, bench
//! or test that is there, and options that it knows; other languages are quoted from files that run elsewhere;
//! versions are those of the manifests; links lead to headings. Nothing is run, so it takes no time: that examples,
//! benches and scripts do what they say is what `.ci/run` runs them for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use timely_statefun::modules::{Connectors, Module, Placeholders};
use timely_statefun::playground::{EgressSpec, IngressSpec};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_there(path: &str) -> bool {
    root().join(path).exists()
}

fn files(directory: &str, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> = names.filter(|name| name.ends_with(extension)).collect();
    found.sort();
    found.into_iter().map(|name| format!("{directory}/{name}")).collect()
}

/// All pages for people, with what is in them.
fn pages() -> Vec<(String, String)> {
    let others = ["README.md", "CONTRIBUTING.md", "operators/README.md", "proto/README.md"];
    let others = others.into_iter().chain(["operators/codec-abomonation/README.md"]);
    let pages = others.map(str::to_owned).chain(files("docs", ".md"));
    let pages: Vec<_> = pages.map(|page| (page.clone(), read(&page))).collect();
    assert!(pages.len() > 15, "{}", pages.len());
    pages
}

/// A block of code: in which language, and what.
struct Block {
    language: String,
    text: String,
}

/// What is in blocks, and what is not.
fn blocks(page: &str) -> (Vec<Block>, String) {
    let (mut blocks, mut rest, mut open) = (Vec::<Block>::new(), String::new(), false);
    for line in page.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                blocks.push(Block { language: language.to_owned(), text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = blocks.last_mut().expect("it was begun");
                block.text += line;
                block.text.push('\n');
            }
            (None, false) => {
                rest += line;
                rest.push('\n');
            }
        }
    }
    assert!(!open, "a block has no end");
    (blocks, rest)
}

/// The sources of an example, or of a bench.
fn sources(path: &str) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(root().join(format!("{path}.rs"))) {
        return Some(text);
    }
    is_there(&format!("{path}/main.rs"))
        .then(|| files(path, ".rs").iter().map(|file| read(file)).collect())
}

/// Options that timely takes from a program's command line.
const TIMELY: [&str; 4] = ["-w", "-n", "-p", "-h"];

/// Whether a program takes these arguments, as far as its sources say.
fn check_arguments(name: &str, sources: &str, arguments: &[&str]) -> Result<(), String> {
    let knows = |literal: &str| sources.contains(&format!("\"{literal}\""));
    for argument in arguments {
        if let Some(option) = argument.strip_prefix("--") {
            if !knows(option) && !knows(argument) {
                return Err(format!("{name} knows no --{option}"));
            }
        } else if TIMELY.contains(argument) {
            let takes = ["execute_from_args", "install_options", "Config::from_args"];
            if !takes.iter().any(|takes| sources.contains(takes)) {
                return Err(format!("{name} does not take timely's {argument}"));
            }
        } else if argument.starts_with('-') && *argument != "-" {
            return Err(format!("{name} knows no {argument}"));
        } else if let Some((key, value)) = argument.split_once('=') {
            let parts = || value.split('-').all(|part| sources.contains(part));
            if !knows(&format!("{key}=")) || !knows(value) && !parts() {
                return Err(format!("{name} knows no {argument}"));
            }
        }
    }
    Ok(())
}

/// Where a package of the workspace is, and whether it is one.
fn package(name: Option<&str>) -> Result<&'static str, String> {
    match name {
        None | Some("timely-statefun") => Ok(""),
        Some("timely-statefun-operators") => Ok("operators/"),
        Some("timely-statefun-proto") => Ok("proto/"),
        Some("timely-statefun-codec-abomonation") => Ok("operators/codec-abomonation/"),
        Some(name) => Err(format!("there is no package {name}")),
    }
}

fn check_cargo(words: &[&str]) -> Result<(), String> {
    let (Some(&command), words) = (words.first(), words.get(1..).unwrap_or_default()) else {
        return Err("cargo, and nothing else".to_owned());
    };
    let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (flags, arguments) = (&words[..at], words.get(at + 1..).unwrap_or_default());
    let after = |names: &[&str]| {
        let at = flags.iter().position(|flag| names.contains(flag))?;
        flags.get(at + 1).copied()
    };
    let place = package(after(&["-p", "--package"]))?;
    let target = |kind: &str, folder: &str| -> Result<Option<(String, String)>, String> {
        let Some(name) = after(&[kind]) else { return Ok(None) };
        let found = sources(&format!("{place}{folder}/{name}"));
        let found = found.ok_or_else(|| format!("there is no {folder}/{name}"))?;
        Ok(Some((name.to_owned(), found)))
    };
    let known = [
        "--release",
        "--workspace",
        "--example",
        "--bench",
        "--test",
        "-p",
        "--package",
        "--lib",
        "--open",
    ];
    if let Some(flag) = flags.iter().find(|flag| flag.starts_with('-') && !known.contains(flag)) {
        return Err(format!("cargo {command} {flag} is none of {known:?}"));
    }
    match command {
        // Of which the reader chooses one.
        "run" if after(&["--example"]) == Some("NAME") => Ok(()),
        "run" => {
            let example = target("--example", "examples")?.ok_or("no example is run")?;
            check_arguments(&example.0, &example.1, arguments)
        }
        "bench" => {
            let bench = match target("--bench", "benches")? {
                Some(bench) => bench,
                None if place.is_empty() => return Err("which bench?".to_owned()),
                None => {
                    let all = files(&format!("{place}benches"), ".rs");
                    ("its bench".to_owned(), all.iter().map(|file| read(file)).collect())
                }
            };
            check_arguments(&bench.0, &bench.1, arguments)
        }
        "test" => target("--test", "tests").map(drop),
        "new" | "doc" | "package" => Ok(()),
        other => Err(format!("cargo {other} is nothing that a page should say")),
    }
}

/// Whether a command may be typed as it stands.
fn check_command(page: &str, command: &str) -> Result<(), String> {
    // What it writes to, and what reads it.
    let mut parts = command.split(" | ");
    let first = parts.next().expect("there is one");
    if let Some(rest) = command.strip_prefix(first).filter(|rest| !rest.is_empty()) {
        check_command(page, &rest[3..])?;
    }
    let first = first.split(" > ").next().expect("there is one");
    let mut words: Vec<&str> = first.split_whitespace().filter(|word| *word != "...").collect();
    while let Some((name, _)) = words.first().and_then(|word| word.split_once('=')) {
        let of = [read("src/fuzz.rs"), read("proto/tests/generated.rs")];
        if !of.iter().any(|source| source.contains(&format!("\"{name}\""))) {
            return Err(format!("nothing asks for {name}"));
        }
        words.remove(0);
    }
    let (Some(&program), arguments) = (words.first(), words.get(1..).unwrap_or_default()) else {
        return Err("there is no command".to_owned());
    };
    match program {
        "cargo" => check_cargo(arguments),
        "taskset" => check_command(page, &arguments.get(2..).unwrap_or_default().join(" ")),
        "printf" => Ok(()),
        "kubectl" => {
            // What it says of a cluster is compared with the manifests by `tests/deployment.rs`.
            let file = arguments.iter().position(|word| *word == "-f").map(|at| arguments[at + 1]);
            match file {
                _ if page != "docs/deploying-functions.md" => {
                    Err("it is on no page that is looked at".to_owned())
                }
                Some(file) if !is_there(file) => Err(format!("there is no {file}")),
                _ => Ok(()),
            }
        }
        "python3" | "venv/bin/pip" | "venv/bin/python" => check_python(first),
        "curl" => check_curl(first),
        "examples/checkpointed/supervise.sh" => check_command(page, &arguments.join(" ")),
        script if script.contains('/') => check_script(script, arguments),
        other => Err(format!("nobody knows \"{other}\"")),
    }
}

/// What installs and starts the server in Python is what its own first lines say, which `tests/interop/polyglot` runs.
fn check_python(command: &str) -> Result<(), String> {
    if command == "python3 -m venv venv" {
        return Ok(());
    }
    let same = command.replace("venv/bin/", "").replace("examples/polyglot/", "");
    match read("examples/polyglot/server.py").lines().any(|line| line == format!("#   {same}")) {
        true => Ok(()),
        false => Err(format!("examples/polyglot/server.py does not say \"{same}\"")),
    }
}

/// Whoever comes to the playground comes as `tests/interop/playground/run` does, at the ports of its module.
fn check_curl(command: &str) -> Result<(), String> {
    let (run, module) =
        (read("tests/interop/playground/run"), read("tests/interop/playground/module.yaml"));
    let header = command.split('\'').find(|part| part.starts_with("Content-Type: "));
    if let Some(header) = header.filter(|header| !run.contains(*header)) {
        return Err(format!("nobody sends {header:?}"));
    }
    let at = command.split(' ').find_map(|word| word.strip_prefix("localhost:"));
    let (port, path) = at.and_then(|at| at.split_once('/')).ok_or("it goes nowhere")?;
    // Whoever it is about may have any name.
    let place = path.rfind('/').map_or(path, |end| &path[..=end]);
    match module.contains(&format!(":{port}}}")) && run.contains(&format!("/{place}")) {
        true => Ok(()),
        false => Err(format!("nothing is at {port}/{place}")),
    }
}

/// A script is there, and is the check of the whole tree or a part of it.
fn check_script(script: &str, arguments: &[&str]) -> Result<(), String> {
    let there = std::fs::metadata(root().join(script));
    let there = there.map_err(|_| format!("there is no {script}"))?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&there.permissions()) & 0o100 == 0 {
        return Err(format!("{script} cannot be run"));
    }
    let _ = there;
    if script != ".ci/run" && !read(".ci/run").contains(script) {
        return Err(format!(".ci/run does not run {script}"));
    }
    match arguments.iter().find(|argument| !is_there(&format!("tests/interop/{argument}/build"))) {
        Some(other) => Err(format!("{script} knows no {other}")),
        None => Ok(()),
    }
}

/// Commands of a page: those in blocks, and those in the text.
fn commands(page: &str) -> Vec<String> {
    let (blocks, text) = blocks(page);
    let blocks = blocks.iter().filter(|block| block.language == "sh");
    let lines = blocks.flat_map(|block| block.text.lines().filter(|line| !line.is_empty()));
    // A code span may go over lines.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let spans = text.split('`').skip(1).step_by(2).filter(|span| {
        let command = span.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == '_');
        let command =
            command.split_once(' ').filter(|_| command.starts_with('=')).map_or(*span, |(_, c)| c);
        command.starts_with("cargo ") || command.starts_with("tests/") && command.contains("/run")
    });
    lines.map(str::to_owned).chain(spans.map(str::to_owned)).collect()
}

/// What stands at the beginning of a source, without the marks of comments.
fn header(source: &str) -> String {
    let lines = source.lines().take_while(|line| line.starts_with("//"));
    lines.map(|line| format!("{}\n", line.trim_start_matches(['/', '!']).trim())).collect()
}

#[test]
fn commands_name_what_is_there() {
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut check = |page: &str, commands: Vec<String>| {
        count += commands.len();
        for command in commands {
            if let Err(why) = check_command(page, &command) {
                wrong.push(format!("{page}: {command}: {why}"));
            }
        }
    };
    pages().iter().for_each(|(page, text)| check(page, commands(text)));
    let mut programs = files("examples", ".rs");
    programs.extend(
        ["benches", "operators/examples", "operators/codec-abomonation/benches"]
            .map(|at| files(at, ".rs"))
            .concat(),
    );
    let mains = files("examples", "").into_iter().map(|folder| format!("{folder}/main.rs"));
    programs.extend(mains.filter(|main| is_there(main)));
    assert!(programs.len() > 15, "{programs:?}");
    programs.iter().for_each(|program| check(program, commands(&header(&read(program)))));
    assert!(count > 80, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_with_a_command_is_found() {
    for (command, said) in [
        ("cargo run --release --example greeters", "there is no examples/greeters"),
        ("cargo run --release --example cascades -- --windows 3", "cascades knows no --windows"),
        ("cargo run --release --example bootstrap -- -w 2", "does not take timely's -w"),
        ("cargo run --release --exampl cascades", "--exampl is none of"),
        ("cargo run --release", "no example is run"),
        (
            "cargo run -p timely-statefun-operator --example collatz",
            "no package timely-statefun-operator",
        ),
        ("cargo bench --bench dispatched", "there is no benches/dispatched"),
        ("cargo bench --bench state -- case=tabled", "state knows no case=tabled"),
        (
            "cargo bench --bench dispatch -- --quick | cargo run --example plots",
            "there is no examples/plots",
        ),
        ("cargo test --test atomics", "there is no tests/atomics"),
        ("cargo install everything", "cargo install is nothing"),
        ("STATEFUN_FUZZY=1 cargo test --lib any_", "nothing asks for STATEFUN_FUZZY"),
        ("venv/bin/pip install apache-flink-statefun==3.2.0", "does not say"),
        ("tests/interop/runs", "there is no tests/interop/runs"),
        ("tests/interop/run cobol", "knows no cobol"),
        (
            "examples/checkpointed/supervise.sh cargo run --example none",
            "there is no examples/none",
        ),
        ("kubectl apply -f examples/kubernetes/nothing.yaml", "on no page"),
        ("curl http://localhost", "it goes nowhere"),
        ("curl localhost:8092/greetings", "nothing is at 8092/greetings"),
        ("curl -H 'Content-Type: text/x' localhost:8090/example/person/Bob", "nobody sends"),
        ("wget http://localhost", "nobody knows \"wget\""),
    ] {
        let found = check_command("README.md", command).expect_err(command);
        assert!(found.contains(said), "{command}: {found}");
    }
    let page = "```sh\ncargo a\n```\nand `cargo\nb`, `A=1 cargo c`, `tests/x/run d`, `Cargo.toml`, `x cargo`\n";
    assert_eq!(commands(page), ["cargo a", "cargo b", "A=1 cargo c", "tests/x/run d"]);
}

/// The names of all examples of the library.
fn examples() -> BTreeSet<String> {
    let name = |path: String| path["examples/".len()..].trim_end_matches(".rs").to_owned();
    let folders = files("examples", "").into_iter();
    let folders = folders.filter(|folder| is_there(&format!("{folder}/main.rs")));
    files("examples", ".rs").into_iter().chain(folders).map(name).collect()
}

#[test]
fn the_table_of_examples_has_all_with_options_that_they_know() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("## Examples\n").unwrap();
    let rows = table.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Vec<&str>> =
        rows.map(|row| row.split('`').skip(1).step_by(2).collect()).collect();
    let shown: BTreeSet<String> = rows.iter().map(|spans| spans[0].to_owned()).collect();
    assert_eq!(shown, examples());
    for spans in &rows {
        let sources = sources(&format!("examples/{}", spans[0])).unwrap();
        for span in spans[1..].iter().filter(|span| span.starts_with("--")) {
            let arguments: Vec<&str> = span.split(' ').filter(|word| *word != "--").collect();
            check_arguments(spans[0], &sources, &arguments).unwrap();
        }
    }
}

#[test]
fn rust_code_of_every_page_is_run() {
    let library = read("src/lib.rs");
    for page in files("docs", ".md") {
        assert!(
            library.contains(&format!("include_str!(\"../{page}\")")),
            "rustdoc does not see {page}"
        );
    }
    assert!(library.contains("include_str!(\"../README.md\")"));
    for crate_root in
        ["operators/src/lib.rs", "operators/codec-abomonation/src/lib.rs", "proto/src/lib.rs"]
    {
        assert!(is_there(crate_root));
    }
    for (page, text) in pages() {
        for Block { language, text } in blocks(&text).0 {
            match language.as_str() {
                // Run, or compiled where running it needs something that is not there.
                "" | "rust" | "no_run" => {}
                "sh" | "toml" | "text" => {}
                // Quoted from what runs.
                "python" => {
                    let server = read("examples/polyglot/server.py");
                    assert!(
                        server.contains(&text),
                        "{page}: examples/polyglot/server.py is otherwise:\n{text}"
                    );
                }
                "sql" => {
                    let (page_blocks, _) = blocks(&read(&page));
                    let is_run = |block: &Block| {
                        block.language.is_empty() && block.text.contains(text.trim())
                    };
                    assert!(page_blocks.iter().any(is_run), "{page}: no code there has\n{text}");
                }
                // `tests/deployment.rs` reads it.
                "yaml" if page == "docs/deploying-functions.md" => {}
                "yaml" => check_module(&page, &text),
                // Examples of modules are read by the code around them.
                "nginx" => check_nginx(&text),
                other => panic!("{page}: who runs {other:?}?\n{text}"),
            }
        }
    }
}

/// A server of nginx needs nginx; here its directives are complete, and fit the defaults that they are about.
fn check_nginx(text: &str) {
    let lines = || {
        text.lines()
            .map(|line| line.split(" #").next().unwrap().trim())
            .filter(|line| !line.is_empty())
    };
    assert!(lines().all(|line| line.ends_with([';', '{', '}'])), "{text}");
    assert_eq!(text.matches('{').count(), text.matches('}').count());
    let value = |directive: &str| -> u64 {
        let of =
            |line: &str| line.strip_prefix(directive)?.trim().strip_suffix(';').map(str::to_owned);
        let value = lines().find_map(of).unwrap_or_else(|| panic!("no {directive}"));
        value.trim_end_matches(['m', 's']).parse().unwrap()
    };
    let defaults = format!("{:?}", timely_statefun::Endpoint::at("http://host/"));
    for said in ["batch_bytes_max: 8388608,", "connection_idle: 60s,", "read_timeout: 10s,"] {
        assert!(defaults.contains(said), "{defaults}");
    }
    assert!(value("client_max_body_size") > 8 && value("keepalive_timeout") > 60);
    assert!(value("proxy_read_timeout") > 10 && value("proxy_send_timeout") > 10);
}

#[test]
fn programs_that_chapters_show_are_the_examples() {
    let quoted = |page: &str, example: &str, from: &str, to: &str| {
        let source = read(example);
        let source = &source[source.find(from).expect("it begins")..];
        let source = source[..source.find(to).unwrap_or(source.len())].trim_end();
        let (blocks, _) = blocks(&read(page));
        let is_there = blocks.iter().any(|block| block.text.starts_with(source));
        assert!(is_there, "{page} does not show what {example} has:\n{source}");
    };
    quoted(
        "docs/first-pipeline.md",
        "examples/greeter.rs",
        "use timely::",
        "// nothing comes after",
    );
    quoted(
        "docs/snapshots-and-exactly-once.md",
        "examples/restart.rs",
        "use std::error",
        "fn main",
    );
}

/// A value of a manifest's line `name = "value"`, or `name = { version = "value", …`.
fn version(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(" = ")?;
    let rest = rest.strip_prefix("{ version = ").unwrap_or(rest);
    Some((name, rest.strip_prefix('"')?.split('"').next()?))
}

#[test]
fn versions_and_features_are_those_of_the_manifests() {
    let manifest = read("Cargo.toml");
    let find = |name: &str| {
        let mut found = manifest.lines().filter_map(version).filter(|(found, _)| *found == name);
        found.next().unwrap_or_else(|| panic!("Cargo.toml has no {name}")).1
    };
    let own = find("version");
    let mut count = 0;
    for (page, text) in pages() {
        for block in blocks(&text).0.iter().filter(|block| block.language == "toml") {
            for (name, version) in block.text.lines().filter_map(version) {
                let right = if name.starts_with("timely-statefun") { own } else { find(name) };
                let fits = right == version || right.starts_with(&format!("{version}."));
                assert!(fits, "{page}: {name} is {right}, and not {version}");
                count += 1;
            }
        }
    }
    assert!(count >= 4, "{count}");
    let rust = find("rust-version");
    for page in ["README.md", "docs/first-pipeline.md", "CONTRIBUTING.md"] {
        assert!(read(page).contains(&format!("Rust {rust}")), "{page} does not name Rust {rust}");
    }
    // Every feature has a row, and no other.
    let (_, features) = manifest.split_once("[features]\n").unwrap();
    let features =
        features.split("\n[").next().unwrap().lines().filter(|line| !line.starts_with('#'));
    let features: BTreeSet<&str> =
        features.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    let page = read("docs/first-pipeline.md");
    let (_, table) = page.split_once("# Features\n").unwrap();
    let rows = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').nth(1).unwrap());
    let shown: BTreeSet<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(shown, features);
}

/// A module is one that is read, with the kinds that there are.
fn check_module(page: &str, text: &str) {
    let connectors = Connectors::new().with(|_: IngressSpec| "in").with(|_: EgressSpec| "out");
    let module = Module::parse(page, text, &Placeholders::none(), &connectors);
    let module = module.unwrap_or_else(|error| panic!("{error}"));
    assert!(module.connections().len() > 1, "{page}: nothing goes in, or nothing comes out");
}

/// What a heading is called in a link, as rustdoc has it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' | '-' => Some('-'),
        '_' => Some('_'),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let (_, text) = blocks(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn links_within_the_guide_lead_to_headings() {
    let library = read("src/lib.rs");
    // Which file is the page of which module; the first is that of the crate.
    let page_of = |module: &str| {
        let before = match module {
            "" => library.as_str(),
            module => library.split_once(&format!("pub mod {module} {{}}"))?.0,
        };
        let documents =
            before.split("include_str!(\"../").skip(1).map(|rest| rest.split('"').next().unwrap());
        let mut documents = documents.filter(|file| file.ends_with(".md"));
        if module.is_empty() { documents.next() } else { documents.last() }
    };
    assert_eq!(page_of("state_as_data"), Some("docs/state-as-data.md"));
    assert_eq!(page_of("performance"), Some("docs/performance.md"));
    let (mut count, mut wrong) = (0, Vec::new());
    for page in files("docs", ".md") {
        let (_, text) = blocks(&read(&page));
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let Some((place, heading)) = link.split_once('#') else { continue };
            let target = match place {
                "" => page.as_str(),
                place if place.starts_with("http") => continue,
                place => {
                    let module = place.trim_start_matches("crate").trim_start_matches("::");
                    page_of(module)
                        .unwrap_or_else(|| panic!("{page}: {link}: there is no page {module}"))
                }
            };
            if !anchors(&read(target)).contains(heading) {
                wrong.push(format!("{page}: {link}: {target} has no such heading"));
            }
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn chapters_are_on_the_front_page() {
    let library = read("src/lib.rs");
    let front = read("docs/guide.md");
    let (_, pages) = library.split_once("// The guide, in its order.").expect("they are together");
    let modules: Vec<&str> =
        pages.split("pub mod ").skip(1).map(|rest| rest.split(' ').next().unwrap()).collect();
    assert!(modules.len() > 15, "{modules:?}");
    for module in modules.iter().filter(|module| **module != "module_files") {
        assert!(
            front.contains(&format!("(crate::{module}")),
            "the front page does not lead to {module}"
        );
    }
}
