//! What a scripted run tells the recorder is exactly what it did: counters begin at zero with each execution,
//! gauges are what is there, also after a restart.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::with_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use support::on_workers;
use timely::dataflow::operators::Input;
use timely_statefun::metering::Metering;
use timely_statefun::testing::{TestEndpoint, TestProgram};
use timely_statefun::{
    Egress, Endpoint, Function, FunctionType, Functions, Limits, OnFailure, Outcome, Retry,
    StatefulFunctions, TypedValue,
};
use timely_statefun_proto::reqreply::FromFunction;

const WORKER: FunctionType<String> = FunctionType::new("metered/worker");
const SINK: FunctionType<String> = FunctionType::new("metered/sink");
const GREETER: FunctionType<String> = FunctionType::new("metered/greeter");
const DONE: Egress<String> = Egress::new("metered/done");
const SECOND: Duration = Duration::from_secs(1);

/// What a recorder was told: by name and labels but those of the set, with sums of histograms as `name(size)`.
/// What is zero is left out.
#[derive(Debug)]
struct Told(BTreeMap<String, f64>);

impl Told {
    /// Counters since the last time, and gauges as they were told last.
    fn take(from: &Snapshotter) -> Self {
        let told =
            from.snapshot().into_vec().into_iter().flat_map(|(key, unit, meaning, value)| {
                assert!(unit.is_some() && meaning.is_some(), "{key:?} is not described");
                let key = key.key();
                let labels = key.labels().filter(|label| {
                    !["worker", "set"].contains(&label.key()) || label.value() == "1"
                });
                let labels: Vec<_> = labels.map(|label| label.value().to_owned()).collect();
                let name = key.name().strip_prefix("statefun_").expect("it is ours");
                let name = format!("{name} {}", labels.join(" "));
                let name = name.trim_end().to_owned();
                match value {
                    DebugValue::Counter(count) => vec![(name, count as f64)],
                    DebugValue::Gauge(now) => vec![(name, now.into_inner())],
                    DebugValue::Histogram(values) => {
                        let sum = values.iter().map(|value| value.into_inner()).sum();
                        vec![
                            (format!("{name} count"), values.len() as f64),
                            (format!("{name} sum"), sum),
                        ]
                    }
                }
            });
        Told(told.filter(|(_, value)| *value != 0.0).collect())
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// All that is told of functions, and no more.
    #[track_caller]
    fn expect_of_functions(&self, expected: &[(&str, f64)]) {
        let of = |name: &&String| name.starts_with("function_");
        let found: Vec<_> =
            self.0.keys().filter(of).map(|name| (name.as_str(), self.get(name))).collect();
        let mut expected: Vec<_> =
            expected.iter().map(|(name, value)| (format!("function_{name}"), *value)).collect();
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, expected);
    }
}

/// Does what it is told.
fn worker() -> Function<TypedValue, String> {
    let worker = Function::new(|context, what: &String| {
        match what.as_str() {
            "send" => {
                context.send(SINK, "a", "one".to_owned());
                context.send(SINK, "b", "two".to_owned());
                context.emit(DONE, "sent".to_owned());
            }
            "call" => {
                (0..4).for_each(|_| context.send(GREETER, "ann", "Ann".to_owned()));
            }
            "later" => {
                context.send_after(60 * SECOND, SINK, "a", "late".to_owned());
                let token = "token";
                context.send_after_unless_cancelled(
                    token,
                    60 * SECOND,
                    WORKER,
                    "a",
                    "never".to_owned(),
                )?;
            }
            "cancel" => assert!(context.cancel("token")),
            "begin" => {
                let never = std::future::pending::<Result<String, std::io::Error>>();
                context.start(never, |outcome: Outcome<String>| match outcome {
                    Outcome::Unknown => "unknown".to_owned(),
                    _ => "known".to_owned(),
                });
            }
            "fail" => {
                context.send(SINK, "a", "lost".to_owned());
                context.emit(DONE, "lost".to_owned());
                return Err("it was told to".into());
            }
            _ => {}
        }
        Ok(())
    });
    worker.operations(4).on_failure(OnFailure::DeadLetter)
}

fn functions() -> Functions<TypedValue> {
    let retry = Retry::attempts(3).first(60 * SECOND).longest(60 * SECOND);
    let sink = Function::new(|_, what: &String| match what.as_str() {
        "again" => Err("it is too early".into()),
        _ => Ok(()),
    });
    let endpoint = Endpoint::at("http://greeters.example/").batch_messages_max(2);
    Functions::new()
        .embedded(WORKER, worker())
        .embedded(SINK, sink.retry(retry))
        .remote(GREETER, endpoint.retry_longest(SECOND).on_failure(OnFailure::DeadLetter))
        .typed_egress(DONE)
        .metering(Metering::new().times_in_ms(|time: &u64| Some(*time)))
}

fn recorded<R>(run: impl FnOnce(&Snapshotter) -> R) -> R {
    let recorder = DebuggingRecorder::new();
    let told = recorder.snapshotter();
    with_local_recorder(&recorder, || run(&told))
}

#[test]
fn a_run_is_counted_exactly_and_what_waits_is_counted_after_a_restart_as_well() {
    let mut left: Option<(TestProgram<TypedValue>, TestEndpoint)> = None;
    recorded(|told| {
        let mut program = TestProgram::new(functions);
        let endpoint = program.endpoint();
        for what in ["send", "call", "later", "cancel", "later", "begin", "fail"] {
            program.send(WORKER.message("w", what.to_owned()));
        }
        program.send(SINK.message("c", "again".to_owned()));
        program.send(SINK.message("c", "behind".to_owned()));
        let nobody = FunctionType::<String>::new("metered/nobody");
        program.send(nobody.message("x", String::new()));
        program.advance_to(500);
        program.run();
        program.tick(SECOND);
        let now = Told::take(told);
        now.expect_of_functions(&[
            ("async_operations metered/worker", 1.0),
            ("backlog_messages metered/greeter", 2.0),
            ("batch_messages metered/greeter count", 1.0),
            ("batch_messages metered/greeter sum", 2.0),
            ("blocked_addresses metered/greeter", 1.0),
            ("calls_in_flight metered/greeter", 1.0),
            ("dead_letters_total metered/nobody not_bound", 1.0),
            ("dead_letters_total metered/worker failed", 1.0),
            ("delayed_messages metered/sink", 2.0),
            ("delayed_messages metered/worker", 1.0),
            ("failures_total metered/sink", 1.0),
            ("failures_total metered/worker", 1.0),
            ("in_total metered/greeter", 4.0),
            ("in_total metered/nobody", 1.0),
            ("in_total metered/sink", 4.0),
            ("in_total metered/worker", 7.0),
            ("out_egress_total metered/worker", 1.0),
            ("out_local_total metered/worker", 6.0),
            ("retrying_messages metered/sink", 2.0),
        ]);
        assert_eq!(now.get("ingress_admitted_total"), 10.0);
        assert_eq!(now.get("loop_handled_total"), 16.0);
        assert_eq!(now.get("egress_records_total metered/done"), 1.0);
        // Time 0 is held by what is under way, and the clock shows a second; time 500 may still come.
        assert_eq!((now.get("frontier_lag_seconds"), now.get("live_times")), (1.0, 1.0));
        // Seven of the worker itself are in one bin; in others are four calls, and the two in `c`.
        assert_eq!((now.get("bin_messages 1"), now.get("bin_messages 2")), (7.0, 4.0));

        // An attempt that fails, and one that does not.
        endpoint.expect_request().answer_with(500, &[("content-type", "text/plain")], "no");
        program.run();
        program.tick(2 * SECOND);
        endpoint.expect_request().answer(FromFunction::default());
        program.run();
        let done = program.snapshot();
        program.tick(SECOND);
        let now = Told::take(told);
        assert_eq!(now.get("function_remote_invocation_failures_total metered/greeter"), 1.0);
        assert_eq!(now.get("function_remote_invocation_seconds metered/greeter count"), 2.0);
        assert_eq!(now.get("function_batch_messages metered/greeter sum"), 2.0);
        assert_eq!(now.get("function_backlog_messages metered/greeter"), 0.0);
        assert_eq!(now.get("function_blocked_addresses metered/greeter"), 0.0);
        assert_eq!(now.get("function_calls_in_flight metered/greeter"), 1.0);
        assert_eq!(
            (now.get("snapshots_durable_total"), now.get("snapshots_given_up_total")),
            (1.0, 0.0)
        );
        assert_eq!(now.get("snapshot_seconds count"), 1.0);
        assert_eq!(now.get("snapshot_bytes"), done.bytes as f64);
        let age = now.get("snapshot_age_seconds");
        assert!((0.0..60.0).contains(&age), "{age}");
        left = Some((program, endpoint));
    });
    recorded(|told| {
        let (mut program, endpoint) = left.take().expect("it was left");
        program.crash();
        program.run();
        program.tick(SECOND);
        // What was begun is unknown now, which is a message; the call is made again.
        let now = Told::take(told);
        now.expect_of_functions(&[
            ("batch_messages metered/greeter count", 1.0),
            ("batch_messages metered/greeter sum", 2.0),
            ("calls_in_flight metered/greeter", 1.0),
            ("delayed_messages metered/sink", 2.0),
            ("delayed_messages metered/worker", 1.0),
            ("in_total metered/worker", 1.0),
            ("retrying_messages metered/sink", 2.0),
        ]);
        assert_eq!(now.get("ingress_skipped_total"), 10.0, "they are in the snapshot");
        endpoint.expect_request().answer(FromFunction::default());
        program.run();
        program.tick(200 * SECOND);
        program.tick(SECOND);
        let now = Told::take(told);
        // The two that were late; those that are tried again came before. The third attempt is not made yet.
        assert_eq!(now.get("function_in_total metered/sink"), 2.0);
        assert_eq!(now.get("function_delayed_messages metered/sink"), 0.0);
        assert_eq!(now.get("function_calls_in_flight metered/greeter"), 0.0);
    });
}

#[test]
fn what_is_held_back_is_told_for_each_ingress() {
    recorded(|told| {
        let mut program = TestProgram::new(|| {
            let limits = Limits { function_bytes_soft: Some(1), ..Limits::default() };
            functions().limits(limits)
        });
        program.endpoint();
        program.send(GREETER.message("ann", "Ann".to_owned()));
        program.run();
        for _ in 0..3 {
            program.send(GREETER.message("ann", "Ann".to_owned()));
        }
        program.run();
        program.tick(SECOND);
        let now = Told::take(told);
        assert_eq!((now.get("ingress_held_back_records 0"), now.get("ingress_shut 0")), (3.0, 0.0));
        assert_eq!(now.get("ingress_admitted_total"), 1.0);
    });
}

#[test]
fn held_records_are_told_until_their_snapshot_is_durable() {
    const HELD: Egress<String> = Egress::new("metered/held");
    recorded(|told| {
        let mut program = TestProgram::new(|| {
            let emit = Function::<TypedValue, String>::new(|context, what: &String| {
                context.emit(HELD, what.clone());
                Ok(())
            });
            Functions::new().embedded(WORKER, emit).held_egress(HELD)
        });
        (0..3).for_each(|n| program.send(WORKER.message("w", n.to_string())));
        program.run();
        program.tick(SECOND);
        assert_eq!(Told::take(told).get("held_records"), 3.0);
        program.snapshot();
        program.run();
        program.tick(SECOND);
        assert_eq!(Told::take(told).get("held_records"), 0.0);
    });
}

#[test]
fn nothing_is_told_where_metering_is_off() {
    recorded(|told| {
        let mut program = TestProgram::new(|| functions().metering(Metering::new().off()));
        program.send(WORKER.message("w", "send".to_owned()));
        program.close();
        program.run();
        drop(program);
        assert!(Told::take(told).0.is_empty());
    });
}

/// The clock of a program that is over is not looked at any more: what was done last is told when it ends.
#[test]
fn two_workers_tell_what_each_of_them_has_done_when_they_end() {
    let told = on_workers(2, |worker| {
        recorded(|told| {
            let index = worker.index();
            let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input();
                let scatter = Function::<u64, u64>::new(|context, left: &u64| {
                    let id = context.id().as_number().ok_or("ids are numbers")?;
                    if let Some(left) = left.checked_sub(1) {
                        context.send(SCATTER, id + 1, left);
                        context.send(SCATTER, 2 * id + 1, left);
                    }
                    Ok(())
                });
                let functions = Functions::new().embedded(SCATTER, scatter);
                // Once in a thousand years, and at the end.
                let metering = Metering::new().every(Duration::from_secs(1 << 35));
                let egresses = stream.stateful_functions(functions.metering(metering)).unwrap();
                (input, egresses.handle())
            });
            if index == 0 {
                input.send(SCATTER.message(1, 10));
            }
            input.close();
            handle.run(worker).unwrap();
            let stats = handle.stats();
            // The dataflow is gone, and with it who tells.
            let now = Told::take(told);
            let suffix = if index == 1 { "1 metered/scatter" } else { "metered/scatter" };
            let get = |name: &str| now.get(&format!("function_{name}_total {suffix}"));
            assert_eq!(get("out_local"), stats.sent_here as f64);
            assert_eq!(get("out_remote"), stats.sent_away as f64);
            assert_eq!(get("in"), stats.handled as f64);
            assert!(stats.sent_here > 0 && stats.sent_away > 0, "{stats:?}");
            (get("in"), get("out_local") + get("out_remote"))
        })
    });
    // Two for each that has any left: a tree of ten levels below its root.
    let (came, sent): (Vec<f64>, Vec<f64>) = told.into_iter().unzip();
    assert_eq!((came.iter().sum::<f64>(), sent.iter().sum::<f64>()), (2047.0, 2046.0));
}

const SCATTER: FunctionType<u64> = FunctionType::new("metered/scatter");
