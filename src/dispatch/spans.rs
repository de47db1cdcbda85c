//! Spans around invocations, and which traces calls belong to.
//!
//! Whether somebody records invocations is looked up once for all that a worker handles in one go: where nobody
//! does, a message costs nothing more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use tracing::span::EnteredSpan;
use tracing::{Level, Span, field};

use super::calls::Traced;
use super::{Dispatcher, Routed};
use crate::function::Code;
use crate::trace::TraceContext;

/// The target of spans of invocations, by which they are filtered.
const INVOCATIONS: &str = "timely_statefun::invocation";

/// The trace that a message belongs to, if it does.
pub(crate) type TraceOf<M> = Rc<dyn Fn(&M) -> Option<TraceContext>>;

/// What is traced.
pub(super) struct Spans<M> {
    /// Whether somebody records invocations.
    are_recorded: bool,
    /// If calls are made with trace contexts.
    of: Option<TraceOf<M>>,
}

impl<M> Default for Spans<M> {
    fn default() -> Self {
        Spans { are_recorded: false, of: None }
    }
}

impl<M> Spans<M> {
    #[inline]
    pub(super) fn are_recorded(&self) -> bool {
        self.are_recorded
    }

    /// What the program says of a message. If it panics, it says nothing.
    fn context(&self, message: &M) -> Option<TraceContext> {
        let of = self.of.as_ref()?;
        catch_unwind(AssertUnwindSafe(|| of(message))).ok().flatten()
    }

    /// The trace of a batch: that of the first of its messages that has one.
    pub(super) fn of_batch<'a>(&self, mut messages: impl Iterator<Item = &'a M>) -> Traced
    where
        M: 'a,
    {
        match (&self.of, messages.find_map(|message| self.context(message))) {
            (None, _) => Traced::No,
            (Some(_), None) => Traced::Own,
            (Some(_), Some(context)) => Traced::In(context),
        }
    }
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// From now on calls are made with trace contexts.
    pub(crate) fn trace_calls(&mut self, of: TraceOf<M>) {
        self.spans.of = Some(of);
    }

    /// Looks up whether somebody records invocations.
    pub(crate) fn look_who_records(&mut self) {
        self.spans.are_recorded = tracing::span_enabled!(target: INVOCATIONS, Level::TRACE);
    }

    /// Enters the span of a message that is about to be handled.
    #[cold]
    pub(super) fn enter_span(&self, Routed { head, message }: &Routed<M>) -> EnteredSpan {
        let body = self.entries[head.target_type as usize].body.as_ref();
        let is_remote = body.is_some_and(|body| matches!(body.code, Code::Remote(_)));
        let span = match is_remote && !head.again {
            // It is not handled yet.
            true => Span::none(),
            false => tracing::trace_span!(
                target: INVOCATIONS,
                "invocation",
                function = %self.names.known(head.target_type),
                id = %head.target,
                trace_id = field::Empty,
            ),
        };
        if let Some(context) = self.spans.context(message) {
            span.record("trace_id", field::display(format_args!("{:032x}", context.trace_id())));
        }
        span.entered()
    }
}
