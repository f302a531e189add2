//! Rust sources as the checks read them: comments and literals blanked out, lines kept.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::process;

/// One file.
pub(super) struct Source {
    /// From the top of the checkout.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with blanks for comments, strings and characters.
    pub(super) code: String,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// Files of tests alone may be long, and may use any crate.
    pub(super) fn is_test(&self) -> bool {
        self.path.contains("/tests/")
            || self.path.contains("/benches/")
            || self.path.ends_with("/tests.rs")
    }
}

/// Every Rust file that git knows or would add.
pub(super) fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut git = std::process::Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]);
    let listing = process::output(git.current_dir(root))?;
    let files = listing.lines().filter(|path| root.join(path).is_file());
    files
        .map(|path| {
            let text = fs::read_to_string(root.join(path))
                .with_context(|| format!("cannot read {path}"))?;
            Ok(Source::new(path, &text))
        })
        .collect()
}

/// The identifiers of a line of code.
pub(super) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = code.chars().next_back();
        let hidden = hidden_length(rest, before.is_some_and(|c| c.is_alphanumeric() || c == '_'));
        let length = hidden.unwrap_or(first.len_utf8());
        let (taken, left) = rest.split_at(length);
        if hidden.is_some() {
            code.extend(taken.chars().map(|c| if c == '\n' { c } else { ' ' }));
        } else {
            code.push_str(taken);
        }
        rest = left;
    }
    code
}

/// The length of the comment or literal that begins here, if one does.
fn hidden_length(text: &str, in_word: bool) -> Option<usize> {
    let to_end = text.len();
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(to_end));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if text.starts_with('"') {
        return Some(quoted(text, '"'));
    }
    if !in_word && let Some(raw) = text.strip_prefix("br").or_else(|| text.strip_prefix('r')) {
        let hashes = raw.bytes().take_while(|byte| *byte == b'#').count();
        let opened = to_end - raw.len() + hashes + 1;
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(text[opened..].find(&end).map_or(to_end, |at| opened + at + end.len()));
        }
    }
    // A lifetime has no closing quote right after its first character.
    let mut chars = text.strip_prefix('\'')?.chars();
    let first = chars.next()?;
    (first == '\\' || chars.next() == Some('\'')).then(|| quoted(text, '\''))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay_where_they_are() {
        let blanked = blank("a /* b /* c */\nd */ e // f\n\"g\\\"h\" + 'i' + '\\'' j");
        assert_eq!(blanked.lines().count(), 3);
        assert_eq!(words(&blanked).collect::<Vec<_>>(), ["a", "e", "j"]);
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes_and_lifetimes_are_code() {
        let blanked = blank("r#\"kube \" \"# x br\"y\" &'a str fr z'");
        assert_eq!(words(&blanked).collect::<Vec<_>>(), ["x", "a", "str", "fr", "z"]);
    }
}
