//! A function is tested one message at a time, and what a test expected and did not find is said.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use timely_statefun::testing::FunctionHarness;
use timely_statefun::{
    Address, Egress, Expiration, Function, FunctionType, Functions, Namespace, Outcome, ValueSpec,
};

const CART: FunctionType<String> = FunctionType::new("shop/cart");
const STOCK: FunctionType<String> = FunctionType::new("shop/stock");
const ANY: Namespace<String> = Namespace::new("any");
const BILLS: Egress<u64> = Egress::new("shop/bills");
const NOTES: Egress<String> = Egress::new("shop/notes");
const ITEMS: ValueSpec<Vec<String>> = ValueSpec::typed("items", "shop/items");
const LATELY: ValueSpec<u64> =
    ValueSpec::new("lately").expiring(Expiration::after_write(Duration::from_secs(10)));

/// A cart that is told what to do in words.
fn functions() -> Functions<String> {
    let cart = Function::new(|context, order: &String| {
        match order.split_once(' ').unwrap_or((order, "")) {
            ("add", item) => {
                context.update(ITEMS, |items| items.push(item.to_owned()));
                context.update(LATELY, |lately| *lately += 1);
                context.send(STOCK, item, "reserve".to_owned());
            }
            ("hold", token) => {
                let (ends, later) = (context.id().clone(), Duration::from_secs(60));
                let order = "clear".to_owned();
                context.send_after_unless_cancelled(token, later, CART, ends, order)?;
            }
            ("keep", token) => assert!(context.cancel(token), "there is nothing to cancel"),
            ("bill", _) => {
                let items = context.get(ITEMS).map_or(0, Vec::len);
                context.emit(BILLS, items as u64);
                context.emit(BILLS, context.now_ms());
            }
            ("rate", item) => {
                let item = item.to_owned();
                let rate = async move {
                    match item.as_str() {
                        "" => Err("nothing to rate"),
                        item => Ok(item.len() as u64),
                    }
                };
                context.start(rate, |outcome: Outcome<u64>| format!("rated {outcome:?}"));
            }
            ("rated", outcome) => context.emit(NOTES, outcome.to_owned()),
            ("where", _) => {
                let (time, frontier) = (*context.time(), context.frontier().to_vec());
                context.emit(NOTES, format!("{time} {frontier:?}"));
                context.reply("here".to_owned())?;
            }
            ("fail", why) => {
                context.set(ITEMS, Vec::new());
                context.send(STOCK, "all", "release".to_owned());
                context.emit(BILLS, 1);
                return Err(why.into());
            }
            _ => panic!("what is \"{order}\"?"),
        }
        Ok(())
    });
    let cart = cart.value(ITEMS).value(LATELY).operations(4);
    let any = Function::new(|context, text: &String| {
        context.send(STOCK, text.as_str(), context.address().to_string());
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let functions = Functions::new().embedded(CART, cart).embedded_namespace(ANY, any);
    functions.egress(BILLS).egress(NOTES).runtime(runtime.handle().clone())
}

fn harness() -> FunctionHarness<String> {
    FunctionHarness::new(functions()).unwrap()
}

fn say(order: &str) -> timely_statefun::Envelope<String> {
    CART.message("ann", order.to_owned())
}

/// What an assertion says that does not hold.
fn complaint<R>(assertion: impl FnOnce() -> R) -> String {
    let result = catch_unwind(AssertUnwindSafe(|| drop(assertion())));
    let panic = result.expect_err("it is to fail");
    *panic.downcast::<String>().unwrap()
}

#[test]
fn what_a_function_does_is_data() {
    let mut harness = harness();
    let ann = CART.at("ann");
    harness.with(&ann, |context| context.set(ITEMS, vec!["pen".to_owned()]));
    let did = harness.invoke(say("add ink"));
    assert_eq!(did.address(), &ann);
    assert_eq!(did.sent()[0].caller, Some(ann.clone()));
    did.assert_sent([STOCK.message("ink", "reserve".to_owned())]).assert_nothing_else();
    let items = harness.with(&ann, |context| context.get(ITEMS).cloned());
    assert_eq!(items.unwrap(), ["pen", "ink"]);
    // Others have their own.
    assert_eq!(harness.with(&CART.at("bob"), |context| context.get(ITEMS).cloned()), None);

    harness.tick(Duration::from_millis(1500));
    assert_eq!(harness.now_ms(), 1500);
    let did = harness.invoke(say("bill"));
    assert_eq!(did.emitted(BILLS), [2, 1500]);
    did.assert_emitted(BILLS, [2, 1500]).assert_nothing_else();
    harness
        .invoke(ANY.message("thing", 7, "x".to_owned()).unwrap())
        .assert_sent([STOCK.message("x", "any/thing 7".to_owned())])
        .assert_nothing_else();
}

#[test]
fn a_function_that_fails_does_nothing() {
    let mut harness = harness();
    let ann = CART.at("ann");
    harness.with(&ann, |context| context.set(ITEMS, vec!["pen".to_owned()]));
    let did = harness.invoke(say("fail too heavy"));
    did.assert_failed("too heavy").assert_nothing_else();
    assert!(did.sent().is_empty() && did.emitted(BILLS).is_empty());
    assert_eq!(did.failure().unwrap().to_string(), "the function failed: too heavy");
    let items = harness.with(&ann, |context| context.get(ITEMS).map(Vec::len));
    assert_eq!(items, Some(1));
    harness.invoke(say("dance")).assert_failed("what is \"dance\"?");
}

#[test]
fn delayed_messages_wait_for_the_clock_of_the_test() {
    let mut harness = harness();
    let minute = Duration::from_secs(60);
    let did = harness.invoke(say("hold a"));
    assert_eq!(did.delayed()[0].token.as_deref(), Some("a"));
    did.assert_delayed([(minute, say("clear"))]).assert_nothing_else();
    harness.tick(Duration::from_secs(20));
    harness.invoke(say("hold b")).assert_delayed([(minute, say("clear"))]);
    harness.invoke(say("keep a")).assert_cancelled(["a"]).assert_nothing_else();
    // It is gone.
    harness.invoke(say("keep a")).assert_failed("nothing to cancel");
    assert_eq!(harness.tick(Duration::from_secs(59)), []);
    let due = harness.tick(Duration::from_secs(1));
    assert_eq!(due, [say("clear").with_caller(CART.at("ann"))]);
    assert_eq!(harness.tick(minute), []);
}

#[test]
fn state_expires_by_the_clock_of_the_test() {
    let mut harness = harness();
    let ann = CART.at("ann");
    let _ = harness.invoke(say("add ink"));
    harness.tick(Duration::from_secs(9));
    assert_eq!(harness.with(&ann, |context| context.get(LATELY).copied()), Some(1));
    harness.tick(Duration::from_secs(1));
    assert_eq!(harness.with(&ann, |context| context.get(LATELY).copied()), None);
}

#[test]
fn operations_end_when_the_test_says_so() {
    let mut harness = harness();
    let mut did = harness.invoke(say("rate ink"));
    did.assert_operations(1).assert_nothing_else();
    let operation = did.take_operations().remove(0);
    let told = |outcome: &str| [outcome.to_owned()];
    harness.complete(operation).assert_emitted(NOTES, told("Completed(3)")).assert_nothing_else();
    let operation = harness.invoke(say("rate")).take_operations().remove(0);
    let did = harness.complete(operation);
    did.assert_emitted(NOTES, told("Failed(\"nothing to rate\")"));
    let operation = harness.invoke(say("rate pen")).take_operations().remove(0);
    harness.lose(operation).assert_emitted(NOTES, told("Unknown")).assert_nothing_else();
}

#[test]
fn times_callers_and_frontiers_are_what_the_test_says() {
    let mut harness = harness();
    harness.set_time(7).set_frontier([5]);
    let caller: Address = STOCK.at("pen");
    harness
        .invoke(say("where").with_caller(caller))
        .assert_emitted(NOTES, ["7 [5]".to_owned()])
        .assert_sent([STOCK.message("pen", "here".to_owned())])
        .assert_nothing_else();
    harness.invoke(say("where")).assert_failed("nobody");
}

#[test]
fn what_was_expected_and_not_found_is_said() {
    let mut harness = harness();
    let did = harness.invoke(say("add ink"));
    let wrong = [STOCK.message("ink", "reserve".to_owned()), STOCK.message(1, "x".to_owned())];
    let said = complaint(|| did.assert_sent(wrong));
    assert!(said.contains("shop/cart ann sent something else"), "{said}");
    assert!(
        said.contains("    to shop/stock ink: \"reserve\"\n  - to shop/stock 1: \"x\"\n"),
        "{said}"
    );
    let did = harness.invoke(say("add ink"));
    let said = complaint(|| did.assert_nothing_else());
    assert!(said.contains("  + to shop/stock ink: \"reserve\""), "{said}");
    let did = harness.invoke(say("bill"));
    let said = complaint(|| did.assert_nothing_else());
    assert_eq!(said, "shop/cart ann emitted to \"shop/bills\"");
    let said = complaint(|| did.assert_emitted(Egress::<String>::new("shop/bills"), []));
    assert!(said.contains("does not carry"), "{said}");
    let did = harness.invoke(say("fail so"));
    let said = complaint(|| did.assert_sent([say("so")]));
    assert!(said.contains("it failed: the function failed: so"), "{said}");
    assert!(complaint(|| did.assert_failed("other")).contains("so"));
    assert!(complaint(|| did.assert_succeeded()).contains("so"));
}

#[test]
fn what_a_harness_is_not_for_is_said() {
    let mut harness = harness();
    let unbound = STOCK.message("pen", "reserve".to_owned());
    let said = complaint(|| harness.invoke(unbound));
    assert_eq!(said, "no embedded function is bound to shop/stock pen");
    let mut harness = self::harness();
    let ann = CART.at("ann");
    let said = complaint(|| harness.with(&ann, |context| context.emit(BILLS, 1)));
    assert_eq!(said, "shop/cart ann: only state is set like this");
    const OTHER: ValueSpec<u64> = ValueSpec::new("other");
    let said = complaint(|| harness.with(&ann, |context| context.set(OTHER, 1)));
    assert!(said.contains("other"), "{said}");
}
