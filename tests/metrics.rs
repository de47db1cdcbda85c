//! What functions count and measure arrives at the recorder that the program has installed, with the
//! type of the function.

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use timely::dataflow::operators::ToStream;
use timely_statefun::metering::Metering;
use timely_statefun::{Function, FunctionType, Functions, Namespace, OnFailure, StatefulFunctions};

const SHOP: FunctionType<u64> = FunctionType::new("metrics/shop");
const FOUND: Namespace<u64> = Namespace::new("found");

#[test]
fn functions_count_and_measure_under_their_own_names() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("this test is alone in its process");
    timely::example(|scope| {
        let shop = || {
            let shop = Function::<u64, u64>::new(|context, price| {
                context.counter("orders").increment(1);
                context.histogram("price").record(*price as f64);
                if *price == 13 { Err("unlucky".into()) } else { Ok(()) }
            });
            shop.on_failure(OnFailure::DeadLetter)
        };
        let functions = Functions::new().embedded(SHOP, shop()).embedded_namespace(FOUND, shop());
        // What the library itself counts is not looked at here.
        let functions = functions.metering(Metering::new().off());
        let orders = [SHOP.message("a", 7), SHOP.message("b", 13), SHOP.message("a", 9)];
        let found = FOUND.message("late", "x", 5).unwrap();
        orders.into_iter().chain([found]).to_stream(scope).stateful_functions(functions).unwrap();
    });
    let mut seen: Vec<String> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let key = key.key();
            let labels: Vec<_> =
                key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            let value = match value {
                DebugValue::Counter(count) => format!("{count}"),
                DebugValue::Gauge(_) => unreachable!("functions have no gauges"),
                DebugValue::Histogram(values) => {
                    format!(
                        "{:?}",
                        values.iter().map(|value| value.into_inner()).collect::<Vec<_>>()
                    )
                }
            };
            format!("{} {} {value}", key.name(), labels.join(" "))
        })
        .collect();
    seen.sort();
    let expected = [
        "orders function=found/late 1",
        "orders function=metrics/shop 3",
        "price function=found/late [5.0]",
        "price function=metrics/shop [7.0, 13.0, 9.0]",
    ];
    assert_eq!(seen, expected);
}
