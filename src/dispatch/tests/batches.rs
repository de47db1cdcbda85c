//! What becomes of messages that were in one call, or in one mailbox, together.

use std::time::Duration;

use super::*;
use crate::endpoint::Endpoint;
use crate::function::Body;
use crate::retry::Retry;

const REMOTE: FunctionType<i64> = FunctionType::new("test/remote");

/// A dispatcher whose one function is served elsewhere, and gives up what fails.
fn remote(endpoint: Endpoint) -> (Dispatcher<i64, u32, Kept>, Names) {
    dispatching(REMOTE, Body::remote(endpoint.on_failure(OnFailure::DeadLetter)))
}

fn dispatching(of: FunctionType<i64>, body: Body<i64, u32>) -> (Dispatcher<i64, u32, Kept>, Names) {
    let bound = Bound {
        functions: vec![(of.name(), Rc::new(body))],
        namespaces: Vec::new(),
        depth_max: u32::MAX,
        delayed_messages_max: 1000,
        operations_max: 1,
        in_flight_max: 1,
        function_bytes_soft: 1_000_000,
        hurry_at_close: false,
        on_unbound: OnUnbound::Fail,
        when_full: OnFailure::Stop,
        worker: 0,
    };
    let names = Names::new([of.name()].into_iter(), Vec::new());
    let egresses = Egresses::new(Vec::new(), LETTERS, Rc::new(Cell::new(true)));
    (Dispatcher::new(bound, names.clone(), egresses), names)
}

/// A time that is held, and whether it is for an ingress record.
type Kept = (u32, bool);

/// Notes which times are held for messages themselves; everything else is of no interest.
struct Loop {
    time: u32,
    put_off: Vec<Kept>,
    resumed: Vec<(Option<Kept>, Routed<i64>)>,
    /// Behind which place what was held stands.
    behind: Vec<(u32, Kept)>,
}

impl Loop {
    fn at(time: u32) -> Self {
        Loop { time, put_off: Vec::new(), resumed: Vec::new(), behind: Vec::new() }
    }
}

impl Surroundings<i64, u32> for Loop {
    type Held = Kept;

    fn time(&self) -> &u32 {
        &self.time
    }
    fn frontier(&self) -> &[u32] {
        &[]
    }
    fn send(&mut self, _: Routed<i64>) -> bool {
        true
    }
    fn hold(&mut self) -> Kept {
        (self.time, false)
    }
    fn put_off(&mut self, record: bool) -> Kept {
        self.put_off.push((self.time, record));
        (self.time, record)
    }
    fn stand_behind(&mut self, first: &Place<u32>, behind: &mut Kept) {
        self.behind.push((first.time, *behind));
    }
    fn resume_first(&mut self, held: Option<Kept>, message: Routed<i64>) {
        self.resumed.push((held, message));
    }
    fn expect_event(&mut self) {}
    fn release(&mut self, _: Kept) {}
    fn place(&self, held: &Kept) -> Place<u32> {
        Place { time: held.0, depth: 0, record: held.1 }
    }
}

impl Entrance<i64, u32> for Loop {
    type Held = Kept;

    fn ingress_is_over(&self) -> bool {
        false
    }
    fn room(&self) -> usize {
        1000
    }
    fn event(&mut self, message: Routed<i64>) {
        self.resumed.push((None, message));
    }
    fn let_pass(&mut self, _: &Kept, _: &mut Kept) -> bool {
        true
    }
    fn resume(&mut self, held: Option<Kept>, message: Routed<i64>) {
        self.resumed.push((held, message));
    }
    fn hold_later(&mut self, _: &Kept, time: u32) -> Kept {
        (time, false)
    }
    fn resume_first(&mut self, held: Option<Kept>, message: Routed<i64>) {
        self.resumed.push((held, message));
    }
    fn place(&self, held: &Kept) -> Place<u32> {
        Place { time: held.0, depth: 0, record: held.1 }
    }
}

/// Delivers messages for one address, of these depths, all at one time, and lets their call fail.
fn fail_together(
    dispatcher: &mut Dispatcher<i64, u32, Kept>,
    names: &mut Names,
    depths: &[u32],
    is_of_messages: bool,
) -> (Option<Kept>, Routed<i64>) {
    let mut outside = Loop::at(5);
    for depth in depths {
        let mut routed = names.route(REMOTE.message("a", i64::from(*depth)));
        routed.head.depth = *depth;
        assert!(matches!(dispatcher.deliver(routed, &mut outside), Verdict::Done));
    }
    let mut called = Vec::new();
    dispatcher.requests(&mut |key, _, request| called.push((key, request.messages.len())));
    assert_eq!(called, [(0, depths.len())]);
    let failure = CallFailure { reason: Reason::Call("no".to_owned()), is_of_messages };
    dispatcher.end_call(0, Err(failure), &mut outside);
    outside.resumed.pop().unwrap()
}

/// In the order of time, an answer comes back a stage later than its call stood. What comes for the address before
/// that is handled after it, and must not keep its own stage alive, for which the answer would wait.
#[test]
fn what_comes_before_an_answer_is_back_stands_behind_it() {
    let (mut dispatcher, mut names) = remote(Endpoint::at("http://localhost/"));
    let (_, answered) = fail_together(&mut dispatcher, &mut names, &[1], false);
    let mut outside = Loop::at(5);
    let routed = |names: &mut Names| names.route(REMOTE.message("a", 7));
    dispatcher.deliver(routed(&mut names), &mut outside);
    assert_eq!(outside.behind, [(5, (5, true))]);
    dispatcher.deliver(answered, &mut outside);
    dispatcher.deliver(routed(&mut names), &mut outside);
    assert_eq!(outside.behind.len(), 1, "the answer is back");
}

/// A batch that fails is halved. Its first message stood for all of it, as deep as the deepest, and went
/// on so: an ingress record among deeper messages was none any more, and the frontier that functions
/// see passed it.
#[test]
fn the_first_message_of_a_batch_that_is_halved_is_what_it_was() {
    let (mut dispatcher, mut names) = remote(Endpoint::at("http://localhost"));
    let (held, routed) = fail_together(&mut dispatcher, &mut names, &[0, 3, 1], true);
    assert_eq!((held, routed.head.depth), (Some((5, true)), 3), "what it causes is deeper yet");
    let mut outside = Loop::at(5);
    assert!(matches!(dispatcher.deliver(routed, &mut outside), Verdict::GivenUp));
    assert_eq!(outside.put_off, [(5, true)], "it is an ingress record as before");
    let mut sizes = Vec::new();
    dispatcher.requests(&mut |_, _, request| sizes.push(request.messages.len()));
    assert_eq!(sizes, [2]);
}

/// Nothing holds the time at which a message of a detached function came. Its dead letter left at that
/// time all the same, if others were in the same call, and the loop panicked.
#[test]
fn messages_of_a_detached_function_are_given_up_at_the_time_of_the_event() {
    let (mut dispatcher, mut names) = remote(Endpoint::at("http://localhost").detached());
    let (held, routed) = fail_together(&mut dispatcher, &mut names, &[0, 0, 0], false);
    assert_eq!(held, None);
    let mut outside = Loop::at(9);
    assert!(matches!(dispatcher.deliver(routed, &mut outside), Verdict::GivenUp));
    let mut times = Vec::new();
    dispatcher.drain_egresses(&mut |time, batch| {
        let letters = batch.records.downcast::<Vec<DeadLetter<i64>>>().unwrap();
        times.extend(letters.iter().map(|_| *time));
    });
    assert_eq!(times, [9, 9, 9]);
}

/// What came behind a message that failed is handled in its order, before what comes later; each of it is
/// brought in by the one before it, and tried as often as if nothing had been before.
#[test]
fn what_came_behind_a_message_that_failed_comes_one_by_one_and_has_all_its_attempts() {
    const FAILING: FunctionType<i64> = FunctionType::new("test/failing");
    let failing = Function::<i64, i64, u32>::new(|_, message: &i64| match message % 2 {
        0 => Err("even".into()),
        _ => Ok(()),
    });
    let retry = Retry::attempts(3).first(Duration::from_millis(10)).jitter(0.0);
    let failing = failing.retry(retry).on_failure(OnFailure::DeadLetter).body;
    let (mut dispatcher, mut names) = dispatching(FAILING, failing);
    let mut outside = Loop::at(5);
    for message in 0..6 {
        dispatcher.deliver(names.route(FAILING.message("a", message)), &mut outside);
    }
    assert!(outside.resumed.is_empty());
    let (mut handled, mut now_ms) = (Vec::new(), 0);
    while dispatcher.wake_at().is_some() {
        now_ms += 10;
        dispatcher.note_time(now_ms);
        dispatcher.poll(&mut outside);
        while let Some((held, routed)) = outside.resumed.pop() {
            assert_eq!(held, Some((5, true)));
            assert!(outside.resumed.is_empty(), "one after the other");
            handled.push(routed.message);
            dispatcher.deliver(routed, &mut outside);
        }
    }
    // The first was tried before.
    assert_eq!(handled, [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5]);
    let mut letters = Vec::new();
    dispatcher.drain_egresses(&mut |_, batch| {
        letters.extend(*batch.records.downcast::<Vec<DeadLetter<i64>>>().unwrap());
    });
    let letters: Vec<_> = letters.iter().map(|letter| (letter.message, letter.attempts)).collect();
    assert_eq!(letters, [(0, 3), (2, 3), (4, 3)]);
    assert!(dispatcher.mailboxes.list().next().is_none(), "there is no mailbox any more");
}
