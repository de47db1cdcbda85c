//! Which types can be copies of memory, and what is known of their layout while a program is compiled.
//!
//! A value is written as it lies in memory, and behind it, one after the other, what it has on the heap. So
//! a piece of the heap lies where the pieces before it end. Nothing here is unsafe to compute; what is
//! unsafe is to say it of a type of which it is not true.

use std::time::Duration;

use abomonation::Abomonation;

/// What a value must be aligned to at most: the alignment of the space that it is read in.
pub(crate) const ALIGN_MAX: usize = 16;

/// What is known of the memory of a type.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the place must be a multiple of where its pieces on the heap begin.
    needs: usize,
    /// What the length of these pieces together is a multiple of, a power of two.
    gives: usize,
    /// Whether each piece is aligned then, however long those before it are.
    is_aligned: bool,
    /// A number that tells types apart.
    shape: u64,
}

impl Layout {
    /// That of a type without anything on the heap; `name` tells it from others.
    pub const fn flat<T>(name: &str) -> Self {
        let shape = hash(hash_size::<T>(SEED), name.as_bytes());
        Layout { needs: 1, gives: ALIGN_MAX, is_aligned: true, shape }
    }

    /// That of a type that has a field of this layout besides, whose pieces come behind the others.
    #[must_use]
    pub const fn with(self, field: Layout) -> Self {
        let follows = field.needs <= self.gives;
        Layout { is_aligned: self.is_aligned && field.is_aligned && follows, ..self.or(field) }
    }

    /// That of a type that has either what it has, or something of this layout.
    #[must_use]
    pub const fn or(self, other: Layout) -> Self {
        Layout {
            needs: max(self.needs, other.needs),
            gives: min(self.gives, other.gives),
            is_aligned: self.is_aligned && other.is_aligned,
            shape: mix(self.shape, other.shape),
        }
    }

    /// That of values of this layout, one after the other.
    #[must_use]
    pub const fn repeated(self) -> Self {
        Layout { is_aligned: self.is_aligned && self.needs <= self.gives, ..self }
    }

    /// That of any number of values of this layout in a piece on the heap; `name` tells what keeps them.
    pub const fn heap<T>(name: &str, element: Layout) -> Self {
        let piece = Layout {
            needs: align_of::<T>(),
            gives: multiple::<T>(),
            is_aligned: true,
            shape: hash(hash_size::<T>(SEED), name.as_bytes()),
        };
        piece.with(element.repeated())
    }

    /// Whether everything is aligned behind a `T` of this layout, which is itself aligned.
    pub(crate) const fn is_aligned_behind<T>(&self) -> bool {
        self.is_aligned && self.needs <= multiple::<T>() && align_of::<T>() <= ALIGN_MAX
    }

    pub(crate) const fn shape(&self) -> u64 {
        self.shape
    }
}

/// The largest power of two that the size of a type is a multiple of, as far as it matters.
const fn multiple<T>() -> usize {
    match size_of::<T>() {
        0 => ALIGN_MAX,
        size => min(1 << size.trailing_zeros(), ALIGN_MAX),
    }
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;

const fn max(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

const fn min(one: usize, other: usize) -> usize {
    if one < other { one } else { other }
}

const fn mix(one: u64, other: u64) -> u64 {
    let mixed = (one.rotate_left(23) ^ other).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

const fn hash(mut seed: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        seed = mix(seed, bytes[at] as u64);
        at += 1;
    }
    seed
}

const fn hash_size<T>(seed: u64) -> u64 {
    mix(mix(seed, size_of::<T>() as u64), align_of::<T>() as u64)
}

/// A type whose values can be copies of memory. [`abomonable!`](crate::abomonable!) implements it for types
/// of one's own.
///
/// # Safety
///
/// [`Abomonation`] writes everything that a value has on the heap, and in reading it replaces everything in the
/// value that points to it. The value contains no reference, no address, no handle of anything, and nothing
/// that is valid in one process only. [`LAYOUT`](Self::LAYOUT) is true of it: its fields, and their layouts,
/// are those of the type. `clone` reads nothing but the value, and gives back one that shares nothing with it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a copy of memory",
    label = "the layout of `{Self}` is not known here",
    note = "types of your own are declared with `abomonable!`; references and boxes are not supported"
)]
pub unsafe trait Abomonable: Abomonation + Clone {
    /// What is known of its memory.
    const LAYOUT: Layout;
}

macro_rules! flat {
    ($($of:ty)*) => { $(
        // SAFETY: a value is its bytes, and has nothing on the heap.
        unsafe impl Abomonable for $of {
            const LAYOUT: Layout = Layout::flat::<Self>(stringify!($of));
        }
    )* };
}

flat! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char Duration }

// SAFETY: `abomonation` writes all bytes of the text, and makes a string of them.
unsafe impl Abomonable for String {
    const LAYOUT: Layout = Layout::heap::<u8>("String", u8::LAYOUT);
}

// SAFETY: `abomonation` writes all elements and what they have on the heap, and makes a vector of them.
unsafe impl<V: Abomonable> Abomonable for Vec<V> {
    const LAYOUT: Layout = Layout::heap::<V>("Vec", V::LAYOUT);
}

// SAFETY: `abomonation` writes what a value in it has on the heap, if there is one.
unsafe impl<V: Abomonable> Abomonable for Option<V> {
    const LAYOUT: Layout = Layout::flat::<Self>("Option").with(V::LAYOUT);
}

// SAFETY: `abomonation` writes what a value in it has on the heap, whichever it is.
unsafe impl<V: Abomonable, E: Abomonable> Abomonable for Result<V, E> {
    const LAYOUT: Layout = Layout::flat::<Self>("Result").with(V::LAYOUT.or(E::LAYOUT));
}

macro_rules! arrays {
    ($($length:literal)*) => { $(
        // SAFETY: `abomonation` writes what each element has on the heap.
        unsafe impl<V: Abomonable> Abomonable for [V; $length] {
            const LAYOUT: Layout = Layout::flat::<Self>("array").with(V::LAYOUT.repeated());
        }
    )* };
}

arrays! { 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 }

macro_rules! tuples {
    ($(($($name:ident)*))*) => { $(
        // SAFETY: `abomonation` writes what each part has on the heap.
        unsafe impl<$($name: Abomonable),*> Abomonable for ($($name,)*) {
            const LAYOUT: Layout = Layout::flat::<Self>("tuple")$(.with($name::LAYOUT))*;
        }
    )* };
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }

/// Declares a type whose values can be copies of memory: a struct with named fields, or an enum whose variants
/// have named fields, one without a name, or none.
///
/// All fields must be such types. The type itself must have [`Clone`].
///
/// ```
/// use timely_statefun_codec_abomonation::abomonable;
///
/// abomonable! {
///     /// What is asked of an account.
///     #[derive(Clone)]
///     pub enum Request {
///         /// To add an amount.
///         Deposit(u64),
///         /// To say who owns it.
///         Owner,
///         /// To be somebody else's from now on.
///         Give { to: Owner, why: String },
///     }
/// }
///
/// abomonable! {
///     /// Who owns an account.
///     #[derive(Clone)]
///     pub struct Owner { name: String, since: Option<u64> }
/// }
/// ```
///
/// A type is refused that contains what cannot be copied:
///
/// ```compile_fail
/// timely_statefun_codec_abomonation::abomonable! {
///     #[derive(Clone)]
///     struct Shared { text: std::sync::Arc<str> }
/// }
/// ```
#[macro_export]
macro_rules! abomonable {
    (
        $(#[$attribute:meta])* $visible:vis struct $of:ident {
            $($(#[$field_attribute:meta])* $field_visible:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$attribute])* $visible struct $of {
            $($(#[$field_attribute])* $field_visible $field: $type,)+
        }

        impl $crate::macros::Abomonation for $of {
            unsafe fn entomb<W: ::std::io::Write>(&self, to: &mut W) -> ::std::io::Result<()> {
                // SAFETY: it is asked of each field as it was asked of the whole.
                unsafe {
                    $($crate::macros::Abomonation::entomb(&self.$field, to)?;)+
                }
                Ok(())
            }

            unsafe fn exhume<'b>(&mut self, bytes: &'b mut [u8]) -> Option<&'b mut [u8]> {
                // SAFETY: it is asked of each field as it was asked of the whole, in the same order.
                unsafe {
                    $(let bytes = $crate::macros::Abomonation::exhume(&mut self.$field, bytes)?;)+
                    Some(bytes)
                }
            }

            fn extent(&self) -> usize {
                0 $(+ $crate::macros::Abomonation::extent(&self.$field))+
            }
        }

        // SAFETY: these are all fields, and each is such a type.
        unsafe impl $crate::Abomonable for $of {
            const LAYOUT: $crate::Layout =
                $crate::Layout::flat::<Self>(concat!(module_path!(), "::", stringify!($of)))
                    $(.with(<$type as $crate::Abomonable>::LAYOUT))+;
        }
    };
    (
        $(#[$attribute:meta])* $visible:vis enum $of:ident {
            $(
                $(#[$variant_attribute:meta])*
                $variant:ident $(($type:ty))? $({ $($field:ident: $field_type:ty),+ $(,)? })?
            ),+ $(,)?
        }
    ) => {
        $(#[$attribute])* $visible enum $of {
            $($(#[$variant_attribute])* $variant $(($type))? $({ $($field: $field_type),+ })?,)+
        }

        impl $crate::macros::Abomonation for $of {
            unsafe fn entomb<W: ::std::io::Write>(&self, to: &mut W) -> ::std::io::Result<()> {
                // SAFETY: it is asked of each field of the variant as it was asked of the whole.
                unsafe {
                    $(
                        $(if let $of::$variant(field) = self {
                            <$type as $crate::macros::Abomonation>::entomb(field, to)?;
                        })?
                        $(if let $of::$variant { $($field),+ } = self {
                            $($crate::macros::Abomonation::entomb($field, to)?;)+
                        })?
                    )+
                }
                let _ = to;
                Ok(())
            }

            unsafe fn exhume<'b>(&mut self, bytes: &'b mut [u8]) -> Option<&'b mut [u8]> {
                // SAFETY: it is asked of each field of the variant as it was asked of the whole, in the same order.
                unsafe {
                    $(
                        $(if let $of::$variant(field) = self {
                            return <$type as $crate::macros::Abomonation>::exhume(field, bytes);
                        })?
                        $(if let $of::$variant { $($field),+ } = self {
                            $(let bytes = $crate::macros::Abomonation::exhume($field, bytes)?;)+
                            return Some(bytes);
                        })?
                    )+
                }
                Some(bytes)
            }

            fn extent(&self) -> usize {
                $(
                    $(if let $of::$variant(field) = self {
                        return <$type as $crate::macros::Abomonation>::extent(field);
                    })?
                    $(if let $of::$variant { $($field),+ } = self {
                        return 0 $(+ $crate::macros::Abomonation::extent($field))+;
                    })?
                )+
                0
            }
        }

        // SAFETY: these are all variants with all their fields, and each is such a type.
        unsafe impl $crate::Abomonable for $of {
            const LAYOUT: $crate::Layout =
                $crate::Layout::flat::<Self>(concat!(module_path!(), "::", stringify!($of)))
                    $(
                        $(.or(<$type as $crate::Abomonable>::LAYOUT))?
                        $(.or($crate::Layout::flat::<()>(stringify!($variant))
                            $(.with(<$field_type as $crate::Abomonable>::LAYOUT))+))?
                    )+;
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits<V: Abomonable>() -> bool {
        V::LAYOUT.is_aligned_behind::<V>()
    }

    #[test]
    fn what_is_aligned_behind_anything_is_known() {
        assert!(fits::<u64>() && fits::<u128>() && fits::<String>() && fits::<Vec<u64>>());
        assert!(fits::<Vec<String>>() && fits::<Vec<(u64, Vec<u64>)>>());
        assert!(fits::<(String, Vec<u8>, Option<String>)>());
        assert!(fits::<(Vec<u64>, Vec<u32>, String)>(), "shorter and shorter");
        assert!(!fits::<(String, Vec<u16>)>(), "behind a text of odd length");
        assert!(fits::<[Vec<u16>; 2]>() && !fits::<[(Vec<u16>, String); 2]>(), "behind itself");
        assert!(!fits::<(Vec<u32>, Vec<u64>)>());
        assert!(!fits::<Vec<Vec<String>>>(), "the next ones' strings lie behind texts");
        assert!(!fits::<Vec<u128>>(), "behind 24 bytes");
        assert!(!fits::<Vec<Vec<u128>>>(), "behind any number of 24 bytes");
        assert!(fits::<Result<Vec<u64>, String>>(), "either, never both");
        assert!(!fits::<[Result<Vec<u64>, String>; 2]>());
    }

    #[test]
    fn types_that_look_alike_are_told_apart() {
        let shapes = [
            u64::LAYOUT,
            i64::LAYOUT,
            <[u64; 1]>::LAYOUT,
            <(u64,)>::LAYOUT,
            <Vec<u64>>::LAYOUT,
            <Vec<i64>>::LAYOUT,
            String::LAYOUT,
            <Vec<u8>>::LAYOUT,
            <(u64, i64)>::LAYOUT,
            <(i64, u64)>::LAYOUT,
            <Option<String>>::LAYOUT,
        ];
        for (at, one) in shapes.iter().enumerate() {
            assert!(shapes[..at].iter().all(|other| one.shape() != other.shape()), "{at}");
        }
    }
}
