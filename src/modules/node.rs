//! What is read of a value, and what is said if it is another.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{Mistake, ModuleError, nearest_of};
use super::time;
use super::tree::{Content, Key, Node, Text};
use crate::address::TypeName;

/// The fields of a mapping, all of which are known.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    node: &'a Node,
    known: Vec<&'static str>,
}

impl Node {
    /// The line where it stands, of which the first is 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The column where it stands, in characters, of which the first is 1.
    pub fn column(&self) -> usize {
        self.place.column
    }

    /// An error about this value, as a connector says it.
    pub fn error(&self, why: impl Into<String>) -> ModuleError {
        self.mistake(Mistake::Connector(why.into()))
    }

    /// A text, which may be empty.
    ///
    /// # Errors
    ///
    /// If it is a list, a mapping or nothing.
    pub fn text(&self) -> Result<&str, ModuleError> {
        Ok(&self.as_text("a text")?.filled)
    }

    /// A text that is not empty.
    ///
    /// # Errors
    ///
    /// If it is a list, a mapping, nothing, or an empty text.
    pub fn some_text(&self) -> Result<&str, ModuleError> {
        let expected = "a text that is not empty";
        match &*self.as_text(expected)?.filled {
            "" => Err(self.wrong_type(expected, "an empty text")),
            text => Ok(text),
        }
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn number(&self, bounds: RangeInclusive<u64>) -> Result<u64, ModuleError> {
        let text = self.as_text("a number")?;
        let is_number = text.filled.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.filled.parse().ok()).flatten();
        number.filter(|number| bounds.contains(number)).ok_or_else(|| {
            let (what, found) = (self.what(), text.written.to_string());
            let (min, max) = bounds.into_inner();
            self.mistake(Mistake::InvalidNumber { what, found, min, max })
        })
    }

    /// A duration as Flink writes it: a whole number and a unit, in milliseconds without one. Units are `d`, `h`, `min`
    /// or `m`, `s`, `ms`, `µs` and `ns`, and their names in English.
    ///
    /// # Errors
    ///
    /// If it is anything else, or longer than a hundred years.
    pub fn duration(&self) -> Result<Duration, ModuleError> {
        let text = self.as_text("a duration")?;
        time::duration(&text.filled).map_err(|why| {
            let (what, found) = (self.what(), text.written.to_string());
            self.mistake(Mistake::InvalidDuration { what, found, why })
        })
    }

    /// A date such as `2020-02-01 04:15:00.000 +0000`, as milliseconds since the year 1970 began in UTC.
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn date_ms(&self) -> Result<i64, ModuleError> {
        let text = self.as_text("a date")?;
        time::date_ms(&text.filled).ok_or_else(|| {
            let (what, found) = (self.what(), text.written.to_string());
            self.mistake(Mistake::InvalidDate { what, found })
        })
    }

    /// A name of the form `namespace/name`, with all rules of such names.
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn type_name(&self) -> Result<TypeName, ModuleError> {
        let text = self.as_text("a name of the form \"namespace/name\"")?;
        TypeName::new(&text.filled).map_err(|_| {
            let (what, found) = (self.what(), text.written.to_string());
            self.mistake(Mistake::InvalidName { what, found })
        })
    }

    /// One of some texts.
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn one_of(&self, choices: &[&'static str]) -> Result<&'static str, ModuleError> {
        let text = self.as_text("a text")?;
        choices.iter().find(|choice| **choice == &*text.filled).copied().ok_or_else(|| {
            let nearest = nearest_of(&text.written, choices.iter().copied());
            let possible = choices.iter().map(|choice| (*choice).to_owned()).collect();
            let (what, found) = (self.what(), text.written.to_string());
            self.mistake(Mistake::UnknownChoice { what, found, nearest, possible })
        })
    }

    /// The items of a list.
    ///
    /// # Errors
    ///
    /// If it is no list.
    pub fn list(&self) -> Result<&[Node], ModuleError> {
        match &self.content {
            Content::List(items) => Ok(items),
            _ => Err(self.wrong_type("a list", self.found())),
        }
    }

    /// The items of a list that has some.
    ///
    /// # Errors
    ///
    /// If it is no list, or an empty one.
    pub fn some_list(&self) -> Result<&[Node], ModuleError> {
        match self.list()? {
            [] => Err(self.wrong_type("a list that is not empty", "an empty list")),
            items => Ok(items),
        }
    }

    /// Keys with values, in order, as StateFun writes them: a list of mappings, in which no key is twice.
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn pairs(&self) -> Result<Vec<(&str, &Node)>, ModuleError> {
        let mut pairs: Vec<(&Key, &Node)> = Vec::new();
        let mut lines = std::collections::HashMap::new();
        for item in self.list()? {
            for (key, node) in item.entries()? {
                if let Some(first_line) = lines.insert(&key.text, key.place.line) {
                    let mistake = Mistake::DuplicateKey { key: key.text.to_string(), first_line };
                    return Err(ModuleError::new(&key.place, mistake));
                }
                pairs.push((key, node));
            }
        }
        Ok(pairs.into_iter().map(|(key, node)| (&*key.text, node)).collect())
    }

    /// The fields of a mapping that has no other ones than these.
    ///
    /// # Errors
    ///
    /// If it is no mapping, or has a field that is not known.
    pub fn fields(&self, known: &[&'static str]) -> Result<Fields<'_>, ModuleError> {
        for (key, _) in self.entries()? {
            if !known.contains(&&*key.text) {
                let nearest = nearest_of(&key.text, known.iter().copied());
                let known = known.iter().map(|name| (*name).to_owned()).collect();
                let mistake = Mistake::UnknownField { field: key.text.to_string(), nearest, known };
                return Err(ModuleError::new(&key.place, mistake));
            }
        }
        Ok(Fields { node: self, known: known.to_vec() })
    }

    /// The fields of a mapping of which one, `type`, says which others there are; and what it says.
    ///
    /// # Errors
    ///
    /// If it is no mapping, has no such type, or has a field that mappings of its type do not have.
    pub fn variant(
        &self,
        variants: &[(&'static str, &[&'static str])],
    ) -> Result<(&'static str, Fields<'_>), ModuleError> {
        const TYPE: &str = "type";
        let entries = self.entries()?.iter();
        let of_type = entries.clone().find(|(key, _)| &*key.text == TYPE);
        let Some((_, of_type)) = of_type else {
            // A field that is nearly it is told as such.
            let mut all = vec![TYPE];
            all.extend(variants.iter().flat_map(|(_, known)| known.iter()));
            self.fields(&all)?;
            return Err(self.mistake(Mistake::MissingField { field: TYPE.to_owned() }));
        };
        let names: Vec<_> = variants.iter().map(|(name, _)| *name).collect();
        let chosen = of_type.one_of(&names)?;
        let known = variants.iter().find(|(name, _)| *name == chosen).map(|(_, known)| *known);
        let known = [&[TYPE], known.unwrap_or_default()].concat();
        Ok((chosen, self.fields(&known)?))
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.content, Content::Nothing)
    }

    pub(super) fn entries(&self) -> Result<&[(Key, Node)], ModuleError> {
        match &self.content {
            Content::Map(entries) => Ok(entries),
            _ => Err(self.wrong_type("a mapping", self.found())),
        }
    }

    pub(super) fn as_text(&self, expected: &'static str) -> Result<&Text, ModuleError> {
        match &self.content {
            Content::Text(text) => Ok(text),
            _ => Err(self.wrong_type(expected, self.found())),
        }
    }

    fn wrong_type(&self, expected: &'static str, found: &'static str) -> ModuleError {
        self.mistake(Mistake::WrongType { what: self.what(), expected, found })
    }
}

impl<'a> Fields<'a> {
    /// The value of a field, if it is there and not null.
    ///
    /// # Panics
    ///
    /// If the field is none of those that are known.
    pub fn get(&self, field: &str) -> Option<&'a Node> {
        assert!(self.known.contains(&field), "{field} is not among {:?}", self.known);
        let entries = self.node.entries().expect("it is a mapping");
        let found = entries.iter().find(|(key, _)| &*key.text == field);
        found.map(|(_, node)| node).filter(|node| !node.is_nothing())
    }

    /// The value of a field.
    ///
    /// # Errors
    ///
    /// If it is not there, or null.
    ///
    /// # Panics
    ///
    /// As for [`get`](Self::get).
    pub fn require(&self, field: &str) -> Result<&'a Node, ModuleError> {
        self.get(field)
            .ok_or_else(|| self.node.mistake(Mistake::MissingField { field: field.to_owned() }))
    }

    /// The mapping.
    pub fn node(&self) -> &'a Node {
        self.node
    }
}
