//! Records of snapshots as lines of JSON, and back. The first line of a file is about the snapshot itself; the last
//! one says how many records there are between them, if the first says that it will.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};
use timely_statefun::archive::{
    Attempt, Content, Description, HeldRecord, Kind, MessageRecord, Record, Standing, StateInfo,
    StateRecord, Stored, Waits,
};
use timely_statefun::{Address, Expiration, Id, TypeName};

use crate::json;

type Object = Map<String, Json>;

/// The first line.
pub fn header(description: &Description) -> String {
    let Description { program, cut, positions, complete, latest, events, .. } = description;
    let all = |times: &[Bytes]| Json::Array(times.iter().map(|time| packed(time)).collect());
    let events = events.as_ref().map(|time| packed(time));
    let mut line = json!({
        "snapshot": program, "counted": true, "cut": cut, "positions": positions, "complete": all(complete),
        "latest": all(latest),
    });
    if let (Some(events), Json::Object(line)) = (events, &mut line) {
        line.insert("events".to_owned(), events);
    }
    line.to_string()
}

/// The last line.
pub fn footer(records: u64) -> String {
    json!({ "records": records }).to_string()
}

/// What the first line says, and whether the last one says how many records there are.
pub fn read_header(line: &str) -> Result<(Description, bool), String> {
    let object = object(line)?;
    only(&object, &["snapshot", "counted", "cut", "positions", "complete", "latest", "events"])?;
    let program = text(&object, "snapshot")?;
    let mut description =
        Description::beginning(&program, &()).map_err(|error| error.to_string())?;
    description.cut = number(&object, "cut")?;
    let positions = object.get("positions").cloned().unwrap_or_else(|| json!({}));
    let positions: Result<BTreeMap<_, _>, _> = serde_json::from_value(positions);
    description.positions = positions.map_err(|error| format!("\"positions\": {error}"))?;
    let times = |name: &str| match object.get(name) {
        Some(Json::Array(times)) => times.iter().map(unpacked).collect::<Result<Vec<_>, _>>(),
        _ => Err(format!("\"{name}\" is no list of times")),
    };
    (description.complete, description.latest) = (times("complete")?, times("latest")?);
    description.events = object.get("events").map(unpacked).transpose()?;
    let is_counted = object.contains_key("counted") && flag(&object, "counted")?;
    Ok((description, is_counted))
}

/// A time, or what else has no type beside it.
fn packed(bytes: &[u8]) -> Json {
    let mut object = Object::new();
    json::put(&mut object, bytes, None);
    Json::Object(object)
}

fn unpacked(value: &Json) -> Result<Bytes, String> {
    let from = value.as_object().ok_or("a time is no object")?;
    only(from, BYTES)?;
    json::bytes(from, None)
}

fn address(address: &Address) -> Json {
    json!({ "function": address.function_type.as_str(), "id": address.id.to_string() })
}

fn read_address(from: &Json) -> Result<Address, String> {
    let from = from.as_object().ok_or("an address is no object")?;
    only(from, &["function", "id"])?;
    let function = TypeName::new(&text(from, "function")?).map_err(|error| error.to_string())?;
    Ok(Address::new(function, Id::new(&text(from, "id")?)))
}

fn stored(to: &mut Object, stored: &Stored, type_name: &str) {
    json::put(to, &stored.bytes, Some(type_name));
    if let Some(deadline) = stored.deadline_ms {
        to.insert("deadline_ms".to_owned(), deadline.into());
    }
}

fn read_stored(from: &Object, type_name: &str) -> Result<Stored, String> {
    let deadline_ms = from.get("deadline_ms").map(|_| number(from, "deadline_ms")).transpose()?;
    Ok(Stored { bytes: json::bytes(from, Some(type_name))?, deadline_ms })
}

/// A record's line.
pub fn line(record: &Record) -> String {
    let mut to = Object::new();
    to.insert("kind".to_owned(), record.kind().name().into());
    to.insert("set".to_owned(), record.set().into());
    match record {
        Record::State(StateRecord { address, state, content, .. }) => {
            to.insert("function".to_owned(), address.function_type.as_str().into());
            to.insert("id".to_owned(), address.id.to_string().into());
            to.insert("state".to_owned(), state.name.clone().into());
            to.insert("type".to_owned(), state.type_name.clone().into());
            if let Some(lifetime) = state.expiration.duration() {
                let lifetime = u64::try_from(lifetime.as_millis()).expect("it was 64 bits");
                let reads = state.expiration
                    == Expiration::after_read_or_write(Duration::from_millis(lifetime));
                to.insert("lives_ms".to_owned(), lifetime.into());
                to.insert("lives_on_when_read".to_owned(), reads.into());
            }
            match content {
                Content::Value(value) => stored(&mut to, value, &state.type_name),
                Content::Entry { key, value } => {
                    let mut of_key = Object::new();
                    json::put(&mut of_key, key, Some(&state.key_type));
                    of_key.insert("type".to_owned(), state.key_type.clone().into());
                    to.insert("key".to_owned(), Json::Object(of_key));
                    stored(&mut to, value, &state.type_name);
                }
                Content::Buffer(elements) => {
                    let elements = elements.iter().map(|element| {
                        let mut to = Object::new();
                        stored(&mut to, element, &state.type_name);
                        Json::Object(to)
                    });
                    to.insert("elements".to_owned(), Json::Array(elements.collect()));
                }
            }
        }
        Record::Message(message) => put_message(&mut to, message),
        Record::Held(HeldRecord { egress, cut, bin, time, record, .. }) => {
            to.insert("egress".to_owned(), egress.clone().into());
            to.insert("cut".to_owned(), (*cut).into());
            to.insert("bin".to_owned(), (*bin).into());
            to.insert("time".to_owned(), packed(time));
            json::put(&mut to, record, None);
        }
        other => unreachable!("there is no other record: {other:?}"),
    }
    Json::Object(to).to_string()
}

fn put_message(to: &mut Object, record: &MessageRecord) {
    let MessageRecord { waits, target, is_bound, caller, depth, standing, message, .. } = record;
    to.insert("to".to_owned(), address(target));
    if let Some(caller) = caller {
        to.insert("from".to_owned(), address(caller));
    }
    if !is_bound {
        to.insert("bound".to_owned(), false.into());
    }
    to.insert("depth".to_owned(), (*depth).into());
    let mut put = |name: &str, value: Json| drop(to.insert(name.to_owned(), value));
    match standing {
        Standing::Event => {}
        Standing::Came(time) => put("came", packed(time)),
        Standing::At { time, depth, is_ingress } => {
            put("at", packed(time));
            put("stage", (*depth).into());
            put("ingress", (*is_ingress).into());
        }
    }
    match waits {
        Waits::InFlight { is_first } => put("first", (*is_first).into()),
        Waits::Retrying(Some(Attempt { attempts, due_ms })) => {
            put("attempts", (*attempts).into());
            put("due_ms", (*due_ms).into());
        }
        Waits::Delayed { due_ms, token } => {
            put("due_ms", (*due_ms).into());
            if let Some(token) = token {
                put("token", token.clone().into());
            }
        }
        Waits::Retrying(None) | Waits::Queued | Waits::Logged | Waits::Operation => {}
    }
    json::put(to, message, None);
}

/// What a line says.
pub enum Line {
    Record(Box<Record>),
    /// It is the last one, after so many records.
    Last(u64),
}

/// Reads lines of records. What they have in common is kept once.
#[derive(Default)]
pub struct Lines {
    set: Option<Arc<str>>,
    states: Vec<Arc<StateInfo>>,
}

impl Lines {
    /// What a line says.
    pub fn read(&mut self, line: &str) -> Result<Line, String> {
        let from = object(line)?;
        if from.contains_key("records") {
            only(&from, &["records"])?;
            return Ok(Line::Last(number(&from, "records")?));
        }
        self.record(&from).map(|record| Line::Record(Box::new(record)))
    }

    fn record(&mut self, from: &Object) -> Result<Record, String> {
        let name = text(from, "kind")?;
        let kind = Kind::named(&name).ok_or_else(|| format!("there is no kind \"{name}\""))?;
        let set = self.set(&text(from, "set")?);
        match kind {
            Kind::Value | Kind::Entry | Kind::Buffer => self.state(kind, set, from),
            Kind::Held => {
                only_of(from, &[&["kind", "set", "egress", "cut", "bin", "time"], BYTES])?;
                let bin = u16::try_from(number(from, "bin")?);
                Ok(Record::Held(HeldRecord {
                    set,
                    egress: text(from, "egress")?,
                    cut: number(from, "cut")?,
                    bin: bin.map_err(|_| "\"bin\" is too large")?,
                    time: unpacked(field(from, "time")?)?,
                    record: json::bytes(from, None)?,
                }))
            }
            kind => message(kind, set, from).map(Record::Message),
        }
    }

    fn set(&mut self, name: &str) -> Arc<str> {
        match &self.set {
            Some(set) if **set == *name => Arc::clone(set),
            _ => Arc::clone(self.set.insert(name.into())),
        }
    }

    fn state(&mut self, kind: Kind, set: Arc<str>, from: &Object) -> Result<Record, String> {
        let own: &[&str] = match kind {
            Kind::Value => STORED,
            Kind::Entry => &["key", "value", "encoding", "bytes", "deadline_ms"],
            _ => &["elements"],
        };
        only_of(from, &[STATE, own])?;
        let function =
            TypeName::new(&text(from, "function")?).map_err(|error| error.to_string())?;
        let (type_name, mut key_type, mut key) = (text(from, "type")?, String::new(), Bytes::new());
        if kind == Kind::Entry {
            let of_key = field(from, "key")?.as_object().ok_or("\"key\" is no object")?;
            only_of(of_key, &[&["type"], BYTES])?;
            key_type = text(of_key, "type")?;
            key = json::bytes(of_key, Some(&key_type))?;
        }
        let content = match kind {
            Kind::Value => Content::Value(read_stored(from, &type_name)?),
            Kind::Entry => Content::Entry { key, value: read_stored(from, &type_name)? },
            _ => {
                let elements =
                    field(from, "elements")?.as_array().ok_or("\"elements\" are no list")?;
                let element = |element: &Json| {
                    let element = element.as_object().ok_or("an element is no object")?;
                    only(element, STORED)?;
                    read_stored(element, &type_name)
                };
                Content::Buffer(elements.iter().map(element).collect::<Result<_, _>>()?)
            }
        };
        let expiration = match from.get("lives_ms") {
            None => Expiration::never(),
            Some(_) => {
                let lifetime = Duration::from_millis(number(from, "lives_ms")?);
                match flag(from, "lives_on_when_read")? {
                    true => Expiration::after_read_or_write(lifetime),
                    false => Expiration::after_write(lifetime),
                }
            }
        };
        let info = StateInfo { name: text(from, "state")?, kind, key_type, type_name, expiration };
        let state = match self.states.iter().find(|known| ***known == info) {
            Some(known) => Arc::clone(known),
            None => {
                self.states.push(Arc::new(info));
                Arc::clone(&self.states[self.states.len() - 1])
            }
        };
        let address = Address::new(function, Id::new(&text(from, "id")?));
        Ok(Record::State(StateRecord { set, address, state, content }))
    }
}

fn message(kind: Kind, set: Arc<str>, from: &Object) -> Result<MessageRecord, String> {
    only_of(from, &[MESSAGE, BYTES])?;
    let small = |name: &str| {
        u32::try_from(number(from, name)?).map_err(|_| format!("\"{name}\" is too large"))
    };
    let standing = match (from.get("came"), from.get("at")) {
        (None, None) => Standing::Event,
        (Some(time), None) => Standing::Came(unpacked(time)?),
        (None, Some(time)) => Standing::At {
            time: unpacked(time)?,
            depth: number(from, "stage")?,
            is_ingress: flag(from, "ingress")?,
        },
        _ => return Err("it both came at a time and is at one".to_owned()),
    };
    let waits = match kind {
        Kind::InFlight => Waits::InFlight { is_first: flag(from, "first")? },
        Kind::Retrying if from.contains_key("attempts") => Waits::Retrying(Some(Attempt {
            attempts: small("attempts")?,
            due_ms: number(from, "due_ms")?,
        })),
        Kind::Retrying => Waits::Retrying(None),
        Kind::Queued => Waits::Queued,
        Kind::Logged => Waits::Logged,
        Kind::Operation => Waits::Operation,
        Kind::Delayed => Waits::Delayed {
            due_ms: number(from, "due_ms")?,
            token: from.get("token").map(|_| text(from, "token")).transpose()?,
        },
        other => return Err(format!("a {other} is no message")),
    };
    Ok(MessageRecord {
        set,
        waits,
        target: read_address(field(from, "to")?)?,
        is_bound: !from.contains_key("bound") || flag(from, "bound")?,
        caller: from.get("from").map(read_address).transpose()?,
        depth: small("depth")?,
        standing,
        message: json::bytes(from, None)?,
    })
}

fn object(line: &str) -> Result<Object, String> {
    match serde_json::from_str(line) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

// What objects say.
const BYTES: &[&str] = &["value", "encoding", "bytes"];
const STORED: &[&str] = &["value", "encoding", "bytes", "deadline_ms"];
const STATE: &[&str] =
    &["kind", "set", "function", "id", "state", "type", "lives_ms", "lives_on_when_read"];
const MESSAGE: &[&str] = &[
    "kind", "set", "to", "from", "bound", "depth", "came", "at", "stage", "ingress", "first",
    "attempts", "due_ms", "token",
];

/// An error if an object says anything else: it would be lost.
fn only_of(from: &Object, names: &[&[&str]]) -> Result<(), String> {
    let is_known = |name: &String| names.iter().any(|names| names.contains(&name.as_str()));
    match from.keys().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(format!("nothing is known of \"{name}\" here")),
    }
}

fn only(from: &Object, names: &[&str]) -> Result<(), String> {
    only_of(from, &[names])
}

fn field<'o>(from: &'o Object, name: &str) -> Result<&'o Json, String> {
    from.get(name).ok_or_else(|| format!("there is no \"{name}\""))
}

fn text(from: &Object, name: &str) -> Result<String, String> {
    let text = field(from, name)?.as_str();
    Ok(text.ok_or_else(|| format!("\"{name}\" is no text"))?.to_owned())
}

fn number(from: &Object, name: &str) -> Result<u64, String> {
    let number = field(from, name)?.as_u64();
    number.ok_or_else(|| format!("\"{name}\" is no whole number"))
}

fn flag(from: &Object, name: &str) -> Result<bool, String> {
    field(from, name)?.as_bool().ok_or_else(|| format!("\"{name}\" is neither true nor false"))
}
