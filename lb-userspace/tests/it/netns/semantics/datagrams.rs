//! Connected datagram sockets whose backend left.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
};

use lb_userspace::lab::{Host, PATIENCE};

use super::{
    super::{
        objects::{Front, PORT},
        sockets::udp_socket,
        world::{FAMILIES, Over, POD_PORT, V4, V6, World, address},
    },
    TC, until,
};

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
