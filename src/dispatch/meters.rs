//! A function's own counters and histograms, through the `metrics` facade.

use metrics::{Counter, Histogram, Label, SharedString};

use super::context::Context;
use crate::address::TypeName;

/// The label that names the function type.
const FUNCTION: &str = "function";

/// The counters and histograms of one function type, found again by where their names are.
#[derive(Default)]
pub(super) struct Meters {
    counters: Vec<(SharedString, Counter)>,
    histograms: Vec<(SharedString, Histogram)>,
}

/// Finds what has a name, or makes it.
fn find<X>(
    of: &mut Vec<(SharedString, X)>,
    name: SharedString,
    make: impl FnOnce(SharedString) -> X,
) -> &X {
    let at = of.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
        of.push((name.clone(), make(name)));
        of.len() - 1
    });
    &of[at].1
}

fn label(function: &TypeName) -> Vec<Label> {
    vec![Label::new(FUNCTION, function.to_string())]
}

impl<M, T> Context<'_, M, T> {
    /// A counter of this function type, with the label `function`, for whichever recorder of the
    /// [`metrics`] facade the program has installed before.
    ///
    /// What is counted is counted at once, also if this invocation fails.
    ///
    /// ```
    /// # use timely_statefun::{Context, FunctionResult};
    /// fn order(context: &mut Context<'_, u64>, price: &u64) -> FunctionResult {
    ///     context.counter("shop_orders").increment(1);
    ///     context.histogram("shop_order_price_euros").record(*price as f64);
    ///     Ok(())
    /// }
    /// ```
    pub fn counter(&mut self, name: impl Into<SharedString>) -> &Counter {
        let function = self.names.known(self.head.target_type);
        find(&mut self.meters.counters, name.into(), |name| {
            metrics::with_recorder(|recorder| {
                let key = metrics::Key::from_parts(name, label(function));
                recorder.register_counter(&key, &METADATA)
            })
        })
    }

    /// A histogram of this function type, as [`counter`](Self::counter).
    pub fn histogram(&mut self, name: impl Into<SharedString>) -> &Histogram {
        let function = self.names.known(self.head.target_type);
        find(&mut self.meters.histograms, name.into(), |name| {
            metrics::with_recorder(|recorder| {
                let key = metrics::Key::from_parts(name, label(function));
                recorder.register_histogram(&key, &METADATA)
            })
        })
    }
}

static METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));
