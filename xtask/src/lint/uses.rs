//! Spells out the groups of `use`, so that a name in one is seen by its whole path.

/// The lines of `code`, each with its index; of a `use` with groups there is instead one for each name
/// in it (`use a::b::c`), with the index of the line that the name is on.
pub(super) fn spelled_out(code: &str) -> Vec<(usize, String)> {
    let mut rest = code.to_owned();
    let mut names = Vec::new();
    // From the last: what is blanked moves nothing before it.
    for (at, _) in code.rmatch_indices("use ") {
        let in_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let Some(length) = code[at..].find(';') else { continue };
        let statement = at..at + length;
        if !in_word && code[statement.clone()].contains('{') {
            names.extend(names_in(code, at + "use ".len(), statement.end));
            rest.replace_range(statement.clone(), &code[statement].replace(|c| c != '\n', " "));
        }
    }
    names.extend(rest.lines().map(str::to_owned).enumerate());
    names.sort_by_key(|(line, _)| *line);
    names
}

/// The names of the tree between these places.
fn names_in(code: &str, start: usize, end: usize) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let mut path = vec![""];
    let mut begun = start;
    for (at, c) in code[start..end].char_indices() {
        let at = start + at;
        let name = code[begun..at].trim();
        match c {
            '{' => path.push(name),
            ',' | '}' => {
                if !name.is_empty() {
                    let line = code[..at].matches('\n').count();
                    names.push((line, format!("use {}{name}", path.concat())));
                }
                if c == '}' {
                    path.pop();
                }
            }
            _ => continue,
        }
        begun = at + c.len_utf8();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_whole_path_and_its_own_line() {
        let code = "use a::b;\npub use c::{\n    d::{self, e as f},\n    g,\n};\nlet reuse = x;\n";
        let lines = spelled_out(code);
        let lines: Vec<_> = lines.iter().filter(|(_, line)| line.contains("use")).collect();
        let wanted = [
            (0, "use a::b;"),
            (2, "use c::d::self"),
            (2, "use c::d::e as f"),
            (3, "use c::g"),
            (5, "let reuse = x;"),
        ];
        assert_eq!(
            lines,
            wanted.map(|(at, line)| (at, line.to_owned())).iter().collect::<Vec<_>>()
        );
    }
}
