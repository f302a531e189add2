//! Living with others: kube-proxy's rules beside us, a canary on a part of a node, a service manager.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Event, Service};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use lb_userspace::lab::{Host, PATIENCE, Process, Server, link};
use serde_json::json;

use super::{
    objects::{Front, PORT},
    semantics::nft,
    world::{Over, POD_PORT, Pod, V4, World, address, until_shown},
};
use crate::support::api_server::ApiServer;

const TC: &[&str] = &["--xdp-mode", "off"];

/// What kube-proxy's nftables mode would have for every address of the Service over IPv4.
fn rules(web: &Front, pod: &Pod) -> String {
    let to = format!("{}:{POD_PORT}", pod.addresses[V4]);
    let [node, balancer, external] = web.outside(V4);
    let targets = [node, balancer, external, web.inside(V4)];
    let maps: String = targets
        .iter()
        .map(|at| format!("ip daddr {} tcp dport {} dnat to {to}\n", at.ip(), at.port()))
        .collect();
    format!(
        "table ip kube-proxy {{
            chain pre {{ type nat hook prerouting priority dstnat; {maps} }}
            chain out {{ type nat hook output priority -100; {maps} }}
            chain post {{
                type nat hook postrouting priority srcnat;
                ct status dnat masquerade
            }}
        }}"
    )
}

#[test]
fn kube_proxy_and_we_together_serve_everybody_and_the_way_back_is_open() {
    let world = World::new("beside-both");
    let (here, there, shell) = (world.pod(1, 10), world.pod(2, 10), world.pod(1, 20));
    let node = world.node(1);
    for (number, pod) in [(1, &here), (2, &there)] {
        let web = Front::new(if number == 1 { "here" } else { "there" }, number);
        world.put(web.name, &web.manifests(&[pod]));
    }
    let fronts = [(Front::new("here", 1), &here), (Front::new("there", 2), &there)];
    // Two tables of rules, as one proxy would have them in one.
    for (front, pod) in &fronts {
        nft(
            node,
            &["-f", "-"],
            &rules(front, pod).replace("kube-proxy", &format!("kube-proxy-{}", front.name)),
        );
    }
    let metrics = SocketAddr::new(address("127.0.0.1"), 10249);
    let _proxy = Server::http(node, metrics, "nftables").unwrap();
    let everybody = |when: &str| {
        for (front, pod) in &fronts {
            for target in front.outside(V4).into_iter().chain([front.inside(V4)]) {
                let inside = target == front.inside(V4);
                let hosts = [(!inside).then_some(&world.client), Some(&shell.host), Some(node)];
                for from in hosts.into_iter().flatten() {
                    let who = Over::Tcp.who(from, target);
                    assert_eq!(who, pod.name, "{when}: {target} from {}", from.name());
                }
            }
        }
    };
    everybody("kube-proxy alone");

    let mut agent = world.agent(1, TC);
    until_shown(&agent, &["status"], "a word on the other proxy", |status| {
        let mut lines = status["lines"].as_array().unwrap().iter();
        lines.any(|line| {
            let detail = line["detail"].as_str().unwrap();
            line["key"] == "Proxies"
                && line["level"] == "warn"
                && detail.starts_with("kube-proxy (nftables) runs beside: see docs/operations.md")
        })
    });
    everybody("both");

    agent.terminate().unwrap();
    everybody("our agent has ended");
    let removed = agent.lb(["uninstall"]).unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    everybody("we are gone");
}

#[test]
fn a_canary_translates_who_is_in_its_part_of_the_cgroups_and_nobody_else() {
    let world = World::new("beside-canary");
    let (ours, theirs, inside) = (world.pod(1, 10), world.pod(1, 11), world.pod(1, 20));
    let outside = outsider(&world);
    let web = Front::new("web", 1);
    // So that it can be told who has translated.
    world.put("web", &web.manifests(&[&ours]));
    nft(world.node(1), &["-f", "-"], &rules(&web, &theirs));
    let agent = world.agent(1, TC);
    for target in [web.inside(V4), SocketAddr::new(web.balancer(V4), PORT)] {
        assert_eq!(Over::Tcp.who(&inside.host, target), ours.name, "{target}: in the canary");
        assert_eq!(Over::Tcp.who(world.node(1), target), ours.name, "{target}: in the canary");
        assert_eq!(Over::Tcp.who(&outside, target), theirs.name, "{target}: outside of it");
    }
    // What the canary has seen is of its own alone.
    let services = agent.json(["get", "services"]).unwrap();
    let rows = services["items"].as_array().unwrap().iter();
    // Each address of a port shows what the port has.
    let connections = rows.map(|row| row["connections"].as_u64().unwrap()).max();
    assert_eq!(connections, Some(4));
}

/// A pod of node 1 whose processes are in another part of the cgroups.
fn outsider(world: &World) -> Host {
    let host = world.lab.node("aside").unwrap();
    link::plug((&host, "eth0"), (world.node(1), "pods"), "v-30").unwrap();
    link::whole_checksums((&host, "eth0")).unwrap();
    host.address("eth0", "10.244.1.30/24").unwrap();
    host.route("default", address("10.244.1.1")).unwrap();
    host
}

#[test]
fn a_service_manager_is_told_when_the_programs_are_on_their_hooks_and_when_they_are_left_alone() {
    let world = World::new("beside-manager");
    let pod = world.pod(1, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let folder = world.lab.folder();
    let manager = UnixDatagram::bind(folder.join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let node = world.node(1);
    let bpffs = world.lab.bpffs("n1").unwrap();
    let mut command = node.command(env!("CARGO_BIN_EXE_lb")).unwrap();
    command.args(["agent", "--node-name", "n1", "--xdp-mode", "off", "-f"]);
    command.arg(world.options(&[]).manifests).arg("--bpffs").arg(&bpffs);
    command.arg("--socket").arg(folder.join("lb.sock")).arg("--cgroup-root").arg(node.cgroup());
    command.env("NOTIFY_SOCKET", folder.join("notify")).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::start(node, &mut command).unwrap();
    assert_eq!(heard(), "READY=1");
    let links = |bpffs: &Path| std::fs::read_dir(bpffs.join("links")).unwrap().count();
    let hooks = links(&bpffs);
    assert!(hooks > 0, "ready without a hook");
    process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(heard(), "STOPPING=1");
    process.end(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(links(&bpffs), hooks, "its end takes nothing away");
}

#[test]
fn people_are_told_by_an_event_of_a_service_that_the_kernel_has_no_room_for() {
    let world = World::new("beside-event");
    let node = world.node(1);
    let kubeconfig = world.lab.folder().join("kubeconfig");
    // Longer than a name may be in the maps; no real API server would take it.
    let name = "w".repeat(250);
    // One more than there is room for.
    let ranges: Vec<String> = (0..=lb_common::limits::SOURCE_RANGES)
        .map(|number| format!("{}/32", Ipv4Addr::from_bits(0x0b00_0000 + number)))
        .collect();
    let (events, log) = node.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (server, _double) = ApiServer::double().await;
            let at = server.wire.address();
            let config = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 clusters: [{{name: c, cluster: {{server: \"http://{at}\"}}}}]\n\
                 contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 users: [{{name: u, user: {{}}}}]\n"
            );
            std::fs::write(&kubeconfig, config).unwrap();
            let services = Api::<Service>::namespaced(server.admin.clone(), "shop");
            let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
            for service in [
                json!({"metadata": {"name": name}, "spec": {"ports": ports}}),
                json!({"metadata": {"name": "wide"}, "spec": {
                    "type": "LoadBalancer", "ports": ports, "loadBalancerSourceRanges": ranges,
                }}),
            ] {
                let service = serde_json::from_value(service).unwrap();
                services.create(&PostParams::default(), &service).await.unwrap();
            }
            let (_agent, log) = on_kubernetes(&world, &kubeconfig);
            let events = Api::<Event>::namespaced(server.admin.clone(), "shop");
            let deadline = Instant::now() + 10 * PATIENCE;
            loop {
                let found = events.list(&ListParams::default()).await.unwrap().items;
                if found.len() == 2 {
                    return (found, log);
                }
                let said = || std::fs::read_to_string(&log).unwrap();
                assert!(Instant::now() < deadline, "no two events: {}", said());
            }
        })
    });
    for (name, reason, what) in [
        (&*name, "CannotBeProgrammed", "longer together than 256 bytes"),
        ("wide", "NoRoomInTable", "map SOURCES_V4 is full: 0 of 32768 in use, 32769 more needed"),
    ] {
        let event = events.iter().find(|event| event.involved_object.name.as_deref() == Some(name));
        let event = event.unwrap_or_else(|| panic!("none about {name}: {events:?}"));
        assert_eq!(event.involved_object.kind.as_deref(), Some("Service"));
        assert_eq!(event.reason.as_deref(), Some(reason));
        assert_eq!(event.source.as_ref().unwrap().host.as_deref(), Some("n1"));
        let message = event.message.as_deref().unwrap();
        assert!(message.contains(what), "{message}");
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("it stays as it was"), "{log}");
}

/// An agent that learns from an API server, and where its log is.
fn on_kubernetes(world: &World, kubeconfig: &Path) -> (Process, PathBuf) {
    let (node, folder) = (world.node(1), world.lab.folder());
    let log = folder.join("kubernetes.log");
    let mut command = node.command(env!("CARGO_BIN_EXE_lb")).unwrap();
    command.args(["agent", "--node-name", "n1", "--xdp-mode", "off", "--kubeconfig"]);
    command.arg(kubeconfig).arg("--bpffs").arg(world.lab.bpffs("n1").unwrap());
    command.arg("--socket").arg(folder.join("lb.sock")).arg("--cgroup-root").arg(node.cgroup());
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    (Process::start(node, &mut command).unwrap(), log)
}
