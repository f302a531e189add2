//! `lb agent --print-config`: flag before environment before file before default.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{lb, lb_with};

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.yaml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn says(printed: &str, line: &str) {
    assert!(printed.lines().any(|found| found.replace('"', "") == line), "{line} in\n{printed}");
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let (_folder, path) = file("nodeName: file\nnodeZone: file\nxdpMode: native\n");
    let arguments = ["agent", "--print-config", "--config", path.to_str().unwrap()];
    let found = lb_with(
        &[&arguments[..], &["--node-name", "flag"]].concat(),
        |command| {
            command.env("LB_NODE_NAME", "env").env("LB_NODE_ZONE", "env");
        },
        "",
    );
    assert_eq!(found.code, 0, "{found:?}");
    for line in ["nodeName: flag", "nodeZone: env", "xdpMode: native", "forwarding: snat"] {
        says(&found.stdout, line);
    }
}

#[test]
fn lists_are_given_by_repeating_a_flag_or_with_commas_in_the_environment() {
    let found = lb_with(
        &["agent", "--print-config", "--pod-cidr", "10.1.0.0/16", "--pod-cidr", "fd00::/48"],
        |command| {
            command.env("LB_NODE_ADDRESSES", "192.0.2.1,2001:db8::1");
            command.env("LB_TIMEOUTS", "tcp=1h,udp=30s").env("LB_MASQUERADE_ALL", "true");
        },
        "",
    );
    let config: serde_json::Value = serde_saphyr::from_str(&found.stdout).unwrap();
    assert_eq!(config["podCIDRs"], serde_json::json!(["10.1.0.0/16", "fd00::/48"]));
    assert_eq!(config["nodeAddresses"], serde_json::json!(["192.0.2.1", "2001:db8::1"]));
    assert_eq!(config["timeouts"]["tcp"], "1h");
    assert_eq!(config["timeouts"]["udp"], "30s");
    assert_eq!(config["masqueradeAll"], true);
}

#[test]
fn manifests_make_the_source_files() {
    says(&lb(&["agent", "--print-config", "-f", "/etc/lb"]).stdout, "source: files");
    says(&lb(&["agent", "--print-config"]).stdout, "source: kubernetes");
}

#[test]
fn what_is_printed_is_a_configuration_file() {
    let arguments = ["agent", "--print-config", "-f", "/etc/lb", "--timeout", "halfOpen=5s"];
    let first = lb(&[&arguments[..], &["--nodeport-address", "192.0.2.0/24"]].concat());
    let (_folder, path) = file(&first.stdout);
    let again = lb(&["agent", "--print-config", "--config", path.to_str().unwrap()]);
    assert_eq!((again.code, again.stdout), (0, first.stdout));
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_line() {
    let (_folder, path) = file("nodeName: n1\nnodePortAddress: primary\n");
    let found = lb(&["agent", "--print-config", "--config", path.to_str().unwrap()]);
    found.fails_with(1, "lb.yaml:2: nodePortAddress: unknown field `nodePortAddress`");
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused_by_key() {
    let found = lb(&["agent", "--print-config", "--snat-ports", "20000-31000"]);
    found.fails_with(1, "snatPorts: 20000-31000 overlaps with NodePorts (30000-32767)");
}

#[test]
fn a_bad_flag_is_wrong_usage() {
    for arguments in [
        ["--pod-cidr", "10.0.0.0/99"],
        ["--xdp-mode", "fast"],
        ["--takeover", "soon"],
        ["--no-such-flag", "1"],
    ] {
        let found = lb(&[&["agent", "--print-config"], &arguments[..]].concat());
        assert_eq!(found.code, 2, "{found:?}");
        assert!(found.stderr.contains(arguments[0]), "{found:?}");
    }
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    lb(&["agent", "--config", "/nonexistent/lb.yaml"]).fails_with(1, "/nonexistent/lb.yaml: ");
}

#[test]
fn kube_proxy_s_file_stands_behind_all_other_places_and_its_dead_fields_are_named() {
    let (_folder, path) = file(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
         hostnameOverride: theirs\nclusterCIDR: 10.1.0.0/16\nconfigSyncPeriod: 15m\n",
    );
    let arguments = ["agent", "--print-config", "--kube-proxy-config", path.to_str().unwrap()];
    let found = lb(&arguments);
    assert_eq!(found.code, 0, "{found:?}");
    says(&found.stdout, "nodeName: theirs");
    assert!(found.stderr.contains("configSyncPeriod: not applicable: "), "{found:?}");
    let found = lb(&[&arguments[..], &["--hostname-override", "Ours"]].concat());
    says(&found.stdout, "nodeName: ours");
}
