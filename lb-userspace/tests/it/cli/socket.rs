//! Commands against an agent: the real socket and the real server, with answers made up.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use lb_userspace::api::{
    BackendRef, BackendRow, BindError, ChangeRow, Description, DrainAnswer, DrainRow, DropRow,
    EndpointDescription, Example, Explanation, FlowFilter, FlowRow, Frame, FrontendDescription,
    Handler, InterfaceRow, Level, MapRow, PortDescription, Rate, Request, Response, ServiceRow,
    StatusLine, StatusReport, Verdict, Via, bind, serve,
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
            Request::Drops => Response::Drops(drops()),
            Request::Flows { filter } => Response::Flows(flows(&filter)),
            Request::Maps => Response::Maps(vec![map()]),
            Request::Interfaces => Response::Interfaces(vec![interface()]),
            Request::Drain { backend, force } => Response::Drain(drain(&backend, force)),
            Request::Ready { backend } => Response::Drain(ready(&backend)),
            Request::Config => Response::Config("nodeName: n1\nseedFile: /etc/lb/seed\n".into()),
            Request::Metrics => Response::Metrics("# TYPE lb_flows gauge\nlb_flows 7.0\n".into()),
            Request::Log => Response::Log(vec![
                "INFO in the kernel".into(),
                "WARN GET /api: Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln".into(),
            ]),
            Request::Frame => Response::Frame(Box::new(frame())),
            Request::Describe { name, .. } => {
                Response::Description((name == "web").then(|| Box::new(description())))
            }
            Request::Explain { packets } => Response::Explain(
                packets.iter().map(|packet| explanation(packet.sport.unwrap_or(1))).collect(),
            ),
        }
    }
}

fn drain(backend: &BackendRef, force: bool) -> DrainAnswer {
    let row = |changed| DrainRow {
        address: "10.1.1.3:8080".parse().unwrap(),
        pod: Some("web-1".into()),
        services: vec!["default/web:http".into()],
        state: "drained".into(),
        changed,
    };
    match (backend.to_string().as_str(), force) {
        ("10.1.1.3:8080", true) => DrainAnswer::Done(vec![row(true)]),
        ("10.1.1.3:8080", false) => DrainAnswer::Last(vec!["default/web:http".into()]),
        ("default/web-1", _) => DrainAnswer::Done(vec![row(false)]),
        ("10.1.1.4:8080", _) => DrainAnswer::Off,
        _ => DrainAnswer::Unknown,
    }
}

fn ready(backend: &BackendRef) -> DrainAnswer {
    match drain(backend, true) {
        DrainAnswer::Done(rows) => DrainAnswer::Done(
            rows.into_iter().map(|row| DrainRow { state: "ready".into(), ..row }).collect(),
        ),
        other => other,
    }
}

fn frame() -> Frame {
    Frame {
        at: 1_790_000_000_000,
        status: Some(status(Level::Warn)),
        services: vec![service("web", 80)],
        services_total: 3,
        backends: vec![backend()],
        drops: drops(),
        maps: vec![map()],
        flows: flows(&FlowFilter { limit: 2, ..FlowFilter::default() }),
        clients: vec![],
        last_sync_seconds: Some(4.0),
        source_age_seconds: None,
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
        rate: Some(Rate { packets_per_second: 12_340.0, ..Rate::default() }),
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
        open_flows: 3,
        last_seen_seconds: Some(2),
        rate: None,
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
        node: None,
        steps: Vec::new(),
    }
}

fn drops() -> Vec<DropRow> {
    let row = |reason: &str, count, seconds_ago| DropRow {
        reason: reason.into(),
        verdict: "drop".into(),
        count,
        rate: Some(Rate { drops_per_second: 0.5, ..Rate::default() }),
        last_example: Some(Example {
            seconds_ago,
            protocol: "tcp".into(),
            source: Some("203.0.113.9:40000".parse().unwrap()),
            destination: "10.96.0.10:80".parse().unwrap(),
            service: Some("default/web:http".into()),
            hook: "ingress".into(),
        }),
        hint: "see `ip route get BACKEND`, and that forwarding is on".into(),
        doc: format!("docs/datapath.md#{reason}"),
    };
    vec![row("no-route", 12, 3), row("source-range", 40, 1), row("fragment", 0, 0)]
}

fn flows(filter: &FlowFilter) -> Vec<FlowRow> {
    let FlowFilter { service, src, dst, state, limit } = filter;
    let flow = |port: u16| FlowRow {
        protocol: "tcp".into(),
        state: state.clone().unwrap_or_else(|| "established".into()),
        expires_in_seconds: 21_590,
        source: (src.unwrap_or([203, 0, 113, 9].into()), port).into(),
        destination: (dst.unwrap_or([10, 96, 0, 10].into()), 80).into(),
        new_source: ([192, 168, 0, 2], 1024).into(),
        new_destination: ([10, 1, 2, 3], 8080).into(),
        role: "to-remote".into(),
        service: Some(service.clone().unwrap_or_else(|| "default/web:http".into())),
    };
    (1..=3).take(*limit).map(flow).collect()
}

fn map() -> MapRow {
    MapRow {
        name: "SERVICES".into(),
        kind: "array".into(),
        used: Some(2),
        capacity: 65_536,
        bytes: 4_194_304,
    }
}

fn interface() -> InterfaceRow {
    InterfaceRow {
        interface: "eth0".into(),
        index: 2,
        hook: "xdp".into(),
        mode: Some("native".into()),
    }
}

fn description() -> Description {
    let endpoint = |last, used, why: &str| EndpointDescription {
        address: ([10, 1, 2, last], 8080).into(),
        pod: Some(format!("web-{last}")),
        node: Some("n1".into()),
        zone: None,
        used,
        why: why.into(),
        connections: 7,
    };
    Description {
        namespace: "default".into(),
        name: "web".into(),
        internal_traffic_policy: "Cluster".into(),
        external_traffic_policy: "Local".into(),
        affinity_seconds: None,
        source_ranges: vec![],
        health_check_node_port: None,
        slices: Some(1),
        ports: vec![PortDescription {
            port_name: "http".into(),
            protocol: "TCP".into(),
            family: "IPv4".into(),
            frontends: vec![FrontendDescription {
                kind: "ClusterIP".into(),
                address: ([10, 96, 0, 10], 80).into(),
                algorithm: "random".into(),
            }],
            endpoints: vec![endpoint(3, true, "ready"), endpoint(4, false, "not ready")],
        }],
        changes: vec![ChangeRow {
            seconds_ago: 5,
            took_ms: 1.25,
            backends_before: 2,
            backends_after: 1,
        }],
        problems: vec![],
        from_pins: false,
    }
}

/// A listening agent, gone at the end of the test.
pub(super) struct Running {
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    served: Option<tokio::task::JoinHandle<()>>,
}

impl Running {
    pub(super) fn new(kernel: Level) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let stop = CancellationToken::new();
        let socket = folder.path().join("lb.sock");
        let listener = runtime.block_on(bind(&socket)).unwrap();
        let cancel = stop.clone();
        let served = runtime.spawn(async move {
            serve(listener, &socket, Arc::new(Agent { kernel }), cancel).await;
        });
        Self { folder, runtime, stop, served: Some(served) }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("lb.sock")
    }

    pub(super) fn lb(&self, arguments: &[&str]) -> Outcome {
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
    let want = [
        "NAMESPACE",
        "NAME",
        "ADDRESS:PORT",
        "PROTO",
        "TYPE",
        "BACKENDS",
        "CONNS",
        "CPS",
        "PPS",
        "BPS",
        "DROPS",
    ];
    assert_eq!(head, want);
    assert_eq!(lines.len(), 3, "{}", found.stdout);
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{}", found.stdout);
    let wide = agent.lb(&["get", "services", "-o", "wide"]).stdout;
    assert!(wide.contains(LONG) && wide.lines().next().unwrap().ends_with("BYTES"), "{wide}");
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
    assert_eq!(
        row,
        ["default/web:http", "10.1.1.3:8080", "-", "active", "1", "33.3", "7", "-", "-", "-"]
    );
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
    // A member of the group, by its first or by another.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).unwrap();
    let operators = 4242;
    std::os::unix::fs::chown(&socket, None, Some(operators)).unwrap();
    let first = lb_with(&arguments, |command| _ = command.uid(65534).gid(operators), "");
    assert_eq!(first.code, 0, "{first:?}");
    let member = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", &format!("--groups=77,{operators}")])
        .arg(env!("CARGO_BIN_EXE_lb"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(member.status.success(), "{member:?}");
}

#[test]
fn who_connects_and_says_nothing_does_not_keep_a_server_from_ending() {
    let mut agent = Running::new(Level::Ok);
    let silent = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
    assert_eq!(agent.lb(&["status"]).code, 0, "and that one was taken after the silent one");
    agent.stop.cancel();
    let served = agent.served.take().unwrap();
    agent.runtime.block_on(served).unwrap();
    drop(silent);
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

#[test]
fn drops_have_their_last_example_and_what_to_do_and_those_that_never_happened_are_left_out() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "drops", "-o", "wide"]).stdout;
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(lines.len(), 3, "{found}");
    assert!(lines[1].contains("tcp 203.0.113.9:40000 > 10.96.0.10:80, 3 s ago"), "{found}");
    assert!(lines[1].contains("forwarding is on") && lines[1].ends_with("#no-route"), "{found}");
    let found = agent.lb(&["get", "drops"]).stdout;
    assert!(found.lines().all(|line| line.chars().count() <= 100), "{found}");
    let json = agent.lb(&["get", "drops", "-o", "json"]).json();
    assert_eq!(json["items"][0]["dropsPerSecond"], 0.5);
    assert_eq!(json["items"][0]["lastExample"]["secondsAgo"], 3);
}

#[test]
fn lists_are_sorted_by_any_column_numbers_from_the_largest() {
    let agent = Running::new(Level::Ok);
    let names = |by: &str| agent.lb(&["get", "drops", "--sort-by", by, "-o", "name"]).stdout;
    assert_eq!(names("count"), "drop/source-range\ndrop/no-route\n");
    assert_eq!(names("REASON"), "drop/no-route\ndrop/source-range\n");
    agent.lb(&["get", "drops", "--sort-by", "colour"]).fails_with(2, "there is no column colour");
}

#[test]
fn flows_maps_and_interfaces_are_tables_too() {
    let agent = Running::new(Level::Ok);
    let row = |words: &[&str]| {
        let found = agent.lb(words);
        let cells = found.stdout.lines().nth(1).unwrap().split_whitespace();
        cells.map(str::to_owned).collect::<Vec<_>>()
    };
    let flow = [
        "tcp",
        "established",
        "21590",
        "203.0.113.9:1",
        "10.96.0.10:80",
        "192.168.0.2:1024",
        "10.1.2.3:8080",
    ];
    assert_eq!(row(&["get", "flows"]), flow);
    assert_eq!(agent.lb(&["get", "flows", "--limit", "2", "-o", "name"]).stdout.lines().count(), 2);
    assert_eq!(row(&["get", "maps"]), ["SERVICES", "array", "2", "65536", "0.0", "4.2M"]);
    assert_eq!(row(&["get", "interfaces"]), ["eth0", "2", "xdp", "native"]);
}

#[test]
fn a_service_is_described_with_why_each_endpoint_is_used_or_not() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["describe", "service", "default/web"]);
    assert_eq!(found.code, 0, "{found:?}");
    for line in [
        "External traffic policy:  Local",
        "  +  10.1.2.3:8080  web-3  n1  7 conns  ready",
        "  -  10.1.2.4:8080  web-4  n1  7 conns  not ready",
        "       5 s ago  2 -> 1 backends, in the kernel 1.2 ms after it arrived",
    ] {
        assert!(found.stdout.lines().any(|it| it == line), "{line}\n{}", found.stdout);
    }
    let json = agent.lb(&["describe", "service", "web", "-o", "json"]).json();
    assert_eq!((&json["kind"], &json["name"]), (&json!("ServiceDescription"), &json!("web")));
    agent.lb(&["describe", "service", "default/none"]).fails_with(4, "default/none");
}
