//! A program that is killed and started again goes on as if nothing had happened: what a snapshot holds
//! comes back as it was, in its order and at its times, and is not done twice.
//!
//! Calls of remote functions have tests of their own, in `restored_calls.rs`.

#[path = "support/executions.rs"]
mod executions;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executions::{Execution, Source, by_record, memory, on_request, run};
use serde::{Deserialize, Serialize};
use support::{Random, Running};
use timely_statefun::{
    BufferSpec, Clock, Context, Egress, Expiration, Function, FunctionResult, FunctionType,
    Functions, Outcome, TableSpec, ValueSpec,
};

const START_MS: u64 = 1_700_000_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

// State.

const KEEPER: FunctionType<Order> = FunctionType::new("restored/keeper");
const SHOWN: Egress<(u64, Content)> = Egress::new("restored/shown");
const IDS: u64 = 7;
const KEYS: u8 = 5;
/// The clock is turned by whole steps. What lives lives for less than four of them, and for more than
/// three, also where reads count and have some slack.
const STEP_MS: u64 = 400;
const LIFETIME_MS: u64 = 1500;
const ON_WRITE: Expiration = Expiration::after_write(Duration::from_millis(LIFETIME_MS));
const ON_USE: Expiration = Expiration::after_read_or_write(Duration::from_millis(LIFETIME_MS));

const NUMBER: ValueSpec<u64> = ValueSpec::new("number");
const TEXT: ValueSpec<String> = ValueSpec::new("text");
const OWN: ValueSpec<Own> = ValueSpec::typed("own", "restored/own");
const TABLE: TableSpec<u8, u64> = TableSpec::new("table");
const BUFFER: BufferSpec<u64> = BufferSpec::new("buffer");
const BRIEF: ValueSpec<u64> = ValueSpec::new("brief").expiring(ON_WRITE);
const USED: ValueSpec<u64> = ValueSpec::new("used").expiring(ON_USE);
const BRIEF_TABLE: TableSpec<u8, u64> = TableSpec::new("brief-table").expiring(ON_WRITE);
const USED_TABLE: TableSpec<u8, u64> = TableSpec::new("used-table").expiring(ON_USE);
const BRIEF_BUFFER: BufferSpec<u64> = BufferSpec::new("brief-buffer").expiring(ON_WRITE);

/// A type of the program's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Own {
    names: Vec<String>,
    inner: Option<Box<Own>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    Do(Vec<Act>),
    /// Shows all there is; the number of the order.
    Show(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Act {
    Number(Option<u64>),
    Text(Option<String>),
    Own(Option<Own>),
    /// A state that is not declared.
    Registered(u8, u64),
    Insert(u8, u64),
    Remove(u8),
    ClearTable,
    Append(Vec<u64>),
    Replace(Vec<u64>),
    Brief(u64),
    Used(u64),
    BriefEntry(u8, u64),
    UsedEntry(u8, u64),
    UseEntry(u8),
    BriefElements(Vec<u64>),
}

/// All that an address keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Content {
    number: Option<u64>,
    text: Option<String>,
    own: Option<Own>,
    registered: Vec<Option<u64>>,
    table: BTreeMap<u8, u64>,
    buffer: Vec<u64>,
    brief: Option<u64>,
    used: Option<u64>,
    brief_table: BTreeMap<u8, u64>,
    used_table: BTreeMap<u8, u64>,
    brief_buffer: Vec<u64>,
}

const REGISTERED: [&str; 3] = ["one", "two", "three"];

fn registered(number: u8) -> ValueSpec<u64> {
    ValueSpec::new(REGISTERED[usize::from(number)])
}

fn act(context: &mut Context<'_, Order>, act: &Act) {
    fn put<V: Clone + 'static>(
        context: &mut Context<'_, Order>,
        spec: ValueSpec<V>,
        value: &Option<V>,
    ) {
        match value.clone() {
            Some(value) => context.set(spec, value),
            None => context.clear(spec),
        }
    }
    match act {
        Act::Number(value) => put(context, NUMBER, value),
        Act::Text(value) => put(context, TEXT, value),
        Act::Own(value) => put(context, OWN, value),
        Act::Registered(name, value) => context.set(registered(*name), *value),
        Act::Insert(key, value) => drop(context.table(TABLE).insert(*key, *value)),
        Act::Remove(key) => drop(context.table(TABLE).remove(key)),
        Act::ClearTable => context.table(TABLE).clear(),
        Act::Append(elements) => context.buffer(BUFFER).extend(elements.clone()),
        Act::Replace(elements) => context.buffer(BUFFER).replace(elements.clone()),
        Act::Brief(value) => context.set(BRIEF, *value),
        Act::Used(value) => context.set(USED, *value),
        Act::BriefEntry(key, value) => drop(context.table(BRIEF_TABLE).insert(*key, *value)),
        Act::UsedEntry(key, value) => drop(context.table(USED_TABLE).insert(*key, *value)),
        Act::UseEntry(key) => drop(context.table(USED_TABLE).get(key)),
        Act::BriefElements(elements) => context.buffer(BRIEF_BUFFER).extend(elements.clone()),
    }
}

fn show(context: &mut Context<'_, Order>) -> Content {
    let mut used_table = BTreeMap::new();
    for key in 0..KEYS {
        used_table.extend(context.table(USED_TABLE).get(&key).map(|value| (key, *value)));
    }
    Content {
        number: context.get(NUMBER).copied(),
        text: context.get(TEXT).cloned(),
        own: context.get(OWN).cloned(),
        registered: (0..3).map(|name| context.get(registered(name)).copied()).collect(),
        table: context.table(TABLE).iter().map(|(key, value)| (*key, *value)).collect(),
        buffer: context.buffer(BUFFER).iter().copied().collect(),
        brief: context.get(BRIEF).copied(),
        used: context.get(USED).copied(),
        brief_table: context.table(BRIEF_TABLE).iter().map(|(key, value)| (*key, *value)).collect(),
        used_table,
        brief_buffer: context.buffer(BRIEF_BUFFER).iter().copied().collect(),
    }
}

fn keepers(clock: &Clock) -> Functions<Order> {
    let keeper = Function::new(|context: &mut Context<'_, Order>, order: &Order| {
        match order {
            Order::Do(acts) => acts.iter().for_each(|one| act(context, one)),
            Order::Show(number) => {
                let content = show(context);
                context.emit(SHOWN, (*number, content));
            }
        }
        Ok(())
    });
    let keeper = keeper.value(NUMBER).value(TEXT).value(OWN).table(TABLE).buffer(BUFFER);
    let keeper = keeper.value(BRIEF).value(USED).table(BRIEF_TABLE).table(USED_TABLE);
    let keeper = keeper.buffer(BRIEF_BUFFER).registry(3);
    Functions::new().embedded(KEEPER, keeper).egress(SHOWN).clock(clock.clone())
}

/// What an address should keep, as plainly as it can be said: with each piece that expires, since when it
/// was not used.
#[derive(Clone, Default)]
struct Model {
    content: Content,
    brief: Option<(u64, u64)>,
    used: Option<(u64, u64)>,
    brief_table: BTreeMap<u8, (u64, u64)>,
    used_table: BTreeMap<u8, (u64, u64)>,
    brief_buffer: Vec<(u64, u64)>,
}

impl Model {
    fn act(&mut self, act: &Act, now: u64) {
        let content = &mut self.content;
        match act.clone() {
            Act::Number(value) => content.number = value,
            Act::Text(value) => content.text = value,
            Act::Own(value) => content.own = value,
            Act::Registered(name, value) => {
                content.registered.resize(3, None);
                content.registered[usize::from(name)] = Some(value);
            }
            Act::Insert(key, value) => drop(content.table.insert(key, value)),
            Act::Remove(key) => drop(content.table.remove(&key)),
            Act::ClearTable => content.table.clear(),
            Act::Append(elements) => content.buffer.extend(elements),
            Act::Replace(elements) => content.buffer = elements,
            Act::Brief(value) => self.brief = Some((value, now)),
            Act::Used(value) => self.used = Some((value, now)),
            Act::BriefEntry(key, value) => drop(self.brief_table.insert(key, (value, now))),
            Act::UsedEntry(key, value) => drop(self.used_table.insert(key, (value, now))),
            Act::UseEntry(key) => {
                let lives = |(_, since): &&mut (u64, u64)| now < *since + LIFETIME_MS;
                if let Some(entry) = self.used_table.get_mut(&key).filter(lives) {
                    entry.1 = now;
                }
            }
            Act::BriefElements(elements) => {
                self.brief_buffer.extend(elements.into_iter().map(|element| (element, now)));
            }
        }
    }

    /// What is shown, which is a use.
    fn show(&mut self, now: u64) -> Content {
        let lives = |since: u64| now < since + LIFETIME_MS;
        self.used = self.used.filter(|(_, since)| lives(*since)).map(|(value, _)| (value, now));
        self.used_table.retain(|_, (_, since)| lives(*since));
        self.used_table.values_mut().for_each(|(_, since)| *since = now);
        let live = |table: &BTreeMap<u8, (u64, u64)>| -> BTreeMap<u8, u64> {
            let entries = table.iter().filter(|(_, (_, since))| lives(*since));
            entries.map(|(key, (value, _))| (*key, *value)).collect()
        };
        let mut content = self.content.clone();
        content.registered.resize(3, None);
        content.brief = self.brief.filter(|(_, since)| lives(*since)).map(|(value, _)| value);
        content.used = self.used.map(|(value, _)| value);
        content.brief_table = live(&self.brief_table);
        content.used_table = live(&self.used_table);
        let elements = self.brief_buffer.iter().filter(|(_, since)| lives(*since));
        content.brief_buffer = elements.map(|(element, _)| *element).collect();
        content
    }
}

fn random_act(random: &mut Random) -> Act {
    let value = random.below(1000);
    let key = random.below(u64::from(KEYS)) as u8;
    let elements: Vec<u64> = (0..random.below(4)).map(|n| value + n).collect();
    match random.below(15) {
        0 => Act::Number((value > 200).then_some(value)),
        1 => Act::Text((value > 200).then(|| "x".repeat(value as usize % 50))),
        2 => {
            let inner = Own { names: vec![String::new()], inner: None };
            let inner = value.is_multiple_of(2).then(|| Box::new(inner));
            Act::Own((value > 200).then(|| Own { names: vec![value.to_string()], inner }))
        }
        3 => Act::Registered((value % 3) as u8, value),
        4 | 5 => Act::Insert(key, value),
        6 => Act::Remove(key),
        7 if value < 300 => Act::ClearTable,
        7 | 8 => Act::Append(elements),
        9 if value < 300 => Act::Replace(elements),
        9 | 10 => Act::Brief(value),
        11 => Act::Used(value),
        12 => Act::BriefEntry(key, value),
        13 if value < 500 => Act::UsedEntry(key, value),
        13 => Act::UseEntry(key),
        _ => Act::BriefElements(elements),
    }
}

/// What happens in one execution: by how much the clock is turned, and up to where the source is read.
#[derive(Clone, Debug)]
struct Phase {
    turn_ms: u64,
    time: u64,
    end: usize,
}

/// Random orders, in several executions on changing numbers of workers. What is shown is always what the
/// model says, which knows of no snapshot: after each snapshot more is done, which is lost, and done
/// again.
#[test]
fn state_comes_back_as_it_was_with_the_time_that_it_has_left() {
    let mut shown_in_all = 0;
    for seed in 0..12 {
        let _running = Running(format!("seed {seed}"));
        let mut random = Random(seed);
        let (store, mut source) = (memory(), Source::new());
        let mut models: BTreeMap<u64, Model> = BTreeMap::new();
        let (mut now, mut time, mut counted, mut number) = (START_MS, 1, 0, 0);
        for _ in 0..5 {
            // The program was not there for some time.
            now += STEP_MS * random.below(4);
            let (mut phases, mut expected, began) = (Vec::new(), BTreeMap::new(), now);
            for phase in 0..3 {
                let turn_ms = if phase == 0 { 0 } else { STEP_MS * random.below(3) };
                now += turn_ms;
                for _ in 0..random.below(30) {
                    let acts = (0..1 + random.below(3)).map(|_| random_act(&mut random));
                    let order = Order::Do(acts.collect());
                    source.push((time, KEEPER.message(random.below(IDS), order)));
                }
                for id in 0..IDS {
                    // Not all are looked at, for that is a use.
                    if random.below(3) > 0 {
                        number += 1;
                        source.push((time, KEEPER.message(id, Order::Show(number))));
                    }
                }
                for (_, envelope) in &source[counted..] {
                    let id = envelope.target.id.as_number().unwrap();
                    let model = models.entry(id).or_default();
                    match &envelope.message {
                        Order::Do(acts) => acts.iter().for_each(|act| model.act(act, now)),
                        Order::Show(number) => {
                            expected.insert(*number, model.show(now));
                        }
                    }
                }
                counted = source.len();
                phases.push(Phase { turn_ms, time, end: counted });
                time += 1;
            }
            // What comes after the snapshot.
            for _ in 0..random.below(20) {
                let order = Order::Do(vec![random_act(&mut random), random_act(&mut random)]);
                source.push((time, KEEPER.message(random.below(IDS), order)));
            }
            let workers = 1 + random.below(3) as usize;
            let (clock, hands) = Clock::turned(began);
            let all = source.clone();
            let script = move |execution: &mut Execution<'_, Order, (u64, Content)>| {
                for Phase { turn_ms, time, end } in &phases {
                    if execution.worker.index() == 0 {
                        hands.advance(ms(*turn_ms));
                    }
                    // Everybody has seen the clock then.
                    execution.settle(*time);
                    execution.give(&all[..*end]);
                    execution.settle(*time + 1);
                }
                let shown = execution.seen.take();
                execution.cut();
                execution.give(&all);
                execution.settle(phases.last().unwrap().time + 2);
                shown
            };
            let functions = move || keepers(&clock);
            let shown = run(workers, &store, &on_request(), functions, SHOWN, script).unwrap();
            let shown: BTreeMap<u64, Content> =
                shown.into_iter().flatten().map(|(_, shown)| shown).collect();
            shown_in_all += shown.len();
            for (number, content) in &expected {
                assert_eq!(shown.get(number), Some(content), "order {number}");
            }
            assert_eq!(shown.len(), expected.len());
        }
    }
    assert!(shown_in_all > 500, "{shown_in_all}");
}

// Delayed messages, operations, attempts.

const ACTOR: FunctionType<Message> = FunctionType::new("restored/actor");
/// The same, but what comes of it later is a new event.
const DETACHED: FunctionType<Message> = FunctionType::new("restored/detached");
const TOLD: Egress<Told> = Egress::new("restored/told");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    /// Sends itself a number later, with a token or not.
    Later {
        number: u64,
        delay_ms: u64,
        token: Option<String>,
    },
    Cancel(String),
    Due(u64),
    /// Begins an operation that the test ends.
    Begin(u64),
    Ended(u64, String, Outcome<u64>),
    /// Fails at first, and succeeds at this attempt.
    Fail(u64, u64),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// Whether it took effect, by what was asked for.
    Did(String, bool),
    Arrived {
        number: u64,
        now_ms: u64,
    },
    /// What became of an operation; none if nobody knows.
    Outcome(u64, String, Option<u64>),
    Succeeded {
        number: u64,
        now_ms: u64,
    },
}

/// What the functions of these tests use, that is not their state.
#[derive(Clone)]
struct Outside {
    clock: Clock,
    /// Ends of operations, by number.
    ends: Arc<Mutex<BTreeMap<u64, tokio::sync::oneshot::Sender<u64>>>>,
    /// When there was an attempt at which message.
    attempts: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Outside {
    fn new(clock: &Clock) -> Self {
        Outside { clock: clock.clone(), ends: Arc::default(), attempts: Arc::default() }
    }

    fn act(&self, context: &mut Context<'_, Message>, message: &Message) -> FunctionResult {
        let (this, now_ms) = (context.address(), context.now_ms());
        match message.clone() {
            Message::Later { number, delay_ms, token } => {
                let what = format!("later {number}");
                let (delay, due) = (ms(delay_ms), Message::Due(number));
                let sent = context.forward_after(token.as_deref(), delay, this, due);
                context.emit(TOLD, Told::Did(what, sent.is_ok()));
            }
            Message::Cancel(token) => {
                let there = context.cancel(&token);
                context.emit(TOLD, Told::Did(format!("cancel {token}"), there));
            }
            Message::Due(number) => context.emit(TOLD, Told::Arrived { number, now_ms }),
            Message::Begin(number) => {
                let (end, ended) = tokio::sync::oneshot::channel();
                self.ends.lock().unwrap().insert(number, end);
                let said = format!("by {}", context.id());
                context.start(ended, move |outcome| Message::Ended(number, said.clone(), outcome));
            }
            Message::Ended(number, said, outcome) => {
                assert_eq!(context.caller(), Some(this));
                let outcome = match outcome {
                    Outcome::Completed(value) => Some(value),
                    Outcome::Unknown => None,
                    Outcome::Failed(why) => return Err(why.into()),
                };
                context.emit(TOLD, Told::Outcome(number, said, outcome));
            }
            Message::Fail(number, succeeds) => {
                let mut attempts = self.attempts.lock().unwrap();
                attempts.push((number, now_ms));
                let before = attempts.iter().filter(|(of, _)| *of == number).count() as u64;
                if before < succeeds {
                    return Err(format!("attempt {before}").into());
                }
                context.emit(TOLD, Told::Succeeded { number, now_ms });
            }
        }
        Ok(())
    }

    fn functions(&self) -> Functions<Message> {
        let retry = timely_statefun::Retry::attempts(5).first(ms(1000)).jitter(0.0);
        let actor = || {
            let outside = self.clone();
            let actor = Function::new(move |context: &mut Context<'_, Message>, message| {
                outside.act(context, message)
            });
            let actor = actor.operations(2).retry(retry.clone());
            actor.on_failure(timely_statefun::OnFailure::DeadLetter)
        };
        let functions = Functions::new().embedded(ACTOR, actor());
        let functions = functions.embedded(DETACHED, actor().detached()).egress(TOLD);
        functions.clock(self.clock.clone()).runtime(executions::threads().handle().clone())
    }
}

/// What arrived, and when, in its order.
fn arrived(seen: &[(u64, Told)]) -> Vec<(u64, u64)> {
    let arrived = seen.iter().filter_map(|(_, told)| match told {
        Told::Arrived { number, now_ms } => Some((*number, now_ms - START_MS)),
        _ => None,
    });
    arrived.collect()
}

#[test]
fn delayed_messages_come_back_with_their_tokens_and_what_is_overdue_is_sent_off_in_order() {
    for workers in 1..=3 {
        let store = memory();
        let mut source = Source::new();
        for id in 0..6 {
            let later = |number, delay_ms, token: Option<String>| Message::Later {
                number,
                delay_ms,
                token,
            };
            let token = Some(format!("token {id}"));
            let whole = later(10 * id, 1000 * (id + 1), token);
            source.push((0, ACTOR.message(id, whole)));
            let half = later(10 * id + 5, 1000 * (id + 1) + 500, None);
            source.push((0, ACTOR.message(id, half)));
        }
        let set = source.len();
        let cancel = |id: u64| (2, ACTOR.message(id, Message::Cancel(format!("token {id}"))));
        // Comes after the snapshot.
        source.push(cancel(5));
        let (clock, hands) = Clock::turned(START_MS);
        let (outside, all) = (Outside::new(&clock), source.clone());
        let functions = move || outside.functions();
        let script = move |execution: &mut Execution<'_, Message, Told>| {
            execution.give(&all[..set]);
            execution.settle(1);
            hands.advance(ms(1200));
            execution.until("one message is due", |execution| {
                !arrived(&execution.seen.borrow()).is_empty()
            });
            execution.cut();
            // All of this is lost: what is cancelled, and what is sent off.
            execution.give(&all);
            execution.settle(3);
            hands.advance(ms(2000));
            execution.until("more messages are due", |execution| {
                arrived(&execution.seen.borrow()).len() > 3
            });
            execution.seen.take()
        };
        let seen = run(1, &store, &on_request(), functions, TOLD, script).unwrap().concat();
        assert_eq!(arrived(&seen)[0], (0, 1200));

        source.extend([cancel(3), cancel(0)]);
        let again = |id: u64, number| {
            let token = Some(format!("token {id}"));
            (2, ACTOR.message(id, Message::Later { number, delay_ms: 100_000, token }))
        };
        source.extend([again(4, 41), again(2, 21)]);
        let (clock, hands) = Clock::turned(START_MS + 3300);
        let (outside, all) = (Outside::new(&clock), source.clone());
        let functions = move || outside.functions();
        let total = Arc::new(AtomicU64::new(0));
        let script = move |execution: &mut Execution<'_, Message, Told>| {
            let count = |execution: &Execution<'_, Message, Told>| {
                arrived(&execution.seen.borrow()).len() as u64
            };
            // Each worker adds what it has seen more than before.
            let known = std::cell::Cell::new(0);
            let sum = |execution: &Execution<'_, Message, Told>| {
                let count = count(execution);
                total.fetch_add(count - known.replace(count), SeqCst);
                total.load(SeqCst)
            };
            execution.until("what is overdue arrives", |execution| sum(execution) >= 4);
            execution.give(&all);
            execution.settle(3);
            let overdue = execution.seen.borrow().clone();
            // All have looked at this before the clock is turned.
            execution.settle(4);
            if execution.worker.index() == 0 {
                hands.advance(ms(400));
            }
            execution.until("one more is due", |execution| sum(execution) >= 5);
            if execution.worker.index() == 0 {
                hands.advance(ms(1_000_000));
            }
            execution.end().unwrap();
            (overdue, execution.seen.take())
        };
        let ran = run(workers, &store, &on_request(), functions, TOLD, script).unwrap();
        let overdue: Vec<_> = ran.iter().flat_map(|(overdue, _)| arrived(overdue)).collect();
        let seen: Vec<_> = ran.into_iter().flat_map(|(_, seen)| seen).collect();
        let in_order = |of: &[(u64, u64)], due: &dyn Fn(u64) -> bool| {
            let mut of: Vec<u64> =
                of.iter().map(|(number, _)| *number).filter(|n| due(*n)).collect();
            if workers > 1 {
                // In order by sender, and there are some on each worker.
                of.sort_by_key(|number| number / 10);
            }
            of
        };
        assert_eq!(in_order(&overdue, &|_| true), [5, 10, 15, 20], "on {workers} workers");
        assert!(overdue.iter().all(|(_, now_ms)| *now_ms == 3300));
        let arrived = arrived(&seen);
        // 0 was sent off before the snapshot. 30 and 50 were cancelled, and 40 was there as 41 was set.
        let all = [5, 10, 15, 20, 25, 35, 40, 45, 55, 21];
        let mut sorted = all;
        if workers > 1 {
            sorted.sort_by_key(|number| number / 10);
        }
        assert_eq!(in_order(&arrived, &|_| true), sorted, "on {workers} workers");
        for (number, now_ms) in arrived {
            let due = match number {
                21 => 103_300,
                whole if whole % 10 == 0 => 100 * whole + 1000,
                half => 100 * (half - 5) + 1500,
            };
            assert!(now_ms >= due, "{number} at {now_ms}");
            assert!(number != 25 || now_ms == 3700);
        }
        let did = seen.iter().filter_map(|(_, told)| match told {
            Told::Did(what, took_effect) => Some((what.as_str(), *took_effect)),
            _ => None,
        });
        let did: BTreeMap<_, _> = did.collect();
        let expected = [
            ("cancel token 0", false),
            ("cancel token 3", true),
            ("cancel token 5", true),
            ("later 21", true),
            ("later 41", false),
        ];
        assert!(did.into_iter().eq(expected));
    }
}

/// Of five operations of each function, one has ended at the cut, two are under way and two wait for their
/// turn.
#[test]
fn operations_come_back_as_unknown_with_what_was_said_of_them() {
    for workers in 1..=2 {
        let store = memory();
        let mut source = Source::new();
        for number in 0..5 {
            source.push((number, ACTOR.message(number % 3, Message::Begin(number))));
            source.push((number, DETACHED.message(number % 3, Message::Begin(10 + number))));
        }
        let outside = Outside::new(&Clock::system());
        let (ends, all) = (Arc::clone(&outside.ends), source.clone());
        let functions = move || outside.functions();
        let script = move |execution: &mut Execution<'_, Message, Told>| {
            execution.give(&all);
            execution.input.as_mut().unwrap().advance_to(100);
            let is_there = |number: u64| ends.lock().unwrap().contains_key(&number);
            execution.until("operations begin", |_| is_there(0) && is_there(10));
            let end = |number: u64| {
                let end = ends.lock().unwrap().remove(&number);
                end.expect("it is under way").send(7).expect("somebody waits");
            };
            let outcomes = |execution: &Execution<'_, Message, Told>| execution.seen.borrow().len();
            end(0);
            end(10);
            execution.until("two have ended", |execution| outcomes(execution) == 2);
            execution.until("others begin", |_| is_there(2) && is_there(12));
            execution.cut();
            // This is lost.
            end(1);
            execution.until("three have ended", |execution| outcomes(execution) == 3);
            execution.seen.take()
        };
        let seen = run(1, &store, &on_request(), functions, TOLD, script).unwrap().concat();
        let outcome = |number: u64, outcome| {
            Told::Outcome(number, format!("by {}", number % 10 % 3), outcome)
        };
        assert_eq!(seen[0].1.clone().max(seen[1].1.clone()), outcome(10, Some(7)));

        let outside = Outside::new(&Clock::system());
        let functions = move || outside.functions();
        let script = |execution: &mut Execution<'_, Message, Told>| {
            // No time is passed at which something is unknown.
            execution.settle(50);
            execution.end().unwrap();
            (execution.seen.take(), execution.snapshots.restored().unwrap().counts.operations)
        };
        let ran = run(workers, &store, &on_request(), functions, TOLD, script).unwrap();
        assert_eq!(ran[0].1, 8);
        let seen = by_record(ran.into_iter().map(|(seen, _)| seen).collect());
        let numbers = (1..5).chain(11..15);
        let expected = numbers.map(|number| outcome(number, None));
        assert!(seen.keys().cloned().eq(expected), "{seen:?}");
        for (told, times) in seen {
            let Told::Outcome(number, ..) = told else { unreachable!() };
            // What is detached is a new event.
            if number < 10 {
                assert_eq!(times, [number]);
            }
            assert_eq!(times.len(), 1);
        }
    }
}

/// A message is tried at 0 s, 1 s, 3 s, 7 s and 15 s. The program is killed after the second attempt.
#[test]
fn a_message_that_failed_keeps_its_attempts_and_its_wait_and_what_is_behind_it_its_place() {
    for (succeeds, workers) in [(4, 1), (4, 2), (9, 1), (9, 2)] {
        for is_held in [true, false] {
            let function = if is_held { ACTOR } else { DETACHED };
            let store = memory();
            let fail = |number, succeeds| function.message("one", Message::Fail(number, succeeds));
            let source = vec![(5, fail(1, succeeds)), (6, fail(2, 1)), (6, fail(3, 1))];
            let (clock, hands) = Clock::turned(START_MS);
            let outside = Outside::new(&clock);
            let (attempts, all) = (Arc::clone(&outside.attempts), source.clone());
            let functions = move || outside.functions();
            let tried = Arc::clone(&attempts);
            let script = move |execution: &mut Execution<'_, Message, Told>| {
                execution.give(&all);
                execution.until("it is tried", |_| tried.lock().unwrap().len() == 1);
                hands.advance(ms(1000));
                execution.until("it is tried again", |_| tried.lock().unwrap().len() == 2);
                hands.advance(ms(500));
                execution.cut();
                // This is lost.
                hands.advance(ms(1500));
                execution.until("it is tried again", |_| tried.lock().unwrap().len() == 3);
                execution.seen.borrow().len()
            };
            let seen = run(1, &store, &on_request(), functions, TOLD, script).unwrap();
            assert_eq!(seen, [0]);
            attempts.lock().unwrap().pop();

            let (clock, hands) = Clock::turned(START_MS + 1500);
            let mut outside = Outside::new(&clock);
            outside.attempts = Arc::clone(&attempts);
            let functions = move || outside.functions();
            let tried = Arc::clone(&attempts);
            let script = move |execution: &mut Execution<'_, Message, Told>| {
                if execution.worker.index() == 0 {
                    execution.input.as_mut().unwrap().advance_to(20);
                    // When a cut is durable, everything is restored everywhere.
                    execution.cut();
                    let turned = [1500, 4000, 8000].into_iter().take(succeeds.min(5) as usize - 2);
                    for (turn, before) in turned.zip(2..) {
                        let count = || tried.lock().unwrap().len();
                        hands.advance(ms(turn - 1));
                        // All loops have looked at the clock.
                        execution.cut();
                        assert_eq!(count(), before, "it is not due");
                        assert!(!is_held || execution.probe.less_equal(&5), "its time is held");
                        hands.advance(ms(1));
                        execution.until("it is tried", |_| count() > before);
                    }
                }
                execution.end().unwrap();
                (execution.seen.take(), execution.letters.take())
            };
            let ran = run(workers, &store, &on_request(), functions, TOLD, script).unwrap();
            let (seen, letters): (Vec<_>, Vec<_>) = ran.into_iter().unzip();
            let (seen, letters) = (seen.concat(), letters.concat());
            let attempts = attempts.lock().unwrap();
            let of = |number: u64| {
                let of = attempts.iter().filter(|(of, _)| *of == number);
                of.map(|(_, at)| at - START_MS).collect::<Vec<_>>()
            };
            let due = [0, 1000, 3000, 7000, 15_000];
            let tries = succeeds.min(5) as usize;
            let what = format!("{function:?}, {succeeds}, {workers} workers");
            assert_eq!(of(1), due[..tries], "{what}");
            assert_eq!((of(2).len(), of(3).len()), (1, 1), "{what}");
            assert!(of(2)[0] >= due[tries - 1], "it waited behind: {what}");
            let numbers: Vec<u64> = seen
                .iter()
                .map(|(_, told)| match told {
                    Told::Succeeded { number, .. } => *number,
                    other => panic!("{other:?}"),
                })
                .collect();
            match succeeds {
                4 => assert_eq!(numbers, [1, 2, 3], "{what}"),
                _ => {
                    assert_eq!(numbers, [2, 3], "{what}");
                    assert_eq!((letters.len(), letters[0].1.attempts), (1, 5), "{what}");
                }
            }
            if is_held {
                let times = seen.iter().map(|(time, _)| *time).collect::<Vec<_>>();
                assert!(times.ends_with(&[6, 6]), "each at its time: {times:?}");
                assert!(letters.iter().all(|(time, _)| *time == 5));
            }
        }
    }
}

// Messages in the loop.

const PUMP: FunctionType<Load> = FunctionType::new("restored/pump");
const BASIN: FunctionType<Load> = FunctionType::new("restored/basin");
const FOUND: Egress<Found> = Egress::new("restored/found");
const PUMPS: u64 = 4;
const STROKES: u64 = 20_000;
const BASINS: u64 = 5;
/// Who the source is, among those that send to a basin.
const SOURCE: u64 = 99;
const DROPS: u64 = 3000;

const LAST: TableSpec<u64, u64> = TableSpec::new("last");
const STROKE: ValueSpec<u64> = ValueSpec::new("stroke");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Load {
    /// The next stroke of a pump, which sends a drop to some basins.
    Stroke,
    /// From whom, and which of those that they send here.
    Drop {
        from: u64,
        number: u64,
    },
    Report,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// A pump is done.
    Done(u64),
    /// What a basin has of each that sends to it: all up to this.
    Basin(u64, BTreeMap<u64, u64>),
    Wrong(String),
}

/// The basins that a pump fills.
fn basins(pump: u64) -> impl Iterator<Item = u64> {
    (0..3).map(move |n| (pump + 2 * n) % BASINS)
}

fn plant() -> Functions<Load> {
    let pump = Function::new(|context: &mut Context<'_, Load>, _: &Load| {
        let pump = context.id().as_number().ok_or("pumps are numbers")?;
        if *context.time() != pump {
            let wrong = format!("pump {pump} at {}", context.time());
            context.emit(FOUND, Found::Wrong(wrong));
        }
        let number = context.update(STROKE, |stroke| *stroke += 1);
        for basin in basins(pump) {
            context.send(BASIN, 1000 + basin, Load::Drop { from: pump, number });
        }
        match number {
            STROKES => context.emit(FOUND, Found::Done(pump)),
            _ => context.send(PUMP, pump, Load::Stroke),
        }
        Ok(())
    });
    let basin = Function::new(|context: &mut Context<'_, Load>, load: &Load| {
        let basin = context.id().as_number().ok_or("basins are numbers")? - 1000;
        match load {
            Load::Drop { from, number } => {
                let last = context.table(LAST).get(from).copied().unwrap_or(0);
                if *number != last + 1 {
                    let wrong = format!("{number} after {last} from {from} at {basin}");
                    context.emit(FOUND, Found::Wrong(wrong));
                }
                context.table(LAST).insert(*from, *number);
            }
            Load::Report => {
                let last = context.table(LAST).iter().map(|(from, last)| (*from, *last)).collect();
                context.emit(FOUND, Found::Basin(basin, last));
            }
            Load::Stroke => return Err("basins have no strokes".into()),
        }
        Ok(())
    });
    let pump = pump.value(STROKE);
    Functions::new().embedded(PUMP, pump).embedded(BASIN, basin.table(LAST)).egress(FOUND)
}

/// Pumps that never pause send numbered drops to basins on other workers, and so does the source. The
/// program is killed in the middle of it, again and again.
#[test]
fn messages_come_back_in_order_for_each_sender_and_target_at_their_own_times() {
    let (mut sent_away, mut counts_queued, mut counts_logged) = (0, 0, 0);
    for seed in 0..3 {
        let _running = Running(format!("seed {seed}"));
        let mut random = Random(seed);
        let store = memory();
        let mut source = Source::new();
        source.extend((0..PUMPS).map(|pump| (pump, PUMP.message(pump, Load::Stroke))));
        for number in 1..=DROPS {
            for basin in 0..BASINS {
                let drop = Load::Drop { from: SOURCE, number };
                source.push((PUMPS, BASIN.message(1000 + basin, drop)));
            }
        }
        let drops = source.len();
        source.extend((0..BASINS).map(|basin| (9, BASIN.message(1000 + basin, Load::Report))));
        let mut dones = Vec::new();
        for execution in 0..6 {
            let is_last = execution == 5;
            let workers = if execution == 0 { 2 } else { 1 + random.below(3) as usize };
            let all = source.clone();
            let (cuts, more) = (1 + random.below(2) as usize, random.below(2000));
            let script = move |execution: &mut Execution<'_, Load, Found>| {
                let counts = execution.snapshots.restored().map(|done| done.counts);
                if is_last {
                    execution.give(&all[..drops]);
                    execution.settle(9);
                    execution.give(&all);
                    execution.end().unwrap();
                } else {
                    // A part of the source in each.
                    let part = drops / 6 * (execution.snapshots.execution() as usize % 5 + 1);
                    execution.give(&all[..part.min(drops)]);
                    for _ in 0..cuts {
                        execution.cut();
                    }
                    for _ in 0..more {
                        execution.worker.step();
                    }
                }
                let is_open = execution.probe.less_equal(&(PUMPS - 1));
                (execution.seen.take(), execution.handle.stats().sent_away, counts, is_open)
            };
            let ran = run(workers, &store, &on_request(), plant, FOUND, script).unwrap();
            let counts = ran[0].2;
            counts_queued += counts.map_or(0, |counts| counts.queued);
            counts_logged += counts.map_or(0, |counts| counts.logged);
            sent_away += ran.iter().map(|(_, away, ..)| away).sum::<u64>();
            let is_open = ran.iter().all(|(.., is_open)| *is_open);
            let seen = by_record(ran.into_iter().map(|(seen, ..)| seen).collect());
            let is_done = (0..PUMPS)
                .all(|pump| dones.contains(&pump) || seen.contains_key(&Found::Done(pump)));
            assert!(is_done || is_open, "the frontier has passed what is not done");
            for (found, times) in &seen {
                match found {
                    Found::Done(pump) => {
                        assert_eq!(times, &[*pump], "pump {pump} was done at another time");
                        dones.push(*pump);
                    }
                    Found::Basin(basin, last) => {
                        let pumps = (0..PUMPS).filter(|pump| basins(*pump).any(|b| b == *basin));
                        let mut expected: BTreeMap<_, _> = pumps.map(|p| (p, STROKES)).collect();
                        expected.insert(SOURCE, DROPS);
                        assert!(is_last && *last == expected, "basin {basin}: {last:?}");
                    }
                    Found::Wrong(why) => panic!("{why}"),
                }
            }
            let reports = seen.keys().filter(|found| matches!(found, Found::Basin(..))).count();
            assert_eq!(reports, if is_last { BASINS as usize } else { 0 });
        }
    }
    println!("{counts_queued} messages were queued, {counts_logged} logged, {sent_away} crossed");
    assert!(counts_queued > 0 && counts_logged > 0 && sent_away > 0);
}

// What is bound now, and what was.

const ONE: FunctionType<Task> = FunctionType::new("bound/one");
const TWO: FunctionType<Task> = FunctionType::new("bound/two");
const NEVER: FunctionType<Task> = FunctionType::new("bound/never");
const SPACE: timely_statefun::Namespace<Task> = timely_statefun::Namespace::new("space");
const SUMS: Egress<(String, u64)> = Egress::new("bound/sums");
const SUM: ValueSpec<u64> = ValueSpec::new("sum");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Task {
    Add(u64),
    /// Adds it to function two of this id, after a minute.
    AddLater(u64),
    Show,
}

/// What there is of the first function.
#[derive(Copy, Clone, PartialEq, Eq)]
enum First {
    AsStored,
    OtherType,
    OtherKind,
}

fn adder() -> Function<Task, Task> {
    let adder = Function::new(|context: &mut Context<'_, Task>, task: &Task| {
        match task {
            Task::Add(more) => drop(context.update(SUM, |sum| *sum += more)),
            Task::AddLater(more) => {
                let id = context.id().clone();
                context.send_after(ms(60_000), TWO, id.clone(), Task::Add(*more));
                context.send_after(ms(60_000), NEVER, id, Task::Add(*more));
            }
            Task::Show => {
                let (at, sum) = (context.address().to_string(), context.get(SUM).copied());
                context.emit(SUMS, (at, sum.unwrap_or(0)));
            }
        }
        Ok(())
    });
    adder.value(SUM)
}

fn bound(clock: &Clock, first: First, two: bool, space: bool) -> Functions<Task> {
    let other = || Function::new(|_: &mut Context<'_, Task>, _: &Task| Ok(()));
    let one = match first {
        First::AsStored => adder(),
        First::OtherType => other().value(ValueSpec::<u32>::new("sum")),
        First::OtherKind => other().buffer(BufferSpec::<u64>::new("sum")),
    };
    let mut functions = Functions::new().embedded(ONE, one).egress(SUMS).clock(clock.clone());
    if two {
        functions = functions.embedded(TWO, adder());
    }
    if space {
        functions = functions.embedded_namespace(SPACE, adder());
    }
    functions
}

/// What does not fit is an error that names it. The snapshot stays what it was, and is restored when
/// everything is bound again.
#[test]
fn what_is_not_bound_as_it_was_is_an_error_that_names_it_and_nothing_is_lost() {
    let store = memory();
    let within = |id: u64, task: Task| SPACE.message("found", id, task).unwrap();
    let mut source = Source::new();
    for id in 0..5 {
        source.push((0, ONE.message(id, Task::Add(10 + id))));
        source.push((0, ONE.message(id, Task::AddLater(7))));
        source.push((0, within(id, Task::Add(30 + id))));
    }
    // Function two has no state yet, only messages that are on their way to it.
    let (clock, _hands) = Clock::turned(START_MS);
    let all = source.clone();
    let script = move |execution: &mut Execution<'_, Task, (String, u64)>| {
        execution.give(&all);
        execution.settle(1);
        execution.cut();
        execution.done.borrow()[0].cut
    };
    let functions = move || bound(&clock, First::AsStored, true, true);
    let cut = run(1, &store, &on_request(), functions, SUMS, script).unwrap()[0];

    let newest = || {
        let list = executions::threads().block_on(store.list()).unwrap();
        (list.len(), list[0].as_ref().unwrap().cut)
    };
    let variants: [(First, bool, bool, &[&str]); 5] = [
        (First::AsStored, false, true, &["not bound", "\"bound/two\""]),
        (First::AsStored, true, false, &["not bound", "\"space/found\""]),
        (First::AsStored, false, false, &["\"bound/two\"", "\"space/found\""]),
        (First::OtherType, true, true, &["\"bound/one\"", "\"sum\"", "rust/u64", "rust/u32"]),
        (First::OtherKind, true, true, &["\"bound/one\"", "\"sum\"", "value", "buffer"]),
    ];
    for (first, two, space, names) in variants {
        for workers in [1, 3] {
            let (clock, _hands) = Clock::turned(START_MS);
            let functions = move || bound(&clock, first, two, space);
            let script = |execution: &mut Execution<'_, Task, (String, u64)>| {
                execution.snapshots.request();
                for _ in 0..50 {
                    execution.worker.step();
                }
                let stopped = execution.end().unwrap_err();
                assert_eq!((execution.durable(), execution.seen.borrow().len()), (0, 0));
                assert!(!execution.probe.done(), "no frontier passes what did not happen");
                stopped
            };
            let ran = run(workers, &store, &on_request(), functions, SUMS, script).unwrap();
            for stopped in ran {
                let timely_statefun::Reason::NotRestored(why) = &stopped.reason else {
                    panic!("{stopped}")
                };
                assert!(names.iter().all(|name| why.contains(name)), "{names:?}: {why}");
                assert_eq!(stopped.address, None);
            }
            assert_eq!(newest(), (1, cut));
        }
    }
    let (clock, _hands) = Clock::turned(START_MS + 60_000);
    source.extend((0..5).map(|id| (3, ONE.message(id, Task::Show))));
    source.extend((0..5).map(|id| (3, TWO.message(id, Task::Show))));
    source.extend((0..5).map(|id| (3, within(id, Task::Show))));
    let functions = move || bound(&clock, First::AsStored, true, true);
    let script = move |execution: &mut Execution<'_, Task, (String, u64)>| {
        // What is overdue comes first.
        execution.cut();
        execution.settle(2);
        execution.give(&source);
        execution.end().unwrap();
        (execution.seen.take(), execution.letters.take())
    };
    let ran = run(2, &store, &on_request(), functions, SUMS, script).unwrap();
    let (seen, letters): (Vec<_>, Vec<_>) = ran.into_iter().unzip();
    let sums = (0..5).flat_map(|id| {
        let of = |name: &str, sum: u64| ((format!("{name} {id}"), sum), vec![3]);
        [of("bound/one", 10 + id), of("bound/two", 7), of("space/found", 30 + id)]
    });
    assert_eq!(by_record(seen), sums.collect());
    // What nothing was ever bound for comes back as well, and is given up as it would have been.
    let letters = letters.concat();
    assert_eq!(letters.len(), 5);
    for (_, letter) in letters {
        assert_eq!(letter.target.function_type.as_str(), "bound/never");
        assert_eq!(letter.caller.unwrap().function_type.as_str(), "bound/one");
        assert_eq!((letter.reason, letter.attempts), (timely_statefun::Reason::NotBound, 0));
    }
}

// Egresses whose records are kept.

const COUNTER: FunctionType<u64> = FunctionType::new("kept/counter");
const RECORDS: Egress<(u64, u64)> = Egress::new("kept/records");
const CHANGES: Egress<(u64, i64)> = Egress::new("kept/changes");

/// Emits what it is told, or changes that add up to it. What can be divided by ten succeeds when the clock
/// shows so many seconds.
fn counters(clock: &Clock) -> Functions<u64> {
    let counter = Function::new(|context: &mut Context<'_, u64>, number: &u64| {
        if number.is_multiple_of(10) && context.now_ms() < START_MS + 1000 * number {
            return Err("not yet".into());
        }
        let id = context.id().as_number().ok_or("counters are numbers")?;
        context.emit(RECORDS, (id, *number));
        context.emit(CHANGES, (1000 * id + number, 1));
        if number.is_multiple_of(2) {
            context.emit(CHANGES, (1000 * id + number - 1, -1));
        }
        Ok(())
    });
    let counter = counter.retry(timely_statefun::Retry::attempts(100).first(ms(1000)));
    let functions = Functions::new().embedded(COUNTER, counter).clock(clock.clone());
    functions.persisted_egress(RECORDS).persisted_changes(CHANGES)
}

/// The records of four executions, each of which emits some, has one that waits for another attempt at the
/// cut, and is killed after it has emitted one more.
fn kept_source() -> (Source<u64>, Vec<usize>) {
    let (mut source, mut ends) = (Source::new(), Vec::new());
    for execution in 1..=4 {
        let time = 10 * execution;
        for id in 0..4 {
            let numbers = 1..4;
            source.extend(numbers.map(|n| (time, COUNTER.message(id, 100 * execution + n))));
        }
        source.push((time + 1, COUNTER.message(40 + execution, 10 * execution)));
        ends.push(source.len());
        source.push((time + 5, COUNTER.message(3, 100 * execution + 7)));
    }
    (source, ends)
}

#[test]
fn what_was_emitted_to_a_kept_egress_comes_first_once_and_at_the_minimum_time() {
    let (store, (source, ends)) = (memory(), kept_source());
    // What is in the snapshot, by id, in order.
    let mut kept: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (execution, workers) in (1..).zip([1, 3, 2, 1]) {
        let (clock, _hands) = Clock::turned(START_MS + 10_000 * (execution - 1));
        let (all, end) = (source.clone(), ends[execution as usize - 1]);
        let time = 10 * execution;
        let script = move |run: &mut Execution<'_, u64, (u64, u64)>| {
            run.give(&all[..end]);
            run.settle(time + 1);
            run.cut();
            let seen = run.seen.borrow().clone();
            run.give(&all[..=end]);
            run.input.as_mut().unwrap().advance_to(time + 9);
            run.cut();
            seen
        };
        let functions = move || counters(&clock);
        let policy = on_request();
        // The first of two cuts is gone on from, so that what came after it is done again.
        let from = executions::threads().block_on(store.list()).unwrap();
        let policy = match from.get(1) {
            Some(info) => {
                policy.restore(timely_statefun::RestoreFrom::Cut(info.as_ref().unwrap().cut))
            }
            None => policy,
        };
        let ran = run(workers, &store, &policy, functions, RECORDS, script).unwrap();
        let mut seen = BTreeMap::<u64, Vec<(u64, u64)>>::new();
        for worker in ran {
            let new = worker.iter().position(|(time, _)| *time > 0).unwrap_or(worker.len());
            assert!(worker[new..].iter().all(|(time, _)| *time > 0), "first all that was kept");
            for (time, (id, number)) in worker {
                seen.entry(id).or_default().push((time, number));
            }
        }
        let mut expected: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        for (id, numbers) in &kept {
            expected.insert(*id, numbers.iter().map(|number| (0, *number)).collect());
        }
        if execution > 1 {
            let before = execution - 1;
            let late = (10 * before + 1, 10 * before);
            expected.entry(40 + before).or_default().push(late);
            let lost = (10 * before + 5, 100 * before + 7);
            expected.entry(3).or_default().push(lost);
        }
        for id in 0..4 {
            let new = (1..4).map(|n| (time, 100 * execution + n));
            expected.entry(id).or_default().extend(new);
        }
        assert_eq!(seen, expected, "execution {execution}");
        kept.clear();
        for (id, of) in seen {
            kept.insert(id, of.into_iter().map(|(_, number)| number).collect());
        }
    }
}

#[test]
fn changes_of_a_kept_egress_come_back_as_what_they_add_up_to() {
    let (store, (source, ends)) = (memory(), kept_source());
    let mut sums = BTreeMap::<u64, i64>::new();
    for (execution, workers) in (1..).zip([2, 1, 3]) {
        let (clock, _hands) = Clock::turned(START_MS + 10_000 * (execution - 1));
        let (all, end) = (source.clone(), ends[execution as usize - 1]);
        let time = 10 * execution;
        let script = move |run: &mut Execution<'_, u64, (u64, i64)>| {
            run.give(&all[..end]);
            run.settle(time + 1);
            run.cut();
            run.seen.take()
        };
        let functions = move || counters(&clock);
        let ran = run(workers, &store, &on_request(), functions, CHANGES, script).unwrap();
        let (first, new): (Vec<_>, Vec<_>) =
            ran.into_iter().flatten().partition(|(time, _)| *time == 0);
        let mut back = BTreeMap::new();
        for (_, (data, change)) in first {
            assert_eq!(back.insert(data, change), None, "one change for each piece of data");
        }
        assert_eq!(back, sums, "execution {execution}");
        for (_, (data, change)) in new {
            *sums.entry(data).or_default() += change;
        }
        sums.retain(|_, sum| *sum != 0);
        assert!(sums.len() > 4);
    }
}
