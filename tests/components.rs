//! The job of the example `components` finds what a model finds that uses nothing of it, and notices
//! functions that are wrong.
//!
//! The model joins what is linked with a union-find and walks from the root breadth first, anew for
//! every batch. The job must agree with it after each of them, however the work is spread and in
//! whatever order messages arrive.
//!
//! The tests of the program itself need it built: `cargo test` does so. Before `cargo test --test
//! components`, which does not, run `cargo build --example components`.

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
#[path = "../examples/components/functions.rs"]
mod functions;
#[path = "../examples/components/input.rs"]
mod input;
#[path = "../examples/components/pipeline.rs"]
mod pipeline;
#[path = "../examples/components/reference.rs"]
mod reference;
mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use functions::{COMPONENTS, Change, DISTANCES, SYSTEM, ToSystem};
use pipeline::{Difference, Failure, Findings, Outcome};
use support::{Random, Running, on_workers};
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::vec::UnorderedInput;
use timely_statefun::{Envelope, Function, Functions, StatefulFunctions};

const GRAPH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/as20graph.txt");

/// What the model finds: of each system, the smallest one it is connected with, and its distance
/// from the root if it is connected with that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Expected {
    smallest: BTreeMap<u64, u64>,
    hops: BTreeMap<u64, u64>,
}

fn model(links: &[(u64, u64)], root: u64) -> Expected {
    let mut neighbours: BTreeMap<u64, Vec<u64>> = BTreeMap::from([(root, Vec::new())]);
    for (one, other) in links {
        neighbours.entry(*one).or_default().push(*other);
        neighbours.entry(*other).or_default().push(*one);
    }

    let mut parents: BTreeMap<u64, u64> = neighbours.keys().map(|of| (*of, *of)).collect();
    fn top(parents: &mut BTreeMap<u64, u64>, mut of: u64) -> u64 {
        while parents[&of] != of {
            let grandparent = parents[&parents[&of]];
            parents.insert(of, grandparent);
            of = grandparent;
        }
        of
    }
    for (one, other) in links {
        let (one, other) = (top(&mut parents, *one), top(&mut parents, *other));
        parents.insert(one.max(other), one.min(other));
    }
    let systems = neighbours.keys().copied();
    let smallest = systems.map(|system| (system, top(&mut parents, system))).collect();

    let (mut hops, mut next) = (BTreeMap::from([(root, 0)]), VecDeque::from([root]));
    while let Some(system) = next.pop_front() {
        let farther = hops[&system] + 1;
        for neighbour in &neighbours[&system] {
            if !hops.contains_key(neighbour) {
                hops.insert(*neighbour, farther);
                next.push_back(*neighbour);
            }
        }
    }
    Expected { smallest, hops }
}

impl Expected {
    fn counted(&self) -> Findings {
        let count = |values: &BTreeMap<u64, u64>| {
            let mut counts = BTreeMap::new();
            values.values().for_each(|value| *counts.entry(*value).or_insert(0) += 1);
            counts
        };
        Findings { components: count(&self.smallest), distances: count(&self.hops) }
    }
}

/// What is to be found after each of so many batches, between which links are dealt out.
fn expected(links: &[(u64, u64)], root: u64, batches: usize) -> Vec<Findings> {
    let after = |batch| {
        let dealt = links.iter().enumerate().filter(|(at, _)| at % batches <= batch);
        let dealt: Vec<_> = dealt.map(|(_, link)| *link).collect();
        model(&dealt, root).counted()
    };
    (0..batches).map(after).collect()
}

/// Graphs of many shapes: with parts that are never connected, long ways, hubs, links that are there
/// several times and links of systems to themselves; and a root that need not have any.
fn graph(random: &mut Random) -> (Vec<(u64, u64)>, u64) {
    let systems = 1 + random.below(40);
    let count = random.below(2 * systems);
    let shape = random.below(4);
    let mut links: Vec<(u64, u64)> = Vec::new();
    for number in 0..count {
        let (one, other) = (random.below(systems), random.below(systems));
        links.push(match (shape, random.below(8), links.last()) {
            (_, 0, Some((one, other))) => (*other, *one),
            (_, 1, _) => (one, one),
            (0, _, _) => (number % systems, (number + 1) % systems),
            (1, _, _) => (0, other),
            (2, _, _) => (one, one ^ 1),
            _ => (one, other),
        });
    }
    // Where they are in the file is no hint at where they are in the graph.
    for at in (1..links.len()).rev() {
        links.swap(at, random.below(at as u64 + 1) as usize);
    }
    let root = random.below(systems);
    // Labels are compared as numbers, whatever their size.
    let spread = |system: u64| match random.0 % 2 {
        0 => system,
        _ => u64::MAX - 3 * system,
    };
    (links.into_iter().map(|(one, other)| (spread(one), spread(other))).collect(), spread(root))
}

/// Runs the job; worker 0 of this process has an outcome, or all fail alike.
fn run(
    workers: usize,
    functions: impl Fn() -> Functions<ToSystem> + Send + Sync + 'static,
    links: &[(u64, u64)],
    root: u64,
    batches: usize,
) -> Result<Outcome, Failure> {
    let links = links.to_vec();
    let results = on_workers(workers, move |worker| {
        pipeline::run(worker, functions(), &links, root, batches)
    });
    let failures: Vec<_> = results.iter().map(|result| result.as_ref().err()).collect();
    assert!(failures.windows(2).all(|two| two[0] == two[1]), "they differ: {failures:?}");
    let outcomes: Result<Vec<_>, _> = results.into_iter().collect();
    let mut outcomes = outcomes?.into_iter();
    let outcome = outcomes.next().unwrap().expect("worker 0 has an outcome");
    assert!(outcomes.all(|other| other.is_none()));
    Ok(outcome)
}

#[test]
fn random_graphs_have_the_components_and_distances_of_the_model_after_every_batch() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let (links, root) = graph(&mut random);
        let batches = 1 + random.below(5) as usize;
        let expected = expected(&links, root, batches);
        for workers in [1, 2, 4] {
            let _running = Running(format!("seed {seed}, {workers} workers"));
            let outcome = run(workers, functions::functions, &links, root, batches).unwrap();
            assert_eq!(outcome.findings, expected);
            assert!(outcome.work.delivered > 2 * links.len() as u64);
            assert!(workers > 1 || outcome.work.crossed == 0);
        }
    }
}

#[test]
fn the_real_graph_has_the_components_and_distances_of_the_model_after_every_batch() {
    let (links, root) = (input::links(Path::new(GRAPH)).unwrap(), 1);
    let expected = expected(&links, root, 4);
    // Batches that change nothing would show nothing.
    assert!(expected.windows(2).all(|two| two[0].components.len() > two[1].components.len()));
    assert!(expected[0].distances.keys().max() > expected[3].distances.keys().max());
    let outcome = run(2, functions::functions, &links, root, 4).unwrap();
    assert_eq!(outcome.findings, expected);
    assert!(outcome.work.crossed > 0);
}

/// The functions alone, told of the two ends of each link and of the root in any order and at any
/// times, later ones before earlier ones.
#[test]
fn the_order_and_the_times_in_which_systems_are_told_do_not_matter() {
    for seed in 0..400 {
        let _running = Running(format!("seed {seed}"));
        let mut random = Random(seed);
        let (links, root) = graph(&mut random);
        let mut told: Vec<(u64, Envelope<ToSystem>)> = Vec::new();
        for (one, other) in &links {
            told.push((random.below(6), SYSTEM.message(*one, ToSystem::Link(*other))));
            told.push((random.below(6), SYSTEM.message(*other, ToSystem::Link(*one))));
        }
        told.push((random.below(6), SYSTEM.message(root, ToSystem::Root)));
        for at in (1..told.len()).rev() {
            told.swap(at, random.below(at as u64 + 1) as usize);
        }
        let found = found_in_order(told, random.below(3));
        assert_eq!(found, model(&links, root));
    }
}

/// What the functions find when they are told this, with `steps` of the worker after each.
fn found_in_order(told: Vec<(u64, Envelope<ToSystem>)>, steps: u64) -> Expected {
    timely::execute_directly(move |worker| {
        let [components, distances] = [(); 2].map(|()| Rc::new(RefCell::new(Vec::new())));
        let ((mut input, mut capability), handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input();
            let egresses = stream.stateful_functions(functions::functions()).unwrap();
            for (egress, kept) in [(COMPONENTS, &components), (DISTANCES, &distances)] {
                let kept = Rc::clone(kept);
                let changes = egresses.stream(egress).unwrap();
                changes.inspect(move |change| kept.borrow_mut().push(*change));
            }
            (input, egresses.handle())
        });
        for at in 0..told.len() {
            let (time, envelope) = told[at].clone();
            input.activate().session(&capability.delayed(&time)).give(envelope);
            if let Some(first) = told[at + 1..].iter().map(|(time, _)| *time).min() {
                capability.downgrade(&first);
            }
            for _ in 0..steps {
                worker.step();
            }
        }
        drop(capability);
        handle.run(worker).unwrap();
        let (smallest, hops) = (in_the_end(components.take()), in_the_end(distances.take()));
        Expected { smallest, hops }
    })
}

/// The value of each system in the end; fails if one has several or loses its value at any time.
fn in_the_end(mut changes: Vec<Change>) -> BTreeMap<u64, u64> {
    changes.sort_by_key(|(_, time, _)| *time);
    let mut values: BTreeMap<u64, BTreeMap<u64, isize>> = BTreeMap::new();
    for at_once in changes.chunk_by(|one, next| one.1 == next.1) {
        for ((system, value), _, change) in at_once {
            *values.entry(*system).or_default().entry(*value).or_insert(0) += change;
        }
        for ((system, _), time, _) in at_once {
            let values = values.get_mut(system).unwrap();
            values.retain(|_, count| *count != 0);
            let one = values.len() == 1 && values.values().all(|count| *count == 1);
            assert!(one, "system {system} has values {values:?} at {time}");
        }
    }
    values.into_iter().map(|(system, values)| (system, *values.keys().next().unwrap())).collect()
}

/// Functions that tell nobody anything: each system but the root is a component of its own as often as
/// it has a link, and only the root has a distance.
fn wrong_functions() -> Functions<ToSystem> {
    let system = Function::new(|context, told| {
        let own = context.id().as_number().unwrap();
        match told {
            ToSystem::Root => {
                context.emit(COMPONENTS, ((own, own), *context.time(), 1));
                context.emit(DISTANCES, ((own, 0), *context.time(), 1));
            }
            ToSystem::Link(_) if own > 1 => {
                context.emit(COMPONENTS, ((own, own), *context.time(), 1));
            }
            _ => {}
        }
        Ok(())
    });
    Functions::new().embedded(SYSTEM, system).egress(COMPONENTS).egress(DISTANCES)
}

#[test]
fn functions_that_are_wrong_fail_the_run_on_every_worker_after_the_batch_in_which_they_are() {
    // They are right until the third batch links the root with another system.
    let links = [(1, 1), (1, 1), (3, 1)];
    for workers in [1, 2, 4] {
        let failure = run(workers, wrong_functions, &links, 1, 3).unwrap_err();
        let first =
            Difference { batch: 2, system: 3, what: "component", value: 1, by_functions: false };
        assert_eq!(failure, Failure::Differ { count: 3, first });
        assert_eq!(
            failure.to_string(),
            "the functions and differential dataflow differ 3 times, first here: after batch 3, \
             system 3 has component 1 by differential dataflow, not by functions"
        );
        assert!(run(workers, wrong_functions, &links[..2], 1, 3).is_ok());
    }
}

#[test]
fn a_line_is_a_link_or_silent_or_wrong() {
    let name = format!("components-links-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let read = |text: &[u8]| {
        std::fs::write(&file, text).unwrap();
        let links = input::links(&file).map_err(|wrong| wrong.to_string());
        std::fs::remove_file(&file).unwrap();
        links
    };
    let links = read(b"# from to\r\n1\t2\r\n\r\n 3  18446744073709551615 \n  # 5\n2 2");
    assert_eq!(links, Ok(vec![(1, 2), (3, u64::MAX), (2, 2)]));
    assert_eq!(read(b""), Ok(vec![]));
    for wrong in ["1", "1 2 3", "1 x", "-1 2", "1 18446744073709551616", "1, 2"] {
        let links = read(format!("1 2\n\n{wrong}\r\n4 5\n").as_bytes());
        let expected = format!("line 3 is {wrong:?} and not two whole numbers below 2^64");
        assert_eq!(links, Err(expected));
    }
    assert!(read(b"1 \xff").unwrap_err().starts_with("line 1 is "));
}

/// The example, which `cargo test` builds before it runs tests.
fn program() -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("components{}", std::env::consts::EXE_SUFFIX);
    let program = profile.join("examples").join(name);
    let missing = "is not built: run `cargo build --example components` first";
    assert!(program.exists(), "{} {missing}", program.display());
    Command::new(program)
}

#[test]
fn the_program_ends_with_one_line_in_one_process_and_in_two() {
    let links = input::links(Path::new(GRAPH)).unwrap();
    let expected = model(&links, 1).counted().summary();
    for processes in [1, 2] {
        let hosts = std::env::temp_dir().join(format!("components-hosts-{}", std::process::id()));
        let outcomes = cluster::run_command(processes, |process, addresses| {
            std::fs::write(&hosts, addresses.join("\n")).unwrap();
            let mut command = program();
            let workers = (2 / processes).to_string();
            command.args(["-w", &workers, "-h", hosts.to_str().unwrap()]);
            command.args(["-n", &processes.to_string(), "-p", &process.to_string()]);
            command.current_dir(std::env::temp_dir());
            command
        });
        std::fs::remove_file(&hosts).unwrap();
        let results: Vec<Vec<&str>> = outcomes
            .iter()
            .map(|outcome| {
                assert!(outcome.success, "{}", outcome.output);
                outcome.output.lines().filter(|line| line.starts_with("systems ")).collect()
            })
            .collect();
        assert_eq!(results[0], [expected.as_str()]);
        assert!(results[1..].iter().all(Vec::is_empty), "{results:?}");
    }
}

#[test]
fn the_program_says_what_is_wrong_with_a_file_or_an_argument() {
    let name = format!("components-file-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let path = file.to_str().unwrap();
    std::fs::write(&file, "7 8\n8 9\n5 5\n").unwrap();
    let output = program().args(["--file", path, "--root", "9", "-w", "2"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8_lossy(&output.stdout);
    let last = "systems 4 components 2 largest 3 reached 3 farthest 2";
    assert_eq!(out.lines().last(), Some(last), "{out}");

    for (arguments, says) in [
        (&["--file", path][..], "there is no node 1 in"),
        (&["--file", "/nowhere/at-all"], "cannot read \"/nowhere/at-all\": "),
        (&["--root", "one"], "--root \"one\" is not a whole number"),
        (&["--batches", "0"], "at least one batch"),
        (&["--roots", "1"], "Unrecognized option"),
        (&["extra"], "unexpected argument \"extra\""),
    ] {
        rejected(arguments, says);
    }
    std::fs::write(&file, "7 8\nnonsense\n").unwrap();
    rejected(&["--file", path, "--root", "7"], "line 2 is \"nonsense\" and not two whole numbers");
    std::fs::remove_file(&file).unwrap();

    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--root"));
}

fn rejected(arguments: &[&str], says: &str) {
    let output = program().args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(errors.contains(says) && !errors.contains("panicked"), "{arguments:?}: {errors}");
}
