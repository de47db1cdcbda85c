//! The links of a file, and what a line must say to be one.
//!
//! Nothing here knows what links are for.

use std::path::Path;

/// Why a file has no links to give.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    #[error("line {number} is {text:?} and not two whole numbers below 2^64")]
    NotALink {
        /// The number of the line, from 1.
        number: usize,
        text: String,
    },
}

/// The links of a file, one for each line that is neither empty nor a comment, in their order.
pub fn links(path: &Path) -> Result<Vec<(u64, u64)>, Wrong> {
    let text = std::fs::read(path)?;
    let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    let said = lines.map(|(number, line)| (number, line.trim_ascii()));
    let said = said.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"));
    said.map(|(number, line)| {
        let not_a_link =
            || Wrong::NotALink { number, text: String::from_utf8_lossy(line).into_owned() };
        parse(line).ok_or_else(not_a_link)
    })
    .collect()
}

fn parse(line: &[u8]) -> Option<(u64, u64)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let link = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(link)
}
