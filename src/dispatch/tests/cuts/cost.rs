//! What a cut costs those who wait for it: nothing takes long, however much waits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::*;
use crate::dead_letter::OnFailure;
use crate::dispatch::{
    Bound, CallAnswer, CallEffects, Dispatcher, Egresses, Entrance, Names, Origin, Place, Routed,
    Surroundings, Verdict,
};
use crate::endpoint::Endpoint;
use crate::function::{Body, Function};
use crate::retry::Retry;
use crate::{DeadLetter, Egress, FunctionType};

thread_local! {
    /// How many messages were written on this thread.
    static WRITTEN: Cell<usize> = const { Cell::new(0) };
}

fn written<X>(run: impl FnOnce() -> X) -> (X, usize) {
    let before = WRITTEN.get();
    let result = run();
    (result, WRITTEN.get() - before)
}

/// A message that counts how often it is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Counted(u64);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WRITTEN.set(WRITTEN.get() + 1);
        self.0.serialize(serializer)
    }
}

crate::json_type!(Counted, "test/counted");

const REMOTE: FunctionType<Counted> = FunctionType::new("test/remote");
const FAILING: FunctionType<Counted> = FunctionType::new("test/failing");
const SETTING: FunctionType<Counted> = FunctionType::new("test/setting");
const LETTERS: Egress<DeadLetter<Counted>> = Egress::new("test/letters");

/// A loop that keeps what comes to it, and nothing else.
#[derive(Default)]
struct Loop {
    room: usize,
    came: Vec<Routed<Counted>>,
}

impl Surroundings<Counted, u32> for Loop {
    type Held = ();

    fn time(&self) -> &u32 {
        &7
    }
    fn frontier(&self) -> &[u32] {
        &[]
    }
    fn send(&mut self, _: Routed<Counted>) -> bool {
        true
    }
    fn hold(&mut self) {}
    fn put_off(&mut self, _: bool) {}
    fn resume_first(&mut self, _: Option<()>, message: Routed<Counted>) {
        self.came.push(message);
    }
    fn expect_event(&mut self) {}
    fn release(&mut self, (): ()) {}
    fn place(&self, (): &()) -> Place<u32> {
        place(&())
    }
}

impl Entrance<Counted, u32> for Loop {
    type Held = ();

    fn ingress_is_over(&self) -> bool {
        false
    }
    fn room(&self) -> usize {
        self.room.saturating_sub(self.came.len())
    }
    fn event(&mut self, message: Routed<Counted>) {
        self.came.push(message);
    }
    fn let_pass(&mut self, (): &(), (): &mut ()) -> bool {
        true
    }
    fn resume(&mut self, _: Option<()>, message: Routed<Counted>) {
        self.came.push(message);
    }
    fn hold_later(&mut self, (): &(), _: u32) {}
    fn resume_first(&mut self, _: Option<()>, message: Routed<Counted>) {
        self.came.push(message);
    }
    fn place(&self, (): &()) -> Place<u32> {
        place(&())
    }
}

fn place((): &()) -> Place<u32> {
    Place { time: 7, depth: 0, record: true }
}

type Counting = Dispatcher<Counted, u32, ()>;

fn dispatcher() -> (Counting, Names) {
    let failing = Function::<Counted, Counted, u32>::new(|_, message| match message.0 {
        0 => Err("not this one".into()),
        _ => Ok(()),
    });
    let retry = Retry::attempts(2).first(Duration::from_secs(1)).jitter(0.0);
    let failing = failing.retry(retry).on_failure(OnFailure::DeadLetter);
    let setting = Function::<Counted, Counted, u32>::new(|context, message: &Counted| {
        let delay = Duration::from_millis(100_000 + message.0);
        let token = message.0.is_multiple_of(2).then(|| message.0.to_string());
        context.forward_after(token.as_deref(), delay, FAILING.at("other"), Counted(1))?;
        Ok(())
    });
    let endpoint = Endpoint::at("http://localhost").batch_messages_max(3);
    let bodies = [Body::remote(endpoint), failing.body, setting.body].map(Rc::new);
    let names = [REMOTE.name(), FAILING.name(), SETTING.name()];
    let bound = Bound {
        functions: names.clone().into_iter().zip(bodies).collect(),
        namespaces: Vec::new(),
        depth_max: u32::MAX,
        delayed_messages_max: usize::MAX,
        operations_max: 1,
        in_flight_max: usize::MAX,
        function_bytes_soft: usize::MAX,
        hurry_at_close: false,
        on_unbound: crate::OnUnbound::Fail,
        when_full: OnFailure::Stop,
        worker: 0,
    };
    let names = Names::new(names.into_iter(), Vec::new());
    let egresses = Egresses::new(Vec::new(), LETTERS, Rc::new(Cell::new(true)));
    let mut dispatcher = Dispatcher::new(bound, names.clone(), egresses);
    dispatcher.keep_cuts(1 << 20, Origin { execution: 1, worker: 0 });
    (dispatcher, names)
}

fn deliver(
    dispatcher: &mut Counting,
    names: &mut Names,
    to: FunctionType<Counted>,
    id: &str,
    number: u64,
) {
    let routed = names.route(to.message(id, Counted(number)));
    let verdict = dispatcher.deliver(routed, &mut Loop::default());
    assert!(matches!(verdict, Verdict::Done | Verdict::GivenUp));
}

/// Counts records.
#[derive(Default)]
struct Counter {
    records: usize,
    bytes: usize,
}

impl CutSink for Counter {
    fn put(&mut self, _: RecordKind, _: u16, _: &[TypeIndex], record: &[&[u8]]) {
        self.records += 1;
        self.bytes += record.iter().map(|bytes| bytes.len()).sum::<usize>();
    }
}

const DELAYED: usize = 1_000_000;
const BEHIND: usize = 500_000;
const FOR_ONE: usize = 400_000;
const ADDRESSES: usize = 100_000;

/// A million delayed messages and a million that wait: behind one that failed, for the call of one address,
/// and for those of many.
#[test]
fn no_call_touches_more_than_its_budget() {
    let (mut dispatcher, mut names) = dispatcher();
    (0..DELAYED).for_each(|at| deliver(&mut dispatcher, &mut names, SETTING, "one", at as u64));
    for at in 0..=BEHIND {
        deliver(&mut dispatcher, &mut names, FAILING, "hot", at as u64);
    }
    (0..FOR_ONE).for_each(|at| deliver(&mut dispatcher, &mut names, REMOTE, "hot", at as u64));
    for at in 0..ADDRESSES {
        deliver(&mut dispatcher, &mut names, REMOTE, &at.to_string(), 0);
    }
    let mut called = Vec::new();
    dispatcher.requests(&mut |key, _, request| {
        if request.target.id == crate::Id::new("hot") {
            called.push(key);
        }
    });
    let (_, count) = written(|| dispatcher.take_cut(false));
    assert_eq!((count, dispatcher.cut_bytes()), (0, 0), "a cut is taken at once");

    // Meanwhile the one that failed is given up, so that those behind it come in, one by one.
    dispatcher.note_time(1_000);
    let mut outside = Loop { room: 1, ..Loop::default() };
    let (_, count) = written(|| dispatcher.poll(&mut outside));
    assert!(count <= 1, "{count} written for one that is tried again");
    let (mut again, mut overtaken) = (outside.came.pop(), count);
    let mut now_ms = 100_000;
    let (mut all, mut calls, mut records, mut most_kept) = (0, 0, 0, 0);
    loop {
        let mut sink = Counter::default();
        let budget = Budget { units: 1000, bytes: 20_000 };
        let (done, count) = written(|| dispatcher.write_cut(budget, &place, &mut sink).unwrap());
        assert!(count <= 1000 && sink.records <= 1000, "{count} and {}", sink.records);
        // The last record may be longer than there is room for.
        assert!(sink.bytes <= 20_100, "{}", sink.bytes);
        (all, calls, records) = (all + count, calls + 1, records + sink.records);
        if done {
            break;
        }
        if calls % 7 == 0 {
            let mut outside = Loop::default();
            let ((), count) = written(|| {
                let message = again.take().expect("there are many behind it");
                let verdict = dispatcher.deliver(message, &mut outside);
                assert!(matches!(verdict, Verdict::Done | Verdict::GivenUp));
            });
            assert!(count <= 1, "{count} written for the next one behind");
            again = outside.came.pop();
            overtaken += count;
        }
        if calls % 7 == 3 {
            let mut outside = Loop { room: 5, ..Loop::default() };
            now_ms += 5;
            dispatcher.note_time(now_ms);
            let ((), count) = written(|| dispatcher.poll(&mut outside));
            assert!(count <= outside.came.len(), "{count} written for what is sent off");
            overtaken += count;
        }
        if calls % 7 == 5 {
            let mut outside = Loop { room: 5, ..Loop::default() };
            let key = called.pop().expect("it is called for");
            let answer = CallAnswer::Done(CallEffects::default());
            let ((), count) = written(|| {
                dispatcher.end_call(key, Ok(answer), &mut outside);
                let first = outside.came.pop().expect("it stands for the batch");
                assert!(matches!(dispatcher.deliver(first, &mut outside), Verdict::Done));
            });
            assert!(count <= 3, "{count} written for a batch of three");
            dispatcher.requests(&mut |key, _, _| called.push(key));
            overtaken += count;
        }
        most_kept = most_kept.max(dispatcher.cut_bytes());
    }
    assert_eq!(records, DELAYED + BEHIND + 1 + FOR_ONE + ADDRESSES, "each once");
    assert_eq!(all + overtaken, records, "and none was written twice");
    assert!(overtaken > 500, "{overtaken}");
    // A chunk of what is passed on in the next slice, and what is known of messages that were sent off.
    assert!(most_kept < 150_000, "{most_kept} bytes are kept");
    dispatcher.commit_cut();

    // Of all that is delayed, a delta has what changed. What waits elsewhere is written whole.
    deliver(&mut dispatcher, &mut names, SETTING, "one", 3_000_000);
    dispatcher.take_cut(true);
    let (mut delayed, mut looked) = (0, 0);
    loop {
        struct Delayed<'a>(&'a mut usize);
        impl CutSink for Delayed<'_> {
            fn put(&mut self, kind: RecordKind, _: u16, _: &[TypeIndex], _: &[&[u8]]) {
                *self.0 += usize::from(kind == RecordKind::Delayed);
            }
        }
        looked += 1000;
        let budget = Budget { units: 1000, ..ALL };
        if dispatcher.write_cut(budget, &place, &mut Delayed(&mut delayed)).unwrap() {
            break;
        }
    }
    let waiting: usize = dispatcher.calls.list().map(|(_, kept)| kept.len()).sum();
    let waiting = waiting + BEHIND;
    let sent_off = (now_ms - 100_000) as usize + 1;
    assert!(delayed <= sent_off + 1 && delayed > 1, "{delayed} of {sent_off}");
    let chunks = DELAYED / 4096 + 2 * 4096;
    let most = waiting + 2 * ADDRESSES + delayed + chunks + 10_000;
    assert!(looked < most, "{looked} units of {most}");
}
