//! The connections of a process with all others, and how they end.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::communication::Hooks;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::allocator::TcpBuilder;
use timely::communication::allocator::zero_copy::initialize::{
    CommsGuard, initialize_networking_from_sockets,
};

use super::cluster::Cluster;
use super::connect::connect;
use super::error::Kind;
use super::link::{Line, Link, Told};
use super::silence::Silence;
use super::worker::caught;

/// How long a process that gives up tries to say why, and others may take to hear it.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// All connections, and the threads that read and write them. Dropping this ends none of them.
pub(super) struct Network {
    lines: Vec<Arc<Line>>,
    /// Timely waits for the threads when this is dropped, so where something has failed it never is.
    threads: Option<ManuallyDrop<CommsGuard>>,
}

impl Network {
    /// Connects this process with all others, within a time, and its workers with all of theirs.
    ///
    /// The loss of a process is told from then on.
    pub(super) fn connect(
        cluster: Cluster,
        workers: Vec<ProcessBuilder>,
        within: Duration,
        silence: Silence,
        told: Told,
    ) -> Result<(Self, Vec<TcpBuilder>), Kind> {
        let (here, own_workers) = (cluster.process, cluster.own_workers());
        let threads = cluster.workers;
        let sockets = connect(cluster, within, silence)?;
        let links = sockets.into_iter().enumerate().map(|(process, socket)| {
            let (own_workers, told) = (own_workers.clone(), Arc::clone(&told));
            Some(Link::new(socket?, process, own_workers, silence, told))
        });
        let links: Vec<Option<Link>> = links.collect();
        let lines = links.iter().flatten().map(Link::line).collect();
        let hooks = Hooks::default();
        let built = initialize_networking_from_sockets(workers, links, here, threads, hooks);
        let (workers, guard) = built.map_err(|error| Kind::system("a thread", error))?;
        Ok((Network { lines, threads: Some(ManuallyDrop::new(guard)) }, workers))
    }

    /// When all workers of this process have ended: sends what is still to be sent, hears out the
    /// other processes, and says when that is done, or what has panicked meanwhile.
    pub(super) fn close(
        &mut self,
        closed: impl FnOnce(Result<(), String>) + Send + 'static,
    ) -> Result<(), Kind> {
        let threads = self.threads.take().expect("this is closed once");
        let waiting = move || closed(caught(|| drop(ManuallyDrop::into_inner(threads))));
        let thread = std::thread::Builder::new().name("timely:close".to_owned());
        thread.spawn(waiting).map_err(|error| Kind::system("a thread", error))?;
        Ok(())
    }

    /// Ends the connections from this side, and says why.
    pub(super) fn give_up(&self, why: &Kind) {
        let until = Instant::now() + FAREWELL_MAX;
        let why = why.to_string();
        self.lines.iter().for_each(|line| line.prepare_farewell(&why));
        self.lines.iter().for_each(|line| line.say_farewell(until));
        self.lines.iter().for_each(|line| line.hear_out(until));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;

    use super::super::frames::farewell;
    use super::*;

    /// What is on the way to a process is lost when the other end of its connection is closed while
    /// something is unread there, as it is where both send all the time.
    #[test]
    fn a_process_that_is_told_is_given_the_time_to_hear_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let silence = Silence::of_at_most(Duration::from_secs(9)).unwrap();
        let told: Told = Arc::new(|_, _| ());
        let mut link = Link::new(listener.accept().unwrap().0, 1, 0..1, silence, told);
        let network = Network { lines: vec![link.line()], threads: None };
        thread::spawn(move || link.read(&mut [0; 64]));
        let has_heard = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&has_heard);
        let why = Kind::Panic { worker: 0, message: "of this".to_owned() };
        let gives_up = thread::spawn(move || {
            let began = Instant::now();
            network.give_up(&why);
            hears.load(SeqCst) || began.elapsed() >= FAREWELL_MAX
        });
        let mut heard = Vec::new();
        there.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, farewell("worker 0 panicked: of this"));
        has_heard.store(true, SeqCst);
        drop(there);
        assert!(gives_up.join().unwrap(), "it did not wait");
    }
}
