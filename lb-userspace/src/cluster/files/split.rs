//! A file as its YAML documents.

/// The documents of a text, each with the number of lines before it. Parts that hold nothing but
/// comments and directives are left out.
///
/// Cut here, and not by the parser, so that a fault in one document leaves the others readable.
pub(super) fn documents(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut position) = (0, 0, 0);
    for (number, line) in (0..).zip(text.split_inclusive('\n')) {
        if is_marker(line) {
            parts.push((first_line, &text[start..position]));
            (start, first_line) = (position, number);
        }
        position += line.len();
    }
    parts.push((first_line, &text[start..]));
    parts.into_iter().filter(|(_, part)| part.lines().any(says_something))
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn says_something(line: &str) -> bool {
    let line = if is_marker(line) { &line[3..] } else { line };
    let line = line.trim_start_matches('\u{feff}').trim();
    !(line.is_empty() || line == "..." || line.starts_with('#') || line.starts_with('%'))
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
}
