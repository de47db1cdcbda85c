//! Asynchronous operations: each outcome comes back once, at the time its operation began, in whatever
//! order they end; no more are under way than may be; and what waits for them stops nothing else.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use support::{Random, on_workers};
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{
    Context, Egress, Envelope, Function, FunctionResult, FunctionType, Functions, Limits, Outcome,
    Reason, StatefulFunctions,
};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const ASKER: FunctionType<Message> = FunctionType::new("operations/asker");
const BYSTANDER: FunctionType<Message> = FunctionType::new("operations/bystander");
const HEARD: Egress<(u64, Outcome<u64>)> = Egress::new("operations/heard");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    Ask(u64),
    Told(u64, Outcome<u64>),
}

type Answer = Result<u64, std::io::Error>;

/// Operations that the test ends itself, by number.
#[derive(Clone, Default)]
struct Questions(Arc<Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>>);

impl Questions {
    fn ask(&self, number: u64) -> impl Future<Output = Answer> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        assert!(self.0.lock().unwrap().insert(number, sender).is_none(), "asked once");
        async move { receiver.await.expect("the test answers") }
    }

    fn answer(&self, number: u64, answer: Answer) {
        let sender = self.0.lock().unwrap().remove(&number);
        sender.expect("it was asked").send(answer).expect("somebody waits");
    }

    fn numbers(&self) -> Vec<u64> {
        self.0.lock().unwrap().keys().copied().collect()
    }
}

/// Asks, and emits what it is told.
fn asker(ask: impl Fn(u64, &mut Context<'_, Message>) + 'static) -> Function<Message, Message> {
    Function::new(move |context, message: &Message| -> FunctionResult {
        match message {
            Message::Ask(number) => ask(*number, context),
            Message::Told(number, outcome) => {
                assert_eq!(context.caller(), Some(context.address()));
                context.emit(HEARD, (*number, outcome.clone()));
            }
        }
        Ok(())
    })
}

fn asking(questions: &Questions) -> Function<Message, Message> {
    let questions = questions.clone();
    asker(move |number, context| {
        context.start(questions.ask(number), move |outcome| Message::Told(number, outcome));
    })
}

type Heard = Rc<RefCell<Vec<(u64, u64, Outcome<u64>)>>>;
type Built = (
    timely::dataflow::InputHandleVec<u64, Envelope<Message>>,
    timely::dataflow::ProbeHandle<u64>,
    timely_statefun::Handle<u64>,
    Heard,
);

fn build(worker: &mut Worker, functions: Functions<Message>) -> Built {
    let heard = Heard::default();
    let seen = Rc::clone(&heard);
    worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
        let egresses = stream.stateful_functions(functions.egress(HEARD)).unwrap();
        let stream =
            egresses.stream(HEARD).unwrap().inspect_time(move |time, (number, outcome)| {
                seen.borrow_mut().push((*time, *number, outcome.clone()));
            });
        (input, stream.probe().0, egresses.handle(), heard)
    })
}

/// Steps until a condition holds.
fn until(worker: &mut Worker, what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "this never came to be: {what}");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

fn steps(worker: &mut Worker) {
    for _ in 0..100 {
        worker.step();
    }
}

#[test]
fn outcomes_come_in_any_order_each_at_the_time_its_operation_began() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    timely::execute_directly(move |worker| {
        for seed in 0..20 {
            let mut random = Random(seed);
            let questions = Questions::default();
            let functions = Functions::new().runtime(handle.clone());
            let functions = functions.embedded(ASKER, asking(&questions).operations(100));
            let (mut input, probe, handle, heard) = build(worker, functions);
            let count = 1 + random.below(30);
            for number in 0..count {
                input.advance_to(number / 3);
                input.send(ASKER.message(random.below(5), Message::Ask(number)));
            }
            input.close();
            until(worker, "all are asked", || questions.numbers().len() == count as usize);
            let mut left: Vec<u64> = (0..count).collect();
            while !left.is_empty() {
                let number = left.swap_remove(random.below(left.len() as u64) as usize);
                let answer = match random.below(3) {
                    0 => Err(std::io::Error::other("no answer")),
                    _ => Ok(number * 2),
                };
                let expected = match &answer {
                    Ok(value) => Outcome::Completed(*value),
                    Err(error) => Outcome::Failed(error.to_string()),
                };
                assert!(probe.less_equal(&(number / 3)), "seed {seed}: {number} is not over");
                questions.answer(number, answer);
                until(worker, "the answer is heard", || !heard.borrow().is_empty());
                assert_eq!(heard.take(), [(number / 3, number, expected)], "seed {seed}");
                if let Some(least) = left.iter().min() {
                    let least = least / 3;
                    until(worker, "what is over is passed", || !probe.less_than(&least));
                    assert!(probe.less_equal(&least), "seed {seed}: what is not over is not");
                }
            }
            handle.run(worker).unwrap();
            assert!(probe.done());
        }
    });
}

#[test]
fn an_operation_that_panics_has_failed() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    timely::execute_directly(move |worker| {
        let ask = asker(|number, context| {
            let operation = async move {
                if number == 0 {
                    panic!("number {number}");
                }
                tokio::task::yield_now().await;
                panic!("later");
                #[allow(unreachable_code)]
                Answer::Ok(0)
            };
            context.start(operation, move |outcome| Message::Told(number, outcome));
        });
        let functions = Functions::new().runtime(handle).embedded(ASKER, ask.operations(4));
        let (mut input, _, handle, heard) = build(worker, functions);
        input.send(ASKER.message(1, Message::Ask(0)));
        input.send(ASKER.message(1, Message::Ask(1)));
        input.close();
        handle.run(worker).unwrap();
        let mut heard = heard.take();
        heard.sort_by_key(|(_, number, _)| *number);
        let failed = |text: &str| Outcome::Failed(format!("the operation panicked: {text}"));
        assert_eq!(heard, [(0, 0, failed("number 0")), (0, 1, failed("later"))]);
    });
}

#[test]
fn what_cannot_be_told_stops_the_program() {
    let stopped = |runtime: Runtime, make: fn(Outcome<u64>) -> Message, shut_down: bool| {
        let handle = runtime.handle().clone();
        let runtime = Mutex::new(Some(runtime));
        timely::execute_directly(move |worker| {
            let questions = Questions::default();
            let asked = questions.clone();
            let ask = asker(move |number, context| context.start(questions.ask(number), make));
            let functions = Functions::new().runtime(handle).embedded(ASKER, ask.operations(1));
            let (mut input, probe, handle, _) = build(worker, functions);
            input.send(ASKER.message("a", Message::Ask(1)));
            input.close();
            until(worker, "it is asked", || asked.numbers() == [1]);
            if shut_down {
                runtime.lock().unwrap().take().unwrap().shutdown_background();
            } else {
                asked.answer(1, Ok(7));
            }
            let stopped = handle.run(worker).unwrap_err();
            assert_eq!(stopped.address, Some(ASKER.at("a")));
            assert!(probe.less_equal(&0), "what did not happen is not passed");
            stopped.reason
        })
    };
    let reason = stopped(Runtime::new().unwrap(), |_| panic!("no message"), false);
    assert_eq!(reason, Reason::NoResult("no message".to_owned()));
    let reason = stopped(Runtime::new().unwrap(), |outcome| Message::Told(1, outcome), true);
    assert_eq!(reason, Reason::NoResult("the runtime has shut down".to_owned()));
}

#[test]
fn a_detached_function_holds_back_no_time_and_its_outcome_is_a_new_event() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    timely::execute_directly(move |worker| {
        let questions = Questions::default();
        let functions = Functions::new().runtime(handle);
        let ask = asking(&questions).operations(4).detached();
        let (mut input, probe, handle, heard) = build(worker, functions.embedded(ASKER, ask));
        input.send(ASKER.message("a", Message::Ask(1)));
        input.send(ASKER.message("a", Message::Ask(2)));
        input.advance_to(3);
        handle.run_while(worker, || probe.less_than(&3)).unwrap();
        assert_eq!(questions.numbers(), [1, 2], "the time has passed although nothing has ended");
        questions.answer(2, Ok(20));
        until(worker, "an answer is heard", || !heard.borrow().is_empty());
        assert_eq!(heard.take(), [(3, 2, Outcome::Completed(20))]);
        input.advance_to(9);
        steps(worker);
        input.close();
        steps(worker);
        assert!(!probe.done(), "it waits for what is under way");
        questions.answer(1, Ok(10));
        handle.run(worker).unwrap();
        let heard = heard.take();
        assert_eq!(heard, [(9, 1, Outcome::Completed(10))], "at the last time there was");
    });
}

/// Counts how many are inside at once.
#[derive(Clone, Default)]
struct Room {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Room {
    async fn pass(self) -> Answer {
        let inside = self.inside.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(inside, SeqCst);
        tokio::time::sleep(Duration::from_micros(300)).await;
        self.inside.fetch_sub(1, SeqCst);
        Ok(0)
    }
}

#[test]
fn no_more_are_under_way_than_may_be_and_all_end() {
    const EACH: u64 = 500;
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    let heard = on_workers(2, move |worker| {
        let passing = |room: &Room| {
            let room = room.clone();
            asker(move |number, context| {
                context.start(room.clone().pass(), move |outcome| Message::Told(number, outcome));
            })
        };
        let (small, large) = (Room::default(), Room::default());
        let limits = Limits { operations_max: 8, ..Limits::default() };
        let functions = Functions::new()
            .limits(limits)
            .runtime(handle.clone())
            .embedded(ASKER, passing(&small).operations(3))
            .embedded(BYSTANDER, passing(&large).operations(100));
        let (mut input, _, handle, heard) = build(worker, functions);
        for number in 0..EACH {
            input.send(ASKER.message(number, Message::Ask(number)));
            input.send(BYSTANDER.message(number, Message::Ask(number)));
        }
        input.close();
        handle.run(worker).unwrap();
        let most = (small.most.load(SeqCst), large.most.load(SeqCst));
        assert!(most.0 <= 3 && most.1 <= 7, "a place is left for the other: {most:?}");
        assert!(most.0 > 1 && most.1 > 3, "there is some of it at once: {most:?}");
        heard.take().len() as u64
    });
    assert_eq!(heard.iter().sum::<u64>(), 2 * 2 * EACH);
}

#[test]
fn a_function_at_its_limit_has_its_ingress_held_back_and_nobody_elses() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    timely::execute_directly(move |worker| {
        let questions = Questions::default();
        let bystander = asker(|number, context| context.emit(HEARD, (number, Outcome::Unknown)));
        let functions = Functions::new()
            .limits(Limits { gate_credit_records: 1, ..Limits::default() })
            .runtime(handle)
            .embedded(ASKER, asking(&questions).operations(2))
            .embedded(BYSTANDER, bystander)
            .egress(HEARD);
        let heard = Heard::default();
        let seen = Rc::clone(&heard);
        let (mut asks, mut others, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (asks, one) = scope.new_input::<Vec<Envelope<Message>>>();
            let (others, other) = scope.new_input::<Vec<Envelope<Message>>>();
            let egresses = [one, other].stateful_functions(functions).unwrap();
            let stream = egresses.stream(HEARD).unwrap();
            stream.inspect_time(move |time, (number, outcome)| {
                seen.borrow_mut().push((*time, *number, outcome.clone()));
            });
            (asks, others, egresses.handle())
        });
        (0..10).for_each(|number| asks.send(ASKER.message(number, Message::Ask(number))));
        asks.flush();
        until(worker, "as many are asked as may be", || questions.numbers().len() == 2);
        steps(worker);
        let admitted = handle.stats().admitted;
        assert!(admitted <= 3, "{admitted} came in where two may be under way");
        assert!(!handle.ready(), "a source is told");
        (0..10).for_each(|number| others.send(BYSTANDER.message(number, Message::Ask(number))));
        others.flush();
        until(worker, "others are heard", || heard.borrow().len() == 10);
        assert_eq!(questions.numbers().len(), 2);
        asks.close();
        others.close();
        for number in 0..10 {
            until(worker, "the next is asked", || questions.numbers().contains(&number));
            questions.answer(number, Ok(number));
        }
        handle.run(worker).unwrap();
        assert_eq!(heard.borrow().len(), 20);
    });
}

#[test]
fn operations_are_declared_and_have_a_runtime() {
    let functions = || Functions::<Message>::new();
    let error = functions().embedded(ASKER, asking(&Questions::default()).operations(1)).check();
    let error = error.unwrap_err();
    assert!(error.is_no_runtime());
    let text = "function \"operations/asker\" needs a runtime, for asynchronous operations or calls, and none was given";
    assert_eq!(error.to_string(), text);

    timely::execute_directly(move |worker| {
        let functions = functions().embedded(ASKER, asking(&Questions::default()));
        let (mut input, _, handle, _) = build(worker, functions);
        input.send(ASKER.message("a", Message::Ask(1)));
        input.close();
        assert_eq!(handle.run(worker).unwrap_err().reason, Reason::UndeclaredOperation);
    });
}
