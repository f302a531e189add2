//! What Kubernetes promises beyond a choice of backend: clients that keep theirs, ports that are in
//! use, datagrams that must not go astray, health checks, and another proxy's connections.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use lb_userspace::lab::{Agent, Fate, Held, Host, PATIENCE, Server};
use serde_json::json;

use super::{
    objects::{Front, PORT},
    sockets::udp_socket,
    world::{FAMILIES, Over, POD_PORT, Pod, V4, V6, World, address, node_address},
};

const TC: &[&str] = &["--xdp-mode", "off"];

/// Everybody who answers, one new connection after another.
fn met(over: Over, from: &Host, target: SocketAddr, times: usize) -> BTreeSet<String> {
    (0..times).map(|_| over.who(from, target)).collect()
}

/// Asks again until it is so.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + 10 * PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

#[test]
fn a_client_keeps_its_backend_at_every_address_until_affinity_is_switched_off() {
    let world = World::new("sem-affinity");
    let pods = [world.pod(1, 10), world.pod(2, 10), world.pod(2, 11), world.pod(1, 11)];
    let all: Vec<&Pod> = pods.iter().collect();
    let shells = [world.pod(1, 20), world.pod(1, 21)];
    let web = Front::new("web", 1).with(json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
    }));
    world.put("web", &web.manifests(&all));
    let _agent = world.agent(1, TC);
    for family in FAMILIES {
        for over in Over::BOTH {
            for from in [&shells[0].host, &shells[1].host, world.node(1), &world.client] {
                let inside = !std::ptr::eq(from, &raw const world.client);
                let mut targets = web.outside(family).to_vec();
                targets.extend(inside.then(|| web.inside(family)));
                let everybody: BTreeSet<String> =
                    targets.iter().flat_map(|target| met(over, from, *target, 5)).collect();
                assert_eq!(everybody.len(), 1, "{over:?} {}: {everybody:?}", from.name());
            }
        }
    }
    world.put("web", &Front::new("web", 1).manifests(&all));
    until("affinity is off", || {
        met(Over::Tcp, &shells[0].host, web.inside(V4), 20).len() > 1
            && met(Over::Tcp, &world.client, web.on_node(1, V4), 20).len() > 1
    });
}

#[test]
fn a_live_node_port_is_in_use_on_the_node_and_nowhere_else() {
    let world = World::new("sem-bind");
    let (pod, shell) = (world.pod(1, 10), world.pod(1, 20));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let _agent = world.agent(1, TC);
    let port = web.node_port();
    let bind = |host: &Host, at: &str, port: u16| {
        let at = SocketAddr::new(address(at), port);
        let result = host.run(|| TcpListener::bind(at).map(drop));
        let datagrams = host.run(|| UdpSocket::bind(at).map(drop));
        [result.map_err(|e| e.kind()), datagrams.map_err(|e| e.kind())]
    };
    let used = [Err(ErrorKind::AddrInUse); 2];
    let own = FAMILIES.map(|family| node_address(1, family).to_string());
    for at in ["0.0.0.0", "::", &own[0], &own[1]] {
        assert_eq!(bind(world.node(1), at, port), used, "{at}");
        assert_eq!(bind(world.node(1), at, port + 100), [Ok(()); 2], "{at}: another port");
    }
    assert_eq!(bind(world.node(1), "127.0.0.1", port), [Ok(()); 2], "no NodePort is there");
    assert_eq!(bind(&shell.host, "0.0.0.0", port), [Ok(()); 2], "a pod's ports are its own");
    world.put("web", &[]);
    until("the port is free again", || bind(world.node(1), "::", port) == [Ok(()); 2]);
}

#[test]
fn a_connected_datagram_socket_whose_backend_left_gets_an_error_and_nobody_gets_its_datagrams() {
    let world = World::new("sem-udp");
    let (old, new, shell) = (world.pod(2, 10), world.pod(2, 11), world.pod(1, 20));
    let dns = Front::new("dns", 1);
    world.put("dns", &dns.manifests(&[&old]));
    let _agent = world.agent(1, TC);
    for family in FAMILIES {
        world.put("dns", &dns.manifests(&[&old]));
        until("the old pod is back", || Over::Udp.who(&shell.host, dns.inside(family)) == old.name);
        let target = dns.inside(family);
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = shell.host.run(|| UdpSocket::bind(any)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        shell.host.run(|| socket.connect(target)).unwrap();
        let mut buffer = [0; 64];
        socket.send(b"who?").unwrap();
        socket.recv(&mut buffer).unwrap();

        // From here on, who answers at the old address is somebody else.
        world.put("dns", &dns.manifests(&[&new]));
        until("another answers", || Over::Udp.who(&shell.host, target) == new.name);
        for _ in 0..50 {
            let error = socket.send(b"who?").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        }
        socket.set_nonblocking(true).unwrap();
        let answer = socket.recv(&mut buffer).map_err(|error| error.kind());
        assert_eq!(answer, Err(ErrorKind::WouldBlock), "a datagram went astray");

        // The address itself is nobody's to forbid, and a new dial goes to who serves.
        let direct = SocketAddr::new(old.addresses[family], POD_PORT);
        assert_eq!(Over::Udp.who(&shell.host, direct), old.name);
        shell.host.run(|| socket.connect(target)).unwrap();
        socket.send(b"who?").unwrap();
    }
}

#[test]
fn with_socket_termination_who_waits_for_a_dead_backend_is_told_at_once_and_nobody_else() {
    let world = World::new("sem-end");
    let (old, new, shell) = (world.pod(2, 10), world.pod(2, 11), world.pod(1, 20));
    let (dns, steady) = (Front::new("dns", 1), Front::new("steady", 2));
    world.put("dns", &dns.manifests(&[&old]));
    world.put("steady", &steady.manifests(&[&old]));
    let _agent = world.agent(1, &[TC, &["--socket-termination"]].concat());
    let connected = |from: &Host, target: SocketAddr| {
        let socket = udp_socket(from, target.ip());
        socket.set_read_timeout(Some(10 * PATIENCE)).unwrap();
        from.run(|| socket.connect(target)).unwrap();
        socket.send(b"who?").unwrap();
        socket.recv(&mut [0; 64]).unwrap();
        socket
    };
    let mapped = SocketAddr::new(address("::ffff:10.96.0.1"), PORT);
    for target in [dns.inside(V4), dns.inside(V6), mapped] {
        for from in [&shell.host, world.node(1)] {
            world.put("dns", &dns.manifests(&[&old]));
            until("the old pod is back", || Over::Udp.who(from, dns.inside(V4)) == old.name);
            let other = connected(from, steady.inside(V4));
            let socket = connected(from, target);
            let told = thread::scope(|scope| {
                let waits = scope.spawn(|| socket.recv(&mut [0; 64]));
                world.put("dns", &dns.manifests(&[&new]));
                waits.join().unwrap().unwrap_err()
            });
            assert_eq!(told.kind(), ErrorKind::ConnectionAborted, "{target}: {told}");
            let sends = socket.send(b"who?").unwrap_err();
            assert_eq!(sends.raw_os_error(), Some(libc::EDESTADDRREQ), "{sends}");
            other.send(b"who?").unwrap();
            other.recv(&mut [0; 64]).unwrap();
        }
    }
}

#[test]
fn socket_termination_asks_for_its_capability() {
    let setpriv = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let output = Command::new("setpriv")
        .args(setpriv)
        .arg(env!("CARGO_BIN_EXE_lb"))
        .args(["agent", "--socket-termination", "-f", "/nowhere"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("socketTermination: this process lacks CAP_SYS_ADMIN"), "{said}");
}

/// Status, headers in lower case, and body.
pub fn http(from: &Host, target: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[test]
fn load_balancers_are_told_whether_this_node_has_endpoints_and_is_well() {
    let world = World::new("sem-health");
    let (here, there) = (world.pod(1, 10), world.pod(2, 10));
    let web = Front::new("web", 1).with(json!({
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 31999,
    }));
    world.put("web", &web.manifests(&[&here, &there]));
    let _agent = world.agent(1, TC);
    let check = SocketAddr::new(node_address(1, V4), 31999);
    until("the server answers", || {
        world.client.run(|| TcpStream::connect_timeout(&check, PATIENCE)).is_ok()
    });
    let (status, head, body) = http(&world.client, check, "/any/path");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected = |count| {
        json!({
            "service": {"namespace": "it", "name": "web"},
            "localEndpoints": count, "serviceProxyHealthy": true,
        })
    };
    assert_eq!((status, body), (200, expected(1)));
    for header in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 1",
    ] {
        assert!(head.contains(header), "{head}");
    }

    world.put("web", &web.manifests(&[&there]));
    until("no endpoint is left here", || http(&world.client, check, "/").0 == 503);
    let (_, _, body) = http(&world.client, check, "/");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected(0));
    // The policy is for the outside: it meets silence, and pods go where there is somebody.
    let outside = Over::Tcp.ask(&world.client, web.on_node(1, V4)).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::TimedOut, "{outside}");
    assert_eq!(Over::Tcp.who(world.node(1), web.on_node(1, V4)), there.name);

    world.put("web", &web.manifests(&[&here]));
    until("one is here again", || http(&world.client, check, "/").0 == 200);

    let node = SocketAddr::new(node_address(1, V4), 10256);
    for path in ["/healthz", "/livez"] {
        let (status, _, body) = http(&world.client, node, path);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["healthy"]), (200, &json!(true)), "{path}: {body}");
        assert_eq!(body.get("nodeEligible").is_some(), path == "/healthz");
        assert_eq!(body["lastUpdated"], body["currentTime"]);
    }
}

/// What a cluster's network plug-in has: a rule of its own for packets that leave the cluster. Without
/// anybody's rule the kernel stops tracking, and with it translating, whatever it still knows.
const PLUGIN: &str = "table ip plugin {
    chain pre { type nat hook prerouting priority dstnat; }
    chain post {
        type nat hook postrouting priority srcnat;
        ip saddr 10.99.0.0/16 masquerade
    }
}";

/// What kube-proxy's nftables mode would have for the Service's NodePort and its balancer's address.
fn rules(web: &Front, pod: &Pod) -> String {
    let (at, to) = (web.balancer(V4), pod.addresses[V4]);
    let node = web.on_node(1, V4);
    format!(
        "table ip kube-proxy {{
            chain pre {{
                type nat hook prerouting priority dstnat;
                ip daddr {at} tcp dport {PORT} dnat to {to}:{POD_PORT}
                ip daddr {} tcp dport {} dnat to {to}:{POD_PORT}
            }}
            chain post {{
                type nat hook postrouting priority srcnat;
                ct status dnat masquerade
            }}
        }}",
        node.ip(),
        node.port()
    )
}

pub fn nft(host: &Host, words: &[&str], input: &str) {
    let mut child = host.command("nft").unwrap().args(words).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft {words:?}");
}

/// Opens connections through the other proxy's rules to a pod of that node, starts an agent, removes
/// the rules, and sees what has become of the connections.
fn take_over(label: &str, of: u8) {
    const EACH: usize = 250;
    let world = World::new(label);
    let (pod, web) = (world.pod(of, 10), Front::new("web", 1));
    nft(world.node(1), &["-f", "-"], PLUGIN);
    nft(world.node(1), &["-f", "-"], &rules(&web, &pod));
    let every = Duration::from_millis(200);
    let held: Vec<Held> = [SocketAddr::new(web.balancer(V4), PORT), web.on_node(1, V4)]
        .map(|target| Held::open(&world.client, target, EACH, every).unwrap())
        .into();
    let all = || held.iter().flat_map(Held::connections);

    world.put("web", &web.manifests(&[&pod]));
    let mut options = world.options(TC);
    let takeover = options.flags.iter().position(|flag| flag == "0s").unwrap();
    "10m".clone_into(&mut options.flags[takeover]);
    let _agent = Agent::start(&world.lab, world.node(1), options).unwrap();
    nft(world.node(1), &["delete", "table", "ip", "kube-proxy"], "");

    let before: Vec<usize> = all().map(|held| held.exchanges).collect();
    until("each has gone on, twice", || {
        all()
            .zip(&before)
            .all(|(now, before)| now.fate != Fate::Alive || now.exchanges >= before + 2)
    });
    let disturbed: Vec<_> =
        all().filter(|held| held.fate != Fate::Alive || held.server != pod.name).collect();
    assert_eq!((all().count(), disturbed), (2 * EACH, vec![]));
    // New ones are ours.
    assert_eq!(Over::Tcp.who(&world.client, web.on_node(1, V4)), pod.name);
}

#[test]
fn another_proxy_s_connections_to_a_pod_here_outlive_our_start_and_its_removal() {
    take_over("sem-take-here", 1);
}

#[test]
fn another_proxy_s_connections_to_a_pod_elsewhere_outlive_our_start_and_its_removal() {
    take_over("sem-take-there", 2);
}

#[test]
fn a_node_port_answers_at_an_address_that_the_node_got_later_and_no_longer_when_it_is_gone() {
    let world = World::new("sem-late");
    let (pod, web) = (world.pod(1, 10), Front::new("web", 1));
    world.put("web", &web.manifests(&[&pod]));
    let ranges = ["--nodeport-address", "192.168.10.0/24"];
    let _agent = world.agent(1, &[TC, &ranges].concat());
    let late = SocketAddr::new(address("192.168.10.77"), web.node_port());
    let node = world.node(1);
    node.address("eth0", "192.168.10.77/24").unwrap();
    until("it answers", || Over::Tcp.who(&world.client, late) == pod.name);
    assert_eq!(Over::Tcp.who(node, late), pod.name, "the node itself, too");
    node.ip("addr del 192.168.10.77/24 dev eth0").unwrap();
    until("it is gone", || Over::Tcp.who(node, late) != pod.name);
    assert_eq!(Over::Tcp.who(&world.client, web.on_node(1, V4)), pod.name, "others go on");
}

#[test]
fn kube_proxy_s_metrics_are_served_by_its_names_where_they_are_asked_for() {
    let world = World::new("sem-metrics");
    let there = world.pod(2, 10);
    let local = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
    world.put("local", &Front::new("local", 1).with(local).manifests(&[&there]));
    let outside_alone = json!({"externalTrafficPolicy": "Local"});
    world.put("outside", &Front::new("outside", 2).with(outside_alone).manifests(&[&there]));
    world.put("empty", &Front::new("empty", 3).manifests(&[]));
    let scrape = |node: u8| {
        let target = SocketAddr::new(address("127.0.0.1"), 10249);
        let (status, _, body) = http(world.node(node), target, "/metrics");
        assert_eq!(status, 200);
        body
    };
    let _agents = [world.agent(1, &[TC, &["--kube-proxy-metrics"]].concat()), world.agent(2, TC)];
    assert!(!scrape(2).contains("kubeproxy_"), "nobody asked for them");
    for (path, said) in [("/healthz", "ok"), ("/proxyMode", "lb")] {
        let target = SocketAddr::new(address("127.0.0.1"), 10249);
        let (status, _, body) = http(world.node(1), target, path);
        assert_eq!((status, body.as_str()), (200, said), "{path}");
    }
    let body = scrape(1);
    let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
    let silent = |policy: &str| {
        let series = format!("{name}{{traffic_policy=\"{policy}\"}} ");
        let line = body.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series} in {body}")).parse::<f64>().unwrap()
    };
    // Three ports of each Service, in whatever families.
    assert_eq!([silent("internal"), silent("external")], [3.0, 6.0]);
    for line in [
        "# TYPE kubeproxy_network_programming_duration_seconds histogram",
        "kubeproxy_sync_proxy_rules_service_changes_pending 0.0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0.0",
        "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
        "# TYPE kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} in\n{body}");
    }
    let series = |name: &str| {
        let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {body}")).parse::<f64>().unwrap()
    };
    assert!(series("kubeproxy_sync_proxy_rules_duration_seconds_count") >= 1.0);
    assert!(series("kubeproxy_sync_proxy_rules_service_changes_total") >= 3.0);
    assert!(series("kubeproxy_sync_proxy_rules_endpoint_changes_total") >= 2.0);
}

/// Endpoints that have their nodes' own addresses, as pods with `hostNetwork` have.
fn on_their_nodes(front: &Front, family: usize) -> serde_json::Value {
    let endpoints = [1, 2].map(|number| {
        json!({
            "addresses": [node_address(number, family)], "nodeName": format!("n{number}"),
            "conditions": {"ready": true},
        })
    });
    let kind = ["IPv4", "IPv6"][family];
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{}", front.name, kind.to_lowercase()), "namespace": "it",
            "labels": {"kubernetes.io/service-name": front.name},
        },
        "addressType": kind, "endpoints": endpoints,
        "ports": [
            {"name": "http", "protocol": "TCP", "port": POD_PORT},
            {"name": "talk", "protocol": "UDP", "port": POD_PORT},
        ],
    })
}

#[test]
fn endpoints_with_their_nodes_own_addresses_are_reached_like_any_other() {
    let world = World::new("sem-hostnet");
    let shell = world.pod(1, 20);
    let at = SocketAddr::new(address("::"), POD_PORT);
    let _servers = [1, 2].map(|number| {
        let node = world.node(number);
        let name = format!("n{number}");
        (Server::http(node, at, &name).unwrap(), Server::udp(node, at, &name).unwrap())
    });
    let web = Front::new("web", 1);
    let slices = FAMILIES.map(|family| on_their_nodes(&web, family));
    world.put("web", &[&[web.service()], &slices[..]].concat());
    let _agent = world.agent(1, TC);
    let both = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
    for family in FAMILIES {
        for over in Over::BOTH {
            for target in web.outside(family) {
                assert_eq!(met(over, &world.client, target, 30), both, "{over:?} {target}");
            }
        }
        // Over TCP: a datagram server that listens everywhere answers a pod of its node from the
        // address nearest to it, with or without a Service.
        for from in [&shell.host, world.node(1)] {
            assert_eq!(met(Over::Tcp, from, web.inside(family), 30), both, "{}", from.name());
        }
    }
}
