//! What no record causes: messages that a handler brings in by itself, times that it holds for what it
//! waits for, and what makes a loop look for them.
//!
//! The handler here does nothing of its own accord. Messages tell it to hold times, and the test, from
//! outside, what to bring in the next time it is polled.

#[path = "support/pair.rs"]
mod pair;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pair::Pair;
use serde::{Deserialize, Serialize};
use timely::dataflow::InputHandleVec;
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::progress::Timestamp;
use timely::worker::Worker;
use timely_statefun_operators::{
    Announcement, Awaits, Handler, Held, Inbox, KeyedLoop, LoopConfig, LoopHandle, Order, Outbox,
    Place, Places, Restore, Verdict, Waker, Work,
};

/// A message: the worker it is for, its number, and what is to be done with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    to: u64,
    number: u64,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum What {
    /// Is noted, with the frontier that is seen meanwhile.
    Note,
    /// Holds its time, and is noted.
    Hold,
    /// The same, behind what stood at its time and at a depth.
    HoldBehind(u64),
    /// Sends a message that would be noted, is put off, and undone.
    PutOff { record: bool },
    /// Brings in what was held under its number, and is undone.
    ResumeFirst,
    /// Brings in two events before all that waits, and is noted.
    EventsFirst,
    /// Has events awaited from now on, and is noted.
    Expect,
    /// Is sent on to another worker, where it is noted.
    PassTo(u64),
    /// Is sent once more to this worker, to do something else there.
    Again(Box<What>),
    /// Has noted where what is held under its number stands, and is noted.
    PlaceOf,
}

fn note(number: u64) -> Message {
    Message { to: 0, number, what: What::Note }
}

fn message(number: u64, what: What) -> Message {
    Message { to: 0, number, what }
}

/// What a handler is to do the next time it is polled.
#[derive(Clone, Debug)]
enum Command {
    Event(Message),
    EventFirst(Message),
    /// With what is held under a number.
    Resume(u64, Message),
    ResumeFirst(u64, Message),
    Release(u64),
    /// Emits another number at the time.
    ReleaseEmitting(u64, u64),
    /// Has noted where what is held under a number stands.
    PlaceOf(u64),
    Fail(String),
}

/// Where something stood: its time, its depth, and whether it was a record.
type Stood<T> = (T, u64, bool);

/// What the test and the handler of one worker share.
struct Desk<T> {
    commands: Arc<Mutex<VecDeque<Command>>>,
    awaits: Cell<Awaits>,
    waker: RefCell<Option<Waker>>,
    polls: Cell<u64>,
    /// What is held, by number.
    held: RefCell<BTreeMap<u64, Held>>,
    /// Messages that were noted, in order: time, number and the frontier that was seen.
    noted: RefCell<Vec<(T, u64, Vec<T>)>>,
    /// What has left the loop.
    left: RefCell<Vec<(T, u64)>>,
    /// The frontier of ingress when the handler was last polled.
    ingress: RefCell<Vec<T>>,
    /// Cuts that were taken, with the numbers of the messages that waited; and those complete.
    cuts: RefCell<Vec<(u64, Vec<u64>)>>,
    complete: RefCell<Vec<u64>>,
    /// Where things stood that were held, by number, as it was seen while handling, while polling, and
    /// for the last cut.
    places: [RefCell<BTreeMap<u64, Stood<T>>>; 3],
    /// The times at which events happened when cuts were taken; and that of a cut that is restored.
    nows: RefCell<Vec<Option<T>>>,
    events_from: Cell<Option<T>>,
}

impl<T: Timestamp> Desk<T> {
    fn new() -> Rc<Self> {
        Rc::new(Desk {
            commands: Arc::default(),
            awaits: Cell::default(),
            waker: RefCell::default(),
            polls: Cell::new(0),
            held: RefCell::default(),
            noted: RefCell::default(),
            left: RefCell::default(),
            ingress: RefCell::default(),
            cuts: RefCell::default(),
            complete: RefCell::default(),
            places: Default::default(),
            nows: RefCell::default(),
            events_from: Cell::new(None),
        })
    }

    fn note_place(&self, seen: usize, number: u64, place: Place<'_, T>) {
        let Place { time, depth, record } = place;
        self.places[seen].borrow_mut().insert(number, (time.clone(), depth, record));
    }

    fn await_events(&self, events: bool) {
        self.awaits.set(Awaits { events, ..self.awaits.get() });
        self.waker().wake();
    }

    /// Has these done together at the next poll, which comes now.
    fn tell(&self, commands: impl IntoIterator<Item = Command>) {
        self.commands.lock().unwrap().extend(commands);
        self.waker().wake();
    }

    fn waker(&self) -> Waker {
        self.waker.borrow().clone().expect("it was connected")
    }

    /// What was noted since this was last asked.
    fn noted(&self) -> Vec<(T, u64)> {
        self.noted.take().into_iter().map(|(time, number, _)| (time, number)).collect()
    }

    /// The same, with the frontiers that were seen in place of the times.
    fn frontiers(&self) -> Vec<(u64, Vec<T>)> {
        self.noted.take().into_iter().map(|(_, number, frontier)| (number, frontier)).collect()
    }

    fn left(&self) -> Vec<(T, u64)> {
        self.left.take()
    }
}

struct Station<T> {
    desk: Rc<Desk<T>>,
    emitted: Vec<(T, u64)>,
}

impl<T: Timestamp> Handler<T> for Station<T> {
    type Message = Message;
    type Output = u64;
    type Failure = String;

    fn route(message: &Message) -> u64 {
        message.to
    }

    fn handle(&mut self, message: Message, outbox: &mut Outbox<'_, T, Message>) -> Verdict<String> {
        let Message { number, what, .. } = message;
        match what {
            What::Note => {}
            What::Hold => self.hold(number, outbox.hold()),
            What::HoldBehind(depth) => {
                let (mut held, time) = (outbox.hold(), outbox.time().clone());
                outbox.stand_behind(Place { time: &time, depth, record: false }, &mut held);
                self.hold(number, held);
            }
            What::PutOff { record } => {
                outbox.send(note(1_000_000 + number));
                let held = outbox.put_off(record);
                assert_eq!(outbox.time_of(&held), outbox.time());
                self.hold(number, held);
                return Verdict::Undone;
            }
            What::ResumeFirst => {
                outbox.send(note(1_000_000 + number));
                let held = self.desk.held.borrow_mut().remove(&number).expect("it is held");
                outbox.resume_first(held, note(number));
                return Verdict::Undone;
            }
            What::EventsFirst => {
                outbox.event_first(note(number + 1));
                outbox.event_first(note(number + 2));
            }
            What::Expect => {
                self.desk.await_events(true);
                outbox.expect_event();
            }
            What::PassTo(to) => {
                outbox.send(Message { to, number, what: What::Note });
                return Verdict::Done;
            }
            What::Again(what) => {
                outbox.send(Message { to: 0, number, what: *what });
                return Verdict::Done;
            }
            What::PlaceOf => {
                let held = self.desk.held.borrow();
                self.desk.note_place(0, number, outbox.place_of(&held[&number]));
            }
        }
        let (time, frontier) = (outbox.time().clone(), outbox.frontier().to_vec());
        self.desk.noted.borrow_mut().push((time.clone(), number, frontier));
        self.emitted.push((time, number));
        Verdict::Done
    }

    fn connect(&mut self, waker: Waker) {
        self.desk.waker.replace(Some(waker));
    }

    fn poll(&mut self, inbox: &mut Inbox<'_, T, Message>) -> Result<(), String> {
        self.desk.polls.set(self.desk.polls.get() + 1);
        self.desk.ingress.replace(inbox.frontier().to_vec());
        let commands = std::mem::take(&mut *self.desk.commands.lock().unwrap());
        for command in commands {
            let held = |number| self.desk.held.borrow_mut().remove(&number).expect("it is held");
            match command {
                Command::Event(message) => inbox.event(message),
                Command::EventFirst(message) => inbox.event_first(message),
                Command::Resume(number, message) => inbox.resume(held(number), message),
                Command::ResumeFirst(number, message) => {
                    inbox.resume_first(held(number), message);
                }
                Command::Release(number) => inbox.release(held(number)),
                Command::ReleaseEmitting(number, emit) => {
                    let held = held(number);
                    self.emitted.push((inbox.time_of(&held).clone(), emit));
                    inbox.release(held);
                }
                Command::PlaceOf(number) => {
                    let held = self.desk.held.borrow();
                    self.desk.note_place(1, number, inbox.place_of(&held[&number]));
                }
                Command::Fail(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn awaits(&self) -> Awaits {
        self.desk.awaits.get()
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&T, u64)) {
        for (time, number) in self.emitted.drain(..) {
            emitter(&time, number);
        }
    }

    fn restore(&mut self, back: &mut Restore<'_, T, Message>) -> Result<Work, String> {
        if let Some(from) = self.desk.events_from.take() {
            back.events_from(from);
        }
        Ok(Work::Done)
    }

    fn take_cut(&mut self, cut: u64, now: Option<&T>) {
        self.desk.nows.borrow_mut().push(now.cloned());
        self.desk.cuts.borrow_mut().push((cut, Vec::new()));
    }

    fn queued(&mut self, cut: u64, _: Place<'_, T>, message: &Message) {
        let mut cuts = self.desk.cuts.borrow_mut();
        let (open, waiting) = cuts.last_mut().expect("it was taken");
        assert_eq!(*open, cut);
        waiting.push(message.number);
    }

    fn work_on_cut(&mut self, _: u64, _: usize, places: &Places<'_, T>) -> Work {
        for (number, held) in &*self.desk.held.borrow() {
            self.desk.note_place(2, *number, places.of(held));
        }
        Work::Done
    }

    fn complete_cut(&mut self, cut: u64, _: &[T]) {
        self.desk.complete.borrow_mut().push(cut);
    }
}

impl<T> Station<T> {
    fn hold(&self, number: u64, held: Held) {
        let before = self.desk.held.borrow_mut().insert(number, held);
        assert!(before.is_none(), "{number} is held already");
    }
}

/// A loop of one station on each worker, at whole numbers as times.
struct Loop {
    desk: Rc<Desk<u64>>,
    input: InputHandleVec<u64, Message>,
    cuts: InputHandleVec<u64, Announcement<u64>>,
    probe: ProbeHandle<u64>,
    handle: LoopHandle<u64, String>,
}

fn build(worker: &mut Worker, config: LoopConfig) -> Loop {
    build_at(worker, config, Desk::new())
}

fn build_at(worker: &mut Worker, config: LoopConfig, desk: Rc<Desk<u64>>) -> Loop {
    let station = Station { desk: Rc::clone(&desk), emitted: Vec::new() };
    let seen = Rc::clone(&desk);
    worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Message>>();
        let (cuts, announced) = scope.new_input::<Vec<Announcement<u64>>>();
        let (out, handle) = stream.keyed_loop("station", config, Some(announced.into()), station);
        let out = out.inspect_time(move |time, number| {
            seen.left.borrow_mut().push((*time, *number));
        });
        Loop { desk, input, cuts, probe: out.probe().0, handle }
    })
}

fn in_order(order: Order) -> LoopConfig {
    LoopConfig { order, ..LoopConfig::default() }
}

/// Far more steps than a loop needs for what it has to do.
fn steps(worker: &mut Worker) {
    for _ in 0..50 {
        worker.step();
    }
}

/// Steps until a condition holds. The worker may sleep meanwhile.
#[track_caller]
fn until(worker: &mut Worker, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "this never came to be: {what}");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

#[test]
fn a_held_time_is_passed_when_it_was_resumed_or_released_and_not_before() {
    timely::execute_directly(|worker| {
        let Loop { desk, mut input, probe, handle, .. } = build(worker, LoopConfig::default());
        input.send(message(1, What::Hold));
        input.send(message(2, What::Hold));
        input.advance_to(2);
        input.send(message(3, What::Hold));
        input.send(message(4, What::Hold));
        input.advance_to(5);
        input.send(note(5));
        input.advance_to(7);
        steps(worker);
        assert_eq!(desk.left(), [(0, 1), (0, 2), (2, 3), (2, 4), (5, 5)], "nothing waits");
        assert!(probe.less_equal(&0));

        desk.tell([Command::Resume(1, note(10))]);
        steps(worker);
        assert_eq!(desk.left(), [(0, 10)]);
        assert!(probe.less_equal(&0), "the other holds it still");
        desk.tell([Command::Release(2)]);
        steps(worker);
        assert!(!probe.less_than(&2) && probe.less_equal(&2));
        // What is emitted with the release still leaves at the time.
        desk.tell([Command::ReleaseEmitting(4, 40), Command::ReleaseEmitting(3, 30)]);
        steps(worker);
        assert_eq!(desk.left(), [(2, 40), (2, 30)]);
        assert!(!probe.less_than(&7) && probe.less_equal(&7));
        input.close();
        handle.run(worker).unwrap();
        assert!(probe.done() && desk.left().is_empty());
    });
}

/// An earlier message may come of what is held.
#[test]
fn in_the_order_of_time_what_is_held_holds_up_all_that_is_later() {
    timely::execute_directly(|worker| {
        let Loop { desk, mut input, probe, handle, .. } = build(worker, in_order(Order::Time));
        input.send(message(1, What::Hold));
        input.send(message(2, What::Hold));
        input.send(message(3, What::PassTo(0)));
        input.advance_to(2);
        input.send(note(4));
        input.advance_to(7);
        steps(worker);
        assert_eq!(desk.left(), [(0, 1), (0, 2)], "not even what they sent");
        desk.tell([Command::Resume(1, note(10))]);
        steps(worker);
        assert_eq!(desk.left(), [], "not while another is held");
        desk.tell([Command::ReleaseEmitting(2, 20)]);
        steps(worker);
        let mut left = desk.left();
        assert_eq!(left.pop(), Some((2, 4)));
        left.sort_unstable();
        assert_eq!(left, [(0, 3), (0, 10), (0, 20)]);
        assert!(!probe.less_than(&7) && probe.less_equal(&7));
        input.close();
        handle.run(worker).unwrap();
        assert!(probe.done());
    });
}

#[test]
fn what_is_held_keeps_a_loop_going_after_ingress_has_closed() {
    for order in [Order::Arrival, Order::Time] {
        timely::execute_directly(move |worker| {
            let Loop { desk, mut input, probe, handle, cuts, .. } = build(worker, in_order(order));
            drop(cuts);
            input.send(message(1, What::Hold));
            input.advance_to(3);
            input.send(message(2, What::Hold));
            input.close();
            steps(worker);
            assert!(probe.less_equal(&0));
            // What comes out of what was held may hold again.
            desk.tell([Command::Resume(1, message(3, What::Hold))]);
            steps(worker);
            assert!(probe.less_equal(&0));
            desk.tell([Command::Release(3)]);
            steps(worker);
            assert!(!probe.less_than(&3) && probe.less_equal(&3));
            desk.tell([Command::Resume(2, note(4))]);
            handle.run(worker).unwrap();
            assert!(probe.done());
            let mut left = desk.left();
            left.sort_unstable();
            assert_eq!(left, [(0, 1), (0, 3), (3, 2), (3, 4)]);
        });
    }
}

/// With a budget of one message there is always something that waits.
#[test]
fn what_comes_first_comes_before_all_that_waits_and_in_its_own_order() {
    timely::execute_directly(|worker| {
        let config = LoopConfig { budget_messages: 1, ..LoopConfig::default() };
        let Loop { desk, mut input, handle, .. } = build(worker, config);
        (1..=5).for_each(|number| input.send(message(number, What::Hold)));
        input.advance_to(1);
        steps(worker);
        assert_eq!(desk.noted().len(), 5);
        (11..=13).for_each(|number| input.send(note(number)));
        // These are undone, but what they bring in is not.
        input.send(message(5, What::ResumeFirst));
        input.send(note(14));
        input.send(message(20, What::EventsFirst));
        input.send(note(15));
        input.flush();
        until(worker, "the first is handled", || !desk.noted.borrow().is_empty());
        desk.tell([
            Command::Resume(1, note(101)),
            Command::ResumeFirst(2, note(102)),
            Command::EventFirst(note(103)),
            Command::Event(note(104)),
            Command::ResumeFirst(3, note(105)),
            Command::Release(4),
        ]);
        input.close();
        handle.run(worker).unwrap();
        let expected = [
            (1, 11),
            (0, 102),
            (1, 103),
            (0, 105),
            (1, 12),
            (1, 13),
            (0, 5),
            (1, 14),
            (1, 20),
            (1, 21),
            (1, 22),
            (1, 15),
            (0, 101),
            (1, 104),
        ];
        assert_eq!(desk.noted(), expected);
    });
}

#[test]
fn what_a_message_sent_that_was_put_off_is_taken_back_and_its_time_is_not_passed() {
    for order in [Order::Arrival, Order::Time] {
        timely::execute_directly(move |worker| {
            let Loop { desk, mut input, probe, handle, .. } = build(worker, in_order(order));
            input.send(message(1, What::PutOff { record: false }));
            input.advance_to(1);
            steps(worker);
            assert!(desk.noted().is_empty() && probe.less_equal(&0));
            desk.tell([Command::ResumeFirst(1, note(1))]);
            input.close();
            handle.run(worker).unwrap();
            assert_eq!(desk.left(), [(0, 1)]);
        });
    }
}

/// The frontier that handlers see is one of ingress records: it waits for those that were put off, until
/// they were handled, and for nothing else.
#[test]
fn the_frontier_that_handlers_see_waits_for_records_that_were_put_off() {
    for resume in [Command::Resume, Command::ResumeFirst] {
        timely::execute_directly(move |worker| {
            let Loop { desk, mut input, handle, .. } = build(worker, LoopConfig::default());
            input.send(message(1, What::PutOff { record: true }));
            input.advance_to(1);
            input.send(message(2, What::PutOff { record: false }));
            input.send(message(3, What::Hold));
            input.advance_to(4);
            steps(worker);
            input.send(note(4));
            input.advance_to(6);
            steps(worker);
            assert_eq!(desk.frontiers().last(), Some(&(4, vec![0])));
            desk.tell([resume(1, note(1))]);
            steps(worker);
            assert_eq!(desk.frontiers(), [(1, vec![0])], "it is being handled");
            input.send(note(5));
            input.advance_to(8);
            steps(worker);
            assert_eq!(desk.frontiers(), [(5, vec![6])], "the others are no records");
            desk.tell([Command::Release(2), Command::Release(3)]);
            input.close();
            handle.run(worker).unwrap();
        });
    }
}

/// In the order of time nothing later is handled before them; afterwards they are waited for no more.
#[test]
fn records_that_were_put_off_and_handled_are_waited_for_no_more() {
    for order in [Order::Arrival, Order::Time] {
        for resume in [Command::Resume, Command::ResumeFirst] {
            timely::execute_directly(move |worker| {
                let Loop { desk, mut input, handle, .. } = build(worker, in_order(order));
                input.send(message(1, What::PutOff { record: true }));
                input.advance_to(4);
                steps(worker);
                desk.tell([resume(1, note(2))]);
                steps(worker);
                input.send(note(3));
                input.advance_to(6);
                steps(worker);
                assert_eq!(desk.frontiers(), [(2, vec![0]), (3, vec![4])], "{order:?}");
                input.close();
                handle.run(worker).unwrap();
            });
        }
    }
}

#[test]
fn a_record_that_is_released_is_waited_for_no_more() {
    for order in [Order::Arrival, Order::Time] {
        timely::execute_directly(move |worker| {
            let Loop { desk, mut input, handle, .. } = build(worker, in_order(order));
            input.send(message(1, What::PutOff { record: true }));
            input.advance_to(4);
            steps(worker);
            desk.tell([Command::Release(1)]);
            steps(worker);
            input.send(note(2));
            input.advance_to(6);
            steps(worker);
            assert_eq!(desk.frontiers(), [(2, vec![4])]);
            input.close();
            handle.run(worker).unwrap();
        });
    }
}

#[test]
fn an_event_happens_at_the_time_that_ingress_has_come_to() {
    timely::execute_directly(|worker| {
        let Loop { desk, mut input, probe, handle, .. } = build(worker, LoopConfig::default());
        desk.tell([Command::Event(note(1))]);
        steps(worker);
        input.advance_to(7);
        steps(worker);
        desk.tell([Command::Event(note(2)), Command::EventFirst(note(3))]);
        steps(worker);
        assert_eq!(*desk.ingress.borrow(), [7]);
        let mut left = desk.left();
        left.sort_unstable();
        assert_eq!(left, [(0, 1), (7, 2), (7, 3)]);
        assert!(!probe.less_than(&7) && probe.less_equal(&7));
        input.close();
        handle.run(worker).unwrap();
    });
}

/// Something that waits for what comes back two stages later keeps that stage alive, not its own.
#[test]
fn what_stands_behind_something_does_not_keep_it_waiting() {
    for (order, stands) in [(Order::Arrival, 0), (Order::Time, 3)] {
        timely::execute_directly(move |worker| {
            let Loop { desk, mut input, handle, .. } = build(worker, in_order(order));
            input.send(message(1, What::HoldBehind(2)));
            input.send(message(2, What::Hold));
            input.advance_to(5);
            steps(worker);
            desk.tell([1, 2].map(Command::PlaceOf));
            steps(worker);
            let places = desk.places[1].take();
            assert_eq!(places, [(1, (0, stands, false)), (2, (0, 0, false))].into());
            desk.tell([Command::Release(1), Command::Release(2)]);
            input.close();
            handle.run(worker).unwrap();
        });
    }
}

/// A source that goes back begins with times that were over. An event that happened at such a time would overtake
/// what was sent before the cut, in the order of time.
#[test]
fn after_a_restore_no_event_happens_before_the_time_at_which_they_happened_at_the_cut() {
    for (order, closes) in
        [Order::Arrival, Order::Time].map(|order| [(order, false), (order, true)]).concat()
    {
        timely::execute_directly(move |worker| {
            let desk = Desk::new();
            desk.events_from.set(Some(7));
            let Loop { desk, mut input, probe, handle, mut cuts, .. } =
                build_at(worker, in_order(order), desk);
            desk.await_events(true);
            steps(worker);
            desk.tell([Command::Event(note(1)), Command::EventFirst(note(2))]);
            steps(worker);
            input.advance_to(5);
            input.send(note(3));
            cuts.send(Announcement::cut(1));
            cuts.advance_to(6);
            if closes {
                input.close();
                steps(worker);
                desk.tell([Command::Event(note(4))]);
            } else {
                input.advance_to(6);
                steps(worker);
                desk.tell([Command::Event(note(4))]);
                steps(worker);
                input.advance_to(9);
                steps(worker);
                desk.tell([Command::Event(note(5))]);
                steps(worker);
                input.close();
            }
            desk.await_events(false);
            drop(cuts);
            handle.run(worker).unwrap();
            assert!(probe.done());
            let mut noted = desk.noted();
            noted.sort_unstable();
            let last: &[(u64, u64)] = if closes { &[] } else { &[(9, 5)] };
            assert_eq!(noted, [&[(5, 3), (7, 1), (7, 2), (7, 4)], last].concat());
            assert_eq!(*desk.nows.borrow(), [Some(7)]);
        });
    }
}

/// An earlier record may come as long as ingress stands still.
#[test]
fn in_the_order_of_time_an_event_waits_until_ingress_has_moved_on() {
    timely::execute_directly(|worker| {
        let Loop { desk, mut input, probe, handle, .. } = build(worker, in_order(Order::Time));
        input.advance_to(7);
        steps(worker);
        desk.tell([Command::Event(note(1)), Command::EventFirst(note(2))]);
        steps(worker);
        assert_eq!(desk.left(), []);
        input.send(note(3));
        input.advance_to(9);
        steps(worker);
        assert_eq!(desk.noted(), [(7, 3), (7, 1), (7, 2)]);
        assert!(!probe.less_than(&9) && probe.less_equal(&9));
        input.close();
        handle.run(worker).unwrap();
    });
}

/// At partially ordered times: at the element that is the smallest in `Ord`, exactly.
#[test]
fn of_a_frontier_of_several_elements_the_smallest_is_the_time_of_events() {
    timely::execute_directly(|worker| {
        let desk = Desk::<Pair>::new();
        let station = Station { desk: Rc::clone(&desk), emitted: Vec::new() };
        let seen = Rc::clone(&desk);
        let ((mut input, start), probe, handle) = worker.dataflow::<Pair, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input::<Message>();
            let (out, handle) = stream.keyed_loop("station", LoopConfig::default(), None, station);
            let out = out.inspect_time(move |time, number| {
                seen.left.borrow_mut().push((*time, *number));
            });
            (input, out.probe().0, handle)
        });
        let (one, other) = (start.delayed(&Pair(2, 1)), start.delayed(&Pair(0, 3)));
        input.activate().session(&one).give(message(1, What::Hold));
        input.activate().session(&other).give(message(2, What::Hold));
        drop(start);
        steps(worker);
        desk.tell([Command::Event(note(3))]);
        steps(worker);
        let mut ingress = desk.ingress.take();
        ingress.sort();
        assert_eq!(ingress, [Pair(0, 3), Pair(2, 1)]);
        assert_eq!(desk.noted().last(), Some(&(Pair(0, 3), 3)));

        // Held times are independent of each other and of the ingress frontier.
        drop(other);
        let mut one = one;
        one.downgrade(&Pair(4, 1));
        desk.tell([Command::Resume(2, message(4, What::Hold)), Command::Release(1)]);
        steps(worker);
        desk.tell([Command::Event(note(5))]);
        steps(worker);
        assert_eq!(*desk.ingress.borrow(), [Pair(4, 1)]);
        assert_eq!(desk.noted(), [(Pair(0, 3), 4), (Pair(4, 1), 5)]);
        let open = |time| probe.less_equal(&time);
        assert!(open(Pair(0, 3)) && open(Pair(4, 1)));
        assert!(!open(Pair(2, 1)) && !open(Pair(3, 2)), "what was released is passed");

        // The last time there was, for what is awaited.
        desk.await_events(true);
        steps(worker);
        drop(one);
        steps(worker);
        desk.tell([Command::Event(note(6)), Command::Release(4)]);
        steps(worker);
        assert_eq!(desk.noted(), [(Pair(4, 1), 6)]);
        assert!(open(Pair(4, 1)) && !open(Pair(0, 3)));
        desk.await_events(false);
        handle.run(worker).unwrap();
        let mut left = desk.left();
        left.sort();
        let expected = [
            (Pair(0, 3), 2),
            (Pair(0, 3), 3),
            (Pair(0, 3), 4),
            (Pair(2, 1), 1),
            (Pair(4, 1), 5),
            (Pair(4, 1), 6),
        ];
        assert_eq!(left, expected);
    });
}

#[test]
fn after_ingress_has_closed_events_happen_as_long_as_they_are_awaited() {
    timely::execute_directly(|worker| {
        let Loop { desk, mut input, probe, handle, cuts, .. } =
            build(worker, LoopConfig::default());
        drop(cuts);
        desk.await_events(true);
        input.advance_to(6);
        steps(worker);
        input.close();
        steps(worker);
        for number in 0..3 {
            assert!(!probe.less_than(&6) && probe.less_equal(&6), "it is awaited");
            desk.tell([Command::Event(note(number))]);
            steps(worker);
            assert_eq!(desk.left(), [(6, number)]);
            assert!(desk.ingress.borrow().is_empty());
        }
        desk.await_events(false);
        handle.run(worker).unwrap();
        assert!(probe.done());
    });
}

#[test]
fn a_loop_that_awaits_nothing_ends_with_its_ingress() {
    timely::execute_directly(|worker| {
        let Loop { mut input, probe, handle, cuts, .. } = build(worker, LoopConfig::default());
        drop(cuts);
        input.send(note(1));
        input.close();
        steps(worker);
        assert!(probe.done());
        handle.run(worker).unwrap();
    });
}

/// Whoever begins to wait for an event after ingress has closed says so, while it handles a message of
/// whatever depth.
#[test]
fn an_event_that_is_expected_after_ingress_has_closed_happens_at_the_last_time_there_was() {
    for order in [Order::Arrival, Order::Time] {
        timely::execute_directly(move |worker| {
            let Loop { desk, mut input, probe, handle, cuts, .. } = build(worker, in_order(order));
            drop(cuts);
            input.advance_to(3);
            input.send(message(1, What::Hold));
            input.advance_to(9);
            steps(worker);
            input.close();
            steps(worker);
            assert!(probe.less_equal(&3) && !probe.less_than(&3));
            desk.tell([Command::Resume(1, message(2, What::Expect))]);
            steps(worker);
            assert!(probe.less_equal(&9) && !probe.less_than(&9), "3 is over");
            desk.tell([Command::Event(note(3))]);
            steps(worker);
            desk.await_events(false);
            handle.run(worker).unwrap();
            assert_eq!(desk.noted(), [(3, 1), (3, 2), (9, 3)]);
        });
    }
}

#[test]
#[should_panic(expected = "events are awaited")]
fn an_event_that_nobody_awaited_after_ingress_has_closed_is_a_mistake() {
    timely::execute_directly(|worker| {
        let Loop { desk, mut input, .. } = build(worker, LoopConfig::default());
        input.send(message(1, What::Hold));
        input.close();
        steps(worker);
        desk.tell([Command::Event(note(2))]);
        steps(worker);
    });
}

/// Each worker waits for its own; events go where they belong.
#[test]
fn a_loop_of_two_workers_lasts_as_long_as_one_of_them_awaits_something() {
    let guards = timely::execute(timely::Config::process(2), |worker| {
        let Loop { desk, mut input, probe, handle, cuts, .. } =
            build(worker, LoopConfig::default());
        drop(cuts);
        let first = worker.index() == 0;
        desk.await_events(first);
        input.advance_to(4);
        until(worker, "ingress is known to have come to 4", || desk.ingress.take() == [4]);
        input.close();
        desk.ingress.replace(vec![4]);
        until(worker, "ingress is known to have closed", || desk.ingress.borrow().is_empty());
        if first {
            for number in 0..100 {
                // There, and from there back again.
                let what = What::PassTo(0);
                desk.tell([Command::Event(Message { to: 1, number, what })]);
                until(worker, "it has come back", || {
                    desk.noted.borrow().len() as u64 == number + 1
                });
            }
            assert!(probe.less_equal(&4));
            desk.await_events(false);
        }
        handle.run(worker).unwrap();
        assert!(probe.done());
        (desk.left(), handle.stats().handled)
    });
    let ends: Vec<_> = guards.unwrap().join().into_iter().map(|end| end.unwrap()).collect();
    let expected: Vec<_> = (0..100).map(|number| (4, number)).collect();
    assert_eq!(ends[0], (expected, 100));
    assert_eq!(ends[1], (vec![], 100));
}

#[test]
fn a_poll_that_fails_stops_the_loop_on_every_worker() {
    let guards = timely::execute(timely::Config::process(2), |worker| {
        let Loop { desk, mut input, probe, handle, .. } = build(worker, LoopConfig::default());
        input.advance_to(3);
        input.close();
        if worker.index() == 1 {
            desk.tell([Command::Fail("no more".to_owned())]);
        } else {
            desk.await_events(true);
        }
        assert_eq!(handle.run(worker), Err("no more".to_owned()));
        assert!(!probe.done());
    });
    guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
}

/// A worker that sleeps for much longer is woken when the time has come.
#[test]
fn a_handler_is_polled_again_after_the_time_it_asked_for() {
    timely::execute_directly(|worker| {
        let Loop { desk, input, .. } = build(worker, LoopConfig::default());
        steps(worker);
        let polls = desk.polls.get();
        steps(worker);
        assert_eq!(desk.polls.get(), polls, "nothing brings a poll that nobody asked for");

        let after = |wait: Option<Duration>| {
            desk.awaits.set(Awaits { poll_after: wait, ..Awaits::default() });
        };
        after(Some(Duration::from_millis(5)));
        desk.waker().wake();
        worker.step();
        let (polls, began) = (desk.polls.get(), Instant::now());
        while desk.polls.get() < polls + 10 {
            worker.step_or_park(Some(Duration::from_secs(60)));
            assert!(began.elapsed() < Duration::from_secs(30), "it was not woken");
        }
        assert!(began.elapsed() >= Duration::from_millis(50), "each time after 5 ms");

        // An earlier time comes before a later one that was asked for first, which does no harm.
        after(Some(Duration::from_secs(3600)));
        desk.waker().wake();
        worker.step();
        after(Some(Duration::from_millis(1)));
        desk.waker().wake();
        worker.step();
        after(None);
        let (polls, began) = (desk.polls.get(), Instant::now());
        while desk.polls.get() == polls {
            worker.step_or_park(Some(Duration::from_secs(60)));
            assert!(began.elapsed() < Duration::from_secs(30), "it was not woken");
        }

        after(Some(Duration::ZERO));
        desk.waker().wake();
        let polls = desk.polls.get();
        (0..10).for_each(|_| _ = worker.step());
        assert_eq!(desk.polls.get(), polls + 10, "at once is in every step");
        after(None);
        drop(input);
    });
}

/// A thread has something brought in and waits for what becomes of it, again and again, while the worker
/// sleeps whenever it can.
#[test]
fn a_waker_brings_a_poll_from_another_thread_and_no_wake_up_is_lost() {
    const ROUNDS: u64 = 2000;
    timely::execute_directly(|worker| {
        let Loop { desk, input, handle, .. } = build(worker, LoopConfig::default());
        let (commands, waker) = (Arc::clone(&desk.commands), desk.waker());
        let (tell, told) = channel::<u64>();
        let thread = std::thread::spawn(move || {
            for number in 0..ROUNDS {
                commands.lock().unwrap().push_back(Command::Event(note(number)));
                waker.wake();
                let answer = told.recv_timeout(Duration::from_secs(60));
                assert_eq!(answer, Ok(number), "the wake-up was lost");
            }
        });
        let began = Instant::now();
        let mut heard = 0;
        while heard < ROUNDS {
            worker.step_or_park(Some(Duration::from_secs(30)));
            assert!(began.elapsed() < Duration::from_secs(120), "{heard} rounds");
            for (_, number) in desk.noted() {
                heard += 1;
                tell.send(number).expect("the thread waits");
            }
        }
        thread.join().unwrap();
        // A sleep that was not ended early would have taken 30 s.
        assert!(began.elapsed() < Duration::from_secs(30));

        let polls = desk.polls.get();
        (0..1000).for_each(|_| desk.waker().wake());
        steps(worker);
        assert_eq!(desk.polls.get(), polls + 1, "many wake-ups are one poll");
        drop(input);
        handle.run_while(worker, || false).unwrap();
    });
}

/// Waking a loop whose worker has ended does nothing.
#[test]
fn a_waker_may_outlive_its_loop() {
    let waker = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&waker);
    timely::execute_directly(move |worker| {
        let Loop { desk, input, cuts, handle, .. } = build(worker, LoopConfig::default());
        drop((input, cuts));
        handle.run(worker).unwrap();
        kept.lock().unwrap().replace(desk.waker());
        desk.waker().wake();
        steps(worker);
    });
    waker.lock().unwrap().take().expect("it was kept").wake();
}

/// Cuts are complete whatever is held and for however long. What waits for something is the handler's
/// own affair: it is not among the messages of the cut.
#[test]
fn cuts_are_complete_while_times_are_held() {
    for workers in [1, 2] {
        // Times that a cut was complete on a worker: the next is announced when it was on all.
        let complete = Arc::new(AtomicU64::new(0));
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let Loop { desk, mut input, mut cuts, probe, handle } =
                build(worker, LoopConfig::default());
            let (index, peers) = (worker.index() as u64, worker.peers() as u64);
            let other = (index + 1) % peers;
            input.send(Message { to: index, number: 1, what: What::Hold });
            input.send(Message { to: index, number: 2, what: What::PutOff { record: true } });
            input.advance_to(5);
            until(worker, "two are held, and ingress is known to have come to 5", || {
                desk.held.borrow().len() == 2 && *desk.ingress.borrow() == [5]
            });
            for cut in 1..=3 {
                if index == 0 {
                    cuts.send(Announcement::cut(cut));
                    cuts.flush();
                }
                until(worker, "the cut is complete", || handle.stats().cuts_complete >= cut);
                complete.fetch_add(1, SeqCst);
                let everywhere = || complete.load(SeqCst) >= cut * peers;
                until(worker, "it is complete everywhere", everywhere);
                assert_eq!(desk.complete.borrow()[cut as usize - 1], cut);
                assert!(probe.less_equal(&0), "nothing was released");
                // An event between two cuts, at the time ingress has come to.
                if cut == 1 {
                    let what = What::Note;
                    desk.tell([Command::Event(Message { to: other, number: 3, what })]);
                    until(worker, "it happened", || desk.noted.borrow().iter().any(|n| n.1 == 3));
                }
            }
            let (taken, waiting): (Vec<_>, Vec<_>) = desk.cuts.take().into_iter().unzip();
            assert_eq!(taken, [1, 2, 3]);
            assert!(waiting.concat().iter().all(|number| *number == 3), "{waiting:?}");
            // What comes of it after the cuts is as it would have been without.
            let pass = Message { to: index, number: 4, what: What::PassTo(other) };
            desk.tell([Command::ResumeFirst(2, pass), Command::ReleaseEmitting(1, 5)]);
            drop(cuts);
            input.close();
            handle.run(worker).unwrap();
            assert!(probe.done());
            let mut left = desk.left();
            left.sort_unstable();
            assert_eq!(left, [(0, 1), (0, 4), (0, 5), (5, 3)]);
        });
        guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    }
}

/// What is held must be known wherever it may change, and is the same as a cut is told.
#[test]
fn where_something_stands_that_is_held_is_known_while_handling_and_while_polling() {
    for order in [Order::Arrival, Order::Time] {
        timely::execute_directly(move |worker| {
            let Loop { desk, mut input, mut cuts, handle, .. } = build(worker, in_order(order));
            let depth = u64::from(order == Order::Time);
            input.advance_to(3);
            input.send(message(1, What::PutOff { record: true }));
            input.send(message(1, What::PlaceOf));
            input.advance_to(5);
            until(worker, "a record is put off", || desk.places[0].borrow().len() == 1);
            desk.tell([Command::PlaceOf(1), Command::Release(1)]);
            steps(worker);
            // One deeper, and no record.
            let again = |what| What::Again(Box::new(what));
            input.send(message(2, again(What::PutOff { record: false })));
            input.send(message(2, again(What::PlaceOf)));
            input.advance_to(7);
            until(worker, "a message is put off", || desk.places[0].borrow().len() == 2);
            desk.tell([Command::PlaceOf(2)]);
            cuts.send(Announcement::cut(1));
            cuts.close();
            steps(worker);
            let expected = BTreeMap::from([(1, (3, 0, true)), (2, (5, depth, false))]);
            assert_eq!(*desk.places[0].borrow(), expected, "{order:?}");
            assert_eq!(*desk.places[1].borrow(), expected, "{order:?}");
            assert_eq!(desk.places[2].borrow().get(&2), Some(&(5, depth, false)), "{order:?}");
            desk.tell([Command::Release(2)]);
            input.close();
            handle.run(worker).unwrap();
        });
    }
}
