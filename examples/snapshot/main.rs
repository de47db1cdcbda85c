//! What is in the snapshots of any program, as lines of JSON, and snapshots made of such lines.
//!
//! `cargo run --release --example snapshot -- list|show|export|import DIR …` (`-- --help` for all options)
//!
//! Without a command it checks itself: a small program leaves a snapshot, which is exported, imported elsewhere and
//! exported again, and a program goes on from what was imported.
//!
//! Nothing of a program is needed to read what it left: a directory that the example `checkpointed` leaves will
//! do. Values are JSON where that says all that their bytes do ([`json`]), and one line is one record ([`lines`]).

mod check;
mod json;
mod lines;
mod progress;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lines::Line;
use progress::Progress;
use timely_statefun::archive::{Archive, Kind, Snapshot};
use timely_statefun::{SnapshotInfo, SnapshotOptions, SnapshotStore, TypeName};

/// What of a snapshot is wanted.
#[derive(Default)]
struct Selection {
    cut: Option<u64>,
    savepoint: Option<String>,
    functions: Vec<TypeName>,
    kinds: Vec<Kind>,
}

enum Command {
    List(PathBuf),
    Show(PathBuf, Selection),
    Export(PathBuf, Selection, Option<PathBuf>),
    Import { directory: PathBuf, file: PathBuf, branch: bool, name: Option<String> },
    Check,
}

fn main() -> ExitCode {
    let command = match command() {
        Ok(Some(command)) => command,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("snapshot: {wrong} (--help lists commands and options)");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("snapshot: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        Command::List(directory) => list(&archive(&directory)?, &mut out),
        Command::Show(directory, selection) => show(&archive(&directory)?, &selection, &mut out),
        Command::Export(directory, selection, None) => {
            export(&archive(&directory)?, &selection, "standard output", &mut out).map(drop)
        }
        Command::Export(directory, selection, Some(file)) => {
            let archive = archive(&directory)?;
            let count = export_to(&archive, &selection, &file)?;
            say(&mut out, &format!("{count} records in {}", file.display()))
        }
        Command::Import { directory, file, branch, name } => {
            let info = import(&directory, &file, branch, name.as_deref())?;
            say(&mut out, &described(&info))
        }
        Command::Check => check::check(&mut out),
    };
    done.and_then(|()| out.flush().map_err(cannot_print))
}

fn cannot_print(error: io::Error) -> String {
    // Whoever reads may stop at any line.
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    format!("cannot write to standard output: {error}")
}

fn say(out: &mut impl Write, line: &str) -> Result<(), String> {
    writeln!(out, "{line}").map_err(cannot_print)
}

/// An error with what caused it.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// The archive in a directory that is there.
fn archive(directory: &Path) -> Result<Archive, String> {
    if !directory.is_dir() {
        return Err(format!("there is no directory \"{}\"", directory.display()));
    }
    open(directory)
}

fn open(directory: &Path) -> Result<Archive, String> {
    let store = SnapshotStore::directory(directory, SnapshotOptions::default());
    let store = store.map_err(|error| told(&error))?;
    Archive::of(&store).map_err(|error| told(&error))
}

/// What is known of a snapshot, on one line.
fn described(info: &SnapshotInfo) -> String {
    let SnapshotInfo {
        cut, slot, execution, program, at_ms, chain, parts, bytes, savepoint, ..
    } = info;
    let name =
        savepoint.as_ref().map_or_else(String::new, |name| format!(", savepoint \"{name}\""));
    format!(
        "cut {cut} of \"{program}\"{name}: {bytes} bytes in {parts} files of {} cuts, slot {slot}, execution \
         {execution}, at {} s since 1970",
        chain.len(),
        at_ms / 1000
    )
}

fn list(archive: &Archive, out: &mut impl Write) -> Result<(), String> {
    let mut wrong = 0;
    for info in archive.list().map_err(|error| told(&error))? {
        match info {
            Ok(info) => say(out, &described(&info))?,
            Err(error) => {
                wrong += 1;
                eprintln!("snapshot: {}", told(&error));
            }
        }
    }
    match wrong {
        0 => Ok(()),
        wrong => Err(format!("{wrong} manifests cannot be read")),
    }
}

fn selected(archive: &Archive, selection: &Selection) -> Result<Snapshot, String> {
    let snapshot = match (&selection.savepoint, selection.cut) {
        (Some(name), _) => archive.savepoint(name),
        (None, Some(cut)) => archive.cut(cut),
        (None, None) => archive.newest(),
    };
    snapshot.map_err(|error| told(&error))
}

/// What a snapshot has, in numbers.
fn show(archive: &Archive, selection: &Selection, out: &mut impl Write) -> Result<(), String> {
    let snapshot = selected(archive, selection)?;
    say(out, &described(snapshot.info()))?;
    for (ingress, positions) in &snapshot.description().positions {
        say(out, &format!("ingress \"{ingress}\" up to {positions:?}"))?;
    }
    let mut counts: BTreeMap<(String, String), BTreeMap<Kind, u64>> = BTreeMap::new();
    each(&snapshot, selection, "reading", |record| {
        let of = record.function_type().map_or("held egress", TypeName::as_str).to_owned();
        let counts = counts.entry((record.set().to_owned(), of)).or_default();
        *counts.entry(record.kind()).or_default() += 1;
        Ok(())
    })?;
    for ((set, function), counts) in &counts {
        let counts: Vec<_> = counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        say(out, &format!("{function} (in \"{set}\"): {}", counts.join(", ")))?;
    }
    for set in snapshot.sets() {
        for (function, info) in &set.functions {
            for state in &info.states {
                let (name, kind, type_name) = (&state.name, state.kind, &state.type_name);
                say(out, &format!("{function} keeps {kind} \"{name}\" of \"{type_name}\""))?;
            }
        }
    }
    Ok(())
}

/// Has `done` called for each record that is selected.
fn each(
    snapshot: &Snapshot,
    selection: &Selection,
    what: &'static str,
    mut done: impl FnMut(&timely_statefun::archive::Record) -> Result<(), String>,
) -> Result<u64, String> {
    let mut records = snapshot.records();
    for function in &selection.functions {
        records = records.of_function(function);
    }
    if !selection.kinds.is_empty() {
        records = records.of_kinds(selection.kinds.iter().copied());
    }
    let (mut progress, mut count) = (Progress::of(what), 0);
    while let Some(record) = records.next() {
        done(&record.map_err(|error| told(&error))?)?;
        count += 1;
        progress.record(|| {
            let (done, of) = records.progress();
            (done, Some(of))
        });
    }
    Ok(count)
}

fn export(
    archive: &Archive,
    selection: &Selection,
    name: &str,
    out: &mut impl Write,
) -> Result<u64, String> {
    let failed = |error: io::Error| match name {
        "standard output" => cannot_print(error),
        name => format!("cannot write \"{name}\": {error}"),
    };
    let snapshot = selected(archive, selection)?;
    writeln!(out, "{}", lines::header(snapshot.description())).map_err(failed)?;
    let count = each(&snapshot, selection, "exporting", |record| {
        writeln!(out, "{}", lines::line(record)).map_err(failed)
    })?;
    // Without this line a file that is not whole could be taken for one that is.
    writeln!(out, "{}", lines::footer(count)).map_err(failed)?;
    Ok(count)
}

fn export_to(archive: &Archive, selection: &Selection, file: &Path) -> Result<u64, String> {
    let name = file.display().to_string();
    let failed = |error: io::Error| format!("cannot write \"{name}\": {error}");
    let mut out = BufWriter::new(File::create_new(file).map_err(failed)?);
    let count = export(archive, selection, &name, &mut out)?;
    out.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    Ok(count)
}

/// Makes a snapshot of the lines of a file, "-" being standard input.
fn import(
    directory: &Path,
    file: &Path,
    branch: bool,
    savepoint: Option<&str>,
) -> Result<SnapshotInfo, String> {
    let name = file.display().to_string();
    let cannot_read = |error: io::Error| format!("cannot read \"{name}\": {error}");
    let (input, length): (Box<dyn BufRead>, Option<u64>) = match name.as_str() {
        "-" => (Box::new(BufReader::new(io::stdin())), None),
        _ => {
            let file = File::open(file).map_err(cannot_read)?;
            let length = file.metadata().map_err(cannot_read)?.len();
            (Box::new(BufReader::new(file)), Some(length))
        }
    };
    let at = |line: u64, why: &str| format!("{name}:{line}: {why}");
    // A line that is no text is a line that is wrong, and not a file that cannot be read.
    let mut input = (1..).zip(input.lines()).map(|(number, line)| match line {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(at(number, "it is not UTF-8"))
        }
        line => line.map(|line| (number, line)).map_err(cannot_read),
    });
    let (_, header) = input.next().ok_or_else(|| at(1, "it is empty"))??;
    let (description, is_counted) = lines::read_header(&header).map_err(|why| at(1, &why))?;
    let archive = open(directory)?;
    let mut writing = Progress::of("importing");
    let mut writer =
        archive.writer(&description).progress(move |done, of| writing.records(done, of));
    if branch {
        writer = writer.branch();
    }
    if let Some(savepoint) = savepoint {
        writer = writer.named(savepoint);
    }
    let (mut progress, mut bytes) = (Progress::of("reading"), header.len() as u64 + 1);
    let (mut lines, mut last, mut counted) = (lines::Lines::default(), 1, None);
    for line in input {
        let (number, line) = line?;
        if counted.is_some() {
            return Err(at(number, "there is a line after the last one"));
        }
        (last, bytes) = (number, bytes + line.len() as u64 + 1);
        match lines.read(&line).map_err(|why| at(number, &why))? {
            Line::Last(count) if count == number - 2 => counted = Some(count),
            Line::Last(count) => {
                let why = format!("there should be {count} records before it, not {}", number - 2);
                return Err(at(number, &why));
            }
            Line::Record(record) => {
                writer.push(*record).map_err(|error| match error.records().is_empty() {
                    true => told(&error),
                    false => at(number, &told(&error)),
                })?;
            }
        }
        progress.record(|| (bytes, length));
    }
    if is_counted && counted.is_none() {
        return Err(at(last, "the file ends here, without the line that counts its records"));
    }
    drop(progress);
    // Records are numbered from 1, and the first line is none.
    writer.finish().map_err(|error| match error.records().as_slice() {
        [] => told(&error),
        [one] => at(one + 1, &told(&error)),
        [one, other, ..] => {
            at(other + 1, &format!("{} (the other is in line {})", told(&error), one + 1))
        }
    })
}

const USAGE: &str = "Reads and writes snapshots without the program that they are of.

Usage: snapshot                                checks itself
       snapshot list DIR                       the snapshots in a directory
       snapshot show DIR [SELECTION]           what one has, in numbers
       snapshot export DIR [SELECTION]         what one has, as lines of JSON
       snapshot import DIR FILE                makes one of such lines (\"-\": of standard input)";

/// The command line; `None` if it asks for help, which was given.
fn command() -> Result<Option<Command>, String> {
    let mut options = getopts::Options::new();
    options.optopt("", "cut", "the snapshot of this cut (default: the newest)", "N");
    options.optopt("", "savepoint", "the snapshot of this name", "NAME");
    options.optmulti("", "function", "only what is of this function type", "NAMESPACE/NAME");
    let kinds = Kind::ALL.map(Kind::name).join(", ");
    options.optmulti("", "kind", &format!("only what is of this kind: {kinds}"), "KIND");
    options.optopt("", "output", "writes this file, which is not there yet", "FILE");
    options.optflag("", "branch", "imports although there are snapshots: programs go on from it");
    options.optopt("", "name", "imports a savepoint of this name", "NAME");
    options.optflag("", "help", "print this");
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        println!("{}", options.usage(USAGE).trim_end());
        return Ok(None);
    }
    let mut selection =
        Selection { savepoint: matches.opt_str("savepoint"), ..Selection::default() };
    if let Some(text) = matches.opt_str("cut") {
        let cut = text.parse().map_err(|_| format!("--cut \"{text}\" is not a whole number"))?;
        selection.cut = Some(cut);
    }
    for name in matches.opt_strs("function") {
        selection.functions.push(TypeName::new(&name).map_err(|error| error.to_string())?);
    }
    for name in matches.opt_strs("kind") {
        let kind =
            Kind::named(&name).ok_or_else(|| format!("there is no kind \"{name}\" ({kinds})"))?;
        selection.kinds.push(kind);
    }
    let free: Vec<&str> = matches.free.iter().map(String::as_str).collect();
    Ok(Some(match free.as_slice() {
        [] => Command::Check,
        ["list", directory] => Command::List(directory.into()),
        ["show", directory] => Command::Show(directory.into(), selection),
        ["export", directory] => {
            let output = matches.opt_str("output").map(PathBuf::from);
            Command::Export(directory.into(), selection, output)
        }
        ["import", directory, file] => {
            let (branch, name) = (matches.opt_present("branch"), matches.opt_str("name"));
            let (directory, file) = (directory.into(), file.into());
            Command::Import { directory, file, branch, name }
        }
        [command @ ("list" | "show" | "export"), ..] => {
            return Err(format!("\"{command}\" needs a directory, and nothing else"));
        }
        ["import", ..] => return Err("\"import\" needs a directory and a file".to_owned()),
        [other, ..] => return Err(format!("there is no command \"{other}\"")),
    }))
}
