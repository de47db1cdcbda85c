//! Which trace something belongs to, in the form of the W3C: what is said in the header `traceparent`.

use std::fmt;
use std::str::FromStr;

/// The name of the header.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Whoever is called may have been recorded by whoever calls.
const SAMPLED: u8 = 1;
/// The trace's number is random.
const RANDOM: u8 = 2;
/// How long a context of the first version is.
const LEN: usize = 55;

/// A trace context: the trace that something belongs to, and what caused it there.
///
/// Source: W3C, Trace Context, `traceparent` of version 00.
///
/// ```
/// use timely_statefun::TraceContext;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = text.parse().unwrap();
/// assert_eq!(context.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
/// assert_eq!(context.parent_id(), 0x00f0_67aa_0ba9_02b7);
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), text);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// A text is no trace context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no trace context: {0}")]
pub struct InvalidTraceContext(&'static str);

impl TraceContext {
    /// A context of a trace, and of what calls in it. `None` if one of them is zero, which stands for none.
    pub fn new(trace_id: u128, parent_id: u64, is_sampled: bool) -> Option<Self> {
        let flags = if is_sampled { SAMPLED } else { 0 };
        let is_valid = trace_id != 0 && parent_id != 0;
        is_valid.then_some(TraceContext { trace_id, parent_id, flags })
    }

    /// The number of the trace.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The number of what calls, in the trace.
    pub fn parent_id(&self) -> u64 {
        self.parent_id
    }

    /// Whether whoever calls may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, with something else that calls.
    ///
    /// # Panics
    ///
    /// If its number is zero.
    pub(crate) fn called_by(self, parent_id: u64) -> Self {
        assert_ne!(parent_id, 0, "it stands for none");
        TraceContext { parent_id, ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TraceContext { trace_id, parent_id, flags } = self;
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{flags:02x}")
    }
}

/// A number of so many lower-case hexadecimal digits.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

impl FromStr for TraceContext {
    type Err = InvalidTraceContext;

    /// Reads what a header says. Of later versions than the first, it reads what the first has.
    fn from_str(text: &str) -> Result<Self, InvalidTraceContext> {
        let text = text.as_bytes();
        if text.len() < LEN {
            return Err(InvalidTraceContext("it is too short"));
        }
        let (known, more) = text.split_at(LEN);
        if [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return Err(InvalidTraceContext("its parts are not divided by hyphens"));
        }
        let part = |from: usize, to: usize| {
            let not_hex = InvalidTraceContext("a part is no lower-case hexadecimal number");
            number(&known[from..to]).ok_or(not_hex)
        };
        let (version, trace_id) = (part(0, 2)?, part(3, 35)?);
        let (parent_id, flags) = (part(36, 52)?, part(53, 55)?);
        match version {
            0xff => return Err(InvalidTraceContext("there is no version ff")),
            0 if !more.is_empty() => return Err(InvalidTraceContext("it is too long")),
            _ if more.first().is_some_and(|next| *next != b'-') => {
                return Err(InvalidTraceContext("its parts are not divided by hyphens"));
            }
            _ => {}
        }
        if trace_id == 0 || parent_id == 0 {
            return Err(InvalidTraceContext("zero stands for no trace, and for nobody in one"));
        }
        let (parent_id, flags) = (parent_id as u64, flags as u8 & (SAMPLED | RANDOM));
        Ok(TraceContext { trace_id, parent_id, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, within};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn what_is_well_formed_is_read_and_said_in_the_first_version() {
        let said = |text: &str| text.parse::<TraceContext>().unwrap().to_string();
        for flags in ["00", "01", "02", "03"] {
            let text = format!("00-{TRACE}-{PARENT}-{flags}");
            assert_eq!(said(&text), text);
        }
        let known = format!("00-{TRACE}-{PARENT}-01");
        assert_eq!(said(&format!("00-{TRACE}-{PARENT}-fd")), known, "flags that nobody knows");
        assert_eq!(said(&format!("cc-{TRACE}-{PARENT}-01")), known);
        assert_eq!(said(&format!("cc-{TRACE}-{PARENT}-01-what-it-is")), known);
        assert_eq!(said(&format!("01-{TRACE}-{PARENT}-01-")), known);
        let least = TraceContext::new(1, 1, false).unwrap();
        assert_eq!(least.to_string(), format!("00-{:032x}-{:016x}-00", 1, 1));
        assert_eq!(least.to_string().parse(), Ok(least));
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        let zeros = "0".repeat(32);
        let malformed = [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-001"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01 "),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("cc-{TRACE}-{PARENT}-01.more"),
            format!("cc-{TRACE}-{PARENT}-011"),
            format!("0-{TRACE}-{PARENT}-0111"),
            format!("00_{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}_{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}_01"),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", PARENT.to_uppercase()),
            format!("0G-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-0x"),
            format!("00-{TRACE}-{PARENT}-+1"),
            format!("00-{}-{PARENT}-01", "é".repeat(16)),
            format!("00-{TRACE}{PARENT}-01----"),
        ];
        for text in malformed {
            assert!(text.parse::<TraceContext>().is_err(), "{text}");
        }
        assert_eq!(TraceContext::new(0, 1, true), None);
        assert_eq!(TraceContext::new(1, 0, true), None);
    }

    #[test]
    fn any_text_is_a_context_or_an_error() {
        let input = format!("00-{TRACE}-{PARENT}-01").into_bytes();
        fuzz("traces", 10_000, &[input], |input| {
            let Ok(text) = std::str::from_utf8(input) else { return false };
            let read = within(1 << 10, || text.parse::<TraceContext>());
            let Ok(context) = read else { return false };
            assert_eq!(context.to_string().parse(), Ok(context));
            true
        });
    }
}
