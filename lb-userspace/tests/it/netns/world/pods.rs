//! Pods and virtual machines on the nodes, each with its servers.

use std::{
    any::Any,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use lb_userspace::lab::{Host, Process, Server, link};

use super::{FAMILIES, World, address, pod_address};

/// Where every pod listens, over TCP and UDP.
pub const POD_PORT: u16 = 8080;
/// Where every pod sends back all bytes.
pub const ECHO_PORT: u16 = 8081;

/// A pod with its servers.
pub struct Pod {
    pub name: String,
    /// The node's number, from 1.
    pub node: u8,
    pub host: Host,
    /// IPv4 and IPv6.
    pub addresses: [IpAddr; 2],
    _servers: Servers,
}

/// They end when they are dropped.
type Servers = Vec<Box<dyn Any>>;

impl World {
    /// A pod with the `number`th address of its node's range; it answers over TCP and UDP.
    pub fn pod(&self, node: u8, number: u8) -> Pod {
        self.pod_with(node, number, serve)
    }

    /// The same where HTTP is answered by a process of its own: of thousands of connections, one process
    /// may not have both ends.
    pub fn busy_pod(&self, node: u8, number: u8) -> Pod {
        self.pod_with(node, number, serve_apart)
    }

    fn pod_with(&self, node: u8, number: u8, serve: fn(&Host, &str) -> Servers) -> Pod {
        let name = format!("pod-{node}-{number}");
        let host = self.lab.pod(self.node(node), &name).unwrap();
        link::plug((&host, "eth0"), (self.node(node), "pods"), &format!("v-{number}")).unwrap();
        link::whole_checksums((&host, "eth0")).unwrap();
        settle(name, host, node, number, serve)
    }

    /// The same with a kernel of its own, as far as the node's can tell: none of its sockets is one of
    /// the node's. Its cable is called `tap-NUMBER`, and what it sends has partial checksums.
    pub fn machine(&self, node: u8, number: u8) -> Pod {
        let name = format!("vm-{node}-{number}");
        let host = self.lab.host(&name).unwrap();
        link::plug((&host, "eth0"), (self.node(node), "pods"), &format!("tap-{number}")).unwrap();
        settle(name, host, node, number, serve)
    }

    /// The same without a switch: its cable ends at the node, which has a route there.
    pub fn routed_machine(&self, node: u8, number: u8) -> Pod {
        let (name, tap) = (format!("vm-{node}-{number}"), format!("tap-{number}"));
        let host = self.lab.host(&name).unwrap();
        link::veth((&host, "eth0"), (self.node(node), &tap)).unwrap();
        let addresses = FAMILIES.map(|family| pod_address(node, number, family));
        let gateways = ["169.254.1.1", "fe80::1"];
        for ((own, gateway), length) in addresses.iter().zip(gateways).zip([32, 128]) {
            self.node(node).address(&tap, &format!("{gateway}/{length}")).unwrap();
            self.node(node).ip(&format!("route add {own}/{length} dev {tap}")).unwrap();
            host.address("eth0", &format!("{own}/{length}")).unwrap();
            host.ip(&format!(
                "route add {gateway}/{length} dev eth0\nroute add default via {gateway} dev eth0"
            ))
            .unwrap();
        }
        let servers = serve(&host, &name);
        Pod { name, node, host, addresses, _servers: servers }
    }
}

/// Gives a pod its addresses, ways and servers.
fn settle(
    name: String,
    host: Host,
    node: u8,
    number: u8,
    serve: fn(&Host, &str) -> Servers,
) -> Pod {
    let addresses = FAMILIES.map(|family| pod_address(node, number, family));
    for (own, length) in addresses.iter().zip([24, 64]) {
        host.address("eth0", &format!("{own}/{length}")).unwrap();
    }
    for family in FAMILIES {
        host.route("default", pod_address(node, 1, family)).unwrap();
    }
    let servers = serve(&host, &name);
    Pod { name, node, host, addresses, _servers: servers }
}

fn serve(host: &Host, name: &str) -> Servers {
    let http = Server::http(host, all(POD_PORT), name).unwrap();
    vec![Box::new(http), Box::new(talk(host, name)), Box::new(echo(host))]
}

fn serve_apart(host: &Host, name: &str) -> Servers {
    let mut command = host.command(env!("CARGO_BIN_EXE_lb-demo")).unwrap();
    command.args(["pod", name, &all(POD_PORT).to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut http = Process::start(host, &mut command).unwrap();
    let mut said = String::new();
    BufReader::new(http.child().stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    vec![Box::new(http), Box::new(talk(host, name)), Box::new(echo(host))]
}

fn talk(host: &Host, name: &str) -> Server {
    Server::udp(host, all(POD_PORT), name).unwrap()
}

fn echo(host: &Host) -> Server {
    Server::tcp_echo(host, all(ECHO_PORT)).unwrap()
}

/// A port at all addresses of both families.
fn all(port: u16) -> SocketAddr {
    SocketAddr::new(address("::"), port)
}
