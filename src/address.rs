//! Who a message is for: function types, ids, and addresses made of both.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::error::{Error, Kind};
use crate::message::{Carries, Envelope};

/// A name of the form `namespace/name`.
///
/// The namespace is everything before the last `/`. Both parts are there, and neither contains
/// white space, control characters or `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TypeName(SmolStr);

impl TypeName {
    /// A name that is found out at run time.
    ///
    /// # Errors
    ///
    /// If `name` is not of the form `namespace/name`.
    pub fn new(name: &str) -> Result<Self, Error> {
        check("type name", name)?;
        Ok(TypeName(SmolStr::new(name)))
    }

    /// A name from a constant; checked where it is bound.
    pub(crate) const fn fixed(name: &'static str) -> Self {
        TypeName(SmolStr::new_static(name))
    }

    /// A name in a namespace.
    pub(crate) fn within(namespace: &str, name: &str) -> Self {
        TypeName(smol_str::format_smolstr!("{namespace}/{name}"))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is before the last `/`.
    pub fn namespace(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// What is after the last `/`.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Checks a name of the form `namespace/name`.
pub(crate) fn check(what: &'static str, name: &str) -> Result<(), Error> {
    let invalid = |why| Err(Kind::InvalidName { what, name: name.to_owned(), why }.into());
    let Some((namespace, last)) = name.rsplit_once('/') else {
        return invalid("it is not of the form \"namespace/name\"");
    };
    if namespace.is_empty() || last.is_empty() {
        return invalid("a part of it is empty");
    }
    check_part(what, name)
}

/// Checks the characters of a name, or of a part of one.
pub(crate) fn check_part(what: &'static str, name: &str) -> Result<(), Error> {
    let invalid = |why| Err(Kind::InvalidName { what, name: name.to_owned(), why }.into());
    if name.is_empty() {
        return invalid("it is empty");
    }
    if name.contains('*') {
        return invalid("\"*\" stands for a whole namespace, which is bound by itself");
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return invalid("it contains white space or control characters");
    }
    Ok(())
}

/// The type of a function, as a constant, with the type of the messages it takes.
///
/// ```
/// use timely_statefun::FunctionType;
///
/// const PERSON: FunctionType<String> = FunctionType::new("example/person");
/// assert_eq!(PERSON.at("Ada").to_string(), "example/person Ada");
/// ```
///
/// Sending anything else to it does not compile:
///
/// ```compile_fail
/// # use timely_statefun::{Envelope, FunctionType};
/// # const PERSON: FunctionType<String> = FunctionType::new("example/person");
/// let envelope: Envelope<String> = PERSON.message("Ada", 7);
/// ```
pub struct FunctionType<I> {
    name: &'static str,
    input: PhantomData<fn(I)>,
}

impl<I> FunctionType<I> {
    /// A function type by its name, `namespace/name`. The name is checked where it is bound.
    pub const fn new(name: &'static str) -> Self {
        FunctionType { name, input: PhantomData }
    }

    /// The name, as text.
    pub(crate) const fn as_str(&self) -> &'static str {
        self.name
    }

    /// The name.
    pub const fn name(&self) -> TypeName {
        TypeName::fixed(self.name)
    }

    /// The address of one of its instances.
    pub fn at(&self, id: impl Into<Id>) -> Address {
        Address { function_type: self.name(), id: id.into() }
    }

    /// A message for one of its instances.
    pub fn message<M: Carries<I>>(&self, id: impl Into<Id>, input: I) -> Envelope<M> {
        Envelope::new(self.at(id), M::pack(input))
    }
}

impl<I> From<FunctionType<I>> for TypeName {
    fn from(function: FunctionType<I>) -> Self {
        function.name()
    }
}

impl From<&TypeName> for TypeName {
    fn from(name: &TypeName) -> Self {
        name.clone()
    }
}

impl<I> Clone for FunctionType<I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for FunctionType<I> {}

impl<I> fmt::Debug for FunctionType<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionType({:?})", self.name)
    }
}

/// All function types of one namespace that are not bound by themselves.
///
/// Which names there are need not be known before messages for them arrive.
pub struct Namespace<I> {
    name: &'static str,
    input: PhantomData<fn(I)>,
}

impl<I> Namespace<I> {
    /// A namespace by its name, checked where it is bound.
    pub const fn new(name: &'static str) -> Self {
        Namespace { name, input: PhantomData }
    }

    /// The name of the namespace.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The address of an instance of one of its function types.
    ///
    /// # Errors
    ///
    /// If `function` is not a valid name.
    pub fn at(&self, function: &str, id: impl Into<Id>) -> Result<Address, Error> {
        check_part("function name", function)?;
        if function.contains('/') {
            let (what, name) = ("function name", function.to_owned());
            let why = "\"/\" would put it into another namespace";
            return Err(Kind::InvalidName { what, name, why }.into());
        }
        let function_type = TypeName::within(self.name, function);
        Ok(Address { function_type, id: id.into() })
    }

    /// A message for an instance of one of its function types.
    ///
    /// # Errors
    ///
    /// As for [`at`](Self::at).
    pub fn message<M: Carries<I>>(
        &self,
        function: &str,
        id: impl Into<Id>,
        input: I,
    ) -> Result<Envelope<M>, Error> {
        Ok(Envelope::new(self.at(function, id)?, M::pack(input)))
    }
}

impl<I> Clone for Namespace<I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Namespace<I> {}

impl<I> fmt::Debug for Namespace<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({:?})", self.name)
    }
}

/// The id of one instance of a function.
///
/// An id is its bytes. A canonical decimal number is kept as a number, which is smaller and faster;
/// it stays the same id, whichever way it was written:
///
/// ```
/// use timely_statefun::Id;
///
/// assert_eq!(Id::from(7u64), Id::new("7"));
/// assert_ne!(Id::from(7u64), Id::new("007"));
/// ```
///
/// Text of up to 23 bytes is kept in place; longer text is shared, not copied.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "SerializedId", into = "SerializedId")]
pub struct Id(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Number(u64),
    Text(SmolStr),
}

/// How an id travels: as a number or as text, made canonical on arrival.
#[derive(Serialize, Deserialize)]
enum SerializedId {
    Number(u64),
    Text(SmolStr),
}

impl From<SerializedId> for Id {
    fn from(id: SerializedId) -> Self {
        match id {
            SerializedId::Number(number) => Id::from(number),
            SerializedId::Text(text) => match canonical_number(&text) {
                Some(number) => Id::from(number),
                None => Id(Repr::Text(text)),
            },
        }
    }
}

impl From<Id> for SerializedId {
    fn from(id: Id) -> Self {
        match id.0 {
            Repr::Number(number) => SerializedId::Number(number),
            Repr::Text(text) => SerializedId::Text(text),
        }
    }
}

/// The number that `text` is the canonical decimal form of: no sign, no leading zero, below 2^64.
#[inline]
fn canonical_number(text: &str) -> Option<u64> {
    let digits = text.as_bytes();
    match digits.first()? {
        b'0' if digits.len() > 1 => None,
        b'0'..=b'9' if digits.len() <= 20 => digits.iter().try_fold(0u64, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        }),
        _ => None,
    }
}

impl Id {
    /// The id with these bytes.
    #[inline]
    pub fn new(text: &str) -> Self {
        match canonical_number(text) {
            Some(number) => Id(Repr::Number(number)),
            None => Id(Repr::Text(SmolStr::new(text))),
        }
    }

    /// The number that this id is the canonical decimal form of.
    pub fn as_number(&self) -> Option<u64> {
        match self.0 {
            Repr::Number(number) => Some(number),
            Repr::Text(_) => None,
        }
    }

    /// Reads the id as text.
    #[inline]
    pub fn with_str<R>(&self, read: impl FnOnce(&str) -> R) -> R {
        match &self.0 {
            Repr::Number(number) => read(itoa::Buffer::new().format(*number)),
            Repr::Text(text) => read(text),
        }
    }

    /// Reads the id's bytes.
    #[inline]
    pub fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        self.with_str(|text| read(text.as_bytes()))
    }
}

impl From<u64> for Id {
    #[inline]
    fn from(number: u64) -> Self {
        Id(Repr::Number(number))
    }
}

impl From<&str> for Id {
    #[inline]
    fn from(text: &str) -> Self {
        Id::new(text)
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Id::new(&text)
    }
}

impl From<&String> for Id {
    fn from(text: &String) -> Self {
        Id::new(text)
    }
}

impl From<&Id> for Id {
    fn from(id: &Id) -> Self {
        id.clone()
    }
}

/// By bytes, as text would be ordered.
impl Ord for Id {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.with_bytes(|one| other.with_bytes(|two| one.cmp(two)))
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.write_str(text))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| fmt::Debug::fmt(text, f))
    }
}

/// One instance of a function: its type and its id. State belongs to an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The type of the function.
    pub function_type: TypeName,
    /// Which of its instances.
    pub id: Id,
}

impl Address {
    /// The instance `id` of `function_type`.
    pub fn new(function_type: TypeName, id: impl Into<Id>) -> Self {
        Address { function_type, id: id.into() }
    }
}

/// The function type and the id, with a space between them.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.function_type, self.id)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_numbers_are_kept_as_numbers() {
        let number = |text: &str| Id::new(text).as_number();
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        for text in ["", "00", "007", "+7", "-1", "7 ", "7a", "18446744073709551616", "1e3", "٣"] {
            assert_eq!(number(text), None, "{text:?}");
            assert_eq!(Id::new(text).to_string(), text);
        }
        for number in [0, 9, 10, 1234567890, u64::MAX] {
            assert_eq!(Id::from(number), Id::new(&number.to_string()));
            assert_eq!(Id::from(number).to_string(), number.to_string());
        }
    }

    #[test]
    fn an_id_fits_in_24_bytes() {
        assert_eq!(size_of::<Id>(), 24);
    }

    #[test]
    fn ids_are_ordered_by_their_bytes() {
        let mut ids: Vec<Id> = ["b", "10", "9", "a", "007"].map(Id::new).to_vec();
        ids.sort();
        assert_eq!(ids.iter().map(Id::to_string).collect::<Vec<_>>(), ["007", "10", "9", "a", "b"]);
    }

    #[test]
    fn names_have_two_parts_and_no_odd_characters() {
        for good in ["a/b", "com.example/greeter-1", "a/b/c", "ä/ö"] {
            let name = TypeName::new(good).unwrap();
            assert_eq!(format!("{}/{}", name.namespace(), name.name()), good);
        }
        for bad in ["", "a", "/", "a/", "/b", "a/*", "a b/c", "a/b\n", "a/b\0"] {
            assert!(TypeName::new(bad).unwrap_err().is_invalid_name(), "{bad:?}");
        }
        assert_eq!(
            TypeName::new("a").unwrap_err().to_string(),
            "type name \"a\" is not a valid name: it is not of the form \"namespace/name\""
        );
    }
}
