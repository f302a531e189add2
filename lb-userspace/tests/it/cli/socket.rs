//! Commands against an agent: the real socket and the real server, with answers made up.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use lb_userspace::api::{
    BackendRow, BindError, Explanation, Handler, Level, Request, Response, ServiceRow, StatusLine,
    StatusReport, Verdict, Via, bind, serve,
};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Outcome, lb, lb_with};

/// An agent that answers with what it was made with.
struct Agent {
    kernel: Level,
}

impl Handler for Agent {
    async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Status => Response::Status(status(self.kernel)),
            Request::Services => Response::Services(vec![service("web", 80), service(LONG, 443)]),
            Request::Backends => Response::Backends(vec![backend()]),
            Request::Plan => Response::Refused("the listing is not complete yet".into()),
            Request::Explain { packets } => Response::Explain(
                packets.iter().map(|packet| explanation(packet.sport.unwrap_or(1))).collect(),
            ),
        }
    }
}

const LONG: &str = "a-service-whose-name-is-as-long-as-kubernetes-lets-a-name-be-63";

fn status(kernel: Level) -> StatusReport {
    let line = |key: &str, level, detail: &str| StatusLine {
        key: key.into(),
        level,
        detail: detail.into(),
    };
    let lines = vec![line("Kernel", kernel, "6.18"), line("Source", Level::Ok, "files, 2 s old")];
    StatusReport { node: "n1".into(), lines }
}

fn service(name: &str, port: u16) -> ServiceRow {
    ServiceRow {
        namespace: "default".into(),
        name: name.into(),
        port_name: "http".into(),
        address: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
        port,
        protocol: "TCP".into(),
        kind: "LoadBalancer".into(),
        backends_ready: 2,
        backends_total: 3,
        connections: 1_000_000,
        packets: 5,
        bytes: 600,
        drops: 0,
    }
}

fn backend() -> BackendRow {
    BackendRow {
        namespace: "default".into(),
        service: "web".into(),
        port_name: "http".into(),
        protocol: "TCP".into(),
        address: [10, 1, 1, 3].into(),
        port: 8080,
        node: None,
        state: "active".into(),
        weight: 1,
        share: 100.0 / 3.0,
        connections: 7,
        packets: 5,
        bytes: 600,
    }
}

fn explanation(port: u16) -> Explanation {
    let backend = format!("10.1.2.3:{port}").parse().unwrap();
    Explanation {
        verdict: Verdict::Forward,
        reason: "forwarded".into(),
        frontend: Some("default/web:http".into()),
        backend: Some(backend),
        source: Some([192, 168, 0, 2].into()),
        candidates: vec![backend],
        masquerade: true,
        via: Some(Via::Tc),
    }
}

/// A listening agent, gone at the end of the test.
struct Running {
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
}

impl Running {
    fn new(kernel: Level) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let stop = CancellationToken::new();
        let socket = folder.path().join("lb.sock");
        let listener = runtime.block_on(bind(&socket)).unwrap();
        let cancel = stop.clone();
        runtime.spawn(
            async move { serve(listener, &socket, Arc::new(Agent { kernel }), cancel).await },
        );
        Self { folder, runtime, stop }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("lb.sock")
    }

    fn lb(&self, arguments: &[&str]) -> Outcome {
        lb(&[arguments, &["--socket", self.socket().to_str().unwrap()]].concat())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[test]
fn status_has_a_line_for_each_subsystem_and_no_colour_in_a_pipe() {
    let found = Running::new(Level::Ok).lb(&["status"]);
    assert_eq!(found.code, 0);
    assert_eq!(found.stdout, "Kernel: Ok    6.18\nSource: Ok    files, 2 s old\n");
}

#[test]
fn a_failing_subsystem_degrades_the_status_and_a_warning_does_not() {
    let failing = Running::new(Level::Fail);
    let found = failing.lb(&["status", "--brief"]);
    assert_eq!((found.code, found.stdout.as_str()), (5, "n1 Fail: Kernel\n"));
    assert_eq!(failing.lb(&["status", "-o", "json"]).json()["level"], "fail");
    let found = Running::new(Level::Warn).lb(&["status", "-o", "name"]);
    assert_eq!((found.code, found.stdout.as_str()), (0, "Kernel\n"));
}

#[test]
fn services_are_a_table_of_at_most_a_hundred_columns() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "services"]);
    let lines: Vec<_> = found.stdout.lines().collect();
    let head: Vec<_> = lines[0].split_whitespace().collect();
    let want = ["NAMESPACE", "NAME", "ADDRESS:PORT", "PROTO", "TYPE", "BACKENDS", "CONNS"];
    assert_eq!(head, want);
    assert_eq!(lines.len(), 3, "{}", found.stdout);
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{}", found.stdout);
    let wide = agent.lb(&["get", "services", "-o", "wide"]).stdout;
    assert!(wide.contains(LONG) && wide.lines().next().unwrap().ends_with("DROPS"), "{wide}");
}

#[test]
fn one_service_can_be_asked_for_and_one_that_is_not_there_is_not_found() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "services", "default/web", "-o", "name"]);
    assert_eq!((found.code, found.stdout.as_str()), (0, "service/default/web\n"));
    agent
        .lb(&["get", "backends", "default/none"])
        .fails_with(4, "there is no Service default/none");
    let none = agent.lb(&["get", "services", "-n", "elsewhere"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, "no services\n"));
}

#[test]
fn backends_are_shown_with_their_share() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "backends"]);
    let row: Vec<_> = found.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["default/web:http", "10.1.1.3:8080", "-", "active", "1", "33.3", "7"]);
    let json = agent.lb(&["get", "backends", "-o", "json"]).json();
    assert_eq!((&json["apiVersion"], &json["kind"]), (&json!("lb/v1"), &json!("BackendList")));
    assert_eq!(json["items"][0]["address"], "10.1.1.3");
}

#[test]
fn a_packet_is_explained_in_lines_or_as_a_document() {
    let agent = Running::new(Level::Ok);
    let question = ["explain", "tcp", "203.0.113.9:40000", "10.96.0.10:80"];
    let text = agent.lb(&question).stdout;
    assert!(text.starts_with("verdict     forward (forwarded)\n"), "{text}");
    let json = agent.lb(&[&question[..], &["-o", "json"]].concat()).json();
    assert_eq!(json["kind"], "Explanation");
    assert_eq!(json["backend"], "10.1.2.3:40000");
}

#[test]
fn packets_of_a_file_are_answered_a_line_each_in_order() {
    let agent = Running::new(Level::Ok);
    let packets = agent.folder.path().join("packets");
    let line = |sport| {
        format!(
            r#"{{"src":"203.0.113.9","sport":{sport},"proto":"tcp","dst":"10.96.0.10","port":80}}"#
        )
    };
    std::fs::write(&packets, format!("{}\n{}\n", line(7), line(8))).unwrap();
    let found = agent.lb(&["explain", "--packets", packets.to_str().unwrap()]);
    let answers = found.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let answers: Vec<serde_json::Value> = answers.collect();
    let want = |backend: &str| {
        json!({"verdict": "forward", "reason": "forwarded", "frontend": "default/web:http",
            "backend": backend, "source": "192.168.0.2", "candidates": [backend],
            "masquerade": true, "via": "tc"})
    };
    assert_eq!(answers, [want("10.1.2.3:7"), want("10.1.2.3:8")]);
}

#[test]
fn what_the_agent_refuses_is_said_with_its_reason() {
    Running::new(Level::Ok).lb(&["plan"]).fails_with(1, "the listing is not complete yet");
}

#[test]
fn the_socket_is_for_its_owner_and_group_and_an_outsider_gets_exit_code_3() {
    use std::os::unix::process::CommandExt;
    let agent = Running::new(Level::Ok);
    let mode = std::fs::metadata(agent.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(agent.folder.path(), open).unwrap();
    let socket = agent.socket();
    let arguments = ["status", "--socket", socket.to_str().unwrap()];
    let outsider = |command: &mut std::process::Command| {
        command.uid(65534).gid(65534);
    };
    lb_with(&arguments, outsider, "").fails_with(3, "Permission denied");
    // Even where the mode lets it in.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    lb_with(&arguments, outsider, "")
        .fails_with(1, "you are neither root nor of the agent's group");
}

#[test]
fn a_second_agent_is_refused_and_a_dead_one_is_replaced() {
    let agent = Running::new(Level::Ok);
    let bound = agent.runtime.block_on(bind(&agent.socket()));
    assert!(matches!(bound, Err(BindError::Taken(path)) if path == agent.socket()));
    let left_behind = agent.folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&left_behind).unwrap());
    assert!(Path::new(&left_behind).exists());
    assert!(agent.runtime.block_on(bind(&left_behind)).is_ok());
}

#[test]
fn a_question_that_makes_no_sense_is_answered_and_the_next_one_too() {
    use std::io::{BufRead, BufReader, Write};
    let agent = Running::new(Level::Ok);
    let mut stream = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
    stream.write_all(b"{\"request\":\"flush\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["response"], "refused");
    assert_eq!(agent.lb(&["status"]).code, 0);
}
