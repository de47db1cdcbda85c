//! Functions in Rust answer the recorded requests of the official SDKs as the functions there did.
//!
//! The functions are those of `tests/vectors/`, written once more. How the recordings are compared is what
//! `tests/vectors.rs` has: lists of states as sets, and an answer without effects is one, whether it has a body
//! or none. Not compared is what [`skipped`] says.

#[path = "support/asking.rs"]
mod asking;
#[path = "support/recorded.rs"]
mod recorded;

use std::time::Duration;

use asking::ask_bytes;
use recorded::{Exchange, answer_json, checked, exchanges, plain};
use serde_json::{Value, json};
use timely_statefun::serve::ServedFunctions;
use timely_statefun::{
    Context, Egress, Function, FunctionResult, FunctionType, Functions, TypedValue, ValueSpec,
};
use timely_statefun_proto::{Message, egress, type_names};

type Typed<'a> = Context<'a, TypedValue>;

const GREETER: FunctionType<TypedValue> = FunctionType::new("holdout/greeter");
const ACTIONS: FunctionType<TypedValue> = FunctionType::new("holdout/actions");
const VALUES: FunctionType<TypedValue> = FunctionType::new("holdout/values");
const NO_STATE: FunctionType<TypedValue> = FunctionType::new("holdout/nostate");
const BOOM: FunctionType<TypedValue> = FunctionType::new("holdout/boom");
const SINK: FunctionType<TypedValue> = FunctionType::new("holdout/sink");

const OUT: Egress<TypedValue> = Egress::new("holdout.io/out");
const KAFKA: Egress<TypedValue> = Egress::new("holdout.io/kafka");
const KINESIS: Egress<TypedValue> = Egress::new("holdout.io/kinesis");

const VISITS: ValueSpec<i32> = ValueSpec::new("visits");
const LETTERS: [ValueSpec<String>; 3] =
    [ValueSpec::new("a"), ValueSpec::new("b"), ValueSpec::new("c")];

fn emit(context: &mut Typed<'_>, text: String) {
    context.emit(OUT, TypedValue::of(&text));
}

fn greeter(context: &mut Typed<'_>, name: &TypedValue) -> FunctionResult {
    let name: String = name.read()?;
    let visits = context.update(VISITS, |visits| *visits += 1);
    let greeting = format!("Hello {name} for the {visits}th time!");
    match context.caller() {
        Some(_) => context.reply(greeting)?,
        None => emit(context, greeting),
    }
    Ok(())
}

fn letter(name: &str) -> ValueSpec<String> {
    LETTERS.into_iter().find(|spec| spec.name() == name).expect("it is declared")
}

fn actions(context: &mut Typed<'_>, program: &TypedValue) -> FunctionResult {
    program.read::<String>()?.split(';').try_for_each(|action| act(context, action))
}

/// `action:with`, where `with` may be `[delay:[token:]]name=value`.
fn act(context: &mut Typed<'_>, action: &str) -> FunctionResult {
    let (action, with) = action.split_once(':').unwrap_or((action, ""));
    let (name, value) = with.split_once('=').unwrap_or((with, ""));
    let text = || TypedValue::of(&value.to_owned());
    let millis = |number: &str| number.parse().map(Duration::from_millis);
    match action {
        "get" => {
            let kept = context.get(letter(name)).cloned();
            emit(context, format!("{name}={}", kept.as_deref().unwrap_or("None")));
        }
        "set" => context.set(letter(name), value.to_owned()),
        "del" => context.clear(letter(name)),
        "send" => context.send(SINK, name, text()),
        "reply" if context.caller().is_none() => emit(context, "no caller".to_owned()),
        "reply" => context.reply(with.to_owned())?,
        "after" => {
            let (delay, id) = name.split_once(':').ok_or("no delay")?;
            context.send_after(millis(delay)?, SINK, id, text());
        }
        "tok" => {
            let (delay, name) = name.split_once(':').ok_or("no delay")?;
            let (token, id) = name.split_once(':').ok_or("no token")?;
            context.send_after_unless_cancelled(token, millis(delay)?, SINK, id, text())?;
        }
        "cancel" => _ = context.cancel(with),
        "kafka" => to_kafka(context, name, value.as_bytes())?,
        "kafkaint" => to_kafka(context, "", &with.parse::<i32>()?.to_be_bytes())?,
        "kinesis" => {
            let record = egress::KinesisEgressRecord {
                partition_key: name.to_owned(),
                value_bytes: value.as_bytes().to_vec().into(),
                stream: "s".to_owned(),
                ..Default::default()
            };
            let record = TypedValue::new(type_names::KINESIS_RECORD, record.encode_to_vec())?;
            context.emit(KINESIS, record);
        }
        "egress" => emit(context, with.to_owned()),
        "json" => {
            // As Python writes it.
            let json = format!("{{\"v\": {}}}", json!(with));
            context.emit(OUT, TypedValue::new("holdout/json", json)?);
        }
        "fail" => return Err("failed".into()),
        other => return Err(format!("{other}?").into()),
    }
    Ok(())
}

fn to_kafka(context: &mut Typed<'_>, key: &str, value: &[u8]) -> FunctionResult {
    let record = egress::KafkaProducerRecord {
        key: key.to_owned(),
        value_bytes: value.to_vec().into(),
        topic: "t".to_owned(),
    };
    context.emit(KAFKA, TypedValue::new(type_names::KAFKA_RECORD, record.encode_to_vec())?);
    Ok(())
}

/// How Python shows a value.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for bool {
    fn shown(&self) -> String {
        (if *self { "True" } else { "False" }).to_owned()
    }
}

impl Shown for i32 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for f64 {
    fn shown(&self) -> String {
        let shown = format!("{self:?}");
        match shown.split_once('e') {
            Some((number, power)) if !power.starts_with('-') => format!("{number}e+{power}"),
            _ => shown,
        }
    }
}

impl Shown for f32 {
    fn shown(&self) -> String {
        f64::from(*self).shown()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        format!("'{}'", self.replace('\0', "\\x00"))
    }
}

fn keep<V>(context: &mut Typed<'_>, name: &'static str, value: &TypedValue) -> FunctionResult
where
    V: timely_statefun::Typed + Shown + Clone,
{
    let new: V = value.read()?;
    let spec = ValueSpec::<V>::shared(name);
    let old = context.get(spec).map_or("None".to_owned(), Shown::shown);
    context.set(spec, new.clone());
    let kind = name.strip_prefix("s_").expect("it begins so");
    emit(context, format!("{kind} {old} -> {}", new.shown()));
    let id = context.id().clone();
    context.send(SINK, id, TypedValue::of(&new));
    Ok(())
}

fn values(context: &mut Typed<'_>, value: &TypedValue) -> FunctionResult {
    match value.type_name() {
        type_names::BOOL => keep::<bool>(context, "s_bool", value),
        type_names::INT => keep::<i32>(context, "s_int", value),
        type_names::LONG => keep::<i64>(context, "s_long", value),
        type_names::FLOAT => keep::<f32>(context, "s_float", value),
        type_names::DOUBLE => keep::<f64>(context, "s_double", value),
        type_names::STRING => keep::<String>(context, "s_string", value),
        other => {
            let hex = recorded::hex(value.bytes());
            emit(context, format!("other {other} {hex}"));
            Ok(())
        }
    }
}

fn no_state(context: &mut Typed<'_>, value: &TypedValue) -> FunctionResult {
    if value.read().is_ok_and(|text: String| text == "silent") {
        return Ok(());
    }
    let caller = context.caller().map(|caller| format!("{}/{}", caller.function_type, caller.id));
    let caller = caller.unwrap_or("None".to_owned());
    emit(context, format!("type={} has=True caller={caller}", value.type_name()));
    Ok(())
}

fn functions() -> Functions<TypedValue> {
    let boom = |_: &mut Typed<'_>, _: &TypedValue| -> FunctionResult { Err("boom".into()) };
    let values = Function::new(values)
        .value(ValueSpec::<bool>::new("s_bool"))
        .value(ValueSpec::<i32>::new("s_int"))
        .value(ValueSpec::<i64>::new("s_long"))
        .value(ValueSpec::<f32>::new("s_float"))
        .value(ValueSpec::<f64>::new("s_double"))
        .value(ValueSpec::<String>::new("s_string"));
    let actions = LETTERS.into_iter().fold(Function::new(actions), Function::value);
    Functions::new()
        .embedded(GREETER, Function::new(greeter).value(VISITS))
        .embedded(ACTIONS, actions)
        .embedded(VALUES, values)
        .embedded(NO_STATE, Function::new(no_state))
        .embedded(BOOM, Function::new(boom))
        .typed_egress(OUT)
        .typed_egress(KAFKA)
        .typed_egress(KINESIS)
}

/// Why an exchange is not compared, if it is not.
fn skipped(exchange: &Exchange) -> Option<&'static str> {
    let name = exchange.recorded["name"].as_str().unwrap();
    let is_of = |subject: &str| exchange.subject == subject;
    let status = exchange.recorded["status"].as_u64();
    Some(match name {
        "GET" | "PUT" | "HEAD" | "other path" => "it is about HTTP",
        "json body" => "it is about HTTP, whose body is not the protocol's",
        "caller present but empty Address" if status == Some(500) => {
            "the JavaScript SDK takes nobody for somebody there; here nobody is nobody"
        }
        "int as varint (wrong wire type)" => {
            "the Python SDK reads 0, and Java, JavaScript and this refuse it"
        }
        "empty id" => "the SDKs differ; here it is refused",
        "the same state twice" => "the SDKs differ in which one they take; here it is refused",
        "caller with a type only"
        | "argument absent"
        | "argument has_value=false"
        | "argument with an empty typename"
            if is_of("nostate") =>
        {
            "the Python SDK takes what Java and Go refuse, and so does this"
        }
        name if name.contains("nan") || name.contains("-0.0") || name.contains("minus zero") => {
            "the SDKs differ in these bytes"
        }
        _ => return None,
    })
}

/// An answer with nothing in it says what one without bytes says, and no expiration is one that is never.
fn same(mut answer: Value) -> Value {
    if let Some(result) = answer.get("invocation_result")
        && result.as_object().unwrap().values().all(|list| *list == json!([]))
    {
        return Value::Null;
    }
    if let Some(specs) = answer.pointer_mut("/incomplete_invocation_context") {
        let never = json!({ "mode": "NONE", "millis": 0 });
        let specs = specs.as_array_mut().unwrap().iter_mut();
        let specs = specs.filter(|spec| spec["expiration"] == never);
        specs.for_each(|spec| spec["expiration"] = Value::Null);
    }
    answer
}

#[test]
fn recorded_requests_are_answered_as_they_were() {
    let served: ServedFunctions = asking::serve(functions);
    let (mut answered, mut refused, mut left) = (0, 0, 0);
    for exchange in exchanges() {
        if let Some(why) = skipped(&exchange) {
            println!("not compared: {}: {why}", exchange.place());
            left += 1;
            continue;
        }
        let answer = ask_bytes(&served, exchange.bytes("request_hex").unwrap_or_default());
        match exchange.answer() {
            Some(recorded) => {
                let answer = answer.unwrap_or_else(|why| panic!("{}: {why}", exchange.place()));
                let (ours, recorded) = (plain(answer_json(&answer)), plain(recorded.clone()));
                assert_eq!(same(ours), same(recorded), "{}", exchange.place());
                answered += 1;
            }
            None => {
                let why = answer.expect_err(&exchange.place());
                println!("refused: {}: {why}", exchange.place());
                refused += 1;
            }
        }
    }
    checked(answered, "answers");
    println!("{refused} refusals, and {left} exchanges were not compared");
    if std::env::var_os("STATEFUN_VECTORS").is_none() {
        assert_eq!((answered, refused, left), (117, 16, 23));
    }
}
