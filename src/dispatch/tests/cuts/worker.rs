//! A worker without a dataflow: a dispatcher, and a queue that does what a loop's does.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::functions::{Chance, Errand, bound, egresses, is_detached};
use super::*;
use crate::Address;
use crate::dispatch::cuts::Without;
use crate::dispatch::record::Standing;
use crate::dispatch::{
    Back, CallAnswer, CallFailure, CallKey, CutError, CutType, Dispatcher, Entrance, Head, NOBODY,
    Names, OperationKey, Origin, Place, Restoring, Routed, Surroundings, Task, Verdict,
};
use crate::placement;

/// A time that is held. How many there are is counted.
pub(super) struct Held(Place<u32>, Rc<Cell<usize>>);

impl Held {
    fn new(place: Place<u32>, alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Held(place, Rc::clone(alive))
    }

    fn give_back(self) -> Place<u32> {
        self.1.set(self.1.get() - 1);
        self.0
    }
}

/// A message in a queue.
struct Waiting {
    place: Place<u32>,
    routed: Routed<Errand>,
    /// Whether it was there at the cut, and was not handed over.
    is_marked: bool,
}

/// A message on its way between workers, with the number of cuts its sender had taken.
pub(super) struct Travelling {
    pub(super) cuts: u64,
    pub(super) place: Place<u32>,
    pub(super) routed: Routed<Errand>,
}

/// The records of one file, and its table of types.
#[derive(Clone, Default)]
pub(super) struct File {
    pub(super) table: Vec<u8>,
    pub(super) records: Vec<Written>,
}

/// What a worker wrote of a cut: files of some records each.
#[derive(Clone, Default)]
pub(super) struct Files {
    pub(super) files: Vec<File>,
    open: Vec<Written>,
}

impl CutSink for Files {
    fn put(&mut self, kind: RecordKind, bin: u16, types: &[TypeIndex], record: &[&[u8]]) {
        let (types, record) = (types.to_vec(), record.concat());
        self.open.push(Written { kind, bin, types, record });
    }
}

impl Files {
    /// Begins another file.
    fn close(&mut self, dispatcher: &Dispatcher<Errand, u32, Held>) {
        let mut records = std::mem::take(&mut self.open);
        let types: BTreeSet<_> = records.iter().flat_map(|written| &written.types).collect();
        let types: Vec<_> = types.into_iter().map(|number| dispatcher.cut_type(*number)).collect();
        let table = CutType::table(types.iter());
        // As files have them: by kind and bin.
        records.sort_by_key(|written| (written.kind, written.bin));
        self.files.push(File { table, records });
    }
}

/// All there is to know of what a dispatcher has, or is to have, as text.
pub(super) type Content = BTreeMap<String, Vec<String>>;

/// A cut that a worker has taken.
pub(super) struct Taken {
    pub(super) cut: u64,
    /// What there was, and what was logged.
    pub(super) was: Content,
    pub(super) files: Files,
    pub(super) is_written: bool,
}

pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) peers: usize,
    pub(super) dispatcher: Dispatcher<Errand, u32, Held>,
    /// The numbers that gates give.
    pub(super) names: Names,
    queue: VecDeque<Waiting>,
    pub(super) operations: Vec<(OperationKey, Task<Errand>)>,
    pub(super) calls: Vec<CallKey>,
    /// Messages for other workers.
    pub(super) away: Vec<(usize, Travelling)>,
    /// How many cuts it has taken: the number of the last.
    pub(super) cuts: u64,
    pub(super) taken: Option<Taken>,
    /// The time of new events.
    pub(super) now: u32,
    pub(super) alive: Rc<Cell<usize>>,
    /// By address, the first message of a batch that was answered, as it was before.
    answered: BTreeMap<String, String>,
    /// How many messages were handed over that came from their addresses.
    pub(super) again: usize,
    /// How many messages were handed over when they were about to be handled, and in slices.
    pub(super) popped: usize,
    pub(super) walked: usize,
}

/// What a message that is handled reaches.
struct Out<'a> {
    place: &'a Place<u32>,
    now: u32,
    alive: &'a Rc<Cell<usize>>,
    sent: Vec<Routed<Errand>>,
    first: Vec<(Place<u32>, Routed<Errand>)>,
}

fn event(time: u32) -> Place<u32> {
    Place { time, depth: 0, record: false }
}

impl Surroundings<Errand, u32> for Out<'_> {
    type Held = Held;

    fn time(&self) -> &u32 {
        &self.place.time
    }
    fn frontier(&self) -> &[u32] {
        &[]
    }
    fn send(&mut self, message: Routed<Errand>) -> bool {
        self.sent.push(message);
        true
    }
    fn hold(&mut self) -> Held {
        Held::new(Place { record: false, ..self.place.clone() }, self.alive)
    }
    fn put_off(&mut self, record: bool) -> Held {
        Held::new(Place { record, ..self.place.clone() }, self.alive)
    }
    fn resume_first(&mut self, held: Option<Held>, message: Routed<Errand>) {
        let place = held.map_or(event(self.now), Held::give_back);
        self.first.push((place, message));
    }
    fn expect_event(&mut self) {}
    fn release(&mut self, held: Held) {
        held.give_back();
    }
    fn place(&self, held: &Held) -> Place<u32> {
        held.0.clone()
    }
}

/// Where messages come in.
struct In<'a> {
    room: usize,
    now: u32,
    alive: &'a Rc<Cell<usize>>,
    events: Vec<Routed<Errand>>,
    last: Vec<(Place<u32>, Routed<Errand>)>,
    first: Vec<(Place<u32>, Routed<Errand>)>,
}

impl Entrance<Errand, u32> for In<'_> {
    type Held = Held;

    fn ingress_is_over(&self) -> bool {
        false
    }
    fn room(&self) -> usize {
        self.room.saturating_sub(self.events.len() + self.last.len() + self.first.len())
    }
    fn event(&mut self, message: Routed<Errand>) {
        self.events.push(message);
    }
    fn resume(&mut self, held: Option<Held>, message: Routed<Errand>) {
        match held {
            Some(held) => self.last.push((held.give_back(), message)),
            None => self.events.push(message),
        }
    }
    fn let_pass(&mut self, _: &Held, _: &mut Held) -> bool {
        true
    }
    fn hold_later(&mut self, held: &Held, time: u32) -> Held {
        assert!(time >= held.0.time);
        Held::new(Place { time, depth: held.0.depth, record: false }, self.alive)
    }
    fn resume_first(&mut self, held: Option<Held>, message: Routed<Errand>) {
        let place = held.map_or(event(self.now), Held::give_back);
        self.first.push((place, message));
    }
    fn place(&self, held: &Held) -> Place<u32> {
        held.0.clone()
    }
}

/// The queue of a worker that is restored.
pub(super) struct Restored<'a> {
    queue: &'a mut VecDeque<Waiting>,
    alive: &'a Rc<Cell<usize>>,
}

impl Back<Errand, u32> for Restored<'_> {
    type Held = Held;

    fn message(&mut self, place: Place<u32>, routed: Routed<Errand>) {
        self.queue.push_back(Waiting { place, routed, is_marked: false });
    }
    fn hold(&mut self, place: Place<u32>) -> Held {
        Held::new(place, self.alive)
    }
}

impl Worker {
    pub(super) fn new(
        number: usize,
        peers: usize,
        chance: &Chance,
        execution: u64,
        without: Option<Without>,
    ) -> Self {
        let (bound, names) = bound(chance, number);
        let mut dispatcher = Dispatcher::new(bound, names.clone(), egresses());
        dispatcher.keep_cuts(200, Origin { execution, worker: number as u32 });
        if let Some(without) = without {
            dispatcher.leave_out(without);
        }
        Worker {
            number,
            peers,
            dispatcher,
            names,
            queue: VecDeque::new(),
            operations: Vec::new(),
            calls: Vec::new(),
            away: Vec::new(),
            cuts: 0,
            taken: None,
            now: 0,
            alive: Rc::default(),
            answered: BTreeMap::new(),
            again: 0,
            popped: 0,
            walked: 0,
        }
    }

    pub(super) fn home(&self, head: &Head) -> usize {
        placement::bin(head.hash) as usize % self.peers
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many messages wait, for their turn or for a call.
    pub(super) fn busy(&self) -> usize {
        let kept = self.dispatcher.calls.list().map(|(_, kept)| kept.len());
        self.queue.len() + kept.sum::<usize>()
    }

    /// Sends a message, which waits here or travels.
    fn send(&mut self, place: Place<u32>, routed: Routed<Errand>) {
        let home = self.home(&routed.head);
        if home == self.number {
            self.queue.push_back(Waiting { place, routed, is_marked: false });
        } else {
            self.away.push((home, Travelling { cuts: self.cuts, place, routed }));
        }
    }

    /// Takes in a message that travelled.
    pub(super) fn receive(&mut self, travelling: Travelling) -> Result<(), CutError> {
        let Travelling { cuts, place, routed } = travelling;
        if self.taken.as_ref().is_some_and(|taken| taken.cut > cuts) {
            let line = self.line(&routed, &Standing::Held(place.clone()));
            let address = self.address(&routed.head);
            let Worker { taken, dispatcher, .. } = self;
            let taken = taken.as_mut().expect("it is taken");
            dispatcher.write_waiting(place.clone(), &routed, true, &mut taken.files)?;
            let (list, is_sorted) = list_of(&routed.message, &address);
            let lines = taken.was.entry(list).or_default();
            lines.push(line);
            if is_sorted {
                lines.sort();
            }
        }
        self.queue.push_back(Waiting { place, routed, is_marked: false });
        Ok(())
    }

    /// Handles the next message.
    pub(super) fn handle(&mut self) -> Result<(), CutError> {
        let Some(Waiting { place, routed, is_marked }) = self.queue.pop_front() else {
            return Ok(());
        };
        if is_marked {
            let taken = self.taken.as_mut().expect("marks belong to a cut");
            let files = &mut taken.files;
            self.dispatcher.write_waiting(place.clone(), &routed, false, files)?;
            self.popped += 1;
            self.again += usize::from(routed.head.again);
        }
        if routed.head.again {
            let address = self.address(&routed.head);
            self.answered.remove(&address.to_string());
        }
        let (now, alive) = (self.now, &self.alive);
        let (sent, first) = (Vec::new(), Vec::new());
        let mut out = Out { place: &place, now, alive, sent, first };
        let verdict = self.dispatcher.deliver(routed, &mut out);
        let Out { sent, first, .. } = out;
        match verdict {
            Verdict::Done => {
                for routed in sent {
                    let place = Place { depth: place.depth + 1, record: false, ..place.clone() };
                    self.send(place, routed);
                }
            }
            Verdict::GivenUp => {}
            Verdict::Stop(stopped) => panic!("{stopped}"),
        }
        self.place_first(first);
        Ok(())
    }

    fn place_first(&mut self, first: Vec<(Place<u32>, Routed<Errand>)>) {
        for (place, routed) in first.into_iter().rev() {
            assert_eq!(self.home(&routed.head), self.number);
            self.queue.push_front(Waiting { place, routed, is_marked: false });
        }
    }

    /// Has messages come in.
    fn enter<X>(
        &mut self,
        room: usize,
        act: impl FnOnce(&mut Dispatcher<Errand, u32, Held>, &mut In<'_>) -> X,
    ) -> X {
        let (now, alive) = (self.now, &self.alive);
        let (events, last, first) = (Vec::new(), Vec::new(), Vec::new());
        let mut entrance = In { room, now, alive, events, last, first };
        let result = act(&mut self.dispatcher, &mut entrance);
        let In { events, last, first, .. } = entrance;
        for (place, routed) in last {
            assert_eq!(self.home(&routed.head), self.number);
            self.queue.push_back(Waiting { place, routed, is_marked: false });
        }
        events.into_iter().for_each(|routed| self.send(event(now), routed));
        self.place_first(first);
        result
    }

    pub(super) fn poll(&mut self, now_ms: u64, room: usize) {
        self.enter(room, |dispatcher, entrance| {
            dispatcher.note_time(now_ms);
            dispatcher.poll(entrance);
        });
        self.flush();
    }

    /// Lets start what may.
    pub(super) fn flush(&mut self) {
        self.operations.extend(self.dispatcher.startable());
        let calls = &mut self.calls;
        self.dispatcher.requests(&mut |key, _, request| {
            assert!(!request.messages.is_empty());
            calls.push(key);
        });
    }

    pub(super) fn end_operation(&mut self, at: usize, outcome: Errand) {
        let (key, _) = self.operations.swap_remove(at);
        let verdict = self
            .enter(0, |dispatcher, entrance| dispatcher.end_operation(key, Ok(outcome), entrance));
        assert!(matches!(verdict, Verdict::Done));
    }

    pub(super) fn end_call(&mut self, at: usize, answer: Result<CallAnswer, CallFailure>) {
        let key = self.calls.swap_remove(at);
        // Whatever stands for the batch, this is what was called for.
        let first = self.dispatcher.calls.first(key).expect("it is called for");
        let address = self.address(&first.routed.head);
        let line = self.line(&first.routed, &standing(&first.held, Some(first.time)));
        self.enter(0, |dispatcher, entrance| dispatcher.end_call(key, answer, entrance));
        let came_back = |last: &Waiting| {
            last.routed.head.again && self.dispatcher.names.target(&last.routed.head) == address
        };
        if self.queue.back().is_some_and(came_back) {
            self.answered.insert(address.to_string(), line);
        }
        self.flush();
    }

    /// Takes a cut.
    pub(super) fn take_cut(&mut self, cut: u64, is_delta: bool) {
        assert!(self.taken.is_none());
        let was = self.content(false);
        self.dispatcher.take_cut(is_delta);
        self.queue.iter_mut().for_each(|waiting| waiting.is_marked = true);
        self.cuts = cut;
        self.taken = Some(Taken { cut, was, files: Files::default(), is_written: false });
    }

    /// Writes some of the open cut.
    pub(super) fn write(&mut self, budget: Budget, closes: bool) -> Result<(), CutError> {
        let Worker { taken: Some(taken), dispatcher, queue, .. } = self else { return Ok(()) };
        let marked = queue.iter_mut().filter(|waiting| waiting.is_marked);
        for Waiting { place, routed, is_marked } in marked.take(budget.units) {
            dispatcher.write_waiting(place.clone(), routed, false, &mut taken.files)?;
            *is_marked = false;
            self.walked += 1;
            self.again += usize::from(routed.head.again);
        }
        let places = |held: &Held| held.0.clone();
        taken.is_written = dispatcher.write_cut(budget, &places, &mut taken.files)?;
        if closes {
            taken.files.close(dispatcher);
        }
        Ok(())
    }

    /// Whether the open cut is written, but for what may be logged.
    pub(super) fn is_written(&self) -> bool {
        let is_marked = |waiting: &Waiting| waiting.is_marked;
        let is_written = self.taken.as_ref().is_some_and(|taken| taken.is_written);
        is_written && !self.queue.iter().any(is_marked)
    }

    /// What was written of a cut that is complete.
    pub(super) fn complete(&mut self) -> (Content, Vec<File>) {
        let mut taken = self.taken.take().expect("it is taken");
        taken.files.close(&self.dispatcher);
        (taken.was, taken.files.files)
    }

    pub(super) fn abandon(&mut self) {
        self.taken = None;
        self.queue.iter_mut().for_each(|waiting| waiting.is_marked = false);
        self.dispatcher.abandon_cut();
    }

    /// Brings back what is of its bins in a chain of cuts.
    pub(super) fn restore(&mut self, chain: &[Vec<File>], now_ms: u64) -> Result<(), Failed> {
        let failed = |error: &dyn std::fmt::Display| Failed(error.to_string());
        let Worker { dispatcher, queue, alive, number, peers, .. } = self;
        let back = &mut Restored { queue, alive };
        let mut restoring: Restoring<Errand, u32> = dispatcher.restoring(now_ms);
        for (at, files) in chain.iter().enumerate() {
            restoring.cut(at + 1 == chain.len());
            for file in files {
                let types = CutType::read_table(&file.table).map_err(|why| failed(&why))?;
                restoring.part(&types, dispatcher).map_err(|error| failed(&error))?;
                for Written { kind, bin, record, .. } in &file.records {
                    if usize::from(*bin) % *peers == *number {
                        let restored = restoring.record(*kind, *bin, record, dispatcher, back);
                        restored.map_err(|error| failed(&error))?;
                    }
                }
            }
        }
        restoring.finish(dispatcher, back).map_err(|error| failed(&error))
    }

    fn address(&self, head: &Head) -> Address {
        match &head.names {
            Some(names) => Address::new(names.0.clone(), &head.target),
            None => self.dispatcher.names.target(head),
        }
    }

    /// All there is to know of a message.
    fn line(&self, routed: &Routed<Errand>, standing: &Standing<u32>) -> String {
        let Routed { head, message } = routed;
        let caller = match &head.names {
            Some(names) => names.1.clone().map(|name| Address::new(name, &head.caller)),
            None => self.dispatcher.names.caller(head),
        };
        let caller = caller.map(|caller| caller.to_string());
        format!("{caller:?} at depth {} {standing:?}: {message:?}", head.depth)
    }

    /// Everything that it has. What is new since it was restored has identities of its own if it `is_new`.
    pub(super) fn content(&self, is_new: bool) -> Content {
        let dispatcher = &self.dispatcher;
        let mut content = Content::new();
        let mut add = |list: String, line: String| content.entry(list).or_default().push(line);
        for (number, entry) in dispatcher.entries.iter().enumerate() {
            let name = dispatcher.names.name(number as TypeIndex);
            for (state, units) in entry.state.list() {
                for (id, unit) in units {
                    add(format!("state {state} of {name} {id}"), unit);
                }
            }
        }
        for (identity, due_ms, token, routed) in dispatcher.later.list() {
            let line = self.line(routed, &Standing::Event);
            let address = self.address(&routed.head);
            // What was an operation of a function that is detached is an event that was not set.
            if is_new && identity.origin == dispatcher.later.own() {
                assert_eq!((due_ms, token), (0, None));
                add("events".to_owned(), format!("{address}: {line}"));
            } else {
                let line = format!("{address} at {due_ms} with {token:?}: {line}");
                add(format!("delayed {identity:?}"), line);
            }
        }
        let mut under_way: BTreeMap<String, (Place<u32>, &Routed<Errand>)> = BTreeMap::new();
        for Waiting { place, routed, .. } in &self.queue {
            let address = self.address(&routed.head);
            if routed.head.again {
                let before = under_way.insert(address.to_string(), (place.clone(), routed));
                assert!(before.is_none(), "one for each address");
                continue;
            }
            let (list, _) = list_of(&routed.message, &address);
            add(list, self.line(routed, &Standing::Held(place.clone())));
        }
        for (address, kept) in dispatcher.calls.list() {
            let address = Address::new(dispatcher.names.name(address.0), &address.1).to_string();
            if let Some((_, routed)) = under_way.remove(&address) {
                let line = self.answered.get(&address).expect("it was answered").clone();
                assert!(line.ends_with(&format!("{:?}", routed.message)));
                add(format!("in flight {address}"), line);
            }
            for kept in kept {
                let standing = standing(&kept.held, Some(kept.time));
                add(format!("in flight {address}"), self.line(&kept.routed, &standing));
            }
        }
        for ((of, id), (attempts, due_ms, first, behind)) in dispatcher.mailboxes.list() {
            let address = Address::new(dispatcher.names.name(*of), id);
            let (due_ms, line) = match (first, under_way.remove(&address.to_string())) {
                (Some((routed, held)), None) => (due_ms, self.line(routed, &standing(held, None))),
                (None, Some((place, routed))) => {
                    let standing = match is_detached(&address.function_type) {
                        true => Standing::Event,
                        false => Standing::Held(place),
                    };
                    (0, self.line(routed, &standing))
                }
                (first, other) => panic!("{address}: {} and {other:?}", first.is_some()),
            };
            let line = format!("tried {attempts} times, at {due_ms} again: {line}");
            add(format!("retrying {address}"), line);
            for (routed, held) in behind {
                add(format!("behind {address}"), self.line(routed, &standing(held, None)));
            }
        }
        assert!(under_way.is_empty(), "{under_way:?}");
        for (routed, held) in dispatcher.operations.list() {
            let address = self.address(&routed.head);
            let line = self.line(&routed, &standing(&held, None));
            match held {
                Some(_) => add(format!("unknown {address}"), line),
                None => add("events".to_owned(), format!("{address}: {line}")),
            }
        }
        // Whatever has no order.
        let sorted = content.iter_mut().filter(|(list, _)| {
            ["state", "events", "unknown"].iter().any(|start| list.starts_with(start))
        });
        sorted.for_each(|(_, lines)| lines.sort());
        content
    }

    /// Whether the heads of all messages have the numbers that they must have here.
    pub(super) fn check_heads(&self) {
        let Dispatcher { names, later, calls, mailboxes, .. } = &self.dispatcher;
        let check = |head: &Head, travels: bool| {
            assert_eq!(head.hash, placement::hash(&head.target));
            assert_eq!(head.function, names.function(head.target_type));
            assert!(head.caller_type == NOBODY || (head.caller_type as usize) < names.len());
            let travelling = names.travelling(head.target_type, head.caller_type);
            assert_eq!(head.names, travelling.filter(|_| travels));
        };
        self.queue.iter().for_each(|waiting| check(&waiting.routed.head, true));
        later.list().for_each(|(.., routed)| check(&routed.head, true));
        for (_, kept) in calls.list() {
            kept.iter().for_each(|kept| check(&kept.routed.head, false));
        }
        for (_, (_, _, first, behind)) in mailboxes.list() {
            first.into_iter().chain(behind).for_each(|(routed, _)| check(&routed.head, false));
        }
    }
}

fn standing<H: std::borrow::Borrow<Held>>(held: &Option<H>, time: Option<u32>) -> Standing<u32> {
    match (held, time) {
        (Some(held), _) => Standing::Held(held.borrow().0.clone()),
        (None, Some(time)) => Standing::Came(time),
        (None, None) => Standing::Event,
    }
}

/// Where a message belongs that waits in the loop, and whether order plays no part there.
fn list_of(errand: &Errand, address: &Address) -> (String, bool) {
    match errand.is_unknown {
        true => (format!("unknown {address}"), true),
        false => (format!("queued {address}"), false),
    }
}
