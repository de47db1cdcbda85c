//! What a program says of how it is measured.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// A time of the program as milliseconds since the beginning of 1970, if it stands for any.
type MillisOf<T> = Rc<dyn Fn(&T) -> Option<u64>>;

/// How a set of functions tells the recorder of the [`metrics`] facade what it does; each with its default.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::Functions;
/// use timely_statefun::metering::Metering;
///
/// // Times are milliseconds since the beginning of 1970.
/// let metering = Metering::new().every(Duration::from_secs(5)).times_in_ms(|time: &u64| Some(*time));
/// let functions = Functions::<String>::new().metering(metering);
/// # functions.check().unwrap();
/// ```
#[derive(Clone)]
pub struct Metering<T> {
    /// None if nothing is told.
    pub(crate) every: Option<Duration>,
    pub(crate) heaviest_bins: usize,
    pub(crate) millis: Option<MillisOf<T>>,
}

impl<T> Metering<T> {
    /// Everything is told once a second, and what is told of bins is of the three heaviest.
    pub fn new() -> Self {
        Metering { every: Some(Duration::from_secs(1)), heaviest_bins: 3, millis: None }
    }

    /// Tells once in so long, by the [clock](crate::Functions::clock) of the functions, and when the dataflow
    /// ends. Default one second; at least a millisecond. A worker without work wakes up for it.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval.max(Duration::from_millis(1)));
        self
    }

    /// Tells nothing. What functions [count](crate::Context::counter) themselves is counted all the same.
    #[must_use]
    pub fn off(mut self) -> Self {
        self.every = None;
        self
    }

    /// Tells of so many bins, the heaviest since the last time. Default 3; at most
    /// [`BINS`](crate::BINS). [`Egresses::bin_loads`](crate::Egresses::bin_loads) has all of them.
    #[must_use]
    pub fn heaviest_bins(mut self, bins: usize) -> Self {
        self.heaviest_bins = bins.min(crate::BINS as usize);
        self
    }

    /// Says which time an ingress time stands for, in milliseconds since the beginning of 1970, so that it can be
    /// told how far the program is behind. `None` for a time that stands for none. By default nothing is told of
    /// that but the number of ingress times that have work.
    #[must_use]
    pub fn times_in_ms(mut self, millis: impl Fn(&T) -> Option<u64> + 'static) -> Self {
        self.millis = Some(Rc::new(millis));
        self
    }
}

impl<T> Default for Metering<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Metering<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metering { every, heaviest_bins, millis } = self;
        let mut shown = f.debug_struct("Metering");
        shown.field("every", every).field("heaviest_bins", heaviest_bins);
        shown.field("knows_times", &millis.is_some()).finish()
    }
}
