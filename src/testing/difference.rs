//! How what was found differs from what was expected.

use std::fmt::Debug;

use similar::{Algorithm, ChangeTag, capture_diff_slices};

use crate::address::Address;

/// What differs between two lists, one thing a line; `None` if nothing does.
pub(super) fn difference(expected: &[String], found: &[String]) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut lines = String::from("(- expected, + found)\n");
    for piece in capture_diff_slices(Algorithm::Myers, expected, found) {
        for change in piece.iter_changes(expected, found) {
            lines.push_str(match change.tag() {
                ChangeTag::Equal => "    ",
                ChangeTag::Delete => "  - ",
                ChangeTag::Insert => "  + ",
            });
            lines.push_str(&change.value());
            lines.push('\n');
        }
    }
    Some(lines)
}

/// A message as it is shown.
pub(super) fn shown<M: Debug>(target: &Address, message: &M) -> String {
    format!("to {target}: {message:?}")
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn what_differs_is_marked() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(difference(&list("a b"), &list("a b")), None);
        let told = difference(&list("a b c"), &list("a c d")).unwrap();
        assert_eq!(told, "(- expected, + found)\n    a\n  - b\n    c\n  + d\n");
    }
}
