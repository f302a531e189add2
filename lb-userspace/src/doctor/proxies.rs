//! Whether another proxy for Services runs beside.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use super::facts::processes;

/// Where kube-proxy serves its metrics, and says how it works, unless it is told otherwise.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
/// A loopback answers at once, if anybody does.
const PATIENCE: Duration = Duration::from_millis(500);

/// The first that is found: by its process, or, where a container hides those, by what answers on
/// kube-proxy's port.
pub fn beside(root: &Path) -> Option<String> {
    let by_name = named(&processes(&root.join("proc")));
    let on_host = root == Path::new("/");
    by_name.or_else(|| proxy_mode().filter(|_| on_host).map(|mode| format!("kube-proxy ({mode})")))
}

fn named(processes: &[String]) -> Option<String> {
    let is_proxy = |name: &&String| matches!(name.as_str(), "kube-proxy" | "cilium-agent");
    processes.iter().find(is_proxy).cloned()
}

/// What a kube-proxy of this host says of its mode; nobody else answers with one of these words.
fn proxy_mode() -> Option<String> {
    let answer = ask().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mode = body.trim();
    let known = matches!(mode, "iptables" | "ipvs" | "nftables");
    (head.contains(" 200 ") && known).then(|| mode.to_owned())
}

fn ask() -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&METRICS, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /proxyMode HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    // More than that is not the answer.
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
