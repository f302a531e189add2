//! What the agent of these tests answers.

use lb_userspace::api::{
    BackendRef, BackendRow, ChangeRow, Description, DrainAnswer, DrainRow, DropRow,
    EndpointDescription, Example, Explanation, FlowFilter, FlowRow, Frame, FrontendDescription,
    Handler, InterfaceRow, Level, MapRow, PortDescription, Rate, Request, Response, ServiceRow,
    StatusLine, StatusReport, Verdict, Via,
};

/// An agent that answers with what it was made with.
pub struct Agent {
    pub kernel: Level,
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

pub const LONG: &str = "a-service-whose-name-is-as-long-as-kubernetes-lets-a-name-be-63";

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
