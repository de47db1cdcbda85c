//! What happens on one connection, and how long it may stay as it is.
//!
//! It is told what is read, written, begun and over, and never touches a connection itself.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How HTTP/2 begins; no other method of HTTP/1.1 begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long connections may stay as they are.
#[derive(Copy, Clone, Debug)]
pub(super) struct Patience {
    pub(super) head_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) connection_idle: Duration,
}

/// What to do with a connection that stayed as it is for too long.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Let go whoever has nothing to ask.
    Close,
    /// End it: there is nobody to be polite to.
    Cut(&'static str),
}

/// What happens on one connection.
pub(super) struct Activity {
    inner: Mutex<Inner>,
    /// Requests that are under way on all connections.
    all: Arc<Requests>,
}

struct Inner {
    /// How much of the preface of HTTP/2 has come; none if something else has.
    preface: Option<usize>,
    /// Requests that came and are not answered yet.
    under_way: usize,
    /// Since when the head of a request is coming.
    head: Option<Instant>,
    /// Since when the other side takes nothing of what is there for it.
    stuck: Option<Instant>,
    /// When something was last taken, or a request was over.
    last: Instant,
    /// Since when it is to end as soon as it can.
    closing: Option<Instant>,
    /// The other side may still be sending what nobody reads.
    unread: bool,
}

impl Activity {
    pub(super) fn new(all: Arc<Requests>) -> Arc<Self> {
        let inner = Inner {
            preface: Some(0),
            under_way: 0,
            head: None,
            stuck: None,
            last: Instant::now(),
            closing: None,
            unread: false,
        };
        Arc::new(Activity { inner: Mutex::new(inner), all })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has come.
    pub(super) fn read(&self, bytes: &[u8]) {
        let inner = &mut *self.inner();
        if let Some(came) = inner.preface.filter(|came| *came < PREFACE.len()) {
            let rest = &PREFACE[came..];
            let length = rest.len().min(bytes.len());
            inner.preface = (rest[..length] == bytes[..length]).then_some(came + length);
        }
        if inner.preface == Some(PREFACE.len()) {
            // Its frames are not heads only, and those that are no requests mean nothing here.
            inner.head = None;
        } else if inner.under_way == 0 && !bytes.is_empty() {
            inner.head.get_or_insert_with(Instant::now);
        }
    }

    /// Something was taken by the other side.
    pub(super) fn wrote(&self) {
        let inner = &mut *self.inner();
        inner.stuck = None;
        inner.last = Instant::now();
    }

    /// The other side does not take what is there for it.
    pub(super) fn stuck(&self) {
        self.inner().stuck.get_or_insert_with(Instant::now);
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        let inner = &mut *self.inner();
        inner.under_way += 1;
        inner.head = None;
        self.all.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// A request was answered before all of it had come.
    pub(super) fn leave_unread(&self) {
        self.inner().unread = true;
    }

    /// Whether the other side may still be sending what nobody reads.
    pub(super) fn is_unread(&self) -> bool {
        let inner = self.inner();
        inner.unread || inner.head.is_some()
    }

    /// It is to end as soon as it can.
    pub(super) fn close(&self) {
        self.inner().closing.get_or_insert_with(Instant::now);
    }

    /// When it has stayed as it is for too long, and what to do then.
    pub(super) fn due(&self, patience: &Patience) -> Option<(Instant, Due)> {
        let inner = self.inner();
        if let Some(since) = inner.stuck {
            return Some((since + patience.write_timeout, Due::Cut("its answers are not taken")));
        }
        if inner.under_way > 0 {
            return None;
        }
        if let Some(since) = inner.head {
            return Some((since + patience.head_timeout, Due::Cut("no request becomes of it")));
        }
        if let Some(since) = inner.closing {
            let since = since.max(inner.last);
            return Some((since + patience.head_timeout, Due::Cut("it does not end")));
        }
        Some((inner.last + patience.connection_idle, Due::Close))
    }
}

/// The requests of all connections that are under way.
#[derive(Default)]
pub(super) struct Requests {
    under_way: AtomicUsize,
    none: Notify,
}

impl Requests {
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Waits until none is under way.
    pub(super) async fn over(&self) {
        loop {
            let mut none = pin!(self.none.notified());
            none.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            none.await;
        }
    }
}

/// A request that is under way.
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let inner = &mut *self.0.inner();
        inner.under_way -= 1;
        inner.head = None;
        inner.last = Instant::now();
        if self.0.all.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.all.none.notify_waiters();
        }
    }
}
