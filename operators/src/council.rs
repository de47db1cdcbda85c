//! News between workers, beside the dataflow.
//!
//! There is an operator on every worker, whose output returns to its input by way of an exchange and is
//! connected to nothing: no frontier waits for it. Whoever holds a worker's [`Council`] says what is to be
//! told, and hears what others said. The dataflow does not end before all workers have left.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::progress::operate::FrontierInterest;
use timely::progress::{Antichain, Timestamp};
use timely::scheduling::Activator;

/// Something on its way from one worker to another.
#[derive(Clone, Serialize, Deserialize)]
struct Letter<N> {
    to: u64,
    from: u64,
    news: N,
}

/// Tells other workers news and hears theirs, on one worker. All clones are one.
///
/// What one worker tells another is heard in the order in which it was told. When the last clone is dropped,
/// the worker has [left](Self::leave).
///
/// ```
/// use timely_statefun_operators::council;
///
/// let heard = timely::execute_directly(|worker| {
///     let council = worker.dataflow::<u64, _, _>(|scope| council::<_, String>(scope, "greetings"));
///     council.tell_all("hello".to_owned());
///     let heard = loop {
///         if let Some((from, news)) = council.heard() {
///             break (from, news);
///         }
///         worker.step();
///     };
///     council.leave();
///     heard
/// });
/// assert_eq!(heard, (0, "hello".to_owned()));
/// ```
pub struct Council<N> {
    seat: Rc<Seat<N>>,
}

/// Leaves when it is dropped.
struct Seat<N> {
    desk: Rc<Desk<N>>,
}

impl<N> Drop for Seat<N> {
    fn drop(&mut self) {
        self.desk.leave();
    }
}

struct Desk<N> {
    worker: u64,
    peers: u64,
    told: RefCell<Vec<Letter<N>>>,
    heard: RefCell<VecDeque<(usize, N)>>,
    left: Cell<bool>,
    on_news: RefCell<Vec<Box<dyn Fn()>>>,
    activator: Activator,
}

impl<N> Desk<N> {
    fn leave(&self) {
        self.left.set(true);
        self.activator.activate();
    }
}

impl<N> Council<N> {
    /// Tells one worker, which may be this one.
    ///
    /// # Panics
    ///
    /// After this worker has left, or if there is no such worker.
    pub fn tell(&self, worker: usize, news: N) {
        let Desk { worker: from, peers, told, left, activator, .. } = &*self.seat.desk;
        assert!(!left.get(), "a worker that has left says no more");
        assert!((worker as u64) < *peers, "there is no worker {worker}");
        told.borrow_mut().push(Letter { to: worker as u64, from: *from, news });
        activator.activate();
    }

    /// Tells all workers, this one included.
    ///
    /// # Panics
    ///
    /// After this worker has left.
    pub fn tell_all(&self, news: N)
    where
        N: Clone,
    {
        (0..self.seat.desk.peers as usize).for_each(|worker| self.tell(worker, news.clone()));
    }

    /// What was heard and not taken yet: who said it, and what.
    pub fn heard(&self) -> Option<(usize, N)> {
        self.seat.desk.heard.borrow_mut().pop_front()
    }

    /// Has `listen` called whenever something was heard, on this worker's thread. It must not take what
    /// was heard then, but have somebody do so.
    pub fn on_news(&self, listen: impl Fn() + 'static) {
        self.seat.desk.on_news.borrow_mut().push(Box::new(listen));
    }

    /// Says no more. What others say is still heard.
    pub fn leave(&self) {
        self.seat.desk.leave();
    }
}

impl<N> Clone for Council<N> {
    fn clone(&self) -> Self {
        Council { seat: Rc::clone(&self.seat) }
    }
}

impl<N> std::fmt::Debug for Council<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Desk { worker, peers, left, .. } = &*self.seat.desk;
        f.debug_struct("Council")
            .field("worker", worker)
            .field("peers", peers)
            .field("left", &left.get())
            .finish_non_exhaustive()
    }
}

/// Builds the council of all workers, of which this is one.
pub fn council<T: Timestamp, N: ExchangeData>(scope: Scope<'_, T>, name: &str) -> Council<N> {
    build(scope, name, |stream| stream)
}

/// The same, with news held back on their way as a test says.
#[cfg(feature = "testing")]
pub fn council_held_back<T: Timestamp, N: ExchangeData>(
    scope: Scope<'_, T>,
    name: &str,
    delays: &crate::delay::Delays,
) -> Council<N> {
    build(scope, name, |stream| crate::delay::delay(stream, Some(delays)))
}

type Letters<'scope, T, N> = Stream<'scope, T, Vec<Letter<N>>>;

fn build<'scope, T: Timestamp, N: ExchangeData>(
    scope: Scope<'scope, T>,
    name: &str,
    on_the_way: impl FnOnce(Letters<'scope, T, N>) -> Letters<'scope, T, N>,
) -> Council<N> {
    let mut builder = OperatorBuilder::new(format!("Council [{name}]"), scope);
    let unconnected = Vec::<(usize, Antichain<_>)>::new;
    let (letters, stream) = builder.new_output_connection::<Vec<Letter<N>>, _>(unconnected());
    let mut letters: OutputBuilder<T, CapacityContainerBuilder<Vec<Letter<N>>>> =
        OutputBuilder::from(letters);
    let by_worker = Exchange::new(|letter: &Letter<N>| letter.to);
    let mut mail = builder.new_input_connection(on_the_way(stream), by_worker, unconnected());
    builder.set_notify_for(0, FrontierInterest::Never);
    let desk = Rc::new(Desk {
        worker: scope.index() as u64,
        peers: scope.peers() as u64,
        told: RefCell::default(),
        heard: RefCell::default(),
        left: Cell::new(false),
        on_news: RefCell::default(),
        activator: scope.activator_for(builder.operator_info().address),
    });
    let seat = Rc::new(Seat { desk: Rc::clone(&desk) });
    builder.build(move |mut born| {
        // What is said concerns no time: one capability serves until this worker leaves.
        let mut speaking = born.pop();
        move |_| {
            let mut any = false;
            mail.for_each(|_, letters| {
                any = true;
                let letters = letters.drain(..).map(|letter| (letter.from as usize, letter.news));
                desk.heard.borrow_mut().extend(letters);
            });
            if let Some(capability) = &speaking {
                let mut told = desk.told.borrow_mut();
                if !told.is_empty() {
                    letters.activate().session(capability).give_iterator(told.drain(..));
                }
            }
            if desk.left.get() {
                speaking = None;
            }
            if any {
                desk.on_news.borrow().iter().for_each(|listen| listen());
            }
        }
    });
    Council { seat }
}
