//! How gates and loops learn which cuts to take.
//!
//! They are told over a stream that reaches all workers and is connected to none of their outputs, so
//! no frontier that a program looks at waits for it.

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{Scope, Stream};
use timely::progress::{Antichain, Timestamp};

use crate::decider::Decider;
use crate::members::Member;

/// What gates and loops are told of cuts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Announcement<T> {
    /// To take a cut.
    Cut {
        /// Its number, above all before it: a number already passed is ignored. A cut that is not complete
        /// on every worker when the next is announced is abandoned where it is not.
        cut: u64,
        /// Whether the alignment that is under way ends with it.
        aligned: bool,
    },
    /// To let in nothing that is at or after an element of this until the next aligned cut, which is to be
    /// announced when ingress has come to it.
    Align(Antichain<T>),
}

impl<T> Announcement<T> {
    /// To take a cut, whatever else is under way.
    pub fn cut(cut: u64) -> Self {
        Announcement::Cut { cut, aligned: false }
    }
}

/// What whoever decides announces, in order. Records are wanted from one worker only and reach all.
pub type Announcements<'scope, T> = Stream<'scope, T, Vec<Announcement<T>>>;

/// The cuts that loops take: those that a [decider](Decider) announces, or those of a stream of the program's
/// own.
///
/// Any number of loops may be given the same. Each has a line of its own for a cut: what has left one loop
/// on its way into another may be in the cut of neither.
pub struct Cuts<'scope, T: Timestamp> {
    source: Source<'scope, T>,
}

#[derive(Clone)]
enum Source<'scope, T: Timestamp> {
    Decider(Decider<T>),
    /// Reaches all workers.
    Stream(Announcements<'scope, T>),
}

impl<'scope, T: Timestamp> Cuts<'scope, T> {
    /// What a loop of this name needs that has taken cuts before, the last with this number.
    pub(crate) fn join(
        self,
        scope: Scope<'scope, T>,
        name: &str,
        taken: u64,
    ) -> (Announcements<'scope, T>, Option<Member<T>>) {
        match self.source {
            Source::Decider(decider) => decider.join(scope, name, taken),
            Source::Stream(announced) => (announced, None),
        }
    }
}

/// Each loop is told by an operator in its own scope.
impl<T: Timestamp> From<Decider<T>> for Cuts<'_, T> {
    fn from(decider: Decider<T>) -> Self {
        Cuts { source: Source::Decider(decider) }
    }
}

/// With these, cuts end with the program: nothing waits for the last.
impl<'scope, T: Timestamp> From<Announcements<'scope, T>> for Cuts<'scope, T> {
    fn from(announcements: Announcements<'scope, T>) -> Self {
        Cuts { source: Source::Stream(announcements.broadcast()) }
    }
}

impl<T: Timestamp> Clone for Cuts<'_, T> {
    fn clone(&self) -> Self {
        Cuts { source: self.source.clone() }
    }
}

impl<T: Timestamp> std::fmt::Debug for Cuts<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decided = matches!(self.source, Source::Decider(_));
        f.debug_struct("Cuts").field("decided", &decided).finish_non_exhaustive()
    }
}
