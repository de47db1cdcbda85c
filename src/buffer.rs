//! Buffers: what a function gathers, one buffer for each address.

use std::fmt;

use crate::codec::Codec;
use crate::expiration::Expiration;
use crate::value::{Named, Value};

/// A buffer that a function keeps for each address: elements in the order in which they were
/// appended.
///
/// Appending costs the element, however many there are. Each element [expires](Self::expiring) by
/// itself.
///
/// ```
/// use timely_statefun::{BufferSpec, Context, FunctionResult};
///
/// const READINGS: BufferSpec<f64> = BufferSpec::new("readings");
///
/// fn read(context: &mut Context<'_, f64>, reading: &f64) -> FunctionResult {
///     let mut readings = context.buffer(READINGS);
///     readings.append(*reading);
///     if readings.len() == 10 {
///         let mean = readings.iter().sum::<f64>() / 10.0;
///         readings.clear();
///         println!("{mean} is the mean of the last ten");
///     }
///     Ok(())
/// }
/// ```
pub struct BufferSpec<E: 'static, N = &'static str> {
    name: N,
    type_name: N,
    expiration: Expiration,
    codec: &'static Codec<E>,
}

impl<'n, E: Named + Value> BufferSpec<E, &'n str> {
    /// A buffer of elements of a type that has a name. The name of the buffer is checked where it is
    /// declared.
    pub const fn new(name: &'n str) -> Self {
        let mut spec = Self::typed(name, E::TYPE_NAME);
        if let Some(codec) = E::BUILT_IN {
            spec.codec = codec;
        }
        spec
    }
}

impl<'n, E: Value> BufferSpec<E, &'n str> {
    /// A buffer of elements of a type of one's own, which is called `type_name` (`namespace/name`)
    /// wherever it is kept. Both names are checked where the buffer is declared.
    pub const fn typed(name: &'n str, type_name: &'n str) -> Self {
        BufferSpec { name, type_name, expiration: Expiration::never(), codec: Codec::SERDE }
    }
}

impl<'n, E: 'static> BufferSpec<E, &'n str> {
    pub(crate) const fn codec(&self) -> &'static Codec<E> {
        self.codec
    }

    /// The same buffer, whose elements live only for some time, each by itself. Default:
    /// [`Expiration::never`].
    #[must_use]
    pub const fn expiring(mut self, expiration: Expiration) -> Self {
        self.expiration = expiration;
        self
    }

    /// The name of the buffer, unique in its function.
    pub const fn name(&self) -> &'n str {
        self.name
    }

    /// The name of the type of its elements.
    pub const fn type_name(&self) -> &'n str {
        self.type_name
    }

    /// How long its elements live.
    pub const fn expiration(&self) -> Expiration {
        self.expiration
    }
}

impl<E: 'static, N: Copy> Clone for BufferSpec<E, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: 'static, N: Copy> Copy for BufferSpec<E, N> {}

impl<E: 'static, N: fmt::Debug> fmt::Debug for BufferSpec<E, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferSpec({:?}, {:?}, {:?})", self.name, self.type_name, self.expiration)
    }
}
