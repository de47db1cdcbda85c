//! Streams into functions: their names, and what becomes of them after a restart.

use std::fmt;

use timely::dataflow::Stream;
use timely::progress::Timestamp;
use timely_statefun_operators::CutMarks;

use super::snapshots::Snapshots;
use super::sources::Link;
use crate::message::Envelope;

/// A stream of messages for functions.
pub(crate) type Envelopes<'scope, T, M> = Stream<'scope, T, Vec<Envelope<M>>>;

/// A stream of messages for functions whose snapshots are taken: a stream with a name, and with what
/// becomes of it when the program goes on from a snapshot.
///
/// [`Snapshots`] makes them, [`Egresses::chained`](crate::Egresses::chained), and a [source](crate::source::Source).
/// Programs that take no snapshots may give streams as they are.
pub struct Ingress<'scope, T: Timestamp, M> {
    pub(super) stream: Envelopes<'scope, T, M>,
    /// None where the program takes no snapshots.
    pub(super) source: Option<Source<T>>,
    /// If the stream is that of a source, as it is.
    pub(super) link: Option<Link>,
}

/// Where the records of an ingress come from.
pub(super) struct Source<T: Timestamp> {
    pub(super) name: String,
    pub(super) comes_back: ComesBack,
    pub(super) snapshots: Snapshots<T>,
}

/// What becomes of the records of an ingress after a restart.
#[derive(Debug)]
pub(super) enum ComesBack {
    /// They come again, from a position on.
    Replayed,
    No,
    /// Other functions emit them, and either they will be emitted again or the cut contains them. Cuts lie
    /// where these marks say.
    Emitted(CutMarks),
}

impl<T: Timestamp> Snapshots<T> {
    /// An ingress whose source can be read again from any position. Every message must say
    /// [where it was read](Envelope::read_at); one that does not stops the program.
    ///
    /// A snapshot names for each partition the [last position](Self::positions) that it contains. After a
    /// restart the source must give all that comes after it; what it gives again is skipped. The name is
    /// stored, and belongs to one ingress of the program.
    pub fn replayed<'scope, M>(
        &self,
        name: impl Into<String>,
        stream: Envelopes<'scope, T, M>,
    ) -> Ingress<'scope, T, M> {
        self.ingress(name.into(), ComesBack::Replayed, stream)
    }

    /// An ingress whose source cannot be read again, or is not: what came after the last durable cut is
    /// lost when the program ends without another, and what is given again is handled again.
    pub fn unreplayed<'scope, M>(
        &self,
        name: impl Into<String>,
        stream: Envelopes<'scope, T, M>,
    ) -> Ingress<'scope, T, M> {
        self.ingress(name.into(), ComesBack::No, stream)
    }

    pub(super) fn ingress<'scope, M>(
        &self,
        name: String,
        comes_back: ComesBack,
        stream: Envelopes<'scope, T, M>,
    ) -> Ingress<'scope, T, M> {
        let source = Some(Source { name, comes_back, snapshots: self.clone() });
        Ingress { stream, source, link: None }
    }
}

impl<'scope, T: Timestamp, M> From<Envelopes<'scope, T, M>> for Ingress<'scope, T, M> {
    /// An ingress of a program that takes no snapshots.
    fn from(stream: Envelopes<'scope, T, M>) -> Self {
        Ingress { stream, source: None, link: None }
    }
}

impl<T: Timestamp, M> fmt::Debug for Ingress<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_ref();
        f.debug_struct("Ingress")
            .field("name", &source.map(|source| &source.name))
            .field("comes_back", &source.map(|source| &source.comes_back))
            .finish_non_exhaustive()
    }
}
