//! Where a record ends, found a piece at a time.

#[cfg(feature = "csv")]
use super::parsing::CsvOptions;

/// Finds the ends of records in bytes that come in pieces.
#[derive(Clone, Debug)]
pub(super) struct Framing {
    format: Format,
    state: State,
    /// Whether the first record of a file says the names of fields.
    pub(super) has_header: bool,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Lines,
    #[cfg(feature = "csv")]
    Csv {
        delimiter: u8,
    },
}

/// Where in a record of CSV a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    FieldStart,
    #[cfg(feature = "csv")]
    Unquoted,
    #[cfg(feature = "csv")]
    Quoted,
    /// After a quote that ends the field, unless another follows.
    #[cfg(feature = "csv")]
    AfterQuote,
}

impl Framing {
    /// Records are lines.
    pub(super) fn lines() -> Self {
        Framing { format: Format::Lines, state: State::FieldStart, has_header: false }
    }

    /// Records are those of CSV: a line feed between quotes is part of a field.
    #[cfg(feature = "csv")]
    pub(super) fn csv(options: CsvOptions) -> Self {
        let CsvOptions { headers, delimiter } = options;
        Framing { format: Format::Csv { delimiter }, state: State::FieldStart, has_header: headers }
    }

    /// Where the record ends that began before these bytes or with them: behind its line feed.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.format {
            Format::Lines => bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
            #[cfg(feature = "csv")]
            Format::Csv { delimiter } => self.end_of_csv(delimiter, bytes),
        }
    }

    #[cfg(feature = "csv")]
    fn end_of_csv(&mut self, delimiter: u8, bytes: &[u8]) -> Option<usize> {
        use State::{AfterQuote, FieldStart, Quoted, Unquoted};
        for (at, byte) in bytes.iter().enumerate() {
            self.state = match (self.state, *byte) {
                (Quoted, b'"') => AfterQuote,
                (Quoted, _) => Quoted,
                (FieldStart | AfterQuote, b'"') => Quoted,
                (_, b'\n') => {
                    self.state = FieldStart;
                    return Some(at + 1);
                }
                (_, byte) if byte == delimiter => FieldStart,
                _ => Unquoted,
            };
        }
        None
    }

    /// The next record begins.
    pub(super) fn restart(&mut self) {
        self.state = State::FieldStart;
    }
}

#[cfg(all(test, feature = "csv"))]
mod tests {
    use super::*;

    /// However the bytes come.
    #[test]
    fn a_record_of_csv_ends_at_a_line_feed_that_is_in_no_quotes() {
        let text = b"a,\"b\n\"\"c\",d\"\n\"\",\"\n\"\nlast\n";
        for piece in 1..text.len() {
            let mut framing = Framing::csv(CsvOptions::default());
            let (mut ends, mut before) = (Vec::new(), 0);
            for bytes in text.chunks(piece) {
                let mut from = 0;
                while let Some(end) = framing.end(&bytes[from..]) {
                    from += end;
                    ends.push(before + from);
                }
                before += bytes.len();
            }
            assert_eq!(ends, [13, 20, 25], "in pieces of {piece}");
        }
    }
}
