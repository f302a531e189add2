//! `lb explain -f`, from the command line to the kernel and back.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::cli::{Outcome, lb};

const DUMP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cli/dump.yaml");
const NODE: [&str; 8] = [
    "-f",
    DUMP,
    "--node-name",
    "n1",
    "--local-address",
    "192.168.0.1",
    "--pod-cidr",
    "10.1.0.0/16",
];

fn explain(arguments: &[&str]) -> Outcome {
    lb(&[&["explain"], arguments, &NODE].concat())
}

#[test]
fn one_packet_is_explained_from_manifests_alone() {
    let found = explain(&["tcp", "203.0.113.9:40000", "10.96.0.20:5432", "-o", "json"]);
    assert_eq!(found.code, 0, "{found:?}");
    let wanted = json!({
        "apiVersion": "lb/v1", "kind": "Explanation",
        "verdict": "forward", "reason": "to-remote", "frontend": "default/db:sql",
        "backend": "198.51.100.9:5432", "source": "192.168.0.1",
        "candidates": ["198.51.100.9:5432"], "masquerade": true, "via": "tc",
    });
    let mut told = found.json();
    let steps = told.as_object_mut().and_then(|told| told.remove("steps")).expect("its steps");
    let names: Vec<&str> =
        steps.as_array().unwrap().iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names[..4], ["source", "frontend", "policy", "choice"], "{steps}");
    assert_eq!(told, wanted);
    let table = explain(&["tcp", "10.1.9.9", "10.96.0.20:81"]);
    assert_eq!(table.code, 0, "{table:?}");
    assert!(table.stdout.starts_with("verdict     reject (unknown-port)\n"), "{table:?}");
}

#[test]
fn a_file_of_packets_is_answered_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("packets");
    // From outside, from a pod and from the node itself: the packets' rule and the sockets'.
    let packet = |number: u32| {
        let port = if number.is_multiple_of(10) { 81 } else { 80 };
        let src = match number % 3 {
            0 => format!("203.0.113.{}", number % 200 + 1),
            1 => format!("10.1.9.{}", number % 200 + 1),
            _ => "192.168.0.1".to_owned(),
        };
        format!("{}\n", json!({"src": src, "proto": "tcp", "dst": "10.96.0.10", "port": port}))
    };
    fs::write(&file, (0..1000).map(packet).collect::<String>()).unwrap();
    let found = explain(&["--packets", file.to_str().unwrap(), "--rate"]);
    assert_eq!(found.code, 0, "{found:?}");
    let rate = found.stderr.lines().last().unwrap();
    println!("{rate}");
    assert!(rate.starts_with("1000 packets in ") && rate.ends_with(" a second"), "{rate}");
    let answers: Vec<Value> =
        found.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 1000);
    for (number, answer) in answers.iter().enumerate() {
        let wanted = if number % 10 == 0 { "reject" } else { "forward" };
        let via = if number % 3 == 0 { "tc" } else { "socket" };
        assert_eq!((&answer["verdict"], &answer["via"]), (&json!(wanted), &json!(via)), "{answer}");
    }
    assert_eq!(answers[1]["candidates"], json!(["10.1.1.3:8080", "10.1.2.4:8080"]));
}

#[test]
fn packets_that_cannot_be_and_manifests_that_are_not_there_are_said_in_two_lines() {
    let families = ["tcp", "2001:db8::1", "10.96.0.10:80"];
    let asks_agent = lb(&[&["explain"], &families[..]].concat());
    for found in [explain(&families), asks_agent] {
        found.fails_with(2, "packet 1: 2001:db8::1 and 10.96.0.10 are of different families");
    }
    let flags = explain(&["tcp", "203.0.113.9", "10.96.0.10:80", "--flags", "SNY"]);
    flags.fails_with(2, "`SNY` is no TCP flag");
    let missing = lb(&["explain", "tcp", "203.0.113.9", "10.96.0.10:80", "-f", "/nowhere/at.all"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("a named file or folder does not exist"), "{missing:?}");
}

#[test]
fn without_the_privilege_the_datapath_is_out_of_reach() {
    let setpriv = Path::new("/usr/bin/setpriv");
    assert!(setpriv.exists(), "util-linux");
    let all = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"];
    let output = Command::new(setpriv)
        .args(all)
        .arg(env!("CARGO_BIN_EXE_lb"))
        .args(["explain", "tcp", "203.0.113.9", "10.96.0.10:80"])
        .args(NODE)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let found = Outcome {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    found.fails_with(3, "not allowed to use BPF");
}
