//! Tables, buffers, state that expires and state that declares itself travel with requests, and come back.

#[path = "support/asking.rs"]
mod asking;

use std::time::Duration;

use asking::{Asking, ask, emitted, missing, mutations, refused, serve};
use timely_statefun::serve::{Refusal, ServedFunctions};
use timely_statefun::{
    BufferSpec, Clock, Context, Egress, Expiration, Function, FunctionResult, FunctionType,
    Functions, TableSpec, TypedValue, ValueSpec,
};
use timely_statefun_proto::reqreply::from_function::expiration_spec::ExpireMode;

const SHOP: FunctionType<String> = FunctionType::new("test/shop");
const STOCK: TableSpec<String, u64> = TableSpec::new("stock");
const READINGS: BufferSpec<i32> = BufferSpec::new("readings");
const TOLD: Egress<String> = Egress::new("test.io/told");

const STOCK_TYPE: &str = "rust.table/io.statefun.types:string,rust:u64";
const READINGS_TYPE: &str = "rust.buffer/io.statefun.types:int";

fn act(context: &mut Context<'_, TypedValue>, action: &str) -> FunctionResult {
    let (action, with) = action.split_once('=').unwrap_or((action, ""));
    match action {
        "put" => {
            let (thing, pieces) = with.split_once(':').ok_or("no number")?;
            context.table(STOCK).insert(thing.to_owned(), pieces.parse()?);
        }
        "take" => _ = context.table(STOCK).remove(with),
        "clear" => context.table(STOCK).clear(),
        "append" => context.buffer(READINGS).append(with.parse()?),
        "none" => context.buffer(READINGS).extend([]),
        "replace" => context.buffer(READINGS).replace([7, 8]),
        "empty" => context.buffer(READINGS).clear(),
        "look" => {
            let stock = format!("{:?}", context.table(STOCK).iter().collect::<Vec<_>>());
            let readings = format!("{:?}", context.buffer(READINGS).iter().collect::<Vec<_>>());
            context.emit(TOLD, format!("{stock} {readings}"));
        }
        "fail" => return Err("failed".into()),
        other => return Err(format!("{other}?").into()),
    }
    Ok(())
}

fn functions() -> Functions<TypedValue> {
    let shop = Function::new(|context: &mut Context<'_, TypedValue>, program: &String| {
        program.split(' ').try_for_each(|action| act(context, action))
    });
    let shop = shop.table(STOCK).buffer(READINGS);
    Functions::new().embedded(SHOP, shop).typed_egress(TOLD)
}

fn come(stock: Option<&[u8]>, readings: Option<&[u8]>) -> Asking {
    let typed = |name: &str, bytes: &[u8]| TypedValue::new(name, bytes.to_vec()).unwrap();
    Asking::of("test/shop/1")
        .with("stock", stock.map(|stock| typed(STOCK_TYPE, stock)))
        .with("readings", readings.map(|readings| typed(READINGS_TYPE, readings)))
}

fn told(served: &ServedFunctions, asking: Asking) -> String {
    let result = ask(served, &asking.text("look"));
    assert!(result.state_mutations.is_empty(), "looking changes nothing");
    emitted(&result)[0].1.read().unwrap()
}

/// What became of tables and buffers: their bytes, or none where there is nothing any more.
fn changed(served: &ServedFunctions, asking: &Asking) -> Vec<(String, Option<Vec<u8>>)> {
    let mutations = mutations(&ask(served, asking)).into_iter();
    let bytes = |(name, value): (String, Option<TypedValue>)| {
        let bytes = value.map(|value| {
            let expected = if name == "stock" { STOCK_TYPE } else { READINGS_TYPE };
            assert_eq!(value.type_name(), expected);
            value.bytes().to_vec()
        });
        (name, bytes)
    };
    mutations.map(bytes).collect()
}

#[test]
fn tables_and_buffers_have_types_of_which_others_know_the_bytes() {
    let served = serve(functions);
    let missing = missing(&served, &Asking::of("test/shop/1").text("look"));
    let types: Vec<_> = missing.iter().map(|spec| &*spec.type_typename).collect();
    assert_eq!(types, [STOCK_TYPE, READINGS_TYPE]);
    let program = "put=tea:3 put=:0 append=1 append=0 append=-1";
    let changes = changed(&served, &come(None, None).text(program));
    let tea = [0x0a, 10, 0x0a, 5, 0x0a, 3, b't', b'e', b'a', 0x12, 1, 3];
    let stock = [&tea[..], &[0x0a, 3, 0x12, 1, 0]].concat();
    let readings = vec![0x0a, 5, 0x0d, 1, 0, 0, 0, 0x0a, 0, 0x0a, 5, 0x0d, 255, 255, 255, 255];
    let expected = [("stock".to_owned(), Some(stock)), ("readings".to_owned(), Some(readings))];
    assert_eq!(changes, expected);
    let (stock, readings) = (changes[0].1.as_deref(), changes[1].1.as_deref());
    let all = "[(\"tea\", 3), (\"\", 0)] [1, 0, -1]";
    assert_eq!(told(&served, come(stock, readings)), all, "and they are read again");
    assert_eq!(told(&served, come(None, None)), "[] []");
    assert_eq!(told(&served, come(Some(&[]), Some(&[]))), "[] []");
}

#[test]
fn a_table_or_buffer_is_told_when_a_piece_of_it_changed_and_gone_when_it_is_empty() {
    let served = serve(functions);
    let come = || come(Some(&[0x0a, 3, 0x12, 1, 5]), Some(&[0x0a, 0]));
    let stock = |bytes: Option<&[u8]>| ("stock".to_owned(), bytes.map(<[u8]>::to_vec));
    let readings = |bytes: Option<&[u8]>| ("readings".to_owned(), bytes.map(<[u8]>::to_vec));
    let five: &[u8] = &[0x0a, 3, 0x12, 1, 5];
    let sevens: &[u8] = &[0x0a, 5, 0x0d, 7, 0, 0, 0, 0x0a, 5, 0x0d, 8, 0, 0, 0];
    for (program, expected) in [
        ("look", vec![]),
        ("take=tea none", vec![]),
        ("put=:5", vec![stock(Some(five))]),
        ("take=", vec![stock(None)]),
        ("clear", vec![stock(None)]),
        ("clear put=:5 take= put=:5", vec![stock(Some(five))]),
        ("put=a:1 take=a", vec![stock(Some(five))]),
        ("append=0", vec![readings(Some(&[0x0a, 0, 0x0a, 0]))]),
        ("empty", vec![readings(None)]),
        ("replace", vec![readings(Some(sevens))]),
        ("empty append=0 clear", vec![stock(None), readings(Some(&[0x0a, 0]))]),
    ] {
        assert_eq!(changed(&served, &come().text(program)), expected, "{program}");
        let failing = come().text(program).text("fail");
        assert!(matches!(refused(&served, &failing), Refusal::Failed(_)));
        assert_eq!(told(&served, come()), "[(\"\", 5)] [0]", "after {program}");
    }
}

/// Whoever else writes them may know more fields, and write them in any order.
#[test]
fn other_writers_of_tables_and_buffers_are_understood_and_garbage_is_refused() {
    let served = serve(functions);
    let entry = [0x12, 1, 9, 0x1a, 1, 0, 0x0a, 3, 0x0a, 1, b'x', 0x20, 7];
    let table = [&[0x12, 1, 0xff, 0x0a, entry.len() as u8][..], &entry, &[0x0a, 0x02, 0x12, 0]];
    let whole = [table[0], table[1]].concat();
    assert_eq!(told(&served, come(Some(&whole), None)), "[(\"x\", 9)] []");
    let later = [&whole[..], &[0x0a, 8, 0x0a, 3, 0x0a, 1, b'x', 0x12, 1, 4]].concat();
    assert_eq!(told(&served, come(Some(&later), None)), "[(\"x\", 4)] []", "the last counts");
    let fields = [0x2d, 1, 2, 3, 4, 0x31, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0];
    assert_eq!(told(&served, come(None, Some(&fields))), "[] [0]");
    let failed = |asking: Asking| match refused(&served, &asking.text("look")) {
        Refusal::Failed(why) => why,
        other => panic!("{other:?}"),
    };
    for garbage in [&[0xff][..], &[0x0a], &[0x0a, 5, 0], &[0x08, 1], &[0x0b], &[0x02, 0]] {
        let why = failed(come(Some(garbage), None));
        assert!(
            why.starts_with("state \"stock\" came as bytes that are no \"rust.table/"),
            "{why}"
        );
        let why = failed(come(None, Some(garbage)));
        assert!(why.starts_with("state \"readings\" came as bytes that are no \""), "{why}");
        assert_eq!(told(&served, come(None, None)), "[] []", "nothing of it is left");
    }
    // A value that is none, behind an entry that is one.
    let broken = [&whole[..], &[0x0a, 4, 0x12, 2, 0xcf, 0]].concat();
    failed(come(Some(&broken), Some(&[0x0a, 0])));
    assert_eq!(told(&served, come(None, None)), "[] []");
    let other = Asking::of("test/shop/1").with("stock", Some(TypedValue::of(&1)));
    let why = failed(other.with("readings", None));
    assert_eq!(
        why,
        format!("state \"stock\" came as \"io.statefun.types/int\" and is \"{STOCK_TYPE}\"")
    );
}

/// What came with a request is seen for as long as that takes, whatever its lifetime is.
#[test]
fn nothing_expires_within_a_request() {
    const MOMENT: Expiration = Expiration::after_write(Duration::from_millis(1));
    const USED: Expiration = Expiration::after_read_or_write(Duration::from_millis(1));
    const ONE: ValueSpec<i32> = ValueSpec::new("one").expiring(MOMENT);
    const TWO: ValueSpec<i32> = ValueSpec::new("two").expiring(USED);
    let (clock, hands) = Clock::turned(1000);
    let turned = hands.clone();
    let functions = move || {
        let hands = hands.clone();
        let function = Function::new(move |context: &mut Context<'_, TypedValue>, _: &String| {
            hands.advance(Duration::from_secs(60));
            let both = (context.get(ONE).copied(), context.get(TWO).copied());
            context.emit(TOLD, format!("{both:?} at {}", context.now_ms()));
            if both.0.is_none() {
                context.set(ONE, 1);
                context.set(TWO, 2);
            }
            Ok(())
        });
        let functions = Functions::new().embedded(SHOP, function.value(ONE).value(TWO));
        functions.typed_egress(TOLD).clock(clock.clone())
    };
    let served = serve(functions);
    let missing = missing(&served, &Asking::of("test/shop/1"));
    let told: Vec<_> = missing
        .iter()
        .map(|spec| spec.expiration_spec.as_ref().unwrap())
        .map(|expiration| (expiration.mode(), expiration.expire_after_millis))
        .collect();
    assert_eq!(told, [(ExpireMode::AfterWrite, 1), (ExpireMode::AfterInvoke, 1)]);
    let unset = Asking::of("test/shop/1").with_unset(["one", "two"]);
    let result = ask(&served, &unset.text("").text(""));
    let texts = |result| -> Vec<String> {
        emitted(result).into_iter().map(|(_, text)| text.read().unwrap()).collect()
    };
    assert_eq!(texts(&result), ["(None, None) at 1000", "(Some(1), Some(2)) at 1000"]);
    assert_eq!(result.state_mutations.len(), 2);
    turned.advance(Duration::from_secs(60));
    let come = Asking::of("test/shop/1")
        .with("one", Some(TypedValue::of(&7)))
        .with("two", Some(TypedValue::of(&8)));
    let result = ask(&served, &come.text("").text(""));
    let both = "(Some(7), Some(8)) at 181000";
    assert_eq!(texts(&result), [both, both]);
    assert!(result.state_mutations.is_empty(), "to read is not to write");
}

/// Counts words by their first letters, in states that nobody declared.
fn letters() -> Functions<TypedValue> {
    let count = Function::new(|context: &mut Context<'_, TypedValue>, word: &String| {
        let (letter, _) = word.split_at_checked(1).ok_or("an empty word")?;
        let seen = match letter {
            "T" => {
                context.table(TableSpec::<u8, u8, _>::new("table")).insert(1, 2);
                1
            }
            _ => context.update(ValueSpec::<i64, _>::new(letter), |seen| *seen += 1),
        };
        if word == "fails" && seen == 2 {
            return Err("twice".into());
        }
        context.emit(TOLD, format!("{letter}={seen}"));
        Ok(())
    });
    Functions::new().embedded(SHOP, count.registry(3)).typed_egress(TOLD)
}

#[test]
fn states_that_nobody_declared_are_asked_for_when_they_are_used_and_then_come() {
    let served = serve(letters);
    let words =
        |asking: Asking| ["tea", "coffee", "tart", "Table"].iter().fold(asking, |a, w| a.text(w));
    let names = |asking: &Asking| -> Vec<_> {
        let missing = missing(&served, asking).into_iter();
        missing.map(|spec| (spec.state_name, spec.type_typename)).collect()
    };
    let long = "io.statefun.types/long".to_owned();
    let table = ("table".to_owned(), "rust.table/rust:u8,rust:u8".to_owned());
    let fresh = words(Asking::of("test/shop/1"));
    let all = [("t".to_owned(), long.clone()), ("c".to_owned(), long.clone()), table.clone()];
    for _ in 0..2 {
        assert_eq!(names(&fresh), all, "all at once, and they are known only for a request");
    }
    let some = words(Asking::of("test/shop/1").with("t", Some(TypedValue::of(&5_i64))));
    assert_eq!(names(&some), all[1..]);
    let come = Asking::of("test/shop/1").with("t", Some(TypedValue::of(&5_i64)));
    let come = words(come.with_unset(["c", "table", "unused"]));
    let result = ask(&served, &come);
    let told: Vec<String> =
        emitted(&result).into_iter().map(|(_, text)| text.read().unwrap()).collect();
    assert_eq!(told, ["t=6", "c=1", "t=7", "T=1"]);
    let entry = TypedValue::new(&table.1, vec![0x0a, 6, 0x0a, 1, 1, 0x12, 1, 2]).unwrap();
    let expected = [
        ("t".to_owned(), Some(TypedValue::of(&7_i64))),
        ("c".to_owned(), Some(TypedValue::of(&1_i64))),
        ("table".to_owned(), Some(entry)),
    ];
    assert_eq!(mutations(&result), expected);
}

#[test]
fn a_registry_has_its_limit_and_what_fails_for_a_lack_of_state_is_asked_for() {
    let served = serve(letters);
    let failing = Asking::of("test/shop/1").text("fails").text("fails");
    assert_eq!(missing(&served, &failing)[0].state_name, "f");
    let mut failing = failing.with_unset(["f"]);
    assert_eq!(refused(&served, &failing), Refusal::Failed("the function failed: twice".into()));
    failing.0.invocations.pop();
    assert_eq!(mutations(&ask(&served, &failing)).len(), 1);
    let four = Asking::of("test/shop/1").with_unset(["a", "b", "c", "d"]);
    let four = ["a", "b", "c", "d"].into_iter().fold(four, Asking::text);
    let why = "the function used more than 3 states that it does not declare";
    assert_eq!(refused(&served, &four), Refusal::Failed(why.to_owned()));
    let other = Asking::of("test/shop/1").with("a", Some(TypedValue::of(&1_i32))).text("a");
    let Refusal::Failed(why) = refused(&served, &other) else { panic!("it is of another type") };
    assert!(why.contains("state \"a\" came as \"io.statefun.types/int\" and is"), "{why}");
    let fresh = Asking::of("test/shop/1").with_unset(["a"]).text("a");
    assert_eq!(emitted(&ask(&served, &fresh)).len(), 1, "nothing is left of it");
}
