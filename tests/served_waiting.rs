//! Functions that wait while they are served: operations they begin, and functions that are asynchronous.

#[path = "support/asking.rs"]
mod asking;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use asking::{Asking, ask, emitted, missing, mutations, refused, serve, wait};
use timely_statefun::serve::{Refusal, RequestReply, ServedFunctions, ServedOptions};
use timely_statefun::{
    Context, Egress, Function, FunctionResult, FunctionType, Functions, Outcome, TypedValue,
    ValueSpec,
};
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::FromFunction;
use timely_statefun_proto::reqreply::from_function::Response;
use tokio::sync::{Barrier, Semaphore, oneshot};

const SHOP: FunctionType<String> = FunctionType::new("test/shop");
const TOLD: Egress<String> = Egress::new("test.io/told");
const COUNT: ValueSpec<i32> = ValueSpec::new("count");

fn told(
    result: &timely_statefun_proto::reqreply::from_function::InvocationResponse,
) -> Vec<String> {
    emitted(result).into_iter().map(|(_, text)| text.read().unwrap()).collect()
}

/// Waits for a condition, which is soon there.
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        thread::yield_now();
    }
}

/// Counts how many there are.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Alive(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets as many pass as it is told, whether they are there already or not.
struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Gate(Semaphore::new(0))
    }
}

impl Gate {
    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    fn let_pass(&self, many: usize) {
        self.0.add_permits(many);
    }
}

/// What functions of a test share with it.
#[derive(Clone, Default)]
struct Shared {
    alive: Arc<AtomicUsize>,
    /// How many there were at once.
    most: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

impl Shared {
    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Alive {
        let alive = Alive::new(&self.alive);
        self.most.fetch_max(self.alive(), Ordering::SeqCst);
        alive
    }
}

// Operations.

/// `op NAME STEPS` begins an operation that gives its name after so many steps; all else is what it gave.
fn operating(context: &mut Context<'_, TypedValue>, text: &str, shared: &Shared) -> FunctionResult {
    let count = context.update(COUNT, |count| *count += 1);
    let Some(operation) = text.strip_prefix("op ") else {
        let own = context.caller().is_some_and(|caller| caller == context.address());
        context.emit(TOLD, format!("{count}: {text} from itself: {own}"));
        return Ok(());
    };
    let (name, steps) = operation.split_once(' ').ok_or("no steps")?;
    let (name, shared) = (name.to_owned(), shared.clone());
    let steps: u32 = steps.parse()?;
    let operation = async move {
        let _alive = shared.enter();
        for _ in 0..steps {
            tokio::time::sleep(Duration::ZERO).await;
        }
        match &*name {
            "bad" => Err("it is bad"),
            "panic" => panic!("it is worse"),
            "never" => {
                shared.gate.pass().await;
                Ok(name)
            }
            _ => Ok(name),
        }
    };
    context.start(operation, |outcome: Outcome<String>| match outcome {
        Outcome::Completed(name) if name == "more" => "op last 1".to_owned(),
        Outcome::Completed(name) if name == "fails" => "op".to_owned(),
        outcome => format!("{outcome:?}"),
    });
    Ok(())
}

fn operator(shared: Shared) -> Functions<TypedValue> {
    let function = Function::new(move |context: &mut Context<'_, TypedValue>, text: &String| {
        match text.as_str() {
            "op" => Err("the outcome is not liked".into()),
            text => operating(context, text, &shared),
        }
    });
    let function = function.value(COUNT).operations(2);
    Functions::new().embedded(SHOP, function).typed_egress(TOLD)
}

fn come() -> Asking {
    Asking::of("test/shop/1").with("count", Some(TypedValue::of(&10)))
}

#[test]
fn outcomes_of_operations_are_handled_within_the_batch_as_they_come() {
    let shared = Shared::default();
    let served = serve({
        let shared = shared.clone();
        move || operator(shared.clone())
    });
    let texts = ["op slow 40", "op quick 1", "plain", "op bad 2", "op panic 1", "op more 1"];
    let result = ask(&served, &texts.into_iter().fold(come(), Asking::text));
    let told = told(&result);
    assert_eq!(told[0], "13: plain from itself: false", "the batch comes first");
    assert_eq!(told[1], "17: Completed(\"quick\") from itself: true");
    let mut outcomes: Vec<_> =
        told[1..].iter().map(|told| told.split_once(": ").unwrap().1).collect();
    outcomes.sort_unstable();
    assert_eq!(
        outcomes,
        [
            "Completed(\"last\") from itself: true",
            "Completed(\"quick\") from itself: true",
            "Completed(\"slow\") from itself: true",
            "Failed(\"it is bad\") from itself: true",
            "Failed(\"the operation panicked: it is worse\") from itself: true",
        ]
    );
    // Six messages, five outcomes, and one outcome of what was begun by an outcome.
    assert_eq!(mutations(&result)[0].1, Some(TypedValue::of(&22)));
    assert_eq!(shared.most.load(Ordering::SeqCst), 2, "so many may be under way");
    assert_eq!(shared.alive(), 0);
}

#[test]
fn an_outcome_that_fails_undoes_the_batch_and_drops_other_operations() {
    let shared = Shared::default();
    let served = serve({
        let shared = shared.clone();
        move || operator(shared.clone())
    });
    let texts = ["op never 0", "op fails 1", "op quick 1", "plain"];
    let refusal = refused(&served, &texts.into_iter().fold(come(), Asking::text));
    assert_eq!(refusal, Refusal::Failed("the function failed: the outcome is not liked".into()));
    assert_eq!(shared.alive(), 0);
    assert_eq!(told(&ask(&served, &come().text("plain"))), ["11: plain from itself: false"]);
}

#[test]
fn operations_of_a_batch_that_lacks_state_never_start() {
    let shared = Shared::default();
    let function = {
        let shared = shared.clone();
        move || {
            let shared = shared.clone();
            let function =
                Function::new(move |context: &mut Context<'_, TypedValue>, _: &String| {
                    let shared = shared.clone();
                    context.set(COUNT, 1);
                    let operation = async move {
                        let _alive = shared.enter();
                        Ok::<_, std::io::Error>(())
                    };
                    context.start(operation, |_| String::new());
                    Ok(())
                });
            Functions::<TypedValue>::new().embedded(SHOP, function.registry(1).operations(1))
        }
    };
    let served = serve(function);
    let missing = missing(&served, &Asking::of("test/shop/1").text("x"));
    assert_eq!(missing[0].state_name, "count");
    assert_eq!(shared.most.load(Ordering::SeqCst), 0);
}

#[test]
fn an_answer_that_nobody_waits_for_drops_what_is_under_way() {
    let shared = Shared::default();
    let served = serve({
        let shared = shared.clone();
        move || operator(shared.clone())
    });
    let answer = served.answer(come().text("op never 0").bytes().into());
    until("it begins", || shared.alive() == 1);
    drop(answer);
    until("it is dropped", || shared.alive() == 0);
    assert_eq!(told(&ask(&served, &come().text("plain"))), ["11: plain from itself: false"]);
}

// Functions that are asynchronous.

/// Waits for the gate, if it is told to, between what it does before and after.
async fn waiting(
    context: &mut Context<'_, TypedValue>,
    text: String,
    shared: Shared,
) -> FunctionResult {
    let _alive = shared.enter();
    context.update(COUNT, |count| *count += 1);
    context.emit(TOLD, format!("before {text}"));
    match &*text {
        "gate" => shared.gate.pass().await,
        "panic" => {
            tokio::task::yield_now().await;
            panic!("after a while");
        }
        "fail" => {
            tokio::task::yield_now().await;
            return Err("after a while".into());
        }
        "misuse" => context.emit(Egress::new("test.io/other"), 1_u64),
        _ => tokio::time::sleep(Duration::from_millis(1)).await,
    }
    let count = context.get(COUNT).copied().unwrap_or_default();
    context.emit(TOLD, format!("after {text}: {count}"));
    context.send(SHOP, context.id().clone(), text);
    Ok(())
}

fn asynchronous(shared: &Shared) -> impl Fn() -> Functions<TypedValue> + Send + Sync + 'static {
    let shared = shared.clone();
    move || {
        let shared = shared.clone();
        let function = Function::new_async(
            async move |context: &mut Context<'_, TypedValue>, text: String| {
                waiting(context, text, shared.clone()).await
            },
        );
        Functions::new().embedded(SHOP, function.value(COUNT)).typed_egress(TOLD)
    }
}

#[test]
fn an_asynchronous_function_keeps_its_state_while_it_waits_and_its_messages_their_order() {
    let shared = Shared::default();
    let served = serve(asynchronous(&shared));
    let result = ask(&served, &come().text("a").text("b"));
    assert_eq!(told(&result), ["before a", "after a: 11", "before b", "after b: 12"]);
    assert_eq!(mutations(&result), [("count".to_owned(), Some(TypedValue::of(&12)))]);
    assert_eq!(result.outgoing_messages.len(), 2);
    assert_eq!(shared.most.load(Ordering::SeqCst), 1);
}

/// Each on a desk of its own: none of them sees what another did.
#[test]
fn many_asynchronous_requests_are_under_way_at_once_on_one_thread() {
    const REQUESTS: usize = 200;
    let shared = Shared::default();
    let served = serve(asynchronous(&shared));
    let ask = |number: usize| {
        let count = Some(TypedValue::of(&(number as i32)));
        let asking = Asking::of(&format!("test/shop/{number}")).with("count", count);
        served.answer(asking.text("gate").bytes().into())
    };
    for _ in 0..2 {
        let answers: Vec<_> = (0..REQUESTS).map(ask).collect();
        until("all are under way", || shared.alive() == REQUESTS);
        // Those that do not wait any more are gone, and the others are not.
        let mut kept = Vec::new();
        for (number, answer) in answers.into_iter().enumerate() {
            if number % 3 != 0 {
                kept.push((number, answer));
            }
        }
        until("a third is given up", || shared.alive() == kept.len());
        shared.gate.let_pass(kept.len());
        for (number, answer) in kept {
            let answer = FromFunction::decode(wait(answer).unwrap()).unwrap();
            let Some(Response::InvocationResult(result)) = answer.response else {
                panic!("{number}")
            };
            assert_eq!(told(&result), ["before gate", &format!("after gate: {}", number + 1)]);
        }
        assert_eq!(shared.alive(), 0);
    }
}

#[test]
fn an_asynchronous_function_that_fails_or_panics_while_it_waits_harms_nothing_else() {
    let shared = Shared::default();
    let served = serve(asynchronous(&shared));
    let other = served.answer(come().text("gate").bytes().into());
    until("it waits", || shared.alive() == 1);
    for (text, why) in [
        ("fail", "the function failed: after a while"),
        ("panic", "the function panicked: after a while"),
        ("misuse", "the function emitted to egress \"test.io/other\", which is not bound"),
    ] {
        let refusal = refused(&served, &come().text("a").text(text).text("b"));
        assert_eq!(refusal, Refusal::Failed(why.to_owned()));
        let fresh = ask(&served, &come().text("c"));
        assert_eq!(told(&fresh), ["before c", "after c: 11"], "after {text}");
    }
    shared.gate.let_pass(1);
    let answer = FromFunction::decode(wait(other).unwrap()).unwrap();
    let Some(Response::InvocationResult(result)) = answer.response else { panic!("it waited") };
    assert_eq!(told(&result), ["before gate", "after gate: 11"]);
}

#[test]
fn requests_beyond_the_limit_wait_for_their_turn() {
    let shared = Shared::default();
    let options = ServedOptions { threads: 1, under_way_max: 2, ..ServedOptions::default() };
    let served = ServedFunctions::with(options, asynchronous(&shared)).unwrap();
    let mut answers: Vec<_> =
        (0..5).map(|_| served.answer(come().text("gate").bytes().into())).collect();
    // One that nobody waits for takes no place.
    drop(answers.remove(3));
    let mut ended = 0;
    while ended < 4 {
        until("two are under way", || shared.alive() == 2.min(4 - ended));
        shared.gate.let_pass(2.min(4 - ended));
        for _ in 0..2.min(4 - ended) {
            wait(answers.remove(0)).unwrap();
            ended += 1;
        }
    }
    assert_eq!(shared.most.load(Ordering::SeqCst), 2);
}

#[test]
fn threads_work_side_by_side() {
    let barrier = Arc::new(std::sync::Barrier::new(3));
    let functions = move || {
        let barrier = Arc::clone(&barrier);
        let function = Function::new(move |_: &mut Context<'_, TypedValue>, _: &String| {
            barrier.wait();
            Ok(())
        });
        Functions::<TypedValue>::new().embedded(SHOP, function)
    };
    let options = ServedOptions { threads: 3, ..ServedOptions::default() };
    let served = ServedFunctions::with(options, functions).unwrap();
    for _ in 0..50 {
        let request = Asking::of("test/shop/1").text("x").bytes();
        let answers: Vec<_> = (0..3).map(|_| served.answer(request.clone().into())).collect();
        answers.into_iter().for_each(|answer| _ = wait(answer).unwrap());
    }
}

#[test]
fn threads_end_with_the_last_clone_and_what_is_under_way_is_unavailable() {
    let shared = Shared::default();
    let options = ServedOptions { threads: 3, under_way_max: 3, ..ServedOptions::default() };
    let made = Arc::clone(&shared.gate);
    let served = ServedFunctions::with(options, asynchronous(&shared)).unwrap();
    let answers: Vec<_> =
        (0..5).map(|_| served.answer(come().text("gate").bytes().into())).collect();
    until("three are under way", || shared.alive() == 3);
    let clone = served.clone();
    drop(served);
    assert_eq!(shared.alive(), 3);
    drop(clone);
    for answer in answers {
        assert!(matches!(wait(answer), Err(Refusal::Unavailable(_))));
    }
    assert_eq!(shared.alive(), 0);
    drop(shared);
    until("no thread has the functions", || Arc::strong_count(&made) == 1);
}

/// A value whose drop panics is the worst that code of others can do.
#[test]
fn a_panic_where_values_are_dropped_harms_nothing_else() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 && !thread::panicking() {
                panic!("it is dropped");
            }
        }
    }
    const BOMB: ValueSpec<Bomb> = ValueSpec::typed("bomb", "test/bomb");
    let functions = || {
        let function = Function::new(|context: &mut Context<'_, TypedValue>, text: &String| {
            let armed = context.get(BOMB).map(|bomb| bomb.0);
            context.emit(TOLD, format!("{armed:?}"));
            if text == "arm" {
                context.set(BOMB, Bomb(true));
            }
            Ok(())
        });
        Functions::<TypedValue>::new().embedded(SHOP, function.value(BOMB)).typed_egress(TOLD)
    };
    let served = serve(functions);
    for _ in 0..3 {
        let unset = Asking::of("test/shop/1").with_unset(["bomb"]);
        let armed = ask(&served, &unset.clone().text("arm"));
        let bomb = mutations(&armed).remove(0).1;
        assert!(bomb.is_some());
        let come = Asking::of("test/shop/1").with("bomb", bomb);
        assert_eq!(told(&ask(&served, &come.text("look"))), ["Some(true)"]);
        assert_eq!(told(&ask(&served, &unset.text("look"))), ["None"]);
    }
}

/// A function of a bundle has messages of its own, which travel as the program's.
#[test]
fn functions_of_a_bundle_wait_as_well() {
    const DOUBLE: FunctionType<i64> = FunctionType::new("bundle/double");
    fn bundle() -> Functions<i64> {
        let double = Function::new_async(async |context: &mut Context<'_, i64>, number: i64| {
            tokio::task::yield_now().await;
            context.send(DOUBLE, "next", 2 * number);
            let count = context.update(COUNT, |count| *count += 1);
            tokio::task::yield_now().await;
            context.emit(TOLD, format!("{number}, {count}"));
            Ok(())
        });
        Functions::new().embedded(DOUBLE, double.value(COUNT)).typed_egress(TOLD)
    }
    let served = serve(|| Functions::<TypedValue>::new().bundle(bundle()));
    let asking = Asking::of("bundle/double/1").with_unset(["count"]);
    let asking = asking.message(TypedValue::of(&4_i64));
    let result = ask(&served, &asking.clone().message(TypedValue::of(&5_i64)));
    assert_eq!(told(&result), ["4, 1", "5, 2"]);
    let sent = result.outgoing_messages[1].argument.as_ref().unwrap();
    assert_eq!(TypedValue::new(&sent.typename, sent.value.clone()).unwrap().read(), Ok(10_i64));
    let refusal = refused(&served, &asking.text("no number"));
    let Refusal::Failed(why) = refusal else { panic!("{refusal:?}") };
    assert!(why.starts_with("the message is of another type"), "{why}");
}

#[test]
fn an_asynchronous_function_is_told_at_once_that_state_is_missing_and_is_not_run_again() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let functions = move || {
        let runs = Arc::clone(&counted);
        let function =
            Function::new_async(async move |context: &mut Context<'_, TypedValue>, _: String| {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                context.update(COUNT, |count| *count += 1);
                Ok(())
            });
        Functions::<TypedValue>::new().embedded(SHOP, function.registry(1))
    };
    let served = serve(functions);
    let asking = Asking::of("test/shop/1").text("a").text("b");
    assert_eq!(missing(&served, &asking).len(), 1);
    assert_eq!(runs.load(Ordering::SeqCst), 1, "what is done for a lack of state is in vain");
    let result = ask(&served, &asking.with_unset(["count"]));
    assert_eq!(mutations(&result)[0].1, Some(TypedValue::of(&2)));
}

#[test]
fn answers_may_be_awaited_anywhere_and_together() {
    fn is_send<F: Future + Send>(future: F) -> F {
        future
    }
    let barrier = Arc::new(Barrier::new(4));
    let functions = move || {
        let barrier = Arc::clone(&barrier);
        let function =
            Function::new_async(async move |_: &mut Context<'_, TypedValue>, _: String| {
                barrier.wait().await;
                Ok(())
            });
        Functions::<TypedValue>::new().embedded(SHOP, function)
    };
    let served = serve(functions);
    let request = Asking::of("test/shop/1").text("x").bytes();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let results = Arc::new(Mutex::new(0));
    let (done, all) = oneshot::channel();
    let done = Arc::new(Mutex::new(Some(done)));
    for _ in 0..4 {
        let answer = is_send(served.answer(request.clone().into()));
        let (results, done) = (Arc::clone(&results), Arc::clone(&done));
        runtime.spawn(async move {
            answer.await.unwrap();
            let mut results = results.lock().unwrap();
            *results += 1;
            if *results == 4 {
                done.lock().unwrap().take().unwrap().send(()).unwrap();
            }
        });
    }
    runtime.block_on(all).unwrap();
}
