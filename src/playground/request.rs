//! What a request to the ingress says: for which function it is, and a value of which type.
//!
//! Nothing here waits, and nothing here knows what becomes of it.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use crate::address::{Address, TypeName};
use crate::message::Mismatch;
use crate::typed::{Typed, TypedValue};

/// What stands before the name of a type in a content type.
const PREFIX: &str = "application/vnd.";

/// Why a request means nothing, and the status that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaningless(pub(super) StatusCode, pub(super) String);

/// The text of a part of a path, in which `%41` is a byte of UTF-8; none if that is not so.
pub(super) fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The function that a path names: `/namespace/function/id`.
pub(super) fn target(path: &str) -> Result<Address, Meaningless> {
    let wrong = |why: &str| {
        let what = format!("\"{path}\" is not /namespace/function/id: {why}");
        Err(Meaningless(StatusCode::NOT_FOUND, what))
    };
    let mut parts = path.strip_prefix('/').unwrap_or(path).splitn(3, '/');
    let (Some(namespace), Some(function), Some(id)) = (parts.next(), parts.next(), parts.next())
    else {
        return wrong("a part of it is missing");
    };
    let parts = [namespace, function, id].map(decoded);
    let [Some(namespace), Some(function), Some(id)] = parts else {
        return wrong("behind \"%\" are not two digits of a byte of UTF-8");
    };
    if id.is_empty() {
        return wrong("the id is empty");
    }
    if function.contains('/') {
        return wrong("the name of a function has no \"/\"");
    }
    match TypeName::new(&format!("{namespace}/{function}")) {
        Ok(name) => Ok(Address::new(name, id)),
        Err(error) => wrong(&error.to_string()),
    }
}

/// The name of the type that a request's content type says; none if it says something else, or nothing.
pub(super) fn type_of(headers: &HeaderMap) -> Result<Option<&str>, Meaningless> {
    let mut said = headers.get_all(CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    let name = said.find_map(|said| {
        let (prefix, name) = said.trim().split_at_checked(PREFIX.len())?;
        // What comes behind the type, such as a character set, says nothing of bytes that have a type.
        let name = name.split(';').next().unwrap_or(name).trim();
        prefix.eq_ignore_ascii_case(PREFIX).then_some(name)
    });
    match name.map(TypeName::new) {
        Some(Err(error)) => Err(Meaningless(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string())),
        _ => Ok(name),
    }
}

/// What can be said of a request before its body is there.
pub(super) fn check(head: &Parts) -> Result<(), Meaningless> {
    target(head.uri.path())?;
    type_of(&head.headers)?;
    Ok(())
}

/// The value that a request has.
pub(super) fn value(headers: &HeaderMap, body: Bytes) -> Result<TypedValue, Meaningless> {
    let bad = |what: String| Meaningless(StatusCode::BAD_REQUEST, what);
    let Some(name) = type_of(headers)? else {
        let text = String::from_utf8(body.into()).map_err(|_| {
            bad("the body is no text in UTF-8, and its content type names no other type".to_owned())
        })?;
        return Ok(TypedValue::of(&text));
    };
    let value = TypedValue::found(name, body);
    // What is no value of a type that is known here fails in every function that reads it.
    let known = [
        mismatch::<bool>,
        mismatch::<i32>,
        mismatch::<i64>,
        mismatch::<f32>,
        mismatch::<f64>,
        mismatch::<String>,
    ];
    match known.iter().find_map(|mismatch| mismatch(&value)) {
        Some(mismatch) => Err(bad(format!("the body is {mismatch}"))),
        None => Ok(value),
    }
}

/// What is wrong with a value of this type, if it is said to be one.
fn mismatch<V: Typed>(value: &TypedValue) -> Option<Mismatch> {
    (value.type_name() == V::TYPE_NAME).then(|| value.read::<V>().err())?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_path_names_a_function_and_an_id() {
        for (path, found) in [
            ("/example/person/Bob", "example/person Bob"),
            ("/example/person/7", "example/person 7"),
            ("/example/person/B%6Fb%20%C3%89", "example/person Bob É"),
            ("/example/person/a/b/", "example/person a/b/"),
            ("/example/person/a%2Fb", "example/person a/b"),
            ("/a%2Fb/person/x+y", "a/b/person x+y"),
        ] {
            assert_eq!(target(path).unwrap().to_string(), found, "{path}");
        }
        for (path, why) in [
            ("/", "a part of it is missing"),
            ("*", "a part of it is missing"),
            ("/example/person", "a part of it is missing"),
            ("/example/person/", "the id is empty"),
            ("//person/Bob", "a part of it is empty"),
            ("/example//Bob", "a part of it is empty"),
            ("/example/per%2Fson/Bob", "has no \"/\""),
            ("/example/per%20son/Bob", "white space"),
            ("/example/*/Bob", "\"*\""),
            ("/example/person/%4", "two digits"),
            ("/example/person/%+4", "two digits"),
            ("/example/person/%ff", "two digits"),
        ] {
            let Meaningless(status, what) = target(path).unwrap_err();
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert!(what.contains(why) && what.contains(path), "{path}: {what}");
        }
    }

    fn headers(types: &[&str]) -> HeaderMap {
        let types = types.iter().map(|of| (CONTENT_TYPE, HeaderValue::from_str(of).unwrap()));
        types.collect()
    }

    #[test]
    fn a_content_type_names_a_type_or_the_body_is_a_text() {
        let typed =
            |types: &[&str], body: &'static [u8]| value(&headers(types), Bytes::from_static(body));
        let text = TypedValue::of(&"Bob".to_owned());
        let request = TypedValue::new("example/GreetRequest", &b"Bob"[..]).unwrap();
        for (types, body, found) in [
            (&[][..], &b"Bob"[..], &text),
            (&["text/plain"], b"Bob", &text),
            (&["application/x-www-form-urlencoded"], b"Bob", &text),
            (&["application/vnd.io.statefun.types/string"], b"\x0a\x03Bob", &text),
            (&["application/vnd.example/GreetRequest"], b"Bob", &request),
            (&["Application/VND.example/GreetRequest; charset=utf-8"], b"Bob", &request),
            (&["text/plain", "application/vnd.example/GreetRequest"], b"Bob", &request),
        ] {
            assert_eq!(typed(types, body).as_ref(), Ok(found), "{types:?}");
        }
        for (types, body, status, why) in [
            (&[][..], &b"\xff"[..], 400, "no text in UTF-8"),
            (&["application/vnd.io.statefun.types/string"], b"Bob", 400, "that is none"),
            (&["application/vnd.io.statefun.types/int"], b"\xff", 400, "that is none"),
            (&["application/vnd.ms-excel"], b"Bob", 415, "\"ms-excel\""),
            (&["application/vnd."], b"Bob", 415, "namespace/name"),
        ] {
            let Meaningless(found, what) = typed(types, body).unwrap_err();
            assert_eq!(found.as_u16(), status, "{types:?}");
            assert!(what.contains(why), "{types:?}: {what}");
        }
    }
}
