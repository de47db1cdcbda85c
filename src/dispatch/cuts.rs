//! Cuts of a dispatcher.

use super::pen::Pen;

/// What there is to cuts, if they are kept.
pub(super) struct Cuts<M, T> {
    pub(super) pen: Pen<M, T>,
}

/// What writes cuts, if they are kept.
#[inline]
pub(super) fn pen<M, T>(cuts: &mut Option<Box<Cuts<M, T>>>) -> Option<&mut Pen<M, T>> {
    cuts.as_deref_mut().map(|cuts| &mut cuts.pen)
}
