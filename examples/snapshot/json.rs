//! Values as JSON that can be read, where reading it gives exactly the same bytes again; else as base64.
//!
//! A value of a built-in type, or one that is MessagePack, is its JSON under "value"; one that is JSON itself
//! has an "encoding" beside it. What JSON has not, an object with one name that begins with "$" stands for:
//! `{"$bytes": "base64"}`, `{"$float": 0.5}` of 32 bits, and `{"$map": [[key, value], …]}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value as Json};
use timely_statefun::{Typed, TypedValue};

/// Adds what bytes say, of a type if its name is known: under "value" as JSON, or under "bytes".
pub fn put(to: &mut Map<String, Json>, bytes: &[u8], type_name: Option<&str>) {
    if let Some(value) = value_of(bytes, type_name) {
        to.insert("value".to_owned(), value);
    } else if let Some(value) = json_of(bytes) {
        to.insert("value".to_owned(), value);
        to.insert("encoding".to_owned(), "json".into());
    } else {
        to.insert("bytes".to_owned(), STANDARD.encode(bytes).into());
    }
}

/// The bytes that such an object says.
pub fn bytes(from: &Map<String, Json>, type_name: Option<&str>) -> Result<Bytes, String> {
    match (from.get("value"), from.get("bytes")) {
        (Some(value), None) => match from.get("encoding").map(Json::as_str) {
            None => written(value, type_name),
            Some(Some("json")) => Ok(value.to_string().into()),
            Some(_) => Err("\"encoding\" is not \"json\"".to_owned()),
        },
        (None, Some(Json::String(bytes))) => decoded(bytes),
        (None, Some(_)) => Err("\"bytes\" are no text".to_owned()),
        _ => Err("there is neither \"value\" nor \"bytes\", or both".to_owned()),
    }
}

fn decoded(text: &str) -> Result<Bytes, String> {
    let bytes =
        STANDARD.decode(text).map_err(|error| format!("\"bytes\" are no base64: {error}"))?;
    Ok(bytes.into())
}

fn value_of(bytes: &[u8], type_name: Option<&str>) -> Option<Json> {
    let value = match type_name.filter(|name| name.starts_with("io.statefun.types/")) {
        Some(name) => built_in(name, bytes)?,
        None => {
            // Values may be nested so deep, and JSON is read half as deep.
            let packed = rmpv::decode::read_value_with_max_depth(&mut &*bytes, 100).ok()?;
            to_json(&packed)?
        }
    };
    (written(&value, type_name).ok()? == bytes && again(&value)? == value).then_some(value)
}

/// What is JSON, written as this program does.
fn json_of(bytes: &[u8]) -> Option<Json> {
    let value: Json = serde_json::from_slice(bytes).ok()?;
    (value.to_string().as_bytes() == bytes).then_some(value)
}

/// What comes back when it is written and read.
fn again(value: &Json) -> Option<Json> {
    serde_json::from_str(&value.to_string()).ok()
}

fn built_in(name: &str, bytes: &[u8]) -> Option<Json> {
    let value = TypedValue::new(name, Bytes::copy_from_slice(bytes)).ok()?;
    Some(match name.rsplit_once('/')?.1 {
        "bool" => value.read::<bool>().ok()?.into(),
        "int" => value.read::<i32>().ok()?.into(),
        "long" => value.read::<i64>().ok()?.into(),
        "float" => Number::from_f64(value.read::<f32>().ok()?.into())?.into(),
        "double" => Number::from_f64(value.read::<f64>().ok()?)?.into(),
        "string" => value.read::<String>().ok()?.into(),
        _ => return None,
    })
}

/// The bytes of a value of a type.
fn written(value: &Json, type_name: Option<&str>) -> Result<Bytes, String> {
    fn of<V: Typed>(value: Option<V>) -> Result<Bytes, String> {
        Ok(value.ok_or("it is no value of its type")?.to_bytes())
    }
    match type_name.filter(|name| name.starts_with("io.statefun.types/")) {
        Some(name) => match name.rsplit_once('/').map(|(_, name)| name) {
            Some("bool") => of(value.as_bool()),
            Some("int") => of(value.as_i64().and_then(|number| i32::try_from(number).ok())),
            Some("long") => of(value.as_i64()),
            Some("float") => of(value.as_f64().map(|number| number as f32)),
            Some("double") => of(value.as_f64()),
            Some("string") => of(value.as_str().map(str::to_owned)),
            _ => Err(format!("there is no built-in type \"{name}\"")),
        },
        None => {
            let mut bytes = Vec::new();
            let written = rmpv::encode::write_value(&mut bytes, &packed(value)?);
            written.map_err(|error| error.to_string())?;
            Ok(bytes.into())
        }
    }
}

/// A thing that stands for what JSON has not.
fn marked(mark: &str, value: Json) -> Json {
    Json::Object(Map::from_iter([(mark.to_owned(), value)]))
}

fn to_json(packed: &Packed) -> Option<Json> {
    Some(match packed {
        Packed::Nil => Json::Null,
        Packed::Boolean(flag) => (*flag).into(),
        Packed::Integer(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, number) => number?.into(),
        },
        Packed::F32(number) => marked("$float", Number::from_f64(f64::from(*number))?.into()),
        Packed::F64(number) => Number::from_f64(*number)?.into(),
        Packed::String(text) => text.as_str()?.into(),
        Packed::Binary(bytes) => marked("$bytes", STANDARD.encode(bytes).into()),
        Packed::Array(list) => Json::Array(list.iter().map(to_json).collect::<Option<_>>()?),
        Packed::Map(entries) => {
            let is_text = |(key, _): &(Packed, Packed)| key.is_str();
            if entries.iter().all(is_text) {
                let named = entries.iter().map(|(key, value)| match key {
                    Packed::String(name) => Some((name.as_str()?.to_owned(), to_json(value)?)),
                    _ => None,
                });
                Json::Object(named.collect::<Option<_>>()?)
            } else {
                let entry = |(key, value): &(Packed, Packed)| {
                    Some(Json::Array(vec![to_json(key)?, to_json(value)?]))
                };
                marked("$map", Json::Array(entries.iter().map(entry).collect::<Option<_>>()?))
            }
        }
        Packed::Ext(..) => return None,
    })
}

fn packed(value: &Json) -> Result<Packed, String> {
    Ok(match value {
        Json::Null => Packed::Nil,
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => Packed::F64(number.as_f64().ok_or("a number is too large")?),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(list) => Packed::Array(list.iter().map(packed).collect::<Result<_, _>>()?),
        Json::Object(entries) => {
            match entries.iter().next().map(|(name, value)| (name.as_str(), value)) {
                Some(("$bytes", Json::String(bytes))) if entries.len() == 1 => {
                    Packed::Binary(decoded(bytes)?.into())
                }
                Some(("$float", Json::Number(number))) if entries.len() == 1 => {
                    Packed::F32(number.as_f64().ok_or("a number is too large")? as f32)
                }
                Some(("$map", Json::Array(list))) if entries.len() == 1 => {
                    let entry = |entry: &Json| match entry.as_array().map(Vec::as_slice) {
                        Some([key, value]) => Ok((packed(key)?, packed(value)?)),
                        _ => Err("an entry of a \"$map\" is no pair".to_owned()),
                    };
                    Packed::Map(list.iter().map(entry).collect::<Result<_, _>>()?)
                }
                _ => {
                    let entry = |(name, value): (&String, &Json)| {
                        Ok((name.as_str().into(), packed(value)?))
                    };
                    Packed::Map(entries.iter().map(entry).collect::<Result<_, String>>()?)
                }
            }
        }
    })
}
