//! Pictures of what benches print: their lines of JSON as bars, in SVG.
//!
//! `cargo bench --bench dispatch -- --quick | cargo run --release --example plot -- --input -` writes one to the standard
//! output; `--metric ratio_to_ceiling` takes that metric only, and `--input FILE` reads lines that were kept.
//!
//! Recorded figures are in `docs/figures/`, a file `NAME.jsonl` and its picture `NAME.svg` for each. Without options, it
//! draws them all, fails where a picture is not that of its figures, and prints the figures; with `--write`, it writes the
//! pictures.

mod figures;
mod svg;

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use figures::Figure;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/figures");

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("plot: {wrong} (--help lists the options)");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut options = getopts::Options::new();
    options.optopt("", "input", "lines of a bench (\"-\": of standard input)", "FILE");
    options.optopt("", "metric", "draws this metric only", "NAME");
    options.optopt("", "title", "what stands above", "TEXT");
    options.optflag("", "write", "writes the pictures of recorded figures");
    options.optflag("", "help", "print this");
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        println!(
            "{}",
            options.usage("Draws what benches print.\n\nUsage: plot [OPTIONS]").trim_end()
        );
        return Ok(());
    }
    let Some(input) = matches.opt_str("input") else {
        check();
        return recorded(matches.opt_present("write"));
    };
    let mut text = String::new();
    let read = match input.as_str() {
        "-" => std::io::stdin().read_to_string(&mut text),
        file => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| format!("\"{input}\" cannot be read: {error}"))?;
    let mut figures = figures::read(&text).map_err(|wrong| format!("\"{input}\", {wrong}"))?;
    if let Some(metric) = matches.opt_str("metric") {
        figures.retain(|figure| figure.metric.ends_with(&format!(": {metric}")));
    }
    if figures.is_empty() {
        return Err(format!("there is nothing to draw in \"{input}\""));
    }
    print!("{}", svg::draw(&matches.opt_str("title").unwrap_or_default(), &figures));
    Ok(())
}

/// Draws what is recorded, and compares it with the pictures that are there, or writes them.
fn recorded(write: bool) -> Result<(), String> {
    let cannot = |what: &Path, error| format!("\"{}\": {error}", what.display());
    let entries = Path::new(RECORDED);
    let entries = entries.read_dir().map_err(|error| cannot(entries, error))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    assert!(!files.is_empty(), "nothing is recorded in {RECORDED}");
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).map_err(|error| cannot(&file, error))?;
        let figures = figures::read(&text).map_err(|wrong| format!("{name}.jsonl, {wrong}"))?;
        let (picture, drawn) = (file.with_extension("svg"), svg::draw(&name, &figures));
        if write {
            std::fs::write(&picture, drawn).map_err(|error| cannot(&picture, error))?;
        } else if std::fs::read_to_string(&picture).map_err(|error| cannot(&picture, error))?
            != drawn
        {
            return Err(format!(
                "{name}.svg is not the picture of {name}.jsonl: draw it with --write"
            ));
        }
        for Figure { metric, case, series, value } in &figures {
            println!("{name}: {metric}: {case}: {series} {value}");
        }
    }
    Ok(())
}

/// What is read and drawn of lines in both forms, of characters that mean something in SVG, and of what is no figure.
fn check() {
    let lines = r#"
{"bench":"b","case":"one < two","metric":"ceiling_per_second","value":2000000}
{"bench":"b","case":"one < two","metric":"per_second","value":1e6}
{"bench":"b","case":"calls","protocol":"h2c","in_flight":16,"with":"reqwest","p50_us":1.5,"calls_per_second":5}
"#;
    let figure = |metric: &str, case: &str, series: &str, value: f64| {
        let [metric, case, series] = [metric, case, series].map(str::to_owned);
        Figure { metric, case, series, value }
    };
    let figures = figures::read(lines).expect("they are right");
    let calls = "calls, h2c, 16 in flight";
    let expected = [
        figure("b: per_second", "one < two", "ceiling", 2e6),
        figure("b: per_second", "one < two", "library", 1e6),
        figure("b: p50_us", calls, "reqwest", 1.5),
        figure("b: calls_per_second", calls, "reqwest", 5.0),
    ];
    assert_eq!(figures, expected);
    let drawn = svg::draw("a & b", &figures);
    let width = |part: f64| format!("width=\"{:.1}\" height=\"12\"", svg::LONGEST * part);
    assert_eq!(
        drawn.matches(&width(1.0)).count(),
        3,
        "one bar of each metric is the longest: {drawn}"
    );
    assert_eq!(drawn.matches(&width(0.5)).count(), 1, "half as much is half as long: {drawn}");
    for text in ["a &amp; b", "one &lt; two", ">2,000,000<", ">1.50<", ">reqwest<"] {
        assert!(drawn.contains(text), "{text} is missing: {drawn}");
    }
    assert!(!drawn.contains("\n\n") && drawn.matches("<rect").count() == 1 + 3 + 4);
    for (line, said) in [
        ("no json", "line 1: "),
        (r#"{"case":"c","metric":"m","value":1}"#, "which \"bench\""),
        (r#"{"bench":"b","metric":"m","value":1}"#, "which \"case\""),
        (r#"{"bench":"b","case":"c","metric":"m"}"#, "no \"value\""),
        (r#"{"bench":"b","case":"c","metric":"m","value":"1"}"#, "and no number"),
        (r#"{"bench":"b","case":"c","with":"w"}"#, "no figure"),
    ] {
        let wrong = figures::read(line).expect_err(line);
        assert!(wrong.contains(said), "{line}: {wrong}");
    }
}
