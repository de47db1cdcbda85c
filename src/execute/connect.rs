//! How the processes of a program meet: each dials those before it and is dialed by those after it.
//!
//! Who dials says who it is, to whom it believes to speak, how many processes and workers there are,
//! and the program's fingerprint; who is dialed answers the same. So a hosts file that differs, another
//! number of workers or fingerprint, and whoever else happens to come by are found here. Until all are there at once, a process that goes
//! away may come back. No message of the program is read or written here.
//!
//! These are not the first words of timely's own processes, of which one dials and says a number.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream as Dialed, lookup_host};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::cluster::Cluster;
use super::error::{Kind, Peer};
use super::frames;
use super::silence::Silence;

/// How long one address may take to answer, or whoever is there to say who it is.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a process waits before it dials one that was not there again: at first, and at most.
const REDIAL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long the address to listen on may be in use. Where a process is started again, the one before
/// it, or one that it started, may still be ending.
const LISTEN_MAX: Duration = Duration::from_secs(5);
/// How often those that are connected are looked at, whether they still are.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Those who dialed and have not said who they are. Others wait for them.
const UNKNOWN_MAX: usize = 256;

/// First words are this, and their version.
const MAGIC: u64 = u64::from_be_bytes(*b"tstatef2");
const HELLO_BYTES: usize = 56;

/// What one process says to another before anything else.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Hello {
    /// Whether whoever dialed is welcome. It is not if somebody who says the same is there already.
    welcome: bool,
    from: usize,
    to: usize,
    processes: usize,
    workers: usize,
    /// What the program says that all its processes must have in common.
    fingerprint: u64,
}

impl Hello {
    fn new(cluster: &Cluster, to: usize) -> Self {
        let (from, processes, workers) = (cluster.process, cluster.processes(), cluster.workers);
        let fingerprint = cluster.fingerprint;
        Hello { welcome: true, from, to, processes, workers, fingerprint }
    }

    fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let Hello { welcome, from, to, processes, workers, fingerprint } = self;
        let numbers = [from as u64, to as u64, processes as u64, workers as u64, fingerprint];
        let mut bytes = [0; HELLO_BYTES];
        let all = [MAGIC, u64::from(welcome)].into_iter().chain(numbers);
        for (place, number) in bytes.chunks_exact_mut(8).zip(all) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// `None` if these are the first words of something else.
    fn from_bytes(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let mut numbers = bytes.chunks_exact(8).map(|number| {
            u64::from_be_bytes(number.try_into().expect("eight bytes are eight bytes"))
        });
        let magic = numbers.next()?;
        let welcome = numbers.next()? != 0;
        let mut next = || numbers.next().and_then(|number| usize::try_from(number).ok());
        let (from, to, processes, workers) = (next()?, next()?, next()?, next()?);
        let fingerprint = numbers.next()?;
        (magic == MAGIC).then_some(Hello { welcome, from, to, processes, workers, fingerprint })
    }

    /// Whether whoever says this, at an address or from one, belongs to the same program.
    fn check(self, cluster: &Cluster, at: &str) -> Result<(), String> {
        let Hello { from, to, processes, workers, .. } = self;
        let here = cluster.process;
        let one_or_more = |workers| match workers {
            1 => "1 worker".to_owned(),
            _ => format!("{workers} workers"),
        };
        if processes != cluster.processes() {
            let known = cluster.processes();
            return Err(format!(
                "process {from} at \"{at}\" knows of {processes} processes, and process {here} of {known}"
            ));
        }
        if workers != cluster.workers {
            let (theirs, ours) = (one_or_more(workers), one_or_more(cluster.workers));
            return Err(format!(
                "process {from} at \"{at}\" has {theirs}, and process {here} has {ours}"
            ));
        }
        if self.fingerprint != cluster.fingerprint {
            let (theirs, ours) = (self.fingerprint, cluster.fingerprint);
            return Err(format!(
                "process {from} at \"{at}\" has the fingerprint {theirs:016x}, and process {here} has {ours:016x}"
            ));
        }
        if to != here {
            return Err(format!(
                "process {from} at \"{at}\" takes this for process {to}, and not for {here}"
            ));
        }
        Ok(())
    }
}

/// What those who dial and listen bring.
enum News {
    /// This process dialed another, and they know each other.
    Dialed(usize, TcpStream),
    /// A process dialed, and awaits its answer.
    Arrived(Hello, TcpStream),
    /// A process could not be dialed.
    Missed(usize, String),
    /// The processes do not fit together.
    Misfit(String),
}

/// Connects this process with all others. Its own place among them stays empty.
///
/// # Errors
///
/// If they are not all connected after this time, or if what they know does not fit together. Those
/// that are connected are told.
pub(super) fn connect(
    cluster: Cluster,
    within: Duration,
    silence: Silence,
) -> Result<Vec<Option<TcpStream>>, Kind> {
    // On a thread of its own, since whoever calls may be a task, and a task cannot wait for another
    // runtime.
    let meeting = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Kind::system("to wait for sockets", error))?;
        let met = runtime.block_on(meet(Arc::new(cluster), within, silence));
        // Looking up a name can take longer than anybody waits.
        runtime.shutdown_background();
        met
    };
    let thread = std::thread::Builder::new().name("timely:connect".to_owned()).spawn(meeting);
    let thread = thread.map_err(|error| Kind::system("a thread", error))?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The places of all processes, of which those that are connected are taken.
struct Places {
    cluster: Arc<Cluster>,
    silence: Silence,
    news: UnboundedSender<News>,
    streams: Vec<Option<TcpStream>>,
    /// What was last heard of those that are not there.
    heard: Vec<String>,
}

async fn meet(
    cluster: Arc<Cluster>,
    within: Duration,
    silence: Silence,
) -> Result<Vec<Option<TcpStream>>, Kind> {
    let (news, mut arriving) = unbounded_channel();
    listen(&cluster, within.min(LISTEN_MAX), &news).await?;
    let processes = cluster.processes();
    let streams = (0..processes).map(|_| None).collect();
    let heard = vec!["nothing has come from it".to_owned(); processes];
    let mut places = Places { cluster, silence, news, streams, heard };
    (0..places.cluster.process).for_each(|process| places.dial(process));
    let met = places.wait(within, &mut arriving).await;
    match met {
        Ok(()) => Ok(places.streams),
        Err(kind) => {
            places.give_up(&kind);
            Err(kind)
        }
    }
}

impl Places {
    /// Waits until everybody is there.
    async fn wait(
        &mut self,
        within: Duration,
        arriving: &mut UnboundedReceiver<News>,
    ) -> Result<(), Kind> {
        let deadline = Instant::now().checked_add(within);
        loop {
            self.look();
            if self.missing().next().is_none() {
                self.tell("all processes are connected".to_owned());
                return Ok(());
            }
            let now = Instant::now();
            let look = now + LOOK_EVERY;
            if deadline.is_some_and(|deadline| deadline <= now) {
                let missing = self.missing();
                let missing = missing.map(|at| (self.cluster.peer(at), self.heard[at].clone()));
                return Err(Kind::NotConnected { missing: missing.collect(), within });
            }
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            match timeout_at(until, arriving.recv()).await {
                Ok(Some(News::Dialed(process, stream))) => self.seat(process, stream)?,
                Ok(Some(News::Arrived(hello, stream))) => self.answer(hello, stream)?,
                Ok(Some(News::Missed(process, why))) => {
                    let peer = self.cluster.peer(process);
                    self.tell(format!("{peer} is not there yet: {why}"));
                    self.heard[process] = why;
                }
                Ok(Some(News::Misfit(why))) => return Err(Kind::Config(why)),
                Ok(None) | Err(_) => (),
            }
        }
    }

    /// The processes that are not connected.
    fn missing(&self) -> impl Iterator<Item = usize> {
        let here = self.cluster.process;
        (0..self.streams.len()).filter(move |at| *at != here && self.streams[*at].is_none())
    }

    fn dial(&self, process: usize) {
        tokio::spawn(dial(Arc::clone(&self.cluster), process, self.news.clone()));
    }

    fn seat(&mut self, process: usize, stream: TcpStream) -> Result<(), Kind> {
        // Some systems refuse everything to a connection whose other end has gone. It is given up next.
        if let Err(error) = self.silence.watch(&stream)
            && is_there(&stream)
        {
            return Err(Kind::system("an option of a socket", error));
        }
        self.tell(format!("{} is connected", self.cluster.peer(process)));
        self.streams[process] = Some(stream);
        Ok(())
    }

    /// Answers a process that dialed, and lets it in unless one of that number is there.
    fn answer(&mut self, hello: Hello, mut stream: TcpStream) -> Result<(), Kind> {
        let process = hello.from;
        self.look();
        let welcome = self.streams[process].is_none();
        let answer = Hello { welcome, ..Hello::new(&self.cluster, process) };
        // So few bytes have room in a connection that has carried none.
        let answered = stream.write_all(&answer.to_bytes());
        if welcome && answered.is_ok() { self.seat(process, stream) } else { Ok(()) }
    }

    /// Gives up those that have gone away.
    fn look(&mut self) {
        for process in 0..self.streams.len() {
            if self.streams[process].as_ref().is_some_and(|stream| !is_there(stream)) {
                self.streams[process] = None;
                let why = "it was connected, and went away";
                self.tell(format!("{}: {why}", self.cluster.peer(process)));
                self.heard[process] = why.to_owned();
                if process < self.cluster.process {
                    self.dial(process);
                }
            }
        }
    }

    /// Tells those who are connected, as far as they listen.
    fn give_up(&mut self, kind: &Kind) {
        let farewell = frames::farewell(&kind.to_string());
        for stream in self.streams.iter_mut().flatten() {
            let _ = stream.write_all(&farewell);
        }
    }

    fn tell(&self, what: String) {
        let process = self.cluster.process;
        tracing::debug!(process, "{what}");
        if self.cluster.report {
            eprintln!("process {process}: {what}");
        }
    }
}

/// Whether there is still somebody at the other end. What it has sent, if anything, stays unread.
fn is_there(stream: &TcpStream) -> bool {
    let mut first = [0; 8];
    match stream.peek(&mut first) {
        Ok(0) => false,
        Ok(read) => !frames::begins_with_farewell(&first[..read]),
        Err(error) => {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    }
}

/// Lets those who dial say who they are.
async fn listen(
    cluster: &Arc<Cluster>,
    in_use_max: Duration,
    news: &UnboundedSender<News>,
) -> Result<(), Kind> {
    if cluster.processes() == 1 {
        return Ok(());
    }
    let unknown = Arc::new(Semaphore::new(UNKNOWN_MAX));
    for address in cluster.addresses[cluster.process].split_whitespace() {
        let listener = bind(address, in_use_max).await.map_err(|error| {
            Kind::Config(format!(
                "process {} cannot listen on \"{address}\": {error}",
                cluster.process
            ))
        })?;
        let (cluster, news, unknown) = (Arc::clone(cluster), news.clone(), Arc::clone(&unknown));
        tokio::spawn(async move {
            while let Ok(place) = Arc::clone(&unknown).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        let (cluster, news) = (Arc::clone(&cluster), news.clone());
                        tokio::spawn(async move {
                            // Whoever does not say who it is, or in time, is somebody else.
                            let _ = timeout(ANSWER_MAX, greet(&cluster, stream, from, &news)).await;
                            drop(place);
                        });
                    }
                    // What has failed may be one connection, or all for lack of something.
                    Err(_) => sleep(REDIAL.0).await,
                }
            }
        });
    }
    Ok(())
}

/// Takes an address to listen on, when whoever had it before has ended.
async fn bind(address: &str, in_use_max: Duration) -> io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < in_use_max =>
            {
                sleep(REDIAL.0).await;
            }
            bound => return bound,
        }
    }
}

/// Hears who dialed.
async fn greet(
    cluster: &Cluster,
    mut stream: Dialed,
    from: SocketAddr,
    news: &UnboundedSender<News>,
) -> io::Result<()> {
    let Some(hello) = hear(&mut stream).await? else {
        tracing::debug!(%from, "something dialed that is no process of such a program");
        return Ok(());
    };
    let mut checked = hello.check(cluster, &from.to_string());
    if checked.is_ok() && !(cluster.process + 1..cluster.processes()).contains(&hello.from) {
        let (there, here) = (hello.from, cluster.process);
        checked = Err(format!("a process at \"{from}\" is {there}, which does not dial {here}"));
    }
    if let Err(misfit) = checked {
        // It finds out for itself what does not fit, from the answer.
        let answered = stream.write_all(&Hello::new(cluster, hello.from).to_bytes()).await;
        let _ = news.send(News::Misfit(misfit));
        return answered;
    }
    stream.set_nodelay(true)?;
    let _ = news.send(News::Arrived(hello, stream.into_std()?));
    Ok(())
}

/// What comes first; `None` if it is no hello.
async fn hear(stream: &mut Dialed) -> io::Result<Option<Hello>> {
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await?;
    Ok(Hello::from_bytes(&bytes))
}

/// Dials a process until it answers.
async fn dial(cluster: Arc<Cluster>, process: usize, news: UnboundedSender<News>) {
    let (mut pause, longest) = REDIAL;
    loop {
        let found = reach(&cluster, process).await;
        let again = matches!(found, News::Missed(..));
        if news.send(found).is_err() || !again {
            return;
        }
        sleep(pause).await;
        pause = (2 * pause).min(longest);
    }
}

/// Tries each address of a process in turn.
async fn reach(cluster: &Cluster, process: usize) -> News {
    let mut why = "it has no address".to_owned();
    for address in cluster.addresses[process].split_whitespace() {
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
        let sockets = match timeout(ANSWER_MAX, lookup_host(address)).await.unwrap_or_else(late) {
            Ok(sockets) => sockets,
            Err(error) => {
                why = error.to_string();
                continue;
            }
        };
        for socket in sockets {
            let peer = cluster.peer(process);
            match timeout(ANSWER_MAX, introduce(cluster, &peer, socket)).await {
                Ok(Ok(News::Missed(_, refused))) => why = refused,
                Ok(Ok(reached)) => return reached,
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = "no answer".to_owned(),
            }
        }
    }
    News::Missed(process, why)
}

/// Dials one address, and says and hears who is there.
async fn introduce(cluster: &Cluster, peer: &Peer, at: SocketAddr) -> io::Result<News> {
    let missed = |why: &str| Ok(News::Missed(peer.process, why.to_owned()));
    let mut stream = Dialed::connect(at).await?;
    // Where nobody listens, the system may choose the very port that is dialed for this end, and so
    // connect it with itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return missed("nobody listens");
    }
    stream.set_nodelay(true)?;
    stream.write_all(&Hello::new(cluster, peer.process).to_bytes()).await?;
    let answer = match hear(&mut stream).await {
        Ok(Some(answer)) => answer,
        Ok(None) => return missed("whoever is there is no process of such a program"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return missed("it closed the connection without an answer");
        }
        Err(error) => return Err(error),
    };
    if let Err(misfit) = answer.check(cluster, &peer.address) {
        return Ok(News::Misfit(misfit));
    }
    if answer.from != peer.process {
        let (there, known) = (answer.from, peer.process);
        let misfit = format!("process {there} is at \"{}\", and not {known}", peer.address);
        return Ok(News::Misfit(misfit));
    }
    if !answer.welcome {
        return missed(&format!("another process {} is connected to it", cluster.process));
    }
    Ok(News::Dialed(peer.process, stream.into_std()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::fuzz;

    /// First words, and whatever is as long.
    #[test]
    fn any_bytes_are_first_words_or_those_of_something_else() {
        let cluster = Cluster {
            process: 1,
            workers: 2,
            addresses: vec!["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()],
            report: false,
            fingerprint: 7,
        };
        let words = [0, 2].map(|to| Hello::new(&cluster, to).to_bytes().to_vec());
        fuzz("hello", 200_000, &words, |input| {
            let Ok(bytes) = input.try_into() else { return false };
            let Some(hello) = Hello::from_bytes(bytes) else { return false };
            assert_eq!(
                input[..8],
                words[0][..8],
                "what nobody says first is taken for first words"
            );
            assert_eq!(Hello::from_bytes(&hello.to_bytes()), Some(hello));
            let numbers = [hello.to, hello.processes, hello.workers];
            let fits = numbers == [cluster.process, cluster.processes(), cluster.workers];
            let fits = fits && hello.fingerprint == 7;
            assert_eq!(hello.check(&cluster, "somewhere").is_ok(), fits, "{hello:?}");
            true
        });
    }

    fn cluster(address: &str) -> Cluster {
        let addresses = vec![address.to_owned(), "127.0.0.1:1".to_owned()];
        Cluster { process: 1, workers: 1, addresses, report: false, fingerprint: 0 }
    }

    #[test]
    fn a_hello_is_what_was_said() {
        for welcome in [true, false] {
            let (processes, workers, fingerprint) = (3, usize::MAX, u64::MAX - 1);
            let hello = Hello { welcome, from: 1, to: 2, processes, workers, fingerprint };
            let bytes = hello.to_bytes();
            assert_eq!(&bytes[..8], b"tstatef2");
            assert_eq!(Hello::from_bytes(&bytes), Some(hello));
            for at in 0..8 {
                let mut other = bytes;
                other[at] ^= 1;
                assert_eq!(Hello::from_bytes(&other), None);
            }
        }
    }

    /// Ports that nobody listens on are dialed until somebody does. Where such a port is one that the
    /// system gives to those who dial, it does so after some thousand times, and the connection has
    /// the same end twice: a process would say hello to itself.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_connection_with_itself_is_with_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // A port that the system gives to those who dial.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let dialed = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let port = dialed.local_addr().unwrap().port();
            drop(listener.accept());
            drop(dialed);
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            let cluster = cluster(&at.to_string());
            let peer = cluster.peer(0);
            for _ in 0..200_000 {
                match introduce(&cluster, &peer, at).await {
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
                    Ok(News::Missed(0, why)) => {
                        assert_eq!(why, "nobody listens");
                        return;
                    }
                    Ok(_) => panic!("somebody was found"),
                }
            }
            panic!("it never came to that");
        });
    }
}
