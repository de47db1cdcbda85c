//! A playground's application at work: a module, its servers, and a program with snapshots.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
#[cfg(unix)]
use std::task::Poll;
use std::time::{Duration, Instant};

use timely::dataflow::operators::Inspect;
use timely::worker::Worker;
use timely_statefun::modules::{
    Connection, Connectors, Endpoints, Module, ModuleError, Placeholders,
};
use timely_statefun::playground::{EGRESS, EgressSpec, Ingress, IngressSpec, Topics};
use timely_statefun::serve::{Server, Serving};
use timely_statefun::source::{self, Channel, ChannelSender, Times};
use timely_statefun::{
    DeadLetter, Envelope, Functions, OnFailure, Savepoint, SnapshotOptions, SnapshotPolicy,
    SnapshotStore, Snapshots, StatefulFunctions, TypedValue,
};
use tokio::runtime::{Handle, Runtime};

/// How many records may be on their way into the program.
const CHANNEL_RECORDS: usize = 4096;
/// How many snapshots may have records that nobody has taken.
const UNACKNOWLEDGED_CUTS_MAX: usize = 1000;
/// The savepoint at which it stops.
const SAVEPOINT: &str = "stopped";
/// How long it may take to stop there.
const STOP_MAX: Duration = Duration::from_secs(20);
/// How often somebody looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Application {
    pub module: PathBuf,
    pub store: PathBuf,
    pub host: IpAddr,
    pub interval: Duration,
    pub stops_on_failure: bool,
    pub timely: timely::Config,
}

/// How it ended.
pub enum Ended {
    AtSavepoint { name: String, cut: u64 },
    Done,
}

/// An ingress or egress of the module.
enum Connector {
    Ingress(IngressSpec),
    Egress(EgressSpec),
}

type Message = Envelope<TypedValue>;

pub fn run(application: Application) -> Result<Ended, String> {
    let connectors = Connectors::new().with(Connector::Ingress).with(Connector::Egress);
    let module = Module::read(&application.module, &Placeholders::environment(), &connectors);
    let (endpoints, connections) = module.map_err(told)?.into_parts();
    let failing = match application.stops_on_failure {
        true => OnFailure::Stop,
        false => OnFailure::DeadLetter,
    };
    let endpoints = endpoints.map(move |_, endpoint| endpoint.on_failure(failing));
    let runtime = Runtime::new().expect("the system lets threads start");
    let store = SnapshotStore::directory(&application.store, SnapshotOptions::default());
    let store = store.map_err(|error| error.to_string())?;

    let (sender, channel) = source::channel::<Message>(CHANNEL_RECORDS);
    let servers = Servers::listen(&runtime, &connections, application.host, &sender)?;
    let topics = servers.topics.clone();
    let stop = Arc::<AtomicBool>::default();
    runtime.spawn(stops(Arc::clone(&stop), servers.ingress));

    let program = Program {
        endpoints,
        store,
        topics,
        runtime: runtime.handle().clone(),
        interval: application.interval,
        stop,
        channel: Mutex::new(Some(channel)),
        _sender: sender,
    };
    let ended = timely_statefun::execute(application.timely, move |worker| program.run(worker));
    let ends: Result<Vec<_>, String> =
        ended.map_err(|error| error.to_string())?.into_iter().collect();
    // What is being answered is.
    if let Some(egress) = servers.egress {
        runtime.block_on(egress.shutdown());
    }
    ends.map(|mut ends| ends.swap_remove(0))
}

/// The servers of a module, which listen.
struct Servers {
    topics: Topics,
    ingress: Vec<Serving>,
    egress: Option<Serving>,
}

impl Servers {
    fn listen(
        runtime: &Runtime,
        connections: &[Connection<Connector>],
        host: IpAddr,
        sender: &ChannelSender<Message>,
    ) -> Result<Self, String> {
        let (mut ingress, mut egress) = (Vec::new(), None);
        let mut topics = Topics::new([""; 0]);
        for connection in connections {
            let bind = |server: Server, port| {
                let bound = runtime.block_on(server.bind(SocketAddr::new(host, port)));
                // Where the module says so: whoever reads it finds the port there.
                bound.map_err(|error| told(connection.error(error.to_string())))
            };
            match &connection.value {
                Connector::Ingress(spec) => {
                    let server = Ingress::new(sender.clone()).ack(spec.ack).server();
                    let serving = bind(server, spec.port)?;
                    println!("ingress: {}", serving.url());
                    ingress.push(serving);
                }
                Connector::Egress(_) if egress.is_some() => {
                    return Err(told(connection.error("there is another egress before")));
                }
                Connector::Egress(spec) => {
                    topics = Topics::reporting(spec.topics.clone(), |rejected| {
                        eprintln!(
                            "playground: {:?} was emitted: {}",
                            rejected.record, rejected.why
                        );
                    });
                    let serving = bind(topics.server(), spec.port)?;
                    println!("egress: {} ({})", serving.url(), spec.topics.join(", "));
                    egress = Some(serving);
                }
            }
        }
        match ingress.is_empty() {
            true => Err("the module has no ingress of the playground".to_owned()),
            false => Ok(Servers { topics, ingress, egress }),
        }
    }
}

/// Waits until the program is to stop. Then nothing more is let in, and what was is answered first.
async fn stops(stop: Arc<AtomicBool>, ingress: Vec<Serving>) {
    interrupted().await;
    for ingress in ingress {
        ingress.shutdown().await;
    }
    stop.store(true, Ordering::Relaxed);
    interrupted().await;
    eprintln!("playground: ended before there was a savepoint");
    std::process::exit(1);
}

/// Waits until somebody ends the program, with Ctrl-C or as systems do.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        let mut signals = kinds.map(|kind| signal(kind).expect("signals can be had"));
        std::future::poll_fn(|context| {
            let has_come = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if has_come { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.expect("signals can be had");
}

struct Program {
    endpoints: Endpoints,
    store: SnapshotStore,
    topics: Topics,
    runtime: Handle,
    interval: Duration,
    stop: Arc<AtomicBool>,
    channel: Mutex<Option<Channel<Message>>>,
    /// With none, the program would come to its end when its servers do, and not stop at a savepoint.
    _sender: ChannelSender<Message>,
}

impl Program {
    fn run(&self, worker: &mut Worker) -> Result<Ended, String> {
        let policy = SnapshotPolicy::new("playground").interval(self.interval);
        let policy = policy.unacknowledged_cuts_max(UNACKNOWLEDGED_CUTS_MAX);
        let snapshots = Snapshots::<u64>::begin(worker, &self.store, &self.runtime, &policy);
        let snapshots = snapshots.map_err(|error| error.to_string())?;
        if let (0, Some(restored)) = (worker.index(), snapshots.restored()) {
            println!("goes on from cut {}", restored.cut);
        }
        let functions = Functions::new().runtime(self.runtime.clone()).held_typed_egress(EGRESS);
        let functions = self.endpoints.bind(functions).map_err(told)?;
        // One worker has the channel, and the others one that is empty.
        let channel = self.channel.lock().expect("nobody panics").take().unwrap_or_default();
        let dataflow = worker.next_dataflow_index();
        let handle = worker.dataflow::<u64, _, _>(|scope| {
            // No function asks for the time, and what came at one time is called together.
            let source = channel.source(scope, "playground", Times::fixed(0));
            let ingress = source.unreplayed(&snapshots, |message| message);
            let egresses = ingress.stateful_functions(functions)?;
            self.topics.receive(egresses.held(EGRESS)?);
            egresses.dead_letters()?.inspect(|letter| {
                let DeadLetter { target, message, reason, .. } = letter;
                eprintln!("playground: \"{target}\" failed at {message:?}: {reason}");
            });
            Ok(egresses.handle())
        });
        let handle = handle.map_err(|error: timely_statefun::Error| error.to_string())?;
        let mut stopping = Stopping { program: self, snapshots, since: None };
        let is_first = worker.index() == 0;
        while is_first
            && worker.installed_dataflows().contains(&dataflow)
            && handle.stopped().is_none()
        {
            stopping.look()?;
            worker.step_or_park(Some(LOOK_EVERY));
        }
        match handle.run(worker) {
            Ok(()) => Ok(Ended::Done),
            Err(stopped) => match stopped.at_savepoint() {
                Some((name, cut)) => Ok(Ended::AtSavepoint { name: name.to_owned(), cut }),
                None => Err(stopped.to_string()),
            },
        }
    }
}

/// How the first worker has the program stop.
struct Stopping<'a> {
    program: &'a Program,
    snapshots: Snapshots<u64>,
    since: Option<(Savepoint<u64>, Instant)>,
}

impl Stopping<'_> {
    /// Looks whether the program is to stop, and whether it comes to that.
    fn look(&mut self) -> Result<(), String> {
        let Some((savepoint, since)) = &self.since else {
            if self.program.stop.load(Ordering::Relaxed) {
                let savepoint = self.ask()?;
                self.since = Some((savepoint, Instant::now()));
            }
            return Ok(());
        };
        if let Some(Err(error)) = savepoint.outcome() {
            return Err(format!("there is no savepoint: {error}"));
        }
        if since.elapsed() < STOP_MAX {
            return Ok(());
        }
        let waiting = self.snapshots.status().unacknowledged.len();
        Err(format!(
            "there is no savepoint within {STOP_MAX:?}; {waiting} snapshots have records that nobody has taken"
        ))
    }

    /// Asks for a savepoint in the place of the one at which it stopped before.
    fn ask(&self) -> Result<Savepoint<u64>, String> {
        let Program { runtime, store, .. } = self.program;
        match runtime.block_on(store.delete_savepoint(SAVEPOINT)) {
            Err(error) if !error.is_no_such_savepoint() => return Err(error.to_string()),
            _ => {}
        }
        self.snapshots.stop_at_savepoint(SAVEPOINT).map_err(|error| error.to_string())
    }
}

fn told(error: ModuleError) -> String {
    let mut told = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        told = format!("{told}: {error}");
        source = error.source();
    }
    told
}
