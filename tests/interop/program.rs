//! A program with functions that are served elsewhere, driven step by step by a check.
//!
//! Its clock stands still unless the check turns it.

use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use timely::communication::WorkerGuards;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::{
    AtClose, Clock, ClockHands, DeadLetter, Endpoint, Envelope, FunctionType, Functions, Namespace,
    StatefulFunctions, TypedValue,
};
use tokio::runtime::Runtime;

use crate::functions::{self, Record};

/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(120);
const START_MS: u64 = 1_700_000_000_000;

type Message = Envelope<TypedValue>;

/// What a program has said so far, and nobody has taken.
#[derive(Default)]
struct Said {
    records: Vec<Record>,
    dead_letters: Vec<DeadLetter<TypedValue>>,
    /// All before this time is over.
    over_before: u64,
    stopped: Option<String>,
}

type Shared = Arc<(Mutex<Said>, Condvar)>;

/// A program that runs until it is dropped.
pub struct Program {
    messages: Option<mpsc::Sender<Vec<Message>>>,
    /// The time of the messages that are sent next.
    next: u64,
    said: Shared,
    hands: ClockHands,
    workers: Option<WorkerGuards<()>>,
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

impl Program {
    /// Starts a program on this many workers, with the functions that `bind` adds to none.
    pub fn start(
        workers: usize,
        bind: impl Fn(Functions<TypedValue>) -> Functions<TypedValue> + Send + Sync + 'static,
    ) -> Self {
        let (tell, told) = mpsc::channel();
        let told = Mutex::new(Some(told));
        let said = Shared::default();
        let (clock, hands) = Clock::turned(START_MS);
        let say = Arc::clone(&said);
        let config = match workers {
            1 => timely::Config::thread(),
            _ => timely::Config::process(workers),
        };
        let program = move |worker: &mut timely::worker::Worker| {
            let (mut input, over, handle) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<Message>>();
                let functions = functions::surrounded(bind(Functions::new()));
                // What is due after the check has ended must not keep it.
                let functions = functions.clock(clock.clone()).at_close(AtClose::SendNow);
                let functions = functions.runtime(runtime().handle().clone());
                let egresses = stream.stateful_functions(functions).unwrap();
                let (records, letters) = (Arc::clone(&say), Arc::clone(&say));
                egresses.dead_letters().unwrap().inspect(move |letter| {
                    letters.0.lock().unwrap().dead_letters.push(letter.clone());
                });
                let behind = functions::take_all(&egresses, move |record| {
                    records.0.lock().unwrap().records.push(record);
                    records.1.notify_all();
                });
                (input, behind.probe().0, egresses.handle())
            });
            // Worker 0 brings in all messages, which then go wherever they belong.
            let first = worker.index() == 0;
            if let Some(told) = first.then(|| told.lock().unwrap().take().expect("it is there")) {
                loop {
                    match told.try_recv() {
                        Ok(mut messages) => {
                            input.send_batch(&mut messages);
                            input.advance_to(input.time() + 1);
                        }
                        Err(mpsc::TryRecvError::Empty) => {}
                        Err(mpsc::TryRecvError::Disconnected) => break,
                    }
                    worker.step_or_park(Some(Duration::from_millis(1)));
                    let mut said = say.0.lock().unwrap();
                    let over_before = over.with_frontier(|frontier| frontier.first().copied());
                    said.over_before = over_before.unwrap_or(u64::MAX);
                    said.stopped = handle.stopped().map(|stopped| stopped.to_string());
                    say.1.notify_all();
                    if said.stopped.is_some() {
                        break;
                    }
                }
            }
            input.close();
            // A stop was noted above.
            let _ = handle.run(worker);
        };
        let workers = timely::execute(config, program).unwrap();
        Program { messages: Some(tell), next: 0, said, hands, workers: Some(workers) }
    }

    /// A program in which each of these function types is served at a URL.
    pub fn remote<I: 'static>(workers: usize, url: &str, functions: &[FunctionType<I>]) -> Self
    where
        TypedValue: timely_statefun::Carries<I>,
    {
        let (endpoint, functions) = (Endpoint::at(url), functions.to_vec());
        Self::start(workers, move |bound| {
            let bind =
                |bound: Functions<_>, to: &FunctionType<I>| bound.remote(*to, endpoint.clone());
            functions.iter().fold(bound, bind)
        })
    }

    /// A program in which a namespace is served at a URL.
    pub fn remote_namespace(workers: usize, url: &str, functions: Namespace<TypedValue>) -> Self {
        let endpoint = Endpoint::at(url);
        Self::start(workers, move |bound| bound.remote_namespace(functions, endpoint.clone()))
    }

    /// Sends messages at one time of their own, and does not wait for what they cause.
    pub fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        let messages = messages.into_iter().collect();
        let sender = self.messages.as_ref().expect("it runs");
        assert!(
            sender.send(messages).is_ok(),
            "the program has ended: {:?}",
            self.said.0.lock().unwrap().stopped
        );
        self.next += 1;
    }

    /// Sends messages at one time of their own, and gives everything that was emitted until that time
    /// is over and nobody has taken yet.
    pub fn ask(&mut self, messages: impl IntoIterator<Item = Message>) -> Vec<Record> {
        self.send(messages);
        self.finish()
    }

    /// Waits until everything that was sent is over, and gives what was emitted.
    pub fn finish(&self) -> Vec<Record> {
        let next = self.next;
        self.wait(|said| said.over_before >= next)
    }

    /// Waits until so many records were emitted, and gives them.
    pub fn records(&self, count: usize) -> Vec<Record> {
        self.wait(|said| said.records.len() >= count)
    }

    /// Waits until so many records were emitted, and leaves them.
    pub fn wait_for(&self, count: usize) {
        drop(self.wait_until(|said| said.records.len() >= count));
    }

    fn wait(&self, until: impl FnMut(&Said) -> bool) -> Vec<Record> {
        std::mem::take(&mut self.wait_until(until).records)
    }

    fn wait_until(&self, mut until: impl FnMut(&Said) -> bool) -> std::sync::MutexGuard<'_, Said> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.said.0.lock().unwrap();
        loop {
            if let Some(stopped) = said.stopped.clone() {
                drop(said);
                panic!("the program {stopped}");
            }
            if until(&said) {
                return said;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let records = std::mem::take(&mut said.records);
                drop(said);
                panic!("it did not happen within {PATIENCE:?}; there are {records:?}");
            }
            said = self.said.1.wait_timeout(said, left).unwrap().0;
        }
    }

    /// What was given up, and nobody has taken yet.
    pub fn dead_letters(&self) -> Vec<DeadLetter<TypedValue>> {
        std::mem::take(&mut self.said.0.lock().unwrap().dead_letters)
    }

    /// Turns the clock.
    pub fn turn(&self, by_ms: u64) {
        self.hands.advance(Duration::from_millis(by_ms));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.messages = None;
        let workers = self.workers.take();
        if std::thread::panicking() {
            // Whatever went wrong may be that it does not end.
            std::mem::forget(workers);
        } else {
            drop(workers);
        }
    }
}
