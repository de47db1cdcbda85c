//! A connection to another process: timely's threads read and write it, and whoever waits for the
//! program hears how it ends.
//!
//! A link never gives timely an error, nor an end that was not meant. Timely would panic, and poison
//! what its workers share, so that they panic too, in the midst of unwinding as well. What is wrong
//! is told to whoever waits, once, and the thread that met it stays where it is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use timely::communication::allocator::zero_copy::stream::Stream;

use super::error::Loss;
use super::frames::{Frames, farewell};
use super::silence::Silence;

/// How long one of the threads of a link waits for the other, which may know better why it ended. The
/// system wakes both at once, so this is for when it does not.
const OTHER_MAX: Duration = Duration::from_secs(5);

/// Where the loss of a process is told, by its number.
pub(super) type Told = Arc<dyn Fn(usize, Loss) + Send + Sync>;

/// One end of a connection. Clones are the same connection, and one of them reads.
pub(super) struct Link {
    line: Arc<Line>,
    incoming: Frames,
}

/// What the clones of a link share.
pub(super) struct Line {
    socket: TcpStream,
    process: usize,
    /// The workers of this process.
    workers: Range<u64>,
    silence: Silence,
    told: Told,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    outgoing: Frames,
    /// Whether something is being written now, without this state being locked.
    writing: bool,
    /// What is said after the message that is under way, instead of any other.
    farewell: Option<Vec<u8>>,
    /// Why nothing can be written any more, until that is told.
    broken: Option<io::Error>,
    /// The other process is lost.
    lost: bool,
    /// Nothing more is read, for whatever reason, and if there was something to tell, it was told.
    heard_all: bool,
}

/// Waits for ever: for the end of the process.
pub(super) fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

impl Link {
    /// The connection to a process, of which messages come for these workers.
    pub(super) fn new(
        socket: TcpStream,
        process: usize,
        workers: Range<usize>,
        silence: Silence,
        told: Told,
    ) -> Self {
        let workers = workers.start as u64..workers.end as u64;
        let state = State {
            // What this process says is for workers of the other one, and timely's affair.
            outgoing: Frames::new(0..u64::MAX),
            writing: false,
            farewell: None,
            broken: None,
            lost: false,
            heard_all: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let incoming = Frames::new(workers.clone());
        let line = Line { socket, process, workers, silence, told, state, changed };
        Link { line: Arc::new(line), incoming }
    }

    /// What has a say in this link beside timely.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with this lock")
    }

    /// Waits for at most this long while something is so; says whether it still is.
    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        longest: Duration,
        so: impl FnMut(&mut State) -> bool,
    ) -> (MutexGuard<'a, State>, bool) {
        let waited = self.changed.wait_timeout_while(state, longest, so);
        let (state, timeout) = waited.expect("nobody panics with this lock");
        (state, timeout.timed_out())
    }

    fn hear_no_more(&self, lost: bool) {
        let mut state = self.lock();
        (state.lost, state.heard_all) = (state.lost || lost, true);
        self.changed.notify_all();
    }

    /// Tells why nothing more can be read.
    fn lose(&self, loss: Loss) -> ! {
        (self.told)(self.process, loss);
        self.hear_no_more(true);
        stay()
    }

    /// Why reading came to an end that was not meant.
    fn end(&self) -> Loss {
        // An error of a connection is told to one of the threads that use it. The other sees an end.
        let writing = |state: &mut State| state.writing && state.broken.is_none();
        let (mut state, _) = self.wait_while(self.lock(), OTHER_MAX, writing);
        let broken = state.broken.take();
        broken.map_or(Loss::Closed, |error| Loss::of(error, self.silence.max()))
    }

    /// Tells why nothing more can be written, unless whoever reads knows better.
    fn break_off(&self, error: io::Error) -> ! {
        let mut state = self.lock();
        (state.writing, state.lost) = (false, true);
        state.broken = Some(error);
        self.changed.notify_all();
        let (mut state, _) = self.wait_while(state, OTHER_MAX, |state| !state.heard_all);
        let broken = state.broken.take();
        drop(state);
        if let Some(error) = broken {
            (self.told)(self.process, Loss::of(error, self.silence.max()));
        }
        stay()
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let may = match &state.farewell {
            Some(_) => bytes.len().min(state.outgoing.rest()),
            None => bytes.len(),
        };
        if may == 0 && !bytes.is_empty() {
            drop(state);
            stay();
        }
        state.writing = true;
        drop(state);
        let written = loop {
            match (&self.socket).write(&bytes[..may]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => self.break_off(error),
                Ok(written) => break written,
            }
        };
        let mut state = self.lock();
        state.outgoing.pass(&bytes[..written]).expect("timely writes messages and then an end");
        state.writing = false;
        self.changed.notify_all();
        Ok(written)
    }

    /// Has this said, instead of anything else, after the message that is under way.
    pub(super) fn prepare_farewell(&self, text: &str) {
        self.lock().farewell.get_or_insert_with(|| farewell(text));
    }

    /// Says the farewell and ends what is sent, whether it could be said until then or not.
    pub(super) fn say_farewell(&self, until: Instant) {
        let left = || until.saturating_duration_since(Instant::now());
        let under_way =
            |state: &mut State| !state.lost && (state.writing || state.outgoing.rest() > 0);
        let (state, late) = self.wait_while(self.lock(), left(), under_way);
        if state.outgoing.has_ended() {
            // It has been told that all is well, and with this process it is.
            return;
        }
        if let (false, Some(farewell)) = (late || state.lost, &state.farewell) {
            let patience = left().max(Duration::from_millis(1));
            let said = self.socket.set_write_timeout(Some(patience));
            // Whoever cannot be told sees the end.
            let _ = said.and_then(|()| (&self.socket).write_all(farewell));
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Waits until the other process has said all that it says, or it is late. What is on the way to
    /// a process when another closes its connection may be lost, and the farewell with it.
    pub(super) fn hear_out(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        drop(self.wait_while(self.lock(), left, |state| !state.heard_all));
    }
}

impl Read for Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let line = &self.line;
        loop {
            match (&line.socket).read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Ok(0) if self.incoming.has_ended() => {
                    line.hear_no_more(false);
                    return Ok(0);
                }
                Ok(read) if read > 0 => {
                    if let Err(wrong) = self.incoming.pass(&into[..read]) {
                        line.lose(Loss::Damaged(wrong));
                    }
                    if !self.incoming.in_farewell() {
                        return Ok(read);
                    } else if self.incoming.rest() == 0 {
                        line.lose(self.given_up());
                    }
                }
                // Of a farewell, as much counts as has come.
                Ok(_) | Err(_) if self.incoming.in_farewell() => line.lose(self.given_up()),
                Ok(_) => line.lose(line.end()),
                Err(error) => line.lose(Loss::of(error, line.silence.max())),
            }
        }
    }
}

impl Link {
    fn given_up(&self) -> Loss {
        Loss::GaveUp(self.incoming.farewell().unwrap_or_default())
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Link {
    fn try_clone(&self) -> io::Result<Self> {
        let incoming = Frames::new(self.line.workers.clone());
        Ok(Link { line: Arc::clone(&self.line), incoming })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.line.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let Err(error) = self.line.socket.shutdown(how) {
            self.line.break_off(error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc::TryRecvError::Empty;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
    use std::thread;

    use timely::communication::networking::MessageHeader;

    /// Far beyond what anything takes; it only keeps a hang from lasting for ever.
    const DEADLINE: Duration = Duration::from_secs(200);

    /// What was told.
    struct Hears(Receiver<(usize, Loss)>);

    impl Hears {
        #[track_caller]
        fn next(&self) -> String {
            let (process, loss) = self.0.recv_timeout(DEADLINE).expect("something is told");
            assert_eq!(process, 7);
            loss.to_string()
        }

        /// Nothing has been told.
        #[track_caller]
        fn nothing(&self) {
            assert_eq!(self.0.try_recv().map(|(_, loss)| loss.to_string()), Err(Empty));
        }
    }

    /// A link to process 7, for workers 2 and 3 of this one, the other end of its connection, and
    /// what is told of it.
    fn link() -> (Link, TcpStream, Hears) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let (tells, hears) = channel();
        let told = Arc::new(move |process, loss| drop(tells.send((process, loss))));
        let silence = Silence::of_at_most(Duration::from_secs(9)).unwrap();
        (Link::new(socket, 7, 2..4, silence, told), there, Hears(hears))
    }

    fn message(length: usize) -> Vec<u8> {
        let (channel, source, seqno) = (1, 14, 5);
        let (target_lower, target_upper) = if length == 0 { (0, 0) } else { (2, 4) };
        let header = MessageHeader { channel, source, target_lower, target_upper, length, seqno };
        let mut bytes = Vec::new();
        header.write_to(&mut bytes).unwrap();
        bytes.resize(bytes.len() + length, 1);
        bytes
    }

    /// Reads as timely does, in a thread, and gives the pieces that come. An empty one is the end.
    fn read(mut link: Link) -> Receiver<Vec<u8>> {
        let (gives, pieces) = channel();
        thread::spawn(move || {
            let mut into = [0; 64];
            while let Ok(read) = link.read(&mut into) {
                if gives.send(into[..read].to_vec()).is_err() || read == 0 {
                    break;
                }
            }
        });
        pieces
    }

    /// As many bytes as must come.
    fn take(pieces: &Receiver<Vec<u8>>, bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < bytes {
            all.extend(pieces.recv_timeout(DEADLINE).expect("more comes"));
        }
        all
    }

    /// What was told has come after all that was read; timely hears no more of it.
    #[track_caller]
    fn nothing_more(pieces: &Receiver<Vec<u8>>) {
        let more = pieces.recv_timeout(Duration::from_millis(50));
        assert_eq!(more, Err(RecvTimeoutError::Timeout), "the reader goes on, or has ended");
    }

    #[test]
    fn an_end_that_was_meant_is_an_end() {
        let (link, mut there, hears) = link();
        let (line, pieces) = (link.line(), read(link));
        there.write_all(&message(100)).unwrap();
        there.write_all(&message(0)).unwrap();
        assert_eq!(take(&pieces, 196), [message(100), message(0)].concat());
        there.shutdown(Shutdown::Write).unwrap();
        assert!(pieces.recv_timeout(DEADLINE).unwrap().is_empty());
        hears.nothing();
        line.hear_out(Instant::now() + DEADLINE);
        // It still listens.
        let mut writer = Link { line, incoming: Frames::new(0..1) };
        writer.write_all(&message(1000)).unwrap();
        there.read_exact(&mut [0; 1048]).unwrap();
    }

    #[test]
    fn an_end_that_was_not_meant_is_told_and_not_read() {
        // Between messages, in a header, in a message.
        for bytes in [0, 148, 20, 160, 200] {
            let (link, mut there, hears) = link();
            let pieces = read(link);
            there.write_all(&[message(100), message(100)].concat()[..bytes]).unwrap();
            assert_eq!(take(&pieces, bytes).len(), bytes);
            hears.nothing();
            drop(there);
            assert_eq!(hears.next(), "it closed the connection");
            nothing_more(&pieces);
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_and_not_read() {
        let mut elsewhere = message(8);
        elsewhere[24..32].copy_from_slice(&5u64.to_be_bytes());
        let late = [message(0), message(8)].concat();
        for (bytes, text) in [
            (elsewhere, "it sent a message for workers that are elsewhere"),
            (late, "it sent bytes after its last message"),
        ] {
            let (link, mut there, hears) = link();
            let pieces = read(link);
            there.write_all(&bytes).unwrap();
            assert_eq!(hears.next(), text);
            let _ = there.write_all(&message(8));
            assert!(pieces.try_iter().all(|piece| piece == message(0)));
            nothing_more(&pieces);
        }
    }

    #[test]
    fn a_farewell_is_told_as_far_as_it_comes() {
        for (bytes, said) in [(58, "it gave up: for reason"), (57, "it gave up: for reaso")] {
            let (link, mut there, hears) = link();
            let pieces = read(link);
            there.write_all(&message(20)).unwrap();
            assert_eq!(take(&pieces, 68), message(20));
            there.write_all(&farewell("for reason")[..bytes]).unwrap();
            if bytes < 58 {
                there.shutdown(Shutdown::Write).unwrap();
            }
            assert_eq!(hears.next(), said);
            nothing_more(&pieces);
        }
    }

    /// Whoever writes meets the end first, and the reader learns the reason only when it comes to it.
    #[test]
    fn a_reason_that_was_given_is_told_rather_than_an_end() {
        let (link, mut there, hears) = link();
        let mut writer = link.try_clone().unwrap();
        there.write_all(&farewell("for a reason")).unwrap();
        // Something is left unread there, so that this is a reset here.
        writer.write_all(&message(10_000)).unwrap();
        there.read_exact(&mut [0; 100]).unwrap();
        drop(there);
        let line = link.line();
        thread::spawn(move || while writer.write_all(&message(10_000)).is_ok() {});
        drop(line.wait_while(line.lock(), DEADLINE, |state| !state.lost));
        assert!(line.lock().broken.is_some());
        read(link);
        assert_eq!(hears.next(), "it gave up: for a reason");
    }

    #[test]
    fn an_error_of_whoever_writes_is_told_where_there_is_no_reader() {
        let (link, mut there, hears) = link();
        let (mut writer, pieces) = (link.try_clone().unwrap(), read(link));
        there.write_all(&message(0)).unwrap();
        there.shutdown(Shutdown::Write).unwrap();
        assert_eq!(take(&pieces, 48), message(0));
        assert!(pieces.recv_timeout(DEADLINE).unwrap().is_empty());
        hears.nothing();
        drop(there);
        thread::spawn(move || while writer.write_all(&message(10_000)).is_ok() {});
        let text = hears.next();
        assert!(text == "it reset the connection" || text == "it closed the connection", "{text}");
    }

    /// Both threads of a link are woken by its error, but it is told to one of them.
    #[test]
    fn whoever_meets_an_end_asks_whoever_met_an_error() {
        let (link, there, hears) = link();
        let line = link.line();
        line.lock().writing = true;
        let _pieces = read(link);
        drop(there);
        thread::spawn(move || line.break_off(io::ErrorKind::TimedOut.into()));
        assert_eq!(hears.next(), "it was silent for 9s");
    }

    /// What the other end reads until there is nothing more.
    fn heard(mut there: TcpStream) -> (Vec<u8>, Frames) {
        let mut all = Vec::new();
        there.read_to_end(&mut all).unwrap();
        let mut frames = Frames::new(0..u64::MAX);
        frames.pass(&all).expect("it makes sense");
        (all, frames)
    }

    /// Timely writes what it has gathered, wherever messages end.
    #[test]
    fn a_farewell_is_said_after_the_message_under_way() {
        let stream = [message(100), message(300), message(1)].concat();
        for first in (0..stream.len()).step_by(7).chain([148, 496]) {
            let (link, there, _hears) = link();
            let (line, mut writer) = (link.line(), link);
            writer.write_all(&stream[..first]).unwrap();
            line.prepare_farewell("so it is");
            let rest = stream[first..].to_vec();
            thread::spawn(move || writer.write_all(&rest));
            line.say_farewell(Instant::now() + DEADLINE);
            let (all, frames) = heard(there);
            assert_eq!(frames.farewell().as_deref(), Some("so it is"));
            let whole = [0, 148, 496, 545].into_iter().find(|end| first <= *end).unwrap();
            assert_eq!(all[..whole], stream[..whole]);
            assert_eq!(all[whole..], farewell("so it is"), "after {first} bytes");
        }
    }

    #[test]
    fn an_end_that_was_meant_is_not_taken_back() {
        let (mut link, there, _hears) = link();
        link.write_all(&message(0)).unwrap();
        let line = link.line();
        line.prepare_farewell("too late");
        line.say_farewell(Instant::now() + DEADLINE);
        link.shutdown(Shutdown::Write).unwrap();
        let (all, frames) = heard(there);
        assert!(frames.has_ended());
        assert_eq!(all, message(0));
    }

    /// Timely may be in the midst of a message for longer than anybody waits.
    #[test]
    fn a_farewell_that_is_late_is_not_said_within_a_message() {
        let (link, there, _hears) = link();
        let (line, mut writer) = (link.line(), link);
        writer.write_all(&message(100)[..70]).unwrap();
        line.prepare_farewell("within a message");
        line.say_farewell(Instant::now() + Duration::from_millis(20));
        assert_eq!(heard(there).0, message(100)[..70]);
    }

    /// Sends what timely knows nothing of, until nothing more fits into the connection.
    fn fill(line: &Line) {
        line.socket.set_nonblocking(true).unwrap();
        let mut full = 0;
        while full < 20 {
            match (&line.socket).write(&[0; 1 << 16]) {
                Ok(_) => full = 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => full += 1,
                Err(error) => panic!("{error}"),
            }
            thread::sleep(Duration::from_millis(full));
        }
        line.socket.set_nonblocking(false).unwrap();
    }

    /// It is not told why, but it sees the end when it listens again.
    #[test]
    fn whoever_does_not_listen_is_not_waited_for() {
        let (link, mut there, _hears) = link();
        let (line, mut writer) = (link.line(), link);
        fill(&line);
        thread::spawn(move || writer.write_all(&message(1 << 16)));
        let began = Instant::now();
        while !line.lock().writing {
            assert!(began.elapsed() < DEADLINE, "nothing is written");
            thread::sleep(Duration::from_millis(1));
        }
        line.prepare_farewell("never heard");
        let until = Instant::now() + Duration::from_millis(100);
        line.say_farewell(until);
        line.hear_out(until);
        let mut all = Vec::new();
        there.read_to_end(&mut all).unwrap();
        assert!(!all.ends_with(&farewell("never heard")) && !all.is_empty());
    }
}
