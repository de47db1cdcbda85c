//! Bundles: functions that bring a message type of their own do in a program that carries it what they
//! would do alone, among themselves and with the program's functions; and what does not fit together is
//! an error before anything runs.

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::on_workers;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{
    Address, Carries, Clock, Context, DeadLetter, Egress, Envelope, Error, Expiration, Function,
    FunctionResult, FunctionType, Functions, Mismatch, Namespace, OnFailure, Reason,
    StatefulFunctions, ValueSpec, messages,
};

/// Functions as another crate would bring them, which know nothing of those below.
mod audit {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Entry(pub String);

    messages! {
        /// What the functions here are told.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Message { Entry(Entry) }
    }

    pub const BOOK: FunctionType<Entry> = FunctionType::new("audit/book");
    const LINES: ValueSpec<u64> = ValueSpec::new("lines");
    /// The book, the number of the line, and what it says.
    pub const WRITTEN: Egress<(String, u64, String)> = Egress::new("audit/written");

    pub fn functions() -> Functions<Message> {
        let book = Function::new(|context, Entry(text): &Entry| {
            let line = context.update(LINES, |lines| *lines += 1);
            context.emit(WRITTEN, (context.id().to_string(), line, text.clone()));
            Ok(())
        });
        Functions::new().embedded(BOOK, book.value(LINES)).egress(WRITTEN)
    }
}

/// Functions as yet another crate would bring them, which has [`audit`] in it.
mod post {
    use timely_statefun::{Limits, Outcome, Retry};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Letter {
        pub number: u64,
        pub wish: Wish,
    }

    /// What is to be done with a letter.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Wish {
        Keep,
        Stamp,
        StampLater(String),
        Cancel(String),
        Ask,
        Write,
        Lose,
    }

    /// What is said to whoever sent a letter.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Receipt {
        pub number: u64,
        pub said: String,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Stamp(pub u64);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Question {
        Ask { number: u64, asker: Address },
        Told { number: u64, asker: Address, outcome: Outcome<u64> },
    }

    messages! {
        /// What the functions here are told.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Message {
            Letter(Letter),
            Receipt(Receipt),
            Stamp(Stamp),
            Question(Question),
            Audit(audit::Message) carries [audit::Entry],
        }
    }

    pub const BOX: FunctionType<Letter> = FunctionType::new("post/box");
    const DESK: FunctionType<Question> = FunctionType::new("post/desk");
    pub const ROUTES: Namespace<Stamp> = Namespace::new("routes");
    const KEPT: ValueSpec<u64> = ValueSpec::new("kept");
    /// Who stamped a letter, and who had it stamped.
    pub const STAMPED: Egress<(u64, String, Option<Address>)> = Egress::new("post/stamped");

    pub fn functions() -> Functions<Message> {
        let retry = Retry::attempts(2).first(Duration::from_secs(60)).jitter(0.0);
        let letters = Function::new(letter).value(KEPT);
        // What a bundle says of these things does not count: nothing would be right if it did.
        let limits = Limits { depth_max: 0, delayed_messages_max: 0, ..Limits::default() };
        let (stands_still, _) = Clock::turned(0);
        Functions::new()
            .named("post")
            .limits(limits)
            .clock(stands_still)
            .embedded(BOX, letters.retry(retry).on_failure(OnFailure::DeadLetter))
            .embedded(DESK, Function::new(question).operations(1))
            .embedded_namespace(ROUTES, Function::new(stamp))
            .egress(STAMPED)
            .bundle(audit::functions())
    }

    fn letter(context: &mut Context<'_, Message>, letter: &Letter) -> FunctionResult {
        let number = letter.number;
        let kept = context.update(KEPT, |kept| *kept += 1);
        let this = context.id().clone();
        let said = match &letter.wish {
            Wish::Keep => format!("kept as the {kept}."),
            Wish::Stamp => {
                context.send_within(ROUTES, "north", 100 + number, Stamp(number))?;
                "sent north".to_owned()
            }
            Wish::StampLater(token) => {
                let (hour, south) = (Duration::from_secs(3600), ROUTES.at("south", this)?);
                let message = Message::pack(Stamp(number));
                match context.forward_after(Some(token), hour, south, message) {
                    Ok(()) => "to be sent south".to_owned(),
                    Err(in_use) => in_use.to_string(),
                }
            }
            Wish::Cancel(token) => format!("cancelled: {}", context.cancel(token)),
            Wish::Ask => {
                let asker = context.caller().ok_or("nobody asked")?;
                context.send(DESK, 200 + number, Question::Ask { number, asker });
                return Ok(());
            }
            Wish::Write => {
                let line = format!("a letter at {this}");
                context.send(audit::BOOK, "of the post", audit::Entry(line));
                "written down".to_owned()
            }
            Wish::Lose => {
                context.emit(STAMPED, (number, "nobody".to_owned(), None));
                context.send(audit::BOOK, "of the post", audit::Entry("lost".to_owned()));
                context.send_after(Duration::ZERO, BOX, this, letter.clone());
                context.reply(Receipt { number, said: "lost".to_owned() })?;
                return Err("lost".into());
            }
        };
        context.reply(Receipt { number, said })?;
        Ok(())
    }

    fn stamp(context: &mut Context<'_, Message>, Stamp(number): &Stamp) -> FunctionResult {
        let (stamped_by, caller) = (context.address().to_string(), context.caller());
        context.emit(STAMPED, (*number, stamped_by, caller));
        Ok(())
    }

    fn question(context: &mut Context<'_, Message>, question: &Question) -> FunctionResult {
        match question.clone() {
            Question::Ask { number, asker } => {
                let operation = async move {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    Ok::<u64, std::io::Error>(number * 2)
                };
                context.start(operation, move |outcome| Question::Told {
                    number,
                    asker: asker.clone(),
                    outcome,
                });
            }
            Question::Told { number, asker, outcome } => {
                assert_eq!(context.caller(), Some(context.address()));
                let said = format!("{outcome:?}");
                context.forward(asker, Message::pack(Receipt { number, said }));
            }
        }
        Ok(())
    }
}

use post::{Letter, Stamp, Wish};

/// A letter to send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order(Letter);

messages! {
    /// What travels in this program.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Message {
        Order(Order),
        Post(post::Message) carries [Letter, Stamp, audit::Entry],
    }
}

/// A function of this program that takes all there is, and sends orders on as letters.
const SHOP: FunctionType<Message> = FunctionType::new("shop/shop");
/// One that takes what the bundle in the bundle takes, and passes it on.
const CLERK: FunctionType<audit::Entry> = FunctionType::new("shop/clerk");
const RECEIPTS: Egress<(String, post::Receipt)> = Egress::new("shop/receipts");
const START_MS: u64 = 1_700_000_000_000;

fn shop(context: &mut Context<'_, Message>, message: &Message) -> FunctionResult {
    let shop = context.id().to_string();
    match message {
        Message::Order(Order(letter)) => {
            context.send(post::BOX, format!("box of {shop}"), letter.clone());
        }
        Message::Post(post::Message::Receipt(receipt)) => {
            assert_ne!(context.caller(), Some(context.address()));
            context.emit(RECEIPTS, (shop, receipt.clone()));
        }
        other => return Err(format!("{other:?} in a shop").into()),
    }
    Ok(())
}

fn functions() -> Functions<Message> {
    let clerk = Function::new(|context, entry: &audit::Entry| {
        context.send(audit::BOOK, "of the clerk", entry.clone());
        context.send_within(post::ROUTES, "east", "a parcel", Stamp(7))?;
        Ok(())
    });
    Functions::new()
        .embedded(SHOP, Function::new(shop))
        .bundle(post::functions())
        .embedded(CLERK, clerk)
        .egress(RECEIPTS)
}

/// Everything that leaves, with its time.
#[derive(Clone, Debug, Default, PartialEq)]
struct Left {
    receipts: Vec<(u64, String, u64, String)>,
    stamped: Vec<(u64, u64, String, Option<String>)>,
    written: Vec<(u64, String, u64, String)>,
    letters: Vec<(u64, DeadLetter<Message>)>,
}

impl Left {
    fn sort(&mut self) {
        self.receipts.sort();
        self.stamped.sort();
        self.written.sort();
        self.letters.sort_by_key(|(_, letter)| letter.target.clone());
    }
}

const SHOPS: u64 = 10;

/// What the shops order, on worker 0, and at which time.
fn orders(worker: &Worker, wishes: Vec<Wish>, from: u64) -> Vec<Envelope<Message>> {
    let shops = if worker.index() == 0 { 0..SHOPS } else { 0..0 };
    let orders = shops.flat_map(|shop| {
        let number = move |at: u64| shop * 100 + from + at;
        (0..).zip(wishes.clone()).map(move |(at, wish)| {
            let order = Order(Letter { number: number(at), wish });
            SHOP.message(format!("shop {shop}"), Message::Order(order))
        })
    });
    orders.collect()
}

/// Gives what left on this worker, and how many messages went to others.
fn one_run(worker: &mut Worker, runtime: tokio::runtime::Handle) -> (Left, u64) {
    let (clock, hands) = Clock::turned(START_MS);
    let left = Rc::new(RefCell::new(Left::default()));
    let see = || Rc::clone(&left);
    let (mut input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
        let functions = functions().clock(clock).runtime(runtime);
        let egresses = stream.stateful_functions(functions).unwrap();
        let left = see();
        let receipts = egresses.stream(RECEIPTS).unwrap();
        let receipts = receipts.inspect_time(move |at, (shop, receipt)| {
            let post::Receipt { number, said } = receipt.clone();
            left.borrow_mut().receipts.push((*at, shop.clone(), number, said));
        });
        let left = see();
        egresses.stream(post::STAMPED).unwrap().inspect_time(move |at, (number, by, caller)| {
            let caller = caller.as_ref().map(Address::to_string);
            left.borrow_mut().stamped.push((*at, *number, by.clone(), caller));
        });
        let left = see();
        egresses.stream(audit::WRITTEN).unwrap().inspect_time(move |at, (book, line, text)| {
            left.borrow_mut().written.push((*at, book.clone(), *line, text.clone()));
        });
        let left = see();
        egresses.dead_letters().unwrap().inspect_time(move |at, letter| {
            left.borrow_mut().letters.push((*at, letter.clone()));
        });
        (input, receipts.probe().0, egresses.handle())
    });
    let token = |token: &str| token.to_owned();
    let wishes = vec![
        Wish::Keep,
        Wish::Stamp,
        Wish::StampLater(token("one")),
        Wish::StampLater(token("one")),
        Wish::StampLater(token("two")),
        Wish::Cancel(token("two")),
        Wish::Cancel(token("three")),
        Wish::Ask,
        Wish::Write,
        Wish::Keep,
    ];
    orders(worker, wishes, 0).into_iter().for_each(|order| input.send(order));
    if worker.index() == 0 {
        input.send(audit::BOOK.message("of ingress", audit::Entry("by itself".to_owned())));
        input.send(CLERK.message("Ada", audit::Entry("from outside".to_owned())));
        let order = Order(Letter { number: 7, wish: Wish::Keep });
        input.send(Envelope::new(post::BOX.at("of letters"), Message::Order(order)));
    }
    input.advance_to(1);
    handle.run_while(worker, || probe.less_than(&1)).unwrap();
    // What is due happens in this step, on every worker.
    hands.advance(Duration::from_secs(3600));
    worker.step();
    input.advance_to(2);
    handle.run_while(worker, || probe.less_than(&2)).unwrap();
    let wishes = vec![Wish::Lose, Wish::Keep];
    orders(worker, wishes, 50).into_iter().for_each(|order| input.send(order));
    input.close();
    while !probe.done() {
        // A letter that is lost is tried again after a minute.
        hands.advance(Duration::from_secs(60));
        worker.step();
    }
    handle.run(worker).unwrap();
    (left.take(), handle.stats().sent_away)
}

fn assert_as_expected(mut left: Left) {
    let mut expected = Left::default();
    for shop in 0..SHOPS {
        let (name, at_box) = (format!("shop {shop}"), format!("box of shop {shop}"));
        let by = Some(format!("post/box {at_box}"));
        let said = [
            (0, 0, "kept as the 1.".to_owned()),
            (0, 1, "sent north".to_owned()),
            (0, 2, "to be sent south".to_owned()),
            (0, 3, "a delayed message waits with the token \"one\"".to_owned()),
            (0, 4, "to be sent south".to_owned()),
            (0, 5, "cancelled: true".to_owned()),
            (0, 6, "cancelled: false".to_owned()),
            (0, 7, format!("Completed({})", 2 * (shop * 100 + 7))),
            (0, 8, "written down".to_owned()),
            (0, 9, "kept as the 10.".to_owned()),
            (2, 51, "kept as the 11.".to_owned()), // The one before was lost, and left no trace.
        ];
        for (at, number, said) in said {
            expected.receipts.push((at, name.clone(), shop * 100 + number, said));
        }
        let (first, second) = (shop * 100 + 1, shop * 100 + 2);
        expected.stamped.push((0, first, format!("routes/north {}", 100 + first), by.clone()));
        expected.stamped.push((1, second, format!("routes/south {at_box}"), by));
        let text = format!("a letter at {at_box}");
        expected.written.push((0, "of the post".to_owned(), 0, text));
        let lost = Letter { number: shop * 100 + 50, wish: Wish::Lose };
        let letter = DeadLetter {
            target: post::BOX.at(at_box),
            caller: Some(SHOP.at(name)),
            message: Message::Post(post::Message::Letter(lost)),
            reason: Reason::Failed("lost".to_owned()),
            attempts: 2,
        };
        expected.letters.push((2, letter));
    }
    let parcel = "routes/east a parcel".to_owned();
    expected.stamped.push((0, 7, parcel, Some("shop/clerk Ada".to_owned())));
    for (book, text) in [("of ingress", "by itself"), ("of the clerk", "from outside")] {
        expected.written.push((0, book.to_owned(), 1, text.to_owned()));
    }
    let wrong = DeadLetter {
        target: post::BOX.at("of letters"),
        caller: None,
        message: Message::Order(Order(Letter { number: 7, wish: Wish::Keep })),
        reason: Reason::WrongInput(Mismatch::new("post::Message", "Order")),
        attempts: 1,
    };
    expected.letters.push((0, wrong));

    // Chance decides which box writes first.
    let of_the_post = left.written.iter_mut().filter(|(_, book, ..)| book == "of the post");
    let mut lines: Vec<u64> = of_the_post.map(|(_, _, line, _)| std::mem::take(line)).collect();
    lines.sort_unstable();
    assert!(lines.into_iter().eq(1..=SHOPS));
    left.sort();
    expected.sort();
    assert_same(left.receipts, expected.receipts);
    assert_same(left.stamped, expected.stamped);
    assert_same(left.written, expected.written);
    assert_same(left.letters, expected.letters);
}

/// Compares one by one, so that what differs can be read.
#[track_caller]
fn assert_same<X: std::fmt::Debug + PartialEq>(found: Vec<X>, expected: Vec<X>) {
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn a_bundle_does_in_a_program_what_it_does_alone() {
    for workers in [1, 2] {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        let results = on_workers(workers, move |worker| one_run(worker, handle.clone()));
        let mut all = Left::default();
        let mut crossed = 0;
        for (left, sent_away) in results {
            all.receipts.extend(left.receipts);
            all.stamped.extend(left.stamped);
            all.written.extend(left.written);
            all.letters.extend(left.letters);
            crossed += sent_away;
        }
        assert_as_expected(all);
        assert_eq!(crossed > 0, workers > 1, "messages go to other workers if there are any");
    }
}

/// A bundle of whatever names the case is about.
fn bundle(function: &'static str, namespace: &'static str, egress: &'static str) -> Functions<u64> {
    let nothing = || Function::new(|_, _: &u64| Ok(()));
    let (function, namespace) = (FunctionType::<u64>::new(function), Namespace::new(namespace));
    Functions::new()
        .embedded(function, nothing())
        .embedded_namespace(namespace, nothing())
        .egress(Egress::<u64>::new(egress))
}

messages! {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Carrying { Number(u64), Text(String) }
}

/// The program: names that bundles may clash with.
fn program() -> Functions<Carrying> {
    let nothing = || Function::new(|_, _: &String| Ok(()));
    const MINE: FunctionType<String> = FunctionType::new("mine/function");
    Functions::new()
        .embedded(MINE, nothing())
        .embedded_namespace(Namespace::<String>::new("mine"), nothing())
        .egress(Egress::<String>::new("mine/egress"))
}

/// The error of functions that must not be built, on both ways to ask for it.
fn refused(functions: impl Fn() -> Functions<Carrying> + Send + Sync + 'static) -> Error {
    let error = functions().check().expect_err("there is a mistake");
    let checked = error.clone();
    timely::execute_directly(move |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            let (_, stream) = scope.new_input::<Vec<Envelope<Carrying>>>();
            let built = stream.stateful_functions(functions()).expect_err("there is a mistake");
            assert_eq!(built, checked);
        });
    });
    error
}

#[test]
fn names_that_clash_are_an_error_whoever_comes_first() {
    let others = ("other/function", "other", "other/egress");
    program().bundle(bundle(others.0, others.1, others.2)).check().expect("nothing clashes");
    let cases = [
        (("mine/function", others.1, others.2), "function type \"mine/function\" is bound twice"),
        ((others.0, "mine", others.2), "namespace \"mine\" is bound twice"),
        ((others.0, others.1, "mine/egress"), "egress \"mine/egress\" is bound twice"),
    ];
    for ((function, namespace, egress), text) in cases {
        let bundle = move || bundle(function, namespace, egress);
        let first = refused(move || program().bundle(bundle()));
        let last = refused(move || {
            let empty = Functions::<Carrying>::new().bundle(bundle());
            empty.bundle(program())
        });
        for error in [first, last] {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.is_duplicate_egress(), text.starts_with("egress"));
            assert_eq!(error.is_duplicate_function(), !text.starts_with("egress"));
        }
    }
    // What is bound after a bundle clashes with it as well, and so does another bundle.
    const TAKEN: FunctionType<String> = FunctionType::new("other/function");
    let others = move || bundle(others.0, others.1, others.2);
    let error = refused(move || {
        let late = Function::new(|_, _: &String| Ok(()));
        program().bundle(others()).embedded(TAKEN, late)
    });
    assert!(error.is_duplicate_function());
    assert!(refused(move || program().bundle(others()).bundle(others())).is_duplicate_function());
}

#[test]
fn a_function_of_a_namespace_that_is_bound_by_itself_is_no_clash() {
    let exact = bundle("mine/other", "yours", "yours/egress");
    program().bundle(exact).check().expect("a type comes before its namespace");
}

#[test]
fn a_mistake_in_a_bundle_comes_out_of_the_programs_check() {
    const FUNCTION: FunctionType<u64> = FunctionType::new("other/function");
    const BAD: FunctionType<u64> = FunctionType::new("no name");
    const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
    let nothing = || Function::new(|_, _: &u64| Ok(()));
    let in_program = |mistaken: fn(Function<u64, u64>) -> Functions<u64>| {
        let error = refused(move || program().bundle(mistaken(nothing())));
        // The same in a bundle in the bundle.
        let deeper = refused(move || {
            let bundle = Functions::<u64>::new().bundle(mistaken(nothing()));
            program().bundle(bundle)
        });
        assert_eq!(deeper, error);
        error
    };
    let error = in_program(|function| Functions::new().embedded(BAD, function));
    assert!(error.is_invalid_name());
    let error = in_program(|function| {
        Functions::new().embedded(FUNCTION, function.value(TOTAL).value(TOTAL))
    });
    assert!(error.is_duplicate_state());
    let error = in_program(|function| {
        let total = TOTAL.expiring(Expiration::after_write(Duration::ZERO));
        Functions::new().embedded(FUNCTION, function.value(total))
    });
    assert!(error.is_invalid_expiration());
    let error = in_program(|function| {
        let twice = Functions::new().embedded(FUNCTION, function);
        twice.embedded(FUNCTION, Function::new(|_, _: &u64| Ok(())))
    });
    assert!(error.is_duplicate_function());
    let error = in_program(|function| Functions::new().embedded(FUNCTION, function.operations(1)));
    assert!(error.is_no_runtime());
}

#[test]
fn operations_of_a_bundle_run_on_the_programs_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let asking = || {
        let function = Function::new(|_, _: &u64| Ok(())).operations(1);
        Functions::<u64>::new().embedded(FunctionType::<u64>::new("other/function"), function)
    };
    let handle = runtime.handle().clone();
    let error = refused(move || program().bundle(asking().runtime(handle.clone())));
    let text = "function \"other/function\" needs a runtime, for asynchronous operations or calls, and none was given";
    assert_eq!(error.to_string(), text);
    let handle = runtime.handle().clone();
    program().bundle(asking()).runtime(handle.clone()).check().expect("whichever comes first");
    program().runtime(handle).bundle(asking()).check().expect("whichever comes first");
}
