//! What this library tells the [`metrics`] facade: the names of all metrics, and what each says.
//!
//! Whichever recorder a program installs is told, once in an [interval](Metering::every) and when a dataflow
//! ends, by the worker where it happened. Install it before the dataflow is built. Without a recorder nothing
//! is registered anywhere.
//!
//! [The page on metrics](crate::metrics_and_traces) has all of them in a table, with the names that StateFun
//! has for them.

mod names;
mod options;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, with_recorder};

pub use names::*;
pub use options::Metering;

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The labels of something that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Labels(Vec<Label>);

impl Labels {
    /// Those of a worker.
    pub(crate) fn of_worker(worker: usize) -> Self {
        Labels(vec![Label::new("worker", worker.to_string())])
    }

    /// The same and one more.
    pub(crate) fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut labels = self.0.clone();
        labels.push(Label::new(name, value.into()));
        Labels(labels)
    }

    fn key(&self, of: &Metric) -> Key {
        let names = self.0.iter().map(Label::key);
        debug_assert!(names.eq(of.labels.iter().copied()), "{} has other labels", of.name);
        Key::from_parts(of.name, self.0.clone())
    }
}

/// Says to the recorder what all metrics are.
pub(crate) fn describe() {
    with_recorder(|recorder| {
        for metric in ALL {
            let (name, unit) = (KeyName::from_const_str(metric.name), Some(metric.unit));
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, metric.meaning.into()),
                Kind::Gauge => recorder.describe_gauge(name, unit, metric.meaning.into()),
                Kind::Histogram => recorder.describe_histogram(name, unit, metric.meaning.into()),
            }
        }
    });
}

/// A counter that is told of a total. Where programs follow one another in a process it goes on.
pub(crate) struct Total {
    counter: Counter,
    told: u64,
}

impl Total {
    pub(crate) fn new(of: &Metric, labels: &Labels) -> Self {
        debug_assert_eq!(of.kind, Kind::Counter);
        let key = labels.key(of);
        let counter = with_recorder(|recorder| recorder.register_counter(&key, &METADATA));
        Total { counter, told: 0 }
    }

    pub(crate) fn tell(&mut self, total: u64) {
        self.counter.increment(total - self.told);
        self.told = total;
    }
}

/// A gauge.
pub(crate) struct Present(Gauge);

impl Present {
    pub(crate) fn new(of: &Metric, labels: &Labels) -> Self {
        debug_assert_eq!(of.kind, Kind::Gauge);
        let key = labels.key(of);
        Present(with_recorder(|recorder| recorder.register_gauge(&key, &METADATA)))
    }

    pub(crate) fn tell(&self, now: f64) {
        self.0.set(now);
    }

    pub(crate) fn tell_count(&self, now: usize) {
        self.tell(now as f64);
    }
}

/// A histogram. Clones are the same, on any thread.
#[derive(Clone)]
pub(crate) struct Spread(Histogram);

impl Spread {
    pub(crate) fn new(of: &Metric, labels: &Labels) -> Self {
        debug_assert_eq!(of.kind, Kind::Histogram);
        let key = labels.key(of);
        Spread(with_recorder(|recorder| recorder.register_histogram(&key, &METADATA)))
    }

    /// One that tells nobody.
    pub(crate) fn silent() -> Self {
        Spread(Histogram::noop())
    }

    pub(crate) fn tell(&self, took: Duration) {
        self.0.record(took.as_secs_f64());
    }

    pub(crate) fn tell_often(&self, value: usize, often: u64) {
        self.0.record_many(value as f64, usize::try_from(often).unwrap_or(usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/metrics.md");

    /// A metric that the page does not have is found by nobody, and one that is only there by nobody either.
    #[test]
    fn the_page_on_metrics_has_all_of_them_and_no_others() {
        for metric in ALL {
            let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{}` |", metric.name)));
            let row = row.unwrap_or_else(|| panic!("the page lacks {}", metric.name));
            let kind = format!("{:?}", metric.kind).to_lowercase();
            assert!(row.contains(&format!("| {kind}")), "{} is a {kind}: {row}", metric.name);
        }
        let named = PAGE.split('`').filter(|word| word.starts_with("statefun_"));
        for name in named.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
            assert!(ALL.iter().any(|metric| metric.name == name), "there is no {name}");
        }
    }

    /// As Prometheus wants them: what it is not given in the name, it cannot know.
    #[test]
    fn names_say_of_what_kind_and_unit_they_are() {
        for Metric { name, kind, unit, labels, .. } in ALL {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_seconds"), *unit == metrics::Unit::Seconds, "{name}");
            assert_eq!(base.ends_with("_bytes"), *unit == metrics::Unit::Bytes, "{name}");
            assert!(name.starts_with("statefun_") && labels[0] == "worker", "{name}");
            assert_eq!(ALL.iter().filter(|other| other.name == *name).count(), 1, "{name}");
        }
    }
}
