//! Finds `match`es over Reason that would swallow a new one (invariant 4).

/// Lines, from 1, of a `_` arm beside arms that name a `Reason::…`; `code` has no comments.
pub(super) fn wildcards(code: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("match ") {
        let starts_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let Some(body) = starts_word.then(|| body_after(code, at)).flatten() else { continue };
        let patterns = patterns(code, body);
        if !patterns.iter().any(|(_, pattern)| pattern.contains("Reason::")) {
            continue;
        }
        let swallows = |pattern: &str| pattern == "_" || pattern.starts_with("_ if ");
        let wild = patterns.iter().filter(|(_, pattern)| swallows(pattern));
        found.extend(wild.map(|(at, _)| code[..*at].matches('\n').count() + 1));
    }
    found
}

/// The inside of the braces that follow the matched expression.
fn body_after(code: &str, from: usize) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    let mut open = None;
    for (at, c) in code[from..].char_indices() {
        match c {
            '{' if depth == 0 && open.is_none() => open = Some(from + at + 1),
            '(' | '[' | '{' => depth += 1,
            '}' if depth == 0 => return open.map(|open| (open, from + at)),
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            ';' if depth == 0 && open.is_none() => return None,
            _ => {}
        }
    }
    None
}

/// What stands before each `=>` of the match itself, with the position of the arrow.
fn patterns(code: &str, (start, end): (usize, usize)) -> Vec<(usize, String)> {
    let body = &code[start..end];
    let mut patterns = Vec::new();
    let (mut depth, mut begun, mut in_pattern) = (0_usize, 0, true);
    for (at, c) in body.char_indices() {
        match c {
            '=' if depth == 0 && in_pattern && body[at..].starts_with("=>") => {
                let pattern = body[begun..at].split_whitespace().collect::<Vec<_>>().join(" ");
                patterns.push((start + at, pattern));
                in_pattern = false;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                // An arm that is a block needs no comma.
                if c == '}' && depth == 0 && !in_pattern && !continues(&body[at + 1..]) {
                    (in_pattern, begun) = (true, at + 1);
                }
            }
            ',' if depth == 0 && !in_pattern => (in_pattern, begun) = (true, at + 1),
            _ => {}
        }
    }
    for (_, pattern) in &mut patterns {
        *pattern = pattern.trim_start_matches([',', ' ']).to_owned();
    }
    patterns
}

/// Whether an expression goes on after its closing brace (`}.into()`, `} else {`).
fn continues(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.starts_with(['.', '?']) || rest.starts_with("else") || rest.starts_with("as ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_beside_reasons_is_found_on_its_line() {
        let code =
            "fn f() {\n match r {\n  Reason::A => { g() }\n  Reason::B => h(),\n  _ => i(),\n }\n}";
        assert_eq!(wildcards(code), [5]);
        assert_eq!(wildcards("match r { Reason::A if x => 1, _ if y => 2, Reason::B => 3 }"), [1]);
    }

    #[test]
    fn wildcards_over_other_things_are_fine() {
        assert!(wildcards("match n { 0 => Reason::A, _ => Reason::B }").is_empty());
        assert!(
            wildcards("match r { Reason::A => match n { 1 => x, _ => y }, Reason::B => z }")
                .is_empty()
        );
        assert!(wildcards("rematch r { Reason::A => 1, _ => 2 }").is_empty());
    }

    #[test]
    fn an_inner_match_is_judged_by_itself() {
        let code = "match n { 1 => match r { Reason::A => 1,\n _ => 2 }, _ => 3 }";
        assert_eq!(wildcards(code), [2]);
    }
}
