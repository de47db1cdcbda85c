//! What can be wrong with a module, and where.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// A module cannot be read, or says something that cannot be done.
///
/// The message begins with the file, the line and the column. Texts that [placeholders](super::Placeholders) were
/// put into are shown as they stand in the file, so no message tells what was put in.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place}: {kind}")]
pub struct ModuleError {
    place: Place,
    // Errors are passed on often, and should not be the largest part of a result.
    kind: Box<Mistake>,
}

impl ModuleError {
    pub(super) fn new(place: &Place, kind: Mistake) -> Self {
        ModuleError { place: place.clone(), kind: Box::new(kind) }
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.place.file
    }

    /// The line, of which the first is 1; 0 if it is the file as a whole.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The column in characters, of which the first is 1; 0 if it is the file as a whole.
    pub fn column(&self) -> usize {
        self.place.column
    }

    /// What is wrong.
    pub fn kind(&self) -> &Mistake {
        &self.kind
    }
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    /// A file as a whole.
    pub(super) fn file(name: &str) -> Self {
        Place { file: name.into(), line: 0, column: 0 }
    }
}

/// As compilers have it, so that tools find it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// What can be wrong with a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// A file cannot be read, or is not UTF-8.
    #[error("the file cannot be read: {why}")]
    Unreadable {
        /// What the system says.
        why: String,
    },
    /// The file has too many bytes.
    #[error("the file has more than {max} bytes")]
    TooLarge {
        /// How many it may have.
        max: usize,
    },
    /// It is not YAML.
    #[error("it is not YAML: {why}")]
    Syntax {
        /// What the parser says.
        why: String,
    },
    /// Lists and mappings are too deep in one another.
    #[error("there are more than {max} lists and mappings in one another")]
    TooDeep {
        /// How deep they may be.
        max: usize,
    },
    /// There is too much, after aliases have been replaced by what they stand for.
    #[error("there are more than {max} values, with what aliases stand for")]
    TooMany {
        /// How many values there may be.
        max: usize,
    },
    /// Texts are too long, after placeholders have been filled.
    #[error("there are more than {max} bytes of text that placeholders were put into")]
    TooLong {
        /// How many bytes there may be.
        max: usize,
    },
    /// An alias stands for nothing that ends before it.
    #[error("the alias stands for nothing that is complete before it, in this document")]
    UnknownAlias,
    /// A tag of YAML that is none of its core schema.
    #[error("the tag \"{tag}\" means nothing here")]
    UnknownTag {
        /// The tag.
        tag: String,
    },
    /// A key of a mapping that is no text.
    #[error("a key is text, and this is {found}")]
    NotAKey {
        /// What it is.
        found: &'static str,
    },
    /// A key is twice in a mapping.
    #[error("\"{key}\" is here twice; it is first in line {first_line}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it is for the first time.
        first_line: usize,
    },
    /// What `<<` adds to a mapping is no mapping.
    #[error("\"<<\" adds a mapping, or a list of mappings, and this is {found}")]
    NotMergeable {
        /// What it is.
        found: &'static str,
    },
    /// A placeholder has no value, and no default.
    #[error("there is no value for the placeholder \"{name}\", and no default")]
    UnknownPlaceholder {
        /// Its name.
        name: String,
    },
    /// What begins like a placeholder is none.
    #[error("the placeholder \"{text}\" is not valid: {why}")]
    InvalidPlaceholder {
        /// Where it begins, and some of what follows.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A document is neither a component nor a module of version 3.0.
    #[error("a document is a mapping with \"kind\" and \"spec\", or a module with \"version\"")]
    NotAComponent,
    /// A field that nobody knows.
    #[error("the field \"{field}\" is not known{}{}", suggested(.nearest), listed("fields here", .known))]
    UnknownField {
        /// The field.
        field: String,
        /// The one that is most like it, if one is.
        nearest: Option<String>,
        /// All that are known there.
        known: Vec<String>,
    },
    /// A field that must be there.
    #[error("the field \"{field}\" is missing")]
    MissingField {
        /// The field.
        field: String,
    },
    /// A value of another type than it has to have.
    #[error("{what} is {expected}, and this is {found}")]
    WrongType {
        /// What the value is for.
        what: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A text that is none of those that are possible.
    #[error("{what} cannot be \"{found}\"{}{}", suggested(.nearest), listed("possible", .possible))]
    UnknownChoice {
        /// What the value is for.
        what: String,
        /// What it is.
        found: String,
        /// What is most like it, if something is.
        nearest: Option<String>,
        /// All it can be.
        possible: Vec<String>,
    },
    /// A text that is no name of the form `namespace/name`.
    #[error("{what} is a name of the form \"namespace/name\", and not \"{found}\"")]
    InvalidName {
        /// What the value is for.
        what: String,
        /// What it is.
        found: String,
    },
    /// A text that stands for no functions.
    #[error("functions are \"namespace/name\" or \"namespace/*\", and not \"{found}\"")]
    InvalidFunctions {
        /// What it is.
        found: String,
    },
    /// A text that is no number, or a number that is out of bounds.
    #[error("{what} is a number from {min} to {max}, and not \"{found}\"")]
    InvalidNumber {
        /// What the value is for.
        what: String,
        /// What it is.
        found: String,
        /// The least it can be.
        min: u64,
        /// The most it can be.
        max: u64,
    },
    /// A text that is no duration.
    #[error("{what} is a duration such as \"20 s\" or \"1min\", and not \"{found}\": {why}")]
    InvalidDuration {
        /// What the value is for.
        what: String,
        /// What it is.
        found: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A text that is no date.
    #[error("{what} is a date such as \"2020-02-01 04:15:00.000 +0000\", and not \"{found}\"")]
    InvalidDate {
        /// What the value is for.
        what: String,
        /// What it is.
        found: String,
    },
    /// A timeout that is longer than that of the whole call.
    #[error("the {name} timeout, {timeout:?}, is longer than that of the call, {call:?}")]
    TimeoutAboveCall {
        /// `connect`, `read` or `write`.
        name: &'static str,
        /// What it is.
        timeout: std::time::Duration,
        /// The timeout of the call.
        call: std::time::Duration,
    },
    /// A file that is named as Java names its resources.
    #[error("there is no class path here, only files, and \"{found}\" is none")]
    NoClassPath {
        /// The name.
        found: String,
    },
    /// Something that only programs with the feature `tls` can do.
    #[error("\"{what}\" needs the feature \"tls\" of this library, which this program has not")]
    NeedsTls {
        /// What it is.
        what: String,
    },
    /// A version of the format of modules that cannot be read.
    #[error("the version is \"3.0\" or not there, and not \"{found}\"")]
    UnsupportedVersion {
        /// The version.
        found: String,
    },
    /// A kind of component that nobody knows.
    #[error("the kind \"{kind}\" is not known{}{}", suggested(.nearest), listed("known", .known))]
    UnknownKind {
        /// The kind.
        kind: String,
        /// The one that is most like it, if one is.
        nearest: Option<String>,
        /// All that are known.
        known: Vec<String>,
    },
    /// An ingress or egress that is right as it is, for whose kind the program has no connector.
    #[error("there is no connector for \"{kind}\", which \"{id}\" is: the program registers one")]
    NoConnector {
        /// The kind.
        kind: String,
        /// The ingress or egress.
        id: String,
    },
    /// Functions are bound twice.
    #[error("\"{functions}\" is bound twice; it is first at {first}")]
    DuplicateFunctions {
        /// What is bound, as it stands there.
        functions: String,
        /// Where it is bound first.
        first: String,
    },
    /// Two ingresses, or two egresses, have one id.
    #[error("the id \"{id}\" is there twice; it is first at {first}")]
    DuplicateId {
        /// The id.
        id: String,
        /// Where it is first.
        first: String,
    },
    /// An endpoint cannot be bound.
    #[error(transparent)]
    Endpoint(Error),
    /// What a connector says.
    #[error("{0}")]
    Connector(String),
}

fn suggested(name: &Option<String>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

fn listed(what: &str, names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(" ({what}: {})", names.join(", ")),
    }
}

/// The name that is most like another one, if it is much like it: a third of it may be different.
pub(super) fn nearest_of<'a>(
    found: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    // Whoever writes a name of this length did not mean any of ours.
    const CHARS_MAX: usize = 200;
    if found.chars().count() > CHARS_MAX {
        return None;
    }
    let found = found.to_lowercase();
    let distances = names.into_iter().map(|name| (distance(&found, &name.to_lowercase()), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    let near = distance <= (name.chars().count() / 3).max(1);
    near.then(|| name.to_owned())
}

/// How many characters must be inserted, taken away, replaced or exchanged with their neighbour to make one text of
/// the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = [vec![0; other.len() + 1], (0..=other.len()).collect(), Vec::new()];
    for (at, c) in one.iter().enumerate() {
        let mut row = vec![at + 1];
        for (to, d) in other.iter().enumerate() {
            let replaced = rows[1][to] + usize::from(c != d);
            let mut least = replaced.min(rows[1][to + 1] + 1).min(row[to] + 1);
            if at > 0 && to > 0 && (*c, one[at - 1]) == (other[to - 1], *d) {
                least = least.min(rows[0][to - 1] + 1);
            }
            row.push(least);
        }
        rows[2] = row;
        rows.rotate_left(1);
    }
    rows[1][other.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest_of};

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!((distance("prot", "port"), distance("ca", "abc")), (1, 3));
        let fields = ["functions", "urlPathTemplate", "transport"];
        let nearest = |found: &str| nearest_of(found, fields);
        assert_eq!(nearest("transports").as_deref(), Some("transport"));
        assert_eq!(nearest("urlpathtemplate").as_deref(), Some("urlPathTemplate"));
        assert_eq!(nearest("fuctions").as_deref(), Some("functions"));
        assert_eq!(nearest("timeouts"), None);
        assert_eq!(nearest_of("pool_sizes", []), None);
    }
}
