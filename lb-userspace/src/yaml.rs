//! Errors of YAML in the words of a report: one line, and where it happened.

mod strict;

pub use self::strict::Strict;

use serde_saphyr::{Error, UserMessageFormatter};

/// The words of an error without its place, on one line.
pub fn message_of(error: &Error) -> String {
    let text = error.render_with_formatter(&UserMessageFormatter);
    let text = text.lines().next().unwrap_or_default();
    let is_place = |place: &str| {
        place.starts_with(|c: char| c.is_ascii_digit())
            && place.chars().all(|c| c.is_ascii_digit() || ", column".contains(c))
    };
    match text.rsplit_once(" at line ") {
        Some((message, place)) if is_place(place) => message.to_owned(),
        _ => text.to_owned(),
    }
}

/// The line on which an error happened, counted from 1.
pub fn line_of(error: &Error) -> Option<u64> {
    error.location().map(|at| at.line()).filter(|line| *line > 0)
}
