//! The limits of a loop, each with its default.

use std::time::Duration;

/// Limits of a [keyed loop](crate::KeyedLoop). Every queue in it has one.
///
/// ```
/// use timely_statefun_operators::LoopConfig;
///
/// let config = LoopConfig { budget_messages: 1, ..LoopConfig::default() };
/// assert_eq!(config.gate_credit_records, 65_536);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopConfig {
    /// Messages that one activation handles before other operators get their turn. Default 4,096;
    /// at least 1.
    pub budget_messages: usize,
    /// Time after which an activation ends although it has budget left. It is looked at between
    /// messages, never during one. Default 1 ms; `None` for no limit.
    pub activation_max: Option<Duration>,
    /// How long a worker that ran out of work keeps looking for more before it lets its thread
    /// park, in programs of several workers: waking a parked thread takes longer than a hop. Default
    /// 20 µs; zero to park at once.
    pub spin: Duration,
    /// Records each gate may have admitted for each worker and not yet seen handled there, and how many
    /// it may hold back for an aligned cut and be [ready](crate::LoopHandle::ready) for more. Default
    /// 65,536; at least 1.
    pub gate_credit_records: usize,
    /// Bytes waiting on one worker above which every gate stops admitting, until they are below
    /// three quarters of it. Default 256 MiB.
    pub loop_bytes_soft: usize,
    /// Bytes waiting on one worker above which a message that the loop itself makes is
    /// [refused](crate::Handler::refuse). Default 1 GiB.
    pub loop_bytes_hard: usize,
    /// How much of an open cut one activation hands over or writes: so many waiting messages, and as
    /// many [units](crate::Handler::work_on_cut) of the handler's own. The more, the sooner a cut is
    /// complete and the longer a message waits meanwhile. Default 1,024; at least 1.
    pub cut_slice: usize,
    /// The highest number of a cut that was taken before this loop was built, the same on all
    /// workers: what a restored one had, or a higher one. Default 0.
    pub cuts_before: u64,
    /// In which order messages are handled. Default: that of their arrival.
    pub order: Order,
    /// How long a test holds back what is on its way between workers. Default: not at all.
    #[cfg(feature = "testing")]
    pub delays: Option<crate::delay::Delays>,
    /// Breaks STEP 5 of the cut, for the test that shows what it is for.
    #[cfg(test)]
    pub(crate) capabilities_stay: bool,
}

impl Default for LoopConfig {
    fn default() -> Self {
        LoopConfig {
            budget_messages: 4096,
            activation_max: Some(Duration::from_millis(1)),
            spin: Duration::from_micros(20),
            gate_credit_records: 65_536,
            loop_bytes_soft: 256 << 20,
            loop_bytes_hard: 1 << 30,
            cut_slice: 1024,
            cuts_before: 0,
            order: Order::Arrival,
            #[cfg(feature = "testing")]
            delays: None,
            #[cfg(test)]
            capabilities_stay: false,
        }
    }
}

impl LoopConfig {
    /// With the bounds of every field respected.
    pub(crate) fn bounded(mut self) -> Self {
        self.budget_messages = self.budget_messages.max(1);
        self.gate_credit_records = self.gate_credit_records.max(1);
        self.cut_slice = self.cut_slice.max(1);
        self.loop_bytes_hard = self.loop_bytes_hard.max(self.loop_bytes_soft);
        self
    }
}

/// The order in which a loop handles messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they arrive. What one sender sends to one target stays in order; between senders chance
    /// decides.
    #[default]
    Arrival,
    /// By ingress time in `Ord`, then by depth, which is the number of messages that led to a message,
    /// then as the handler [compares](crate::Handler::compare) them, then by ingress and worker, then
    /// as they were sent. Each waits until no earlier one can come, so that everything depends on the
    /// input alone. It costs a round of progress for each depth, and an ingress that stands still
    /// holds up all others: one that lags must be fed whether or not the loop is ready.
    ///
    /// Where `T` is partially ordered, `Ord` must put a time after all that are before it.
    Time,
}
