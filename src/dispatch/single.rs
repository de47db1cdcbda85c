//! A function at a time, without a loop, and looks at the functions of a loop: for tests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;

use super::operations::OperationKey;
use super::{Context, Dispatcher, Entrance, Head, Place, Routed, Surroundings};
use crate::address::Address;
use crate::dead_letter::Reason;
use crate::function::Code;

/// A delayed message that waits.
pub(crate) struct Waiting<'a, M> {
    /// Tells it from all others.
    pub(crate) sequence: u64,
    pub(crate) due_ms: u64,
    pub(crate) token: Option<&'a str>,
    pub(crate) target: Address,
    pub(crate) caller: Option<Address>,
    pub(crate) message: &'a M,
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// Runs the function of a message once, whatever is to become of the message if it fails.
    ///
    /// # Errors
    ///
    /// Why it failed; then nothing of what it did has happened, except that what it sent went out.
    pub(crate) fn attempt<S>(
        &mut self,
        mut routed: Routed<M>,
        outside: &mut S,
    ) -> Result<(), Reason>
    where
        S: Surroundings<M, T, Held = H>,
    {
        self.resolve(&mut routed.head);
        self.run(&routed, 0, outside).map_err(|failure| failure.reason)
    }

    /// Has `act` do something at an address, as its function could.
    ///
    /// # Errors
    ///
    /// As for [`attempt`](Self::attempt).
    pub(crate) fn act<S>(
        &mut self,
        mut head: Head,
        outside: &mut S,
        act: impl FnOnce(&mut Context<'_, M, T>),
    ) -> Result<(), Reason>
    where
        S: Surroundings<M, T, Held = H>,
    {
        self.resolve(&mut head);
        let done = self.run_as(&head, 0, outside, |context| {
            act(context);
            Ok(())
        });
        done.map_err(|failure| failure.reason)
    }

    /// Whether a function is bound to the type of a message, and is embedded.
    pub(crate) fn has_embedded(&mut self, head: &mut Head) -> bool {
        self.resolve(head);
        let body = self.entries[head.target_type as usize].body.as_ref();
        body.is_some_and(|body| matches!(body.code, Code::Embedded(_)))
    }

    /// The delayed messages that wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Waiting<'_, M>> {
        let waiting = self.later.list();
        waiting.map(|(identity, due_ms, token, routed)| Waiting {
            sequence: identity.sequence,
            due_ms,
            token,
            target: self.names.target(&routed.head),
            caller: self.names.caller(&routed.head),
            message: &routed.message,
        })
    }

    /// Brings in that nobody knows what became of an asynchronous operation.
    pub(crate) fn lose_operation<E>(&mut self, key: OperationKey, entrance: &mut E)
    where
        E: Entrance<M, T, Held = H>,
    {
        let message = self.operations.unknown(key);
        self.end_operation(key, Ok(message), entrance);
    }

    /// The target and the caller of a message.
    pub(crate) fn addresses(&mut self, head: &mut Head) -> (Address, Option<Address>) {
        self.resolve(head);
        (self.names.target(head), self.names.caller(head))
    }

    /// How many asynchronous operations and calls have not ended.
    fn under_way(&self) -> usize {
        self.operations.len() + self.calls.len()
    }

    fn visit(&mut self, visit: Visit<M, T>, time: &T) {
        let Visit { address, act, told } = visit;
        let mut head = self.names.head(address, None);
        let outside = &mut Nothing { time: time.clone(), did_more: false, held: PhantomData };
        let result = match self.has_embedded(&mut head) {
            true => self.act(head, outside, act),
            false => Err(Reason::NotBound),
        };
        told.set(Some(result.map(|()| outside.did_more)));
    }
}

/// Something to be done at an address.
struct Visit<M, T> {
    address: Address,
    act: Act<M, T>,
    /// Whether it did more than look at state and set it, or why it failed.
    told: Told,
}

type Act<M, T> = Box<dyn FnOnce(&mut Context<'_, M, T>)>;

/// What a test sees of the functions of a worker while they run, and does at their addresses.
pub(crate) struct Watch<M, T> {
    visits: RefCell<VecDeque<Visit<M, T>>>,
    under_way: Cell<usize>,
    delayed: Cell<usize>,
    is_restored: Cell<bool>,
}

impl<M, T> Default for Watch<M, T> {
    fn default() -> Self {
        let (under_way, delayed) = (Cell::new(0), Cell::new(0));
        Watch { visits: RefCell::default(), under_way, delayed, is_restored: Cell::new(true) }
    }
}

/// Tells, when it was done, whether more was done than to look at state and set it.
pub(crate) type Told = Rc<Cell<Option<Result<bool, Reason>>>>;

impl<M: 'static, T: Clone + PartialEq + 'static> Watch<M, T> {
    /// Has something done when the loop comes to it.
    pub(crate) fn add(&self, address: Address, act: Act<M, T>) -> Told {
        let told = Told::default();
        self.visits.borrow_mut().push_back(Visit { address, act, told: Rc::clone(&told) });
        told
    }

    /// How many asynchronous operations and calls have not ended.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// How many delayed messages wait, and how many addresses for another attempt.
    pub(crate) fn delayed(&self) -> usize {
        self.delayed.get()
    }

    /// Whether all is there again that a snapshot has.
    pub(crate) fn is_restored(&self) -> bool {
        self.is_restored.get()
    }

    /// Does what is to be done.
    pub(crate) fn visit<H>(&self, dispatcher: &mut Dispatcher<M, T, H>, time: &T) {
        while let Some(visit) = self.visits.borrow_mut().pop_front() {
            dispatcher.visit(visit, time);
        }
    }

    /// Notes what is under way; and so is what is being restored.
    pub(crate) fn note<H>(&self, dispatcher: &Dispatcher<M, T, H>, is_restored: bool) {
        self.under_way.set(dispatcher.under_way() + usize::from(!is_restored));
        self.delayed.set(dispatcher.later.len() + dispatcher.mailboxes.len());
        self.is_restored.set(is_restored);
    }
}

/// Where nothing can be sent to.
struct Nothing<T, H> {
    time: T,
    did_more: bool,
    held: PhantomData<H>,
}

impl<M, T: Clone, H> Surroundings<M, T> for Nothing<T, H> {
    type Held = H;

    fn time(&self) -> &T {
        &self.time
    }

    fn frontier(&self) -> &[T] {
        &[]
    }

    fn send(&mut self, _message: Routed<M>) -> bool {
        self.did_more = true;
        true
    }

    fn hold(&mut self) -> H {
        unreachable!("no asynchronous operation can be begun here")
    }

    fn put_off(&mut self, _record: bool) -> H {
        unreachable!("no message waits")
    }

    fn resume_first(&mut self, _held: Option<H>, _message: Routed<M>) {
        unreachable!("no message waits")
    }

    fn expect_event(&mut self) {
        self.did_more = true;
    }

    fn release(&mut self, _held: H) {}

    fn place(&self, _held: &H) -> Place<T> {
        unreachable!("nothing is held")
    }
}
