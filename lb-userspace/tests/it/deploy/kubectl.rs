//! The plug-in: `kubectl lb …` becomes `lb …` in the agent's pod of the right node.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

use super::{root, said};

/// A cluster as `kubectl` tells of it.
struct Cluster(tempfile::TempDir);

/// Says which pods there are, and which words it was called with; what runs in pod `lb-bad` fails.
const KUBECTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
printf '%s\n' "$*" >> "$here/calls"
case "$*" in
*" get pods "*) cat "$here/pods" ;;
*lb-bad*) exit 5 ;;
*) echo "ran $*" ;;
esac
"#;

impl Cluster {
    fn with(pods: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pods"), pods).unwrap();
        let kubectl = folder.path().join("kubectl");
        fs::write(&kubectl, KUBECTL).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn lb(&self, words: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        Command::new(root().join("deploy/kubectl/kubectl-lb"))
            .args(words)
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_verb_runs_in_the_pod_of_the_node_that_was_named() {
    let cluster = Cluster::with("n2 lb-x7\n");
    let output =
        cluster.lb(&["--node", "n2", "get", "flows", "--service", "shop/web", "-o", "json"]);
    assert!(output.status.success(), "{}", said(&output));
    let calls = cluster.calls();
    let [pods, exec] = &calls[..] else { panic!("{calls:?}") };
    assert!(
        pods.starts_with("--namespace=kube-system get pods --selector=app.kubernetes.io/name=lb,")
    );
    assert!(pods.contains("--field-selector=status.phase=Running,spec.nodeName=n2 "), "{pods}");
    let whole = "--namespace=kube-system exec --stdin --container=lb lb-x7 -- /usr/bin/lb \
                 get flows --service shop/web -o json";
    assert_eq!(exec, whole);
}

#[test]
fn where_the_cluster_and_the_agents_are_can_be_told() {
    let cluster = Cluster::with("n1 lb-a\n");
    cluster.lb(&["--context=east", "--kubeconfig", "/k c", "-n", "net", "-l", "a=b", "status"]);
    for call in cluster.calls() {
        assert!(call.starts_with("--context=east --kubeconfig=/k c --namespace=net "), "{call}");
    }
    assert!(cluster.calls()[0].contains("--selector=a=b "));
}

#[test]
fn on_all_nodes_each_answers_under_its_name_and_the_worst_code_counts() {
    let cluster = Cluster::with("n1 lb-a\nn2 lb-bad\nn3 lb-c\n");
    let output = cluster.lb(&["--all-nodes", "status", "--brief"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    let heads: Vec<_> = said.lines().filter(|line| line.starts_with("== ")).collect();
    assert_eq!(heads, ["== n1", "== n2", "== n3"]);
    assert_eq!(said.lines().filter(|line| line.starts_with("ran ")).count(), 2);
}

#[test]
fn a_node_without_an_agent_and_wrong_words_are_told_with_what_to_do() {
    let cluster = Cluster::with("");
    for (words, code, what) in [
        (&["--node", "n9", "status"][..], 3, "no agent runs on node n9 in namespace kube-system"),
        (&["--node"], 2, "--node needs a value"),
        (&["--frob", "status"], 2, "unknown option --frob"),
        (&["--node", "n1", "--all-nodes", "status"], 2, "--node and --all-nodes together"),
        (&[], 2, "no verb for lb"),
    ] {
        let output = cluster.lb(words);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!((output.status.code(), lines.len()), (Some(code), 2), "{stderr}");
        assert_eq!(lines[0], format!("error: {what}"));
        assert!(lines[1].starts_with("  fix: "), "{stderr}");
    }
    let help = cluster.lb(&["--help"]);
    assert!(help.status.success() && said(&help).contains("kubectl lb --node worker-1 status"));
}
