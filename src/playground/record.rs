//! What functions emit to the egress: a text for a topic.

use serde::{Deserialize, Serialize};

use crate::egress::Egress;
use crate::message::Mismatch;
use crate::typed::TypedValue;

/// The egress of the playground, as functions in every language call it.
///
/// A program binds it with [`Functions::held_typed_egress`](crate::Functions::held_typed_egress).
pub const EGRESS: Egress<TypedValue> = Egress::new("io.statefun.playground/egress");

/// What functions emit to [`EGRESS`]: JSON, of the type `io.statefun.playground/EgressRecord`.
///
/// ```
/// use timely_statefun::TypedValue;
/// use timely_statefun::playground::EgressRecord;
///
/// // In a function: `context.emit(EGRESS, TypedValue::of(&record))`.
/// let record = EgressRecord::new("greetings", "Hello, Ada!");
/// let value = TypedValue::of(&record);
/// assert_eq!(&value.bytes()[..], br#"{"topic":"greetings","payload":"Hello, Ada!"}"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord {
    /// Where it goes.
    pub topic: String,
    /// What is found there, as it is.
    pub payload: String,
}

crate::json_type!(EgressRecord, "io.statefun.playground/EgressRecord");

impl EgressRecord {
    /// A text for a topic.
    pub fn new(topic: impl Into<String>, payload: impl Into<String>) -> Self {
        EgressRecord { topic: topic.into(), payload: payload.into() }
    }

    /// The record that a function emitted.
    pub(super) fn of(value: &TypedValue) -> Result<Self, Mismatch> {
        value.read()
    }
}
