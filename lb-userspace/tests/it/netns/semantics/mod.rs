//! What Kubernetes promises beyond a choice of backend: clients that keep theirs, ports that are in
//! use, datagrams that must not go astray, health checks, and another proxy's connections.

mod datagrams;
mod health;
mod reached;
mod takeover;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    thread,
    time::Instant,
};

use lb_userspace::lab::{Host, PATIENCE};

use super::world::Over;

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

pub fn nft(host: &Host, words: &[&str], input: &str) {
    let mut child = host.command("nft").unwrap().args(words).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft {words:?}");
}
