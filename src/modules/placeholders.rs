//! What is put into modules where they say `${NAME}`.

use std::collections::BTreeMap;
use std::env;
use std::fmt;

use super::error::Mistake;

/// Values for what stands in a module as `${NAME}` or `${NAME:default}`.
///
/// Placeholders are filled in values, not in keys, after the YAML was read: what is put in is text of the value that
/// it stands in, whatever characters it has, and never more values or fields. A name begins with an ASCII letter or
/// `_`, and goes on with these, digits, `.` and `-`. A default goes up to the `}` that closes the placeholder, may
/// have braces in pairs, and may be empty; placeholders do not nest. `$${` stands for `${`, and any other `$` for
/// itself.
///
/// ```
/// use timely_statefun::modules::{Connectors, Module, Placeholders};
///
/// let text = "
/// kind: io.statefun.endpoints.v2/http
/// spec:
///   functions: example/*
///   urlPathTemplate: http://${FUNCTIONS_HOST:localhost}:${FUNCTIONS_PORT}/{function.name}
/// ";
/// let placeholders = Placeholders::none().with("FUNCTIONS_PORT", "8000");
/// let module = Module::parse("module.yaml", text, &placeholders, &Connectors::<()>::new()).unwrap();
/// assert_eq!(module.endpoints().functions().collect::<Vec<_>>(), ["example/*"]);
///
/// let error = Module::parse("module.yaml", text, &Placeholders::none(), &Connectors::<()>::new());
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "module.yaml:5:20: there is no value for the placeholder \"FUNCTIONS_PORT\", and no default"
/// );
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Placeholders(BTreeMap<String, String>);

impl Placeholders {
    /// No values: a placeholder without a default is an error.
    pub fn none() -> Self {
        Placeholders::default()
    }

    /// The environment of this process, as it is now. Variables that are not UTF-8 are not there.
    pub fn environment() -> Self {
        let pairs = env::vars_os();
        pairs
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Gives a value, in the place of the one that was there.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Fills what stands in a text; none if there is nothing to be changed in it. The result has at most
    /// `bytes_max` bytes.
    pub(super) fn fill(&self, text: &str, bytes_max: usize) -> Result<Option<String>, Mistake> {
        if !text.contains("${") {
            return Ok(None);
        }
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, placeholder) = rest.split_at(at);
            rest = &placeholder[2..];
            if let Some(before) = before.strip_suffix('$') {
                filled += before;
                filled += "${";
                continue;
            }
            filled += before;
            let end = end_of(rest).map_err(|why| invalid(placeholder, why))?;
            let (inside, after) = (&rest[..end], &rest[end + 1..]);
            let (name, default) = match inside.split_once(':') {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            check_name(name).map_err(|why| invalid(placeholder, why))?;
            let value = self.0.get(name).map(String::as_str).or(default);
            let Some(value) = value else {
                return Err(Mistake::UnknownPlaceholder { name: name.to_owned() });
            };
            filled += value;
            rest = after;
            if filled.len() > bytes_max {
                return Err(Mistake::TooLong { max: super::tree::FILLED_MAX });
            }
        }
        filled += rest;
        Ok(Some(filled))
    }
}

/// Where the brace is that closes a placeholder, of which the first was read.
fn end_of(text: &str) -> Result<usize, &'static str> {
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' if text[..at].ends_with('$') => return Err("placeholders do not nest"),
            '{' => open += 1,
            '}' if open == 0 => return Ok(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    Err("it is not closed")
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let other = |c: char| first(c) || c.is_ascii_digit() || c == '.' || c == '-';
    match name.chars().next() {
        None => Err("it has no name"),
        Some(c) if first(c) && name.chars().all(other) => Ok(()),
        Some(_) => {
            Err("its name has other characters than letters, digits, \"_\", \".\" and \"-\"")
        }
    }
}

fn invalid(placeholder: &str, why: &'static str) -> Mistake {
    let mut text: String = placeholder.chars().take(20).collect();
    if text.len() < placeholder.len() {
        text.push('…');
    }
    Mistake::InvalidPlaceholder { text, why }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Placeholders {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Placeholders(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Shows the names alone: values may be secrets.
impl fmt::Debug for Placeholders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Placeholders").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_what_is_none_stays() {
        let placeholders: Placeholders =
            [("A", "1"), ("B_2.x-y", "${A}"), ("EMPTY", "")].into_iter().collect();
        let filled = |text: &str| placeholders.fill(text, 1000).unwrap();
        for (text, expected) in [
            ("${A}", "1"),
            ("<${A}${A}>", "<11>"),
            ("${B_2.x-y}", "${A}"),
            ("[${EMPTY}]", "[]"),
            ("[${C:}]", "[]"),
            ("${C:a:b}", "a:b"),
            ("${A:other}", "1"),
            ("${C:{function.name}}/x", "{function.name}/x"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("$${A} ${A}", "${A} 1"),
        ] {
            assert_eq!(filled(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "$", "{function.name}", "$A", "$ {A}", "a$"] {
            assert_eq!(filled(text), None, "{text}");
        }
    }

    #[test]
    fn what_begins_like_a_placeholder_is_one_or_an_error() {
        let placeholders = Placeholders::none();
        let error = |text: &str| placeholders.fill(text, 1000).unwrap_err();
        for (text, expected) in [
            ("${", "it is not closed"),
            ("${A", "it is not closed"),
            ("${A:{}", "it is not closed"),
            ("${}", "it has no name"),
            ("${:x}", "it has no name"),
            ("${A:${B}}", "placeholders do not nest"),
            ("${1}", "letters"),
            ("${a b}", "letters"),
        ] {
            let error = error(text);
            let Mistake::InvalidPlaceholder { why, .. } = &error else { panic!("{error}") };
            assert!(why.contains(expected), "{text}: {why}");
        }
        assert_eq!(error("${A}"), Mistake::UnknownPlaceholder { name: "A".to_owned() });
        let long = Placeholders::none().with("A", "x".repeat(600));
        assert!(long.fill("${A}", 600).is_ok());
        assert!(matches!(long.fill("${A}${A}", 1000), Err(Mistake::TooLong { .. })));
    }

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", Placeholders::none().with("PASSWORD", "secret"));
        assert_eq!(shown, "Placeholders([\"PASSWORD\"])");
    }
}
