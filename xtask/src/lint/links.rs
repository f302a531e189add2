//! Links of the documents to each other, and of messages and alerts into them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::process;

/// Every link that leads nowhere, as `path:line: what`.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listing = process::output(git.current_dir(root))?;
    // What is no text has no links.
    let read = |path: &str| Some((path.to_owned(), fs::read_to_string(root.join(path)).ok()?));
    // This file's own tests have links that lead nowhere.
    let listed = listing.lines().filter(|path| !path.starts_with("xtask/"));
    let files: BTreeMap<String, String> = listed.filter_map(read).collect();
    Ok(broken(&files, &|path| root.join(path).exists()))
}

/// The same of files that were read; `exists` knows of all others.
fn broken(files: &BTreeMap<String, String>, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let documents = files.iter().filter(|(path, _)| is_document(path));
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        documents.map(|(path, text)| (path.as_str(), anchors(text))).collect();
    let leads = |path: &Path, anchor: &str| {
        let anchors = path.to_str().and_then(|path| anchors.get(path));
        anchors.map_or_else(|| exists(path), |known| anchor.is_empty() || known.contains(anchor))
    };
    let mut broken = Vec::new();
    for (path, text) in files {
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        for (line, target) in links(path, text) {
            let (to, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = match (to, is_document(path)) {
                ("", _) => PathBuf::from(path),
                (to, true) => joined(folder, to),
                (to, false) => PathBuf::from(to),
            };
            if !leads(&to, anchor) {
                broken.push(format!("{path}:{line}: {target} leads nowhere"));
            }
        }
    }
    broken
}

/// What people read on the way; texts that documents are made from have their links only there.
fn is_document(path: &str) -> bool {
    path.ends_with(".md") && (path.starts_with("docs/") || !path.contains('/'))
}

/// Every link with its line: of documents what is written as one, of other files what begins with
/// `docs/` and has an anchor.
fn links<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    let numbered = (1..).zip(text.lines());
    if is_document(path) {
        let mut fenced = false;
        let prose = numbered.filter(|(_, line)| {
            fenced ^= line.starts_with("```");
            !fenced
        });
        let targets = |(number, line): (usize, &'a str)| {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            targets.filter(|target| !target.contains("://")).map(move |target| (number, target))
        };
        return prose.flat_map(targets).collect();
    }
    let mentioned = |(number, line): (usize, &'a str)| {
        line.match_indices("docs/").filter_map(move |(at, _)| {
            let rest = &line[at..];
            let is_part = |c: char| c.is_ascii_alphanumeric() || "/.-_#".contains(c);
            let target = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
            // One that is put together elsewhere ends here.
            let (_, anchor) = target.split_once(".md#")?;
            (!anchor.is_empty()).then_some((number, target))
        })
    };
    numbered.flat_map(mentioned).collect()
}

/// Where a relative link of a file in `folder` leads.
fn joined(folder: &Path, to: &str) -> PathBuf {
    let mut path = folder.to_owned();
    for part in Path::new(to).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    path
}

/// The anchors of a document: its headings, and those that it names.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let prose = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced
    });
    let mut found = BTreeSet::new();
    for line in prose {
        if let Some(heading) = line.strip_prefix('#') {
            found.insert(slug(heading.trim_start_matches('#').trim()));
        }
        let named = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(named.map(str::to_owned));
    }
    found
}

/// The anchor that readers of Markdown give a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_in(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        broken(&files.collect(), &|path| path == Path::new("docs/images/top.png"))
    }

    #[test]
    fn links_that_lead_somewhere_are_left_alone() {
        let guide = "# Day two: `lb`, and more\n<a id=\"no-route\"></a>\n```\n# no heading\n```\n\
                     [up](../README.md) [here](#day-two-lb-and-more) ![it](images/top.png)";
        let readme = "[a](docs/guide.md) [b](docs/guide.md#no-route) [c](https://example.org/x)\n\
                      ```\n[no link](nowhere.md)\n```";
        let code = "\"see docs/guide.md#no-route\" \"docs/guide.md#{reason}\" \"docs/other.md\"";
        let files = [("docs/guide.md", guide), ("README.md", readme), ("src/a.rs", code)];
        assert_eq!(broken_in(&files), [""; 0]);
    }

    #[test]
    fn files_and_anchors_that_are_not_there_are_named_with_their_line() {
        let guide = "# Guide\n[a](missing.md) [b](#no-such)";
        let files = [
            ("docs/guide.md", guide),
            ("README.md", "[a](docs/guide.md#no-heading)"),
            ("deploy/alerts.yaml", "url: https://example.org/docs/guide.md#gone"),
        ];
        let wanted = [
            "README.md:1: docs/guide.md#no-heading leads nowhere",
            "deploy/alerts.yaml:1: docs/guide.md#gone leads nowhere",
            "docs/guide.md:2: missing.md leads nowhere",
            "docs/guide.md:2: #no-such leads nowhere",
        ];
        assert_eq!(broken_in(&files), wanted);
    }
}
