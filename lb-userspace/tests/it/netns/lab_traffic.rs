//! The laboratory's servers and clients: they notice what tests will want to know.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use lb_userspace::lab::{
    Fate, Held, Host, Lab, Load, PATIENCE, Server, burst, get, get_path, link, udp_ask,
};

const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const OFTEN: Duration = Duration::from_millis(5);

/// A client and a server with a cable between them.
struct World {
    client: Host,
    server: Host,
    _lab: Lab,
}

const SERVER: [&str; 2] = ["10.0.0.2", "fd00::2"];

fn world(label: &str) -> World {
    let lab = Lab::new(label).unwrap();
    let (client, server) = (lab.host("client").unwrap(), lab.node("server").unwrap());
    link::veth((&client, "eth0"), (&server, "eth0")).unwrap();
    for (host, number) in [(&client, 1), (&server, 2)] {
        host.address("eth0", &format!("10.0.0.{number}/24")).unwrap();
        host.address("eth0", &format!("fd00::{number}/64")).unwrap();
    }
    World { client, server, _lab: lab }
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn a_pod_answers_http_with_its_name_and_tells_the_client_its_address() {
    let world = world("http");
    let _pod = Server::http(&world.server, SocketAddr::new(ANY, 8080), "web-1").unwrap();
    for (server, client) in SERVER.into_iter().zip(["10.0.0.1", "fd00::1"]) {
        assert_eq!(get(&world.client, at(server, 8080)).unwrap(), "web-1");
        let peer: SocketAddr =
            get_path(&world.client, at(server, 8080), "/peer").unwrap().parse().unwrap();
        assert_eq!(peer.ip().to_string(), client);
    }
}

#[test]
fn a_burst_counts_every_request_by_who_answered() {
    let world = world("burst");
    let _pod = Server::http(&world.server, SocketAddr::new(ANY, 8080), "web-1").unwrap();
    let tally = burst(&world.client, at(SERVER[0], 8080), 200, 4);
    assert_eq!(tally.answers, BTreeMap::from([("web-1".to_owned(), 200)]));
    assert_eq!(tally.failures, Vec::<String>::new());
}

#[test]
fn a_burst_to_a_closed_port_is_all_failures_that_say_refused() {
    let world = world("refused");
    let tally = burst(&world.client, at(SERVER[1], 8080), 10, 2);
    assert_eq!(tally.sent(), 10);
    assert_eq!(tally.failures.len(), 10);
    assert!(tally.failures[0].contains("refused"), "{}", tally.failures[0]);
}

#[test]
fn a_udp_server_names_itself_in_its_answer() {
    let world = world("udp");
    let _pod = Server::udp(&world.server, SocketAddr::new(ANY, 53), "dns-1").unwrap();
    for address in SERVER {
        assert_eq!(udp_ask(&world.client, at(address, 53), "who?").unwrap(), "dns-1 who?");
    }
}

#[test]
fn a_tcp_echo_returns_megabytes_as_they_were() {
    let world = world("echo");
    let echo = Server::tcp_echo(&world.server, SocketAddr::new(ANY, 0)).unwrap();
    let target = at(SERVER[0], echo.address().port());
    let sent: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();

    let stream = world.client.run(|| TcpStream::connect(target)).unwrap();
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).unwrap();
        back
    });

    assert!(back == sent, "{} bytes came back of {}", back.len(), sent.len());
}

#[test]
fn held_connections_exchange_and_notice_when_their_server_ends() {
    let world = world("held");
    let pod = Server::http(&world.server, SocketAddr::new(ANY, 8080), "web-1").unwrap();
    let held = Held::open(&world.client, at(SERVER[0], 8080), 5, OFTEN).unwrap();
    until(|| held.connections().iter().all(|connection| connection.exchanges >= 3));
    assert!(held.connections().iter().all(|c| c.fate == Fate::Alive && c.server == "web-1"));

    drop(pod);
    until(|| held.connections().iter().all(|c| matches!(c.fate, Fate::Reset(_))));
}

#[test]
fn held_connections_notice_a_cut_cable_as_silence() {
    let world = world("silent");
    let _pod = Server::http(&world.server, SocketAddr::new(ANY, 8080), "web-1").unwrap();
    let held = Held::open(&world.client, at(SERVER[1], 8080), 2, OFTEN).unwrap();
    world.server.ip("link set eth0 down").unwrap();
    until(|| held.connections().iter().all(|connection| connection.fate == Fate::Silent));
}

#[test]
fn held_connections_that_cannot_be_opened_are_an_error() {
    let world = world("unheld");
    let error = Held::open(&world.client, at(SERVER[0], 8080), 3, OFTEN).unwrap_err();
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
}

#[test]
fn a_load_remembers_each_request_and_sees_when_somebody_else_answers() {
    let world = world("load");
    let address = SocketAddr::new(ANY, 8080);
    let first = Server::http(&world.server, address, "old").unwrap();
    let load = Load::start(&world.client, at(SERVER[0], 8080), OFTEN);
    load.wait_for(0, PATIENCE, "old").expect("an answer");

    drop(first);
    let change = load.ended();
    let _second = Server::http(&world.server, address, "new").unwrap();
    let new = load.wait_for(change, PATIENCE, "new").expect("an answer by the new one");
    assert!(new.started <= new.ended);
    assert!(load.since(change).iter().all(|request| request.outcome.as_deref() != Ok("old")));
    assert!(load.wait_for(load.ended(), OFTEN, "old").is_none());
}

/// Looks again and again, for longer than anything here may take.
fn until(mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + 3 * PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "it did not happen");
        thread::yield_now();
    }
}
