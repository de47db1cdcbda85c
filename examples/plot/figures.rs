//! What benches print, a line of JSON for each figure, as cases and series of metrics.
//!
//! There are two forms. `{"bench", "case", "metric", "value"}` is one figure. In the other, each number is a metric of its
//! own, but for those that belong to the case, and `"with"` says whose figures these are.

use serde_json::{Map, Value};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it measures, with its bench.
    pub metric: String,
    /// Of what.
    pub case: String,
    /// Whose it is: the library's, or that of what it is compared with.
    pub series: String,
    /// How much.
    pub value: f64,
}

/// Numbers that say which case it is.
const DIMENSIONS: [&str; 2] = ["in_flight", "addresses"];

/// The figures of all lines.
///
/// # Errors
///
/// The number of the first line that is none, and what is wrong with it.
pub fn read(text: &str) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (at, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let of_line = figures_of(line).map_err(|wrong| format!("line {at}: {wrong}"))?;
        figures.extend(of_line);
    }
    Ok(figures)
}

fn figures_of(line: &str) -> Result<Vec<Figure>, String> {
    let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let bench = text("bench").ok_or("it does not say which \"bench\" it is of")?;
    let mut case = text("case").ok_or("it does not say which \"case\" it is of")?.to_owned();
    let number = |name: &str, value: &Value| {
        value.as_f64().ok_or_else(|| format!("\"{name}\" is {value}, and no number"))
    };
    if let Some(metric) = text("metric") {
        let value = object.get("value").ok_or("it has no \"value\"")?;
        return Ok(vec![figure(bench, metric, case, None, number("value", value)?)]);
    }
    let others =
        || object.iter().filter(|(name, _)| !["bench", "case", "with"].contains(&name.as_str()));
    for (name, value) in others() {
        if let Some(text) = value.as_str() {
            case += &format!(", {text}");
        } else if DIMENSIONS.contains(&name.as_str()) {
            case += &format!(", {value} {}", name.replace('_', " "));
        }
    }
    let metrics =
        others().filter(|(name, value)| !value.is_string() && !DIMENSIONS.contains(&name.as_str()));
    let figures = metrics.map(|(name, value)| {
        Ok(figure(bench, name, case.clone(), text("with"), number(name, value)?))
    });
    let figures = figures.collect::<Result<Vec<_>, String>>()?;
    if figures.is_empty() { Err("it has no figure".to_owned()) } else { Ok(figures) }
}

/// Ceilings, and what was measured without something, are series of the same metric.
fn figure(bench: &str, metric: &str, case: String, with: Option<&str>, value: f64) -> Figure {
    let (metric, series) = match (metric.strip_prefix("ceiling_"), metric.strip_suffix("_without"))
    {
        (Some(metric), _) => (metric, "ceiling"),
        (_, Some(metric)) => (metric, "without"),
        _ => (metric, with.unwrap_or("library")),
    };
    Figure { metric: format!("{bench}: {metric}"), case, series: series.to_owned(), value }
}
