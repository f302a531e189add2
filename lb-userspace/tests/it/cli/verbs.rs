//! The verbs that need neither manifests nor an agent, and how the others fail without one.

use clap::CommandFactory as _;
use lb_userspace::cli::Cli;

use super::lb;

#[test]
fn the_version_is_a_line_or_a_document() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(lb(&["version"]).stdout, format!("lb {version}\n"));
    let want = serde_json::json!({"apiVersion": "lb/v1", "kind": "Version", "version": version});
    assert_eq!(lb(&["version", "-o", "json"]).json(), want);
}

/// Every verb that people see by its whole name, with the long names of its flags.
pub(super) fn verbs() -> Vec<(String, Vec<String>)> {
    fn collect(prefix: &str, command: &clap::Command, found: &mut Vec<(String, Vec<String>)>) {
        let seen = |it: &&clap::Command| !it.is_hide_set() && it.get_name() != "help";
        for verb in command.get_subcommands().filter(seen) {
            let name = format!("{prefix}{}", verb.get_name());
            let flags = verb.get_arguments().filter(|flag| !flag.is_hide_set());
            let flags = flags.filter_map(|flag| flag.get_long()).map(str::to_owned).collect();
            collect(&format!("{name} "), verb, found);
            found.push((name, flags));
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    collect("", &root, &mut found);
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn completion_scripts_know_every_verb_and_every_flag() {
    for (shell, dashes) in [("bash", "--"), ("zsh", "--"), ("fish", "-l ")] {
        let script = lb(&["completion", shell]).stdout;
        for (verb, flags) in verbs() {
            let last = verb.rsplit(' ').next().unwrap_or_default();
            assert!(script.contains(last), "{verb} for {shell}");
            for flag in flags {
                assert!(script.contains(&format!("{dashes}{flag}")), "{verb} --{flag} for {shell}");
            }
        }
    }
}

#[test]
fn no_verb_and_an_unknown_verb_are_wrong_usage() {
    assert_eq!(lb(&[]).code, 2);
    assert_eq!(lb(&["frobnicate"]).code, 2);
    assert_eq!(lb(&["explain", "tcp", "10.0.0.1"]).code, 2);
    assert_eq!(lb(&["--help"]).code, 0);
}

#[test]
fn without_an_agent_the_exit_code_is_3_and_the_socket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lb.sock");
    let socket = socket.to_str().unwrap();
    let bpffs = folder.path().join("pins");
    let pins = ["--bpffs", bpffs.to_str().unwrap()];
    for arguments in [
        &["status"][..],
        &["get", "services"],
        &["get", "backends"],
        &["describe", "service", "default/web"],
        &["plan"],
        &["explain", "tcp", "203.0.113.9:40000", "10.96.0.10:80"],
    ] {
        let found = lb(&[arguments, &pins, &["--socket", socket]].concat());
        found.fails_with(3, &format!("the agent is not reachable at {socket}"));
    }
}

#[test]
fn a_bad_line_of_packets_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let packets = folder.path().join("packets.jsonl");
    let good = r#"{"src":"203.0.113.9","proto":"tcp","dst":"10.96.0.10","port":80}"#;
    std::fs::write(&packets, format!("{good}\n{{\"src\":\"nowhere\"}}\n")).unwrap();
    let found = lb(&["explain", "--packets", packets.to_str().unwrap()]);
    found.fails_with(1, "packets.jsonl:2: ");
}
