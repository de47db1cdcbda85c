//! A service thread: takes requests and answers them, many at once where functions wait for things.
//!
//! Functions stay on the thread they were made on. Each request that is under way has a desk of its own,
//! which is used again when it is over.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::select;
use timely::progress::Timestamp;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::queue::{Job, Queue};
use super::{Refusal, answering};
use crate::dispatch::{Desk, panic_message};
use crate::functions::Functions;
use crate::typed::TypedMessage;

/// What a service thread is told when it begins.
pub(super) struct Service {
    pub(super) queue: Arc<Queue>,
    /// Requests that may be under way on this thread.
    pub(super) under_way_max: usize,
    pub(super) listed_max: usize,
}

/// The desks of one thread.
struct Pool<M, T> {
    functions: Functions<M, T>,
    service: Service,
    idle: RefCell<Vec<Desk<M, T>>>,
    under_way: Cell<usize>,
    /// Told when a request is over.
    freed: Notify,
}

/// Serves these functions until the queue is over.
///
/// # Panics
///
/// If the system has no runtime for it.
pub(super) fn serve<M: TypedMessage, T: Timestamp>(functions: Functions<M, T>, service: Service) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives a thread what its runtime needs");
    let pool = Rc::new(Pool {
        functions,
        service,
        idle: RefCell::default(),
        under_way: Cell::new(0),
        freed: Notify::new(),
    });
    let local = LocalSet::new();
    local.block_on(&runtime, pool.take_all());
    // What is under way is dropped where it waits, and those who wait for its answer are told so.
    drop(local);
}

impl<M: TypedMessage, T: Timestamp> Pool<M, T> {
    async fn take_all(self: Rc<Self>) {
        loop {
            self.wait_for_room().await;
            let Some(job) = self.service.queue.next().await else { return };
            self.under_way.set(self.under_way.get() + 1);
            let mut answering = Box::pin(Rc::clone(&self).take(job));
            // Most functions never wait: then the thread takes nothing else before they are done, and others
            // take what waits.
            let waits =
                poll_fn(|wake| Poll::Ready(answering.as_mut().poll(wake).is_pending())).await;
            if waits {
                spawn_local(answering);
            }
            if self.under_way.get() > 0 {
                yield_now().await;
            }
        }
    }

    async fn wait_for_room(&self) {
        while self.under_way.get() >= self.service.under_way_max {
            let (freed, over) = (pin!(self.freed.notified()), pin!(self.service.queue.over()));
            if let futures_util::future::Either::Right(_) = select(freed, over).await {
                return;
            }
        }
    }

    async fn take(self: Rc<Self>, job: Job) {
        let _place = Place(&self);
        let Job { request, answer } = job;
        let answer = RefCell::new(answer);
        if answer.borrow().is_closed() {
            return;
        }
        let idle = self.idle.borrow_mut().pop();
        let mut desk = idle.unwrap_or_else(|| self.functions.desk());
        let result = self.answer(&mut desk, request, &answer).await;
        // A desk that cannot be cleared, since code of others panics when its values are dropped, is given up.
        match catch_unwind(AssertUnwindSafe(|| desk.clear())) {
            Ok(()) => self.idle.borrow_mut().push(desk),
            Err(_) => _ = catch_unwind(AssertUnwindSafe(|| drop(desk))),
        }
        if let Some(result) = result {
            // Nobody may wait any more.
            let _ = answer.into_inner().send(result);
        }
    }

    /// Answers a request as long as somebody waits for it.
    async fn answer(
        &self,
        desk: &mut Desk<M, T>,
        request: Bytes,
        answer: &RefCell<tokio::sync::oneshot::Sender<Result<Bytes, Refusal>>>,
    ) -> Option<Result<Bytes, Refusal>> {
        let (listed_max, now_ms) = (self.service.listed_max, self.functions.clock.now_ms());
        let is_wanted = || !answer.borrow().is_closed();
        let answering = answering::answer(desk, request, listed_max, now_ms, is_wanted);
        let mut answering = Some(Box::pin(answering));
        let result = poll_fn(|wake| {
            let Some(under_way) = &mut answering else { unreachable!("it is polled till it ends") };
            let poll = AssertUnwindSafe(|| under_way.as_mut().poll(wake));
            match catch_unwind(poll) {
                Ok(Poll::Ready(result)) => Poll::Ready(Some(result)),
                Ok(Poll::Pending) => answer.borrow_mut().poll_closed(wake).map(|()| None),
                Err(panic) => Poll::Ready(Some(Err(panicked(&*panic)))),
            }
        })
        .await;
        // So that what is dropped with it may panic as well.
        match catch_unwind(AssertUnwindSafe(|| drop(answering.take()))) {
            Ok(()) => result,
            Err(panic) => Some(Err(panicked(&*panic))),
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Refusal {
    Refusal::Failed(format!("the function panicked: {}", panic_message(panic)))
}

/// A request's place among those under way.
struct Place<'a, M, T>(&'a Pool<M, T>);

impl<M, T> Drop for Place<'_, M, T> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.freed.notify_one();
    }
}
