//! Everything that a command prints, in every format: whoever scripts against it can rely on it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use lb_userspace::api::Level;
use serde_json::json;

use super::{Outcome, lb, socket::Running};

const FORMATS: [&str; 5] = ["table", "wide", "json", "yaml", "name"];
const LISTS: [&str; 6] = ["services", "backends", "drops", "flows", "maps", "interfaces"];

/// What the words print in each format, one after the other.
fn every_format(agent: &Running, words: &[&str]) -> String {
    let shown = |format: &&str| {
        let Outcome { code, stdout, stderr } = agent.lb(&[words, &["-o", format]].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{words:?} -o {format}: {stdout}");
        assert!(!stdout.contains('\x1b'), "no colour in a pipe: {stdout}");
        format!("── -o {format}\n{stdout}")
    };
    FORMATS.iter().map(shown).collect()
}

#[test]
fn every_list_prints_the_same_in_each_format_as_it_always_did() {
    let agent = Running::new(Level::Ok);
    for list in LISTS {
        insta::assert_snapshot!(format!("get_{list}"), every_format(&agent, &["get", list]));
    }
}

#[test]
fn so_do_status_descriptions_explanations_and_drains() {
    let agent = Running::new(Level::Warn);
    for (name, words) in [
        ("status", &["status"][..]),
        ("describe", &["describe", "service", "default/web"]),
        ("explain", &["explain", "tcp", "203.0.113.9:40000", "10.96.0.10:80"]),
        ("drain", &["drain", "10.1.1.3:8080", "--force"]),
        ("ready", &["ready", "default/web-1"]),
    ] {
        insta::assert_snapshot!(name, every_format(&agent, words));
    }
    insta::assert_snapshot!("status_brief", agent.lb(&["status", "--brief"]).stdout);
}

#[test]
fn documents_say_what_they_are_and_yaml_is_the_same_document() {
    let agent = Running::new(Level::Ok);
    for (words, kind) in [
        (&["get", "services"][..], "ServiceList"),
        (&["get", "backends"], "BackendList"),
        (&["get", "drops"], "DropList"),
        (&["get", "flows"], "FlowList"),
        (&["get", "maps"], "MapList"),
        (&["get", "interfaces"], "InterfaceList"),
        (&["status"], "Status"),
        (&["describe", "service", "default/web"], "ServiceDescription"),
        (&["explain", "tcp", "203.0.113.9:40000", "10.96.0.10:80"], "Explanation"),
        (&["drain", "default/web-1"], "DrainList"),
        (&["version"], "Version"),
    ] {
        let with = |format| match words {
            ["version"] => lb(&["version", "-o", format]),
            words => agent.lb(&[words, &["-o", format]].concat()),
        };
        let document = with("json").json();
        assert_eq!((&document["apiVersion"], &document["kind"]), (&json!("lb/v1"), &json!(kind)));
        let yaml: serde_json::Value = serde_saphyr::from_str(&with("yaml").stdout).unwrap();
        assert_eq!(yaml, document, "{words:?}");
    }
}

#[test]
fn every_list_can_be_sorted_by_every_column_in_any_case() {
    let agent = Running::new(Level::Ok);
    for list in LISTS {
        let wide = agent.lb(&["get", list, "-o", "wide"]).stdout;
        let titles: Vec<&str> = wide.lines().next().unwrap().split_whitespace().collect();
        for title in titles {
            for title in [title.to_owned(), title.to_lowercase()] {
                let found = agent.lb(&["get", list, "--sort-by", &title]);
                assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{list} by {title}");
            }
        }
        let wrong = agent.lb(&["get", list, "--sort-by", "beauty"]);
        wrong.fails_with(2, "there is no column beauty");
    }
    // Numbers from the largest, text from A.
    let order = |words: &[&str]| agent.lb(&[words, &["-o", "name"]].concat()).stdout;
    let drops = order(&["get", "drops", "--sort-by", "count"]);
    assert_eq!(drops, "drop/source-range\ndrop/no-route\n");
    let drops = order(&["get", "drops", "--sort-by", "reason"]);
    assert_eq!(drops, "drop/no-route\ndrop/source-range\n");
}

#[test]
fn lists_are_picked_from_by_service_namespace_and_every_filter_of_flows() {
    let agent = Running::new(Level::Ok);
    for list in ["services", "backends"] {
        for words in
            [&["default/web"][..], &["web"], &["-n", "default"], &["--namespace", "default"]]
        {
            let found = agent.lb(&[&["get", list], words, &["-o", "name"]].concat());
            assert!(found.code == 0 && !found.stdout.is_empty(), "{list} {words:?}: {found:?}");
        }
        let elsewhere = agent.lb(&["get", list, "-n", "elsewhere"]);
        assert_eq!((elsewhere.code, elsewhere.stdout), (0, format!("no {list}\n")));
        agent.lb(&["get", list, "other/web"]).fails_with(4, "there is no Service other/web");
    }
    // The agent made up for this answers with what it was asked for.
    let filters = ["--service", "shop/cart", "--src", "203.0.113.7", "--dst", "10.96.0.7"];
    let more = ["--state", "closing", "--limit", "1"];
    let rows = agent.lb(&[&["get", "flows", "-o", "json"], &filters[..], &more].concat()).json();
    let rows = rows["items"].as_array().unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&row["service"], &row["state"]), (&json!("shop/cart"), &json!("closing")));
    assert_eq!(row["source"], "203.0.113.7:1");
    assert_eq!(row["destination"], "10.96.0.7:80");
    for (flag, word) in [("--src", "nobody"), ("--dst", "10.0.0.1:80"), ("--limit", "few")] {
        assert_eq!(agent.lb(&["get", "flows", flag, word]).code, 2, "{flag} {word}");
    }
}

#[test]
fn every_list_can_be_watched_until_nobody_reads() {
    let agent = Running::new(Level::Ok);
    let socket = agent.socket();
    let start = |list: &str| {
        Command::new(env!("CARGO_BIN_EXE_lb"))
            .args(["get", list, "-o", "name", "-w", "--interval", "1"])
            .args(["--socket", socket.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<(&str, Child)> = LISTS.iter().map(|list| (*list, start(list))).collect();
    for (list, mut child) in children {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(lines.by_ref().any(|line| line.unwrap() == first), "{list} is shown once only");
        drop(lines);
        assert!(child.wait().unwrap().success(), "{list}");
    }
}
