//! The functions that every language's server serves, and the embedded ones they meet.
//!
//! | function | input | what it does |
//! |---|---|---|
//! | `greeter` | name | counts the greetings in `seen`; emits, and replies with, how often it has greeted |
//! | `values` | any type | emits the value it kept of that type, keeps the new one and emits it; `!clear` forgets all |
//! | `keeper` | `set X`, `get`, `poke` | keeps X for 1 s after it was written, for 1 s after a call, and for ever |
//! | `scheduler` | `after MS TOKEN TEXT`, `cancel TOKEN`, `fired TEXT` | sends itself `fired TEXT` later, which emits TEXT |
//! | `forwarder` | `NAMESPACE/NAME ID TEXT` | sends TEXT there |
//! | `records` | `kafka TOPIC KEY VALUE`, `kinesis STREAM KEY VALUE` | emits such a record |
//! | `adder` | a number | adds it to `sum`, and emits that |
//! | `requests` | any | emits how many requests the server was sent |
//! | `failing` | any | fails at `fail`, and emits all else |
//! | `shared` | `write TEXT NUMBER`, `read` | keeps a text, a number and a note, and emits them |
//! | `changing` | any | counts in `first`, from version 2 on also in `second`, and emits both |
//! | `appeared` | any | is there from version 2 on, and emits what it gets |
//!
//! Texts go to `interop/texts`, values to `interop/values`, numbers to `interop/sums`, records to
//! `interop/records`.

use timely::dataflow::Stream;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;
use timely_statefun::{
    Egress, Egresses, Function, FunctionType, Functions, Namespace, TypedMessage, TypedValue,
};

pub const GREETER: FunctionType<String> = FunctionType::new("interop/greeter");
pub const VALUES: FunctionType<TypedValue> = FunctionType::new("interop/values");
pub const KEEPER: FunctionType<String> = FunctionType::new("interop/keeper");
pub const SCHEDULER: FunctionType<String> = FunctionType::new("interop/scheduler");
pub const FORWARDER: FunctionType<String> = FunctionType::new("interop/forwarder");
pub const RECORDS: FunctionType<String> = FunctionType::new("interop/records");
pub const ADDER: FunctionType<i32> = FunctionType::new("interop/adder");
pub const REQUESTS: FunctionType<String> = FunctionType::new("interop/requests");
pub const FAILING: FunctionType<String> = FunctionType::new("interop/failing");
pub const SHARED: FunctionType<String> = FunctionType::new("interop/shared");
/// All of them, and those that appear later.
pub const ALL: Namespace<TypedValue> = Namespace::new("interop");

const TEXTS: Egress<String> = Egress::new("interop/texts");
const VALUES_OUT: Egress<TypedValue> = Egress::new("interop/values");
const SUMS: Egress<i32> = Egress::new("interop/sums");
const RECORDS_OUT: Egress<TypedValue> = Egress::new("interop/records");

/// An embedded function that asks a greeter, and emits what it hears.
pub const CALLER: FunctionType<String> = FunctionType::new("driver/caller");
/// What embedded functions heard.
const HEARD: Egress<String> = Egress::new("driver/heard");

/// Adds the egresses, and the embedded functions.
pub fn surrounded(functions: Functions<TypedValue>) -> Functions<TypedValue> {
    let caller = Function::new(|context, text: &String| {
        match (context.caller(), text.strip_prefix("ask ")) {
            (None, Some(name)) => context.send(GREETER, name, name.to_owned()),
            (caller, _) => {
                let caller = caller.ok_or("somebody says it")?;
                let heard = format!("{}: {caller} says {text}", context.address());
                context.emit(HEARD, heard);
            }
        }
        Ok(())
    });
    let functions = functions.embedded(CALLER, caller).egress(HEARD);
    let functions = functions.typed_egress(TEXTS).typed_egress(SUMS);
    functions.typed_egress(VALUES_OUT).typed_egress(RECORDS_OUT)
}

/// Something that was emitted, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub egress: &'static str,
    pub value: TypedValue,
}

impl Record {
    /// What was emitted to `interop/texts`.
    #[track_caller]
    pub fn text(&self) -> String {
        assert_eq!(self.egress, TEXTS.name(), "{self:?}");
        self.value.read().unwrap()
    }

    /// What was emitted to `interop/sums`.
    #[track_caller]
    pub fn sum(&self) -> i32 {
        assert_eq!(self.egress, SUMS.name(), "{self:?}");
        self.value.read().unwrap()
    }

    /// What embedded functions heard.
    #[track_caller]
    pub fn heard(&self) -> String {
        assert_eq!(self.egress, HEARD.name(), "{self:?}");
        self.value.read().unwrap()
    }

    /// What was emitted to `interop/values`.
    #[track_caller]
    pub fn value(&self) -> &TypedValue {
        assert_eq!(self.egress, VALUES_OUT.name(), "{self:?}");
        &self.value
    }

    /// What was emitted to `interop/records`.
    #[track_caller]
    pub fn record(&self) -> &TypedValue {
        assert_eq!(self.egress, RECORDS_OUT.name(), "{self:?}");
        &self.value
    }
}

/// Has everything that is emitted given to `take`, and gives a stream that is behind it.
pub fn take_all<'scope>(
    egresses: &Egresses<'scope, u64, TypedValue>,
    take: impl Fn(Record) + Clone + 'static,
) -> Stream<'scope, u64, Vec<()>> {
    fn values<'scope, E: TypedMessage>(
        egresses: &Egresses<'scope, u64, TypedValue>,
        egress: Egress<E>,
        take: impl Fn(Record) + 'static,
    ) -> Stream<'scope, u64, Vec<()>> {
        let stream = egresses.stream(egress).unwrap();
        stream.flat_map(move |record| {
            take(Record { egress: egress.name(), value: record.to_typed().unwrap() });
            None
        })
    }
    let texts = values(egresses, TEXTS, take.clone());
    let values_out = values(egresses, VALUES_OUT, take.clone());
    let sums = values(egresses, SUMS, take.clone());
    let records = values(egresses, RECORDS_OUT, take.clone());
    texts.concat(values_out).concat(sums).concat(records).concat(values(egresses, HEARD, take))
}
