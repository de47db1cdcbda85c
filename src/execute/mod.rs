//! Runs a program on its workers and processes, and ends when the first of them fails.
//!
//! This is timely's `execute` with another end. What happens meanwhile is timely's: nothing here
//! knows what workers do, and nothing stops one that goes on.

mod cluster;
mod connect;
mod error;
mod frames;
mod link;
mod network;
mod silence;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use timely::communication::Hooks;
use timely::communication::allocator::ProcessBuilder;
use timely::worker::Worker;

use cluster::{Cluster, Within};
pub use error::ExecutionError;
use error::{Kind, Loss};
use link::Told;
use network::Network;
use silence::Silence;
use worker::Ties;

/// How long processes wait for one another, and what they must have in common. It is of no account where there
/// is only one.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::ExecuteOptions;
///
/// let options = ExecuteOptions { connect_max: Duration::from_secs(600), ..Default::default() };
/// assert_eq!(options.peer_silence_max, Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteOptions {
    /// How long processes may take until all of them are connected. Default one minute; more than zero.
    pub connect_max: Duration,
    /// How long nothing may come from the system that another process runs on before that process counts
    /// as lost. Default 30 s; from 3 s to one day. [`execute`] says what is noticed in this way.
    pub peer_silence_max: Duration,
    /// What all processes must have in common besides, as a number that each makes of it: of its configuration, or of
    /// the build that it runs. Processes whose numbers differ do not connect. Default 0.
    pub fingerprint: u64,
}

impl Default for ExecuteOptions {
    fn default() -> Self {
        let (minute, half) = (Duration::from_secs(60), Duration::from_secs(30));
        ExecuteOptions { connect_max: minute, peer_silence_max: half, fingerprint: 0 }
    }
}

impl ExecuteOptions {
    fn check(&self) -> Result<Silence, Kind> {
        if self.connect_max.is_zero() {
            return Err(Kind::Config(
                "connect_max is zero, and connecting takes some time".to_owned(),
            ));
        }
        Silence::of_at_most(self.peer_silence_max).map_err(Kind::Config)
    }
}

/// Runs a program on the workers that a configuration asks for, until all of them have done their
/// part, or the first of them, in any process, cannot.
///
/// Every worker runs `program`, and then its dataflows until they are complete. What `program`
/// returned on each worker of this process comes back in the order of the workers, when those of all
/// processes have ended.
///
/// This takes the place of [`timely::execute`](timely::execute()), which is for programs in which nothing
/// fails: there, workers wait for ever for one that panicked, processes for others that do not come or
/// whose machine is gone, and a process that is killed makes the others abort.
///
/// ```
/// use timely::dataflow::operators::{Exchange, Input, Probe};
///
/// let squares = timely_statefun::execute(timely::Config::process(2), |worker| {
///     // Worker 1 does not do its part, so worker 0 would wait for ever.
///     assert!(worker.index() == 0, "there is no second half");
///     let (_input, probe) = worker.dataflow::<u64, _, _>(|scope| {
///         let (input, stream) = scope.new_input::<Vec<u64>>();
///         (input, stream.exchange(|x| *x).probe().0)
///     });
///     while !probe.done() {
///         worker.step_or_park(None);
///     }
/// });
/// let error = squares.unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.worker(), Some(1));
/// assert_eq!(error.to_string(), "worker 1 panicked: there is no second half");
/// ```
///
/// # Errors
///
/// At once, whatever other workers and processes do, when the first of these happens:
///
/// * [a worker of this process panics](ExecutionError::is_panic);
/// * [another process is lost](ExecutionError::is_peer_lost): it ended, or its connection did, before all
///   that it had to say was said. That is an error also where the workers of this process have ended
///   already, since the program as a whole has not. A process that gives up says why to the others, and
///   their errors repeat it;
/// * [not all processes are connected](ExecutionError::is_not_connected) after
///   [`connect_max`](ExecuteOptions::connect_max). Until then a process that goes away may come back;
/// * [the configuration is wrong](ExecutionError::is_invalid_config), or not that of the other processes. An
///   address to listen on that is in use is waited for first, for five seconds: a process that had it may be
///   ending;
/// * [the operating system refuses something](ExecutionError::is_system).
///
/// **After an error the process should end**: report it, and return from `main`. Its other workers cannot
/// be stopped. They stay as they are, with what they hold, and wait for what does not come any more. The
/// connections to other processes are closed, so these end in the same way. Telling them takes a second at
/// most, and that only where one of them does not listen.
///
/// # What is noticed, and what is not
///
/// A process that ends in whatever way is noticed at once, since its system closes its connections. A
/// machine or a network that is gone says nothing; it is noticed after
/// [`peer_silence_max`](ExecuteOptions::peer_silence_max), about, by probes of the operating system. While
/// something is on its way there, that takes as long as the system tries to send it: on Linux and Android
/// also that time, on others what is set for all connections.
///
/// A process that is there but does nothing is not noticed as such, for its system answers in its place: one
/// that is stopped (`SIGSTOP`, a debugger), that waits for a lock, or whose program goes round in circles.
/// On Linux and Android, a process that *takes* nothing of what is sent to it for that long counts as silent,
/// which happens when it is stopped and more is sent than the two systems keep on the way (some megabytes).
/// A worker that is busy is not silent: threads of their own take what comes.
///
/// A panic is caught where it can be. If the program is built with `panic = "abort"`, the process ends
/// without a word, and the others notice that. While a worker's panic unwinds, what `program` holds is
/// dropped as usual, and a second panic there aborts the process, as everywhere; the worker itself and its
/// dataflows are kept, so that no frontier passes what did not happen.
///
/// # Processes
///
/// The options of [`timely::Config`] mean what they mean there, also `zerocopy`; with `report`, how
/// connecting goes is told on standard error, and nothing is told without. (It is logged with `tracing` as
/// well.) All processes must use this function: they do not connect with those of plain timely, since they
/// compare what they know of each other first. There is no encryption and no authentication: the network
/// must be one whose machines are trusted.
pub fn execute<R, F>(config: timely::Config, program: F) -> Result<Vec<R>, ExecutionError>
where
    R: Send + 'static,
    F: Fn(&mut Worker) -> R + Send + Sync + 'static,
{
    execute_with(config, ExecuteOptions::default(), program)
}

/// [`execute`] with the configuration that a command line asks for: `-w` workers in each of `-n` processes, of
/// which this is `-p`, at the addresses in the file `-h`, a line each.
///
/// ```
/// let arguments = ["program", "-w", "2"].map(str::to_owned).into_iter();
/// let workers = timely_statefun::execute_from_args(arguments, |worker| worker.index())?;
/// assert_eq!(workers, [0, 1]);
///
/// let arguments = ["program", "-n", "2", "-p", "2"].map(str::to_owned).into_iter();
/// let error = timely_statefun::execute_from_args(arguments, |worker| worker.index()).unwrap_err();
/// assert!(error.is_invalid_config());
/// assert_eq!(error.to_string(), "there is no process 2: they are 0 to 1");
/// # Ok::<(), timely_statefun::ExecutionError>(())
/// ```
///
/// # Errors
///
/// Those of [`execute`]; arguments that timely does not know, or that mean nothing, are an
/// [invalid configuration](ExecutionError::is_invalid_config), and so is a hosts file that cannot be read.
pub fn execute_from_args<I, R, F>(arguments: I, program: F) -> Result<Vec<R>, ExecutionError>
where
    I: Iterator<Item = String>,
    R: Send + 'static,
    F: Fn(&mut Worker) -> R + Send + Sync + 'static,
{
    let config = timely::Config::from_args(arguments).map_err(Kind::Config)?;
    execute(config, program)
}

/// [`execute`] with other times than the usual ones.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::{ExecuteOptions, execute_with};
///
/// # let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// # let free = [free(), free()].map(|free| free.local_addr().unwrap().to_string());
/// # let [first, second] = free;
/// // The first of two processes, of which the second never comes.
/// let communication = timely::CommunicationConfig::Cluster {
///     threads: 1,
///     process: 0,
///     addresses: vec![first, second.clone()],
///     report: false,
///     zerocopy: false,
/// };
/// let config = timely::Config { communication, worker: timely::WorkerConfig::default() };
/// let connect_max = Duration::from_millis(100);
/// let options = ExecuteOptions { connect_max, ..ExecuteOptions::default() };
/// let error = execute_with(config, options, |worker| worker.index()).unwrap_err();
/// assert!(error.is_not_connected());
/// assert_eq!(error.peers(), [second]);
/// ```
///
/// # Errors
///
/// Those of [`execute`]; an option that means nothing is an
/// [invalid configuration](ExecutionError::is_invalid_config).
pub fn execute_with<R, F>(
    config: timely::Config,
    options: ExecuteOptions,
    program: F,
) -> Result<Vec<R>, ExecutionError>
where
    R: Send + 'static,
    F: Fn(&mut Worker) -> R + Send + Sync + 'static,
{
    let silence = options.check()?;
    let (within, cluster) = Cluster::of(config.communication, options.fingerprint)?;
    let (happens, events) = channel();
    let first = cluster.own_workers().start;
    let (network, ties) = tie(within, cluster, options.connect_max, silence, &happens)?;
    let run = Run { network, first, results: ties.iter().map(|_| None).collect(), events };
    let program = Arc::new(program);
    for (at, ties) in ties.into_iter().enumerate() {
        let (config, program) = (config.worker.clone(), Arc::clone(&program));
        let happens = happens.clone();
        let body = move || {
            let outcome = worker::run(ties, config, |worker| program(worker));
            // Whoever waited may have gone.
            let _ = happens.send(Event::Ended(at, outcome));
        };
        let thread = thread::Builder::new().name(format!("timely:work-{at}")).spawn(body);
        if let Err(error) = thread {
            return Err(run.fail(Kind::system("a thread", error)));
        }
    }
    run.wait(happens)
}

/// What happens while a program runs.
enum Event<R> {
    /// A worker of this process has ended, or panicked.
    Ended(usize, Result<R, String>),
    /// Another process was lost.
    Lost(Kind),
    /// All processes have said all there is to say.
    Closed(Result<(), String>),
}

/// Connects the workers of this process, and those of others if there are any.
fn tie<R: Send + 'static>(
    within: Within,
    cluster: Cluster,
    connect_max: Duration,
    silence: Silence,
    happens: &Sender<Event<R>>,
) -> Result<(Option<Network>, Vec<Ties>), Kind> {
    let Hooks { refill, spill, .. } = Hooks::default();
    let workers = match within {
        Within::Alone => return Ok((None, vec![Ties::None])),
        Within::Moved => ProcessBuilder::new_typed_vector(cluster.workers, refill, spill),
        Within::Bytes => ProcessBuilder::new_bytes_vector(cluster.workers, refill, spill),
    };
    if cluster.addresses.is_empty() {
        return Ok((None, workers.into_iter().map(Ties::Process).collect()));
    }
    let (happens, peers) = (happens.clone(), cluster.addresses.clone());
    let told: Told = Arc::new(move |process, loss: Loss| {
        let peer = error::Peer { process, address: peers[process].clone() };
        let _ = happens.send(Event::Lost(Kind::Lost { peer, loss }));
    });
    let (network, workers) = Network::connect(cluster, workers, connect_max, silence, told)?;
    Ok((Some(network), workers.into_iter().map(Ties::Processes).collect()))
}

/// A program that runs in this process, as the one who waits for it sees it.
struct Run<R> {
    network: Option<Network>,
    /// The number of the first worker of this process among all.
    first: usize,
    results: Vec<Option<R>>,
    events: Receiver<Event<R>>,
}

impl<R: Send + 'static> Run<R> {
    fn wait(mut self, happens: Sender<Event<R>>) -> Result<Vec<R>, ExecutionError> {
        for _ in 0..self.results.len() {
            match self.next() {
                Event::Ended(at, Ok(result)) => self.results[at] = Some(result),
                Event::Ended(at, Err(message)) => {
                    let worker = self.first + at;
                    return Err(self.fail(Kind::Panic { worker, message }));
                }
                Event::Lost(kind) => return Err(self.fail(kind)),
                Event::Closed(_) => unreachable!("nothing closes while workers run"),
            }
        }
        if let Some(network) = &mut self.network {
            let closed = move |closed| drop(happens.send(Event::Closed(closed)));
            let closing = network.close(closed);
            let failure = match closing.map(|()| self.next()) {
                Ok(Event::Closed(Ok(()))) => None,
                Ok(Event::Closed(Err(message))) => Some(Kind::NetworkPanic { message }),
                Ok(Event::Lost(kind)) | Err(kind) => Some(kind),
                Ok(Event::Ended(..)) => unreachable!("each worker ends once"),
            };
            if let Some(kind) = failure {
                return Err(self.fail(kind));
            }
        }
        Ok(self.results.into_iter().map(|result| result.expect("all have ended")).collect())
    }

    fn next(&self) -> Event<R> {
        self.events.recv().expect("whoever waits could say something as well")
    }

    /// Tells the other processes.
    fn fail(&self, kind: Kind) -> ExecutionError {
        if let Some(network) = &self.network {
            network.give_up(&kind);
        }
        kind.into()
    }
}
