//! A file as its YAML documents.

use serde::de::IgnoredAny;

/// The documents of a text, each with the number of lines before it. Parts that hold nothing but
/// comments and directives are left out.
///
/// Cut here, and not by the parser, so that a fault in one document leaves the others readable. JSON
/// objects may follow each other without a mark between them, as `cat` and `jq` leave them.
pub(super) fn documents(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut position) = (0, 0, 0);
    for (number, line) in (0..).zip(text.split_inclusive('\n')) {
        let (begins, ends) = (is_marker(line, "---"), is_marker(line, "..."));
        if begins || ends {
            parts.push((first_line, &text[start..position]));
            (start, first_line) = (position, number);
        }
        position += line.len();
        if ends {
            (start, first_line) = (position, number + 1);
        }
    }
    parts.push((first_line, &text[start..]));
    let parts = parts.into_iter().flat_map(|(line, part)| values(line, part));
    parts.filter(|(_, part)| part.lines().any(says_something))
}

/// The JSON values that a part begins with, each by itself, and what is left; all of it, if it is not
/// JSON.
fn values(first_line: u64, part: &str) -> Vec<(u64, &str)> {
    let mut values = Vec::new();
    let mut left = part;
    let mut line = first_line;
    while left.trim_start().starts_with('{') {
        let mut stream = serde_json::Deserializer::from_str(left).into_iter::<IgnoredAny>();
        let Some(Ok(IgnoredAny)) = stream.next() else { break };
        let (value, rest) = left.split_at(stream.byte_offset());
        values.push((line, value));
        line += value.matches('\n').count() as u64;
        left = rest;
    }
    values.push((line, left));
    values
}

fn is_marker(line: &str, mark: &str) -> bool {
    line.strip_prefix(mark)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn says_something(line: &str) -> bool {
    let line = if is_marker(line, "---") { &line[3..] } else { line };
    let line = line.trim_start_matches('\u{feff}').trim();
    !(line.is_empty() || line.starts_with('#') || line.starts_with('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_knows_how_many_lines_stand_before_it() {
        let text = "%YAML 1.2\n---\na: 1\n--- # second\nb: |\n  ---\n---\n# nothing\n---\nc: 3";
        let parts: Vec<_> = documents(text).collect();
        let want = [(1, "---\na: 1\n"), (3, "--- # second\nb: |\n  ---\n"), (8, "---\nc: 3")];
        assert_eq!(parts, want);
    }

    #[test]
    fn json_objects_need_no_mark_between_them() {
        let text = "{\"a\":\n 1}{\"b\": \"}\"}\n\n{\"c\": 3}\n";
        let parts: Vec<_> = documents(text).collect();
        let want = [(0, "{\"a\":\n 1}"), (1, "{\"b\": \"}\"}"), (1, "\n\n{\"c\": 3}")];
        assert_eq!(parts, want);
        let broken: Vec<_> = documents("{\"a\": 1}\n{\"b\": ").collect();
        assert_eq!(broken, [(0, "{\"a\": 1}"), (0, "\n{\"b\": ")], "its fault is its own");
        let yaml = "{a: 1, b: [2]}\n";
        assert_eq!(documents(yaml).collect::<Vec<_>>(), [(0, yaml)]);
    }

    #[test]
    fn three_dots_end_a_document() {
        let parts: Vec<_> = documents("a: 1\n...\nb: 2\n...\n").collect();
        assert_eq!(parts, [(0, "a: 1\n"), (2, "b: 2\n")]);
    }
}
