//! How the example checks itself: it serves a greeter, runs a playground's application of it in a process of its own, and
//! kills that in the middle. Every visit that was answered counts, once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use timely_statefun::serve::{ServedFunctions, Server};

use crate::client::ask;
use crate::greeter;

/// Visits that come while the application is killed.
const ON_THEIR_WAY: usize = 1000;
const REQUEST: &str = "application/vnd.example/GreetRequest";
/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

pub fn run() -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().expect("the system lets threads start");
    let served = ServedFunctions::new(greeter::functions).map_err(|error| error.to_string())?;
    let serving = runtime.block_on(Server::new(served).bind("127.0.0.1:0"));
    let serving = serving.map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let module = directory.path().join("module.yaml");
    let text = format!(
        "kind: io.statefun.endpoints.v2/http\n\
         spec:\n  functions: example/*\n  urlPathTemplate: {}/statefun\n---\n\
         kind: io.statefun.playground.v1/ingress\nspec:\n  port: 0\n---\n\
         kind: io.statefun.playground.v1/egress\nspec:\n  port: 0\n  topics: [ greetings ]\n",
        serving.url()
    );
    std::fs::write(&module, text).map_err(|error| error.to_string())?;

    let mut book = Book::default();
    let mut playground = Playground::start(&module, 1)?;
    for person in ["Ada", "Bob", "Ada", "Bob"] {
        visit(&playground.ingress, person, person)?;
    }
    book.take_until(&playground, |book| book.last("Ada") == 2 && book.last("Bob") == 2)?;
    let ingress = playground.ingress.clone();
    let sending = std::thread::spawn(move || {
        let sent = (0..ON_THEIR_WAY).take_while(|_| visit(&ingress, "Ada", "Ada").is_ok());
        sent.count()
    });
    book.take_until(&playground, |book| book.last("Ada") >= 5)?;
    playground.kill();
    let answered = 2 + sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    println!("killed when {answered} visits of Ada were answered");

    playground = Playground::start(&module, 2)?;
    let ada = book.next(&playground, "Ada")?;
    // One that was not answered may have been taken.
    check((answered + 1..=answered + 2).contains(&ada), || {
        format!("{answered} visits of Ada were answered, and the next is visit {ada}")
    })?;
    let bob = book.next(&playground, "Bob")?;
    check(bob == 3, || format!("visit {bob} of Bob follows visit 2"))?;
    println!("on two workers, visit {ada} of Ada comes next, and visit {bob} of Bob");
    playground.interrupt()?;
    for stop in 1..=2 {
        playground = Playground::start(&module, 1)?;
        let next = book.next(&playground, "Ada")?;
        check(next == ada + stop, || format!("visit {next} of Ada is visit {}", ada + stop))?;
        println!("stopped and started: visit {next} of Ada comes next");
        if stop == 2 {
            book.take_until(&playground, |book| book.visits("Ada").eq(1..=next))?;
        }
        playground.interrupt()?;
    }
    let ended = runtime.block_on(serving.shutdown());
    check(ended.requests_cut == 0, || format!("{ended:?}"))?;
    println!("killed once and stopped three times: every visit counted once, and was greeted");
    Ok(())
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Sends a visit of somebody, who is to be greeted by a name, until it is durable.
fn visit(ingress: &str, person: &str, name: &str) -> Result<(), String> {
    let path = format!("/example/person/{person}");
    let body = format!("{{\"name\": \"{name}\"}}");
    let answer = ask("PUT", ingress, &path, REQUEST, &body).map_err(|error| error.to_string())?;
    check(answer.0 == 200, || format!("a visit is answered with {answer:?}"))
}

/// By name, which visits were greeted. One may be greeted again: what was taken just before a kill comes again.
#[derive(Default)]
struct Book(BTreeMap<String, BTreeSet<usize>>);

impl Book {
    /// The last visit under a name; 0 before the first.
    fn last(&self, name: &str) -> usize {
        self.0.get(name).and_then(BTreeSet::last).copied().unwrap_or(0)
    }

    /// All visits of a person, under either name.
    fn visits(&self, person: &str) -> impl Iterator<Item = usize> {
        let names = [person.to_owned(), again(person)];
        let visits = names.iter().filter_map(|name| self.0.get(name)).flatten();
        visits.copied().collect::<BTreeSet<_>>().into_iter()
    }

    /// Has somebody come who is told from earlier visits by the name, and says which visit that is.
    fn next(&mut self, playground: &Playground, person: &str) -> Result<usize, String> {
        let name = again(person);
        let before = self.last(&name);
        visit(&playground.ingress, person, &name)?;
        self.take_until(playground, |book| book.last(&name) > before)?;
        Ok(self.last(&name))
    }

    /// Takes greetings until something is so.
    fn take_until(
        &mut self,
        playground: &Playground,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let began = Instant::now();
        while !holds(self) {
            check(began.elapsed() < LIMIT, || format!("that is all that ever came: {:?}", self.0))?;
            let answer = ask("GET", &playground.egress, "/greetings?wait=1s", "text/plain", "");
            let (status, greeting) = answer.map_err(|error| error.to_string())?;
            if status == 404 {
                continue;
            }
            let read = greeting.strip_prefix("visit ").and_then(|rest| rest.split_once(" of "));
            let read = read.and_then(|(visit, name)| Some((visit.parse().ok()?, name)));
            let (visit, name) = read.ok_or_else(|| format!("\"{greeting}\" greets nobody"))?;
            self.0.entry(name.to_owned()).or_default().insert(visit);
        }
        Ok(())
    }
}

/// Under which name somebody comes who is waited for.
fn again(person: &str) -> String {
    format!("{person} again")
}

/// The application, in a process of its own, which ends with this.
struct Playground {
    child: Child,
    lines: BufReader<ChildStdout>,
    ingress: String,
    egress: String,
}

impl Playground {
    fn start(module: &Path, workers: usize) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg(module).args(["--interval", "20", "-w", &workers.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| error.to_string())?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut playground =
            Playground { child, lines, ingress: String::new(), egress: String::new() };
        playground.ingress = playground.url("ingress: ")?;
        playground.egress = playground.url("egress: ")?;
        Ok(playground)
    }

    /// Where it listens, which it says first.
    fn url(&mut self, of: &str) -> Result<String, String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(|error| error.to_string())?;
        let url = line.strip_prefix(of).and_then(|rest| rest.split_whitespace().next());
        url.map(str::to_owned).ok_or_else(|| format!("it says {line:?} instead of \"{of}\""))
    }

    /// Kills it without a warning.
    fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it as Ctrl-C does.
    fn interrupt(mut self) -> Result<(), String> {
        let interrupted =
            Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let succeeded = |status: ExitStatus, what: &str| {
            check(status.success(), || format!("{what} ended with {status}"))
        };
        succeeded(interrupted.map_err(|error| error.to_string())?, "kill")?;
        let lines: Result<Vec<_>, _> = std::io::Read::by_ref(&mut self.lines).lines().collect();
        let lines = lines.map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        succeeded(status, "the playground")?;
        let last = lines.last().map_or("", String::as_str);
        check(last.starts_with("stopped at savepoint stopped"), || format!("it says {last:?}"))
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
