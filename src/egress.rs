//! Names for what leaves the functions, with the type of its records.

use std::fmt;
use std::marker::PhantomData;

/// A stream out of the functions, as a constant, with the type of its records.
///
/// ```
/// use timely_statefun::Egress;
///
/// const GREETINGS: Egress<String> = Egress::new("example/greetings");
/// assert_eq!(GREETINGS.name(), "example/greetings");
/// ```
pub struct Egress<E> {
    name: &'static str,
    record: PhantomData<fn(E)>,
}

impl<E> Egress<E> {
    /// An egress by its name, `namespace/name`. The name is checked where it is bound.
    pub const fn new(name: &'static str) -> Self {
        Egress { name, record: PhantomData }
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<E> Clone for Egress<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Egress<E> {}

impl<E> fmt::Debug for Egress<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Egress({:?})", self.name)
    }
}
