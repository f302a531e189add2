//! Connections that another proxy's rules made go on after our start.

use std::{net::SocketAddr, time::Duration};

use lb_userspace::lab::{Agent, Fate, Held};

use super::{
    super::{
        objects::{Front, PORT},
        world::{Over, POD_PORT, Pod, V4, World},
    },
    TC, nft, until,
};

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
