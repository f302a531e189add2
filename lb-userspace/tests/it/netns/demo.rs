//! The demo's ends that the demo itself does not show. Its agents are not needed for that: a
//! script stands for `lb`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::lab_world::traces;

/// An agent that does nothing, and says that it is well.
const IDLE: &str = r#"#!/bin/sh
case $1 in agent) exec sleep 1000 ;; esac
echo '{"lines": [{"key": "Last sync", "level": "ok"}]}'
"#;

/// An agent that ends at once.
const BROKEN: &str = "#!/bin/sh\necho no such luck >&2\ncase $1 in agent) exit 1;; esac\nexit 3\n";

struct Demo {
    name: String,
    folder: tempfile::TempDir,
}

impl Demo {
    fn new(label: &str) -> Self {
        let name = format!("lb-demo-{label}-{}", std::process::id());
        Self { name, folder: tempfile::tempdir().unwrap() }
    }

    fn command(&self, lb: &str) -> Command {
        let path: PathBuf = self.folder.path().join("lb");
        fs::write(&path, lb).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lb-demo"));
        command.args(["--name", &self.name, "--fast", "--lb"]).arg(path);
        command
    }

    /// Starts it and waits until both nodes are there.
    fn start(&self) -> Child {
        let mut child = self.command(IDLE).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.as_mut().unwrap());
        let nodes = stdout.lines().map(Result::unwrap).find(|line| line.contains("manifests:"));
        assert!(nodes.is_some(), "the demo did not begin");
        assert!(!traces(&self.name).is_empty());
        child
    }
}

#[test]
fn ctrl_c_ends_the_demo_and_takes_everything_with_it() {
    let demo = Demo::new("interrupted");
    let mut child = demo.start();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(traces(&demo.name), Vec::<String>::new());
}

#[test]
fn what_a_killed_demo_left_goes_with_the_next_clean() {
    let demo = Demo::new("killed");
    let mut child = demo.start();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!traces(&demo.name).is_empty(), "kill -9 leaves no time to clean up");

    let mut clean = Command::new(env!("CARGO_BIN_EXE_lb-demo"));
    let cleaned = clean.args(["--clean", "--name", &demo.name]).status().unwrap();
    assert!(cleaned.success());
    assert_eq!(traces(&demo.name), Vec::<String>::new());
}

#[test]
fn a_second_demo_is_refused_while_one_runs() {
    let demo = Demo::new("twice");
    let mut first = demo.start();
    let second = demo.command(IDLE).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(first.try_wait().unwrap(), None, "the first must not notice");

    kill(Pid::from_raw(first.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(143));
    assert_eq!(traces(&demo.name), Vec::<String>::new());
}

#[test]
fn an_agent_that_does_not_start_is_quoted_and_nothing_stays() {
    let demo = Demo::new("broken");
    let output = demo.command(BROKEN).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("no such luck") && said.contains("lb agent on n1"), "{said}");
    assert_eq!(traces(&demo.name), Vec::<String>::new());
}
