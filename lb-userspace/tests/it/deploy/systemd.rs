//! The unit for hosts without Kubernetes, judged by systemd.

use std::fs;

use super::{printed, read, said, tool};

/// The unit with the binary that there is, so that its path can be verified.
fn unit() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = read("deploy/systemd/lb.service").replace("/usr/bin/lb", env!("CARGO_BIN_EXE_lb"));
    // Another account would have to be there.
    let text = text.replace("User=lb", "User=daemon").replace("Group=lb", "Group=daemon");
    let path = folder.path().join("lb.service");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn systemd_understands_every_line() {
    let (_folder, path) = unit();
    let output = tool("systemd-analyze").args(["verify", "--man=no", &path]).output().unwrap();
    let said = said(&output);
    // What is wrong with other units of this machine is not ours.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("lb.service")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn the_unit_is_confined_as_far_as_an_agent_can_be() {
    let (_folder, path) = unit();
    // Of 100: what is left is what it needs, the network and three capabilities.
    let words = ["security", "--offline=true", "--threshold=25", "--no-pager", &path];
    let shown = printed(tool("systemd-analyze").args(words));
    assert!(shown.contains("Overall exposure level"), "{shown}");
}

#[test]
fn stopping_the_unit_leaves_the_kernel_as_it_is() {
    let text = read("deploy/systemd/lb.service");
    let has = |line: &str| text.lines().any(|it| it == line);
    assert!(has("Type=notify") && has("KillMode=process") && has("ProtectSystem=strict"), "{text}");
    assert!(!text.contains("ExecStop"), "nothing detaches");
    let ambient = text.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="));
    assert_eq!(ambient, Some("CAP_BPF CAP_NET_ADMIN CAP_PERFMON"));
}

#[test]
fn the_unit_has_descriptors_for_hundreds_of_health_ports_with_256_connections_each() {
    let text = read("deploy/systemd/lb.service");
    let limit = text.lines().find_map(|line| line.strip_prefix("LimitNOFILE="));
    let limit: u32 = limit.unwrap().parse().unwrap();
    assert!(limit >= 500 * 256, "{limit}");
}
