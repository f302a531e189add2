//! The first five invariants of ARCHITECTURE.md, as far as the text of the sources shows them, and
//! that the public items of a module are documented (fields, variants and getters may speak for
//! themselves).

use super::{
    matches,
    source::{Source, words},
    uses,
};

/// A crate (or a family of them, by prefix) and the only folders that may name it.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["kube", "k8s_openapi"], &["lb-userspace/src/cluster/"]),
    (
        &["aya", "aya_obj", "aya_log"],
        &["lb-userspace/src/datapath/", "lb-userspace/src/bench/", "lb-common/src/abi"],
    ),
    (&["rtnetlink", "netlink_packet_", "netlink_sys", "netlink_proto"], &["lb-userspace/src/net/"]),
];

/// Where nothing but values come in and go out.
const PURE: &[&str] =
    &["lb-userspace/src/model.rs", "lb-userspace/src/model/", "lb-userspace/src/plan/"];

/// Files, clocks, sockets, threads, randomness (the order of a HashMap is random), and the parts of
/// this crate that have them.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "RandomState",
    "HashMap",
    "HashSet",
    "rand::",
    "fastrand::",
    "tokio::",
    "nix::",
    "libc::",
    "jiff::",
    "notify::",
    "tracing::",
    "crate::cli",
    "crate::cluster",
    "crate::datapath",
    "crate::net",
    "crate::run",
];

/// Parts of those that are nothing but values, too.
const NONE_THE_LESS_PURE: &[&str] = &["crate::cluster::index"];

/// Files that may hold `unsafe`: each block proves itself there (clippy sees to that).
const UNSAFE: &[&str] = &[
    "lb-common/src/abi",
    "lb-common/src/packet.rs",
    "lb-common/src/wire/header.rs",
    "lb-ebpf/src/maps.rs",
    "lb-ebpf/src/packet.rs",
    "lb-userspace/src/datapath/batch.rs",
];

/// Other files with `unsafe`, and why it cannot be had without.
const UNSAFE_WITH_REASON: &[(&str, &str)] = &[
    ("lb-ebpf/src/bench/maps.rs", "maps and packets of the harness that `lb bench` measures with"),
    ("lb-ebpf/src/bench/main.rs", "the licence section's name is set by an unsafe attribute"),
    ("lb-ebpf/src/main.rs", "the licence section's name is set by an unsafe attribute"),
    ("lb-ebpf/src/steps.rs", "global functions get their arguments as pointers that may be null"),
    ("lb-ebpf/src/helpers.rs", "every helper of the kernel, as a safe function"),
    ("lb-ebpf/src/call.rs", "fields of the context of socket hooks"),
    ("lb-userspace/src/datapath/mmap.rs", "array maps mapped into the agent"),
    ("lb-userspace/src/datapath/sys.rs", "calls of bpf(2) that aya lacks"),
    ("lb-userspace/src/memory.rs", "glibc's malloc_trim, which no crate wraps"),
    ("lb-userspace/src/api/peer.rs", "SO_PEERGROUPS, whose answer has no fixed size"),
    ("lb-userspace/src/lab/host.rs", "a child process enters its namespace before exec"),
    ("lb-userspace/src/lab/tun.rs", "TUNSETIFF, which no library of ours has"),
];

/// Where `pub` promises something to another crate.
const LIBRARIES: &[&str] = &["lb-common/src/", "lb-userspace/src/"];

const LONGEST: usize = 400;

/// Every breach, as `path:line: what`.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    sources.iter().filter(|source| !source.is_test()).flat_map(check_one).collect()
}

fn check_one(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    let mut say = |line: usize, what: String| {
        broken.push(format!("{}:{line}: {what}", source.path));
    };
    for (index, line) in uses::spelled_out(&source.code) {
        for name in strayed(&source.path, &line) {
            say(index + 1, format!("`{name}` has no business here (invariant 1)"));
        }
        for name in impurities(&source.path, &line) {
            say(index + 1, format!("`{name}` in a pure module (invariant 2)"));
        }
    }
    for (index, line) in source.code.lines().enumerate() {
        if words(line).any(|word| word == "unsafe") && !may_be_unsafe(&source.path) {
            say(index + 1, "`unsafe` outside its few files (invariant 3)".to_owned());
        }
    }
    for line in matches::wildcards(&source.code) {
        say(line, "a wildcard arm would hide a new Reason (invariant 4)".to_owned());
    }
    let length = source.text.lines().count();
    if length > LONGEST {
        say(length, format!("{length} lines, more than {LONGEST} (invariant 5)"));
    }
    for line in undocumented(source) {
        say(line, "a public item without a doc comment".to_owned());
    }
    broken
}

/// Crates named on this line though their home is elsewhere.
fn strayed<'a>(path: &str, code: &'a str) -> Vec<&'a str> {
    if !path.starts_with("lb-userspace/src/") && !path.starts_with("lb-common/") {
        return Vec::new();
    }
    let away = HOMES.iter().filter(|(_, homes)| !homes.iter().any(|home| path.starts_with(home)));
    let crates: Vec<_> = away.flat_map(|(crates, _)| crates.iter()).collect();
    crate_names(code)
        .filter(|word| crates.iter().any(|name| word == *name || is_of_family(word, name)))
        .collect()
}

fn is_of_family(word: &str, prefix: &str) -> bool {
    prefix.ends_with('_') && word.starts_with(prefix)
}

/// Identifiers at the head of a path: `kube::…`, `use kube;`, `crate::kube::…` not.
fn crate_names(code: &str) -> impl Iterator<Item = &str> {
    words(code).filter(|word| {
        let start = word.as_ptr().addr() - code.as_ptr().addr();
        let (before, after) = (&code[..start], &code[start + word.len()..]);
        let heads_path = after.starts_with("::") || before.trim_end().ends_with("use");
        heads_path && !before.ends_with("::") && !before.ends_with("r#")
    })
}

fn impurities(path: &str, code: &str) -> Vec<&'static str> {
    if !PURE.iter().any(|pure| path.starts_with(pure)) {
        return Vec::new();
    }
    let pure = |name: &str| {
        NONE_THE_LESS_PURE.iter().any(|part| part.starts_with(name) && holds(code, part))
    };
    IMPURE.iter().copied().filter(|name| holds(code, name) && !pure(name)).collect()
}

/// Whether `name` stands in `code` as words of its own.
fn holds(code: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let after = &code[at + name.len()..];
        !code[..at].ends_with(word) && (name.ends_with(':') || !after.starts_with(word))
    })
}

fn may_be_unsafe(path: &str) -> bool {
    UNSAFE.iter().any(|file| path.starts_with(file))
        || UNSAFE_WITH_REASON.iter().any(|(file, _)| path == *file)
}

/// Lines, from 1, with a `pub` item at the margin that no doc comment or attribute of a macro precedes.
fn undocumented(source: &Source) -> Vec<usize> {
    const ITEMS: &[&str] =
        &["const", "enum", "fn", "static", "struct", "trait", "type", "union", "unsafe", "async"];
    if !LIBRARIES.iter().any(|library| source.path.starts_with(library)) {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let public = source.code.lines().enumerate().filter(|(_, code)| {
        let item = code.strip_prefix("pub ");
        item.and_then(|item| words(item).next()).is_some_and(|word| ITEMS.contains(&word))
    });
    public
        .map(|(index, _)| index)
        .filter(|index| !has_docs(&lines[..*index]))
        .map(|i| i + 1)
        .collect()
}

fn has_docs(before: &[&str]) -> bool {
    let above = before.iter().rev().map(|line| line.trim());
    let mut above = above.skip_while(|line| line.starts_with("#[") || line.ends_with(")]"));
    above.next().is_some_and(|line| line.starts_with("///") || line.starts_with("$(#["))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        check(&[Source::new(path, text)])
    }

    #[test]
    fn kubernetes_bpf_and_netlink_stay_in_their_folders() {
        let text = "use kube::Api;\nuse aya::Ebpf;\nlet x = netlink_packet_route::X;\n";
        assert_eq!(
            breaches("lb-userspace/src/run.rs", text),
            [
                "lb-userspace/src/run.rs:1: `kube` has no business here (invariant 1)",
                "lb-userspace/src/run.rs:2: `aya` has no business here (invariant 1)",
                "lb-userspace/src/run.rs:3: `netlink_packet_route` has no business here (invariant 1)",
            ]
        );
        assert!(breaches("lb-userspace/src/cluster/watch.rs", "use kube::Api;\n").is_empty());
        assert!(breaches("lb-userspace/src/datapath/pins.rs", "use aya::Ebpf;\n").is_empty());
        assert!(breaches("lb-userspace/tests/it/kube/main.rs", text).is_empty());
    }

    #[test]
    fn a_module_or_a_comment_of_the_same_name_is_no_crate() {
        let text = "// kube::Api\nlet kube = crate::kube::start(\"aya::Ebpf\");\n";
        assert!(breaches("lb-userspace/src/run.rs", text).is_empty());
    }

    #[test]
    fn model_and_plan_read_no_clock_no_file_and_draw_no_randomness() {
        let text = "let now = std::time::Instant::now();\nlet map = HashMap::new();\n";
        let found = breaches("lb-userspace/src/plan/tables.rs", text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[2].ends_with("2: `HashMap` in a pure module (invariant 2)"), "{found:?}");
        assert!(breaches("lb-userspace/src/plan/tables.rs", "use std::net::IpAddr;").is_empty());
        assert!(breaches("lb-userspace/src/run.rs", text).is_empty());
    }

    #[test]
    fn a_name_in_a_group_of_a_use_is_seen_as_one_alone() {
        let text = "use std::{\n    collections::{BTreeMap, HashMap},\n    time::{Duration, Instant},\n};\n\
                    use crate::{cluster::{index::Index, watch}, model, net::{self, Changes}};\n";
        assert_eq!(
            breaches("lb-userspace/src/plan/mod.rs", text),
            [
                "lb-userspace/src/plan/mod.rs:2: `HashMap` in a pure module (invariant 2)",
                "lb-userspace/src/plan/mod.rs:3: `std::time::Instant` in a pure module (invariant 2)",
                "lb-userspace/src/plan/mod.rs:5: `crate::cluster` in a pure module (invariant 2)",
                "lb-userspace/src/plan/mod.rs:5: `crate::net` in a pure module (invariant 2)",
                "lb-userspace/src/plan/mod.rs:5: `crate::net` in a pure module (invariant 2)",
            ]
        );
        let text = "use {kube::Api, std::fs};\nuse {\n    aya::Ebpf,\n};\n";
        assert_eq!(
            breaches("lb-userspace/src/run.rs", text),
            [
                "lb-userspace/src/run.rs:1: `kube` has no business here (invariant 1)",
                "lb-userspace/src/run.rs:3: `aya` has no business here (invariant 1)",
            ]
        );
        let text = "use crate::{kube, aya::Ebpf, model::{self, Node as aya}};\n";
        assert!(breaches("lb-userspace/src/run.rs", text).is_empty());
    }

    #[test]
    fn unsafe_lives_in_its_few_files() {
        let text = "let x = unsafe { y() };\n";
        assert_eq!(breaches("lb-common/src/parse.rs", text).len(), 1);
        assert!(breaches("lb-common/src/packet.rs", text).is_empty());
        assert!(breaches("lb-common/src/parse.rs", "// unsafe\nlet unsafety = 1;\n").is_empty());
    }

    #[test]
    fn a_match_over_reasons_has_no_wildcard() {
        let text = "match r {\n Reason::A => 1,\n _ => 2,\n}\n";
        let found = breaches("lb-userspace/src/explain.rs", text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(":3: ") && found[0].contains("invariant 4"), "{found:?}");
    }

    #[test]
    fn only_tests_may_be_longer_than_four_hundred_lines() {
        let text = "\n".repeat(401);
        assert_eq!(breaches("lb-common/src/parse.rs", &text).len(), 1);
        assert!(breaches("lb-common/src/parse.rs", &"\n".repeat(400)).is_empty());
        assert!(breaches("lb-userspace/tests/it/packet/main.rs", &text).is_empty());
    }

    #[test]
    fn public_items_are_documented_and_what_is_inside_them_need_not_be() {
        let text =
            "/// Said.\n#[derive(Debug)]\npub struct A {\n    pub b: u8,\n}\n\npub fn c() {}\n";
        let found = breaches("lb-common/src/flow.rs", text);
        assert_eq!(found, ["lb-common/src/flow.rs:7: a public item without a doc comment"]);
    }
}
