//! What runs in pods: servers that say who they are.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use anyhow::{Context as _, Result};
use axum::{Router, extract::ConnectInfo, routing::get};
use tokio::io::copy;

use super::{
    host::Host,
    task::{Task, runtime},
};

/// A server on a host; it and its connections end when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _task: Task,
}

impl Server {
    /// Answers every HTTP request with `name`, and `/peer` with the client's address and port.
    /// `[::]` serves both families; port 0 takes a free one.
    pub fn http(host: &Host, address: SocketAddr, name: &str) -> Result<Self> {
        let listener = host.run(|| listen(address))?;
        let bound = listener.local_addr()?;
        let name = name.to_owned();
        Ok(Self { address: bound, _task: Task::start(host, || http(listener, name)) })
    }

    /// Sends back every byte of every connection.
    pub fn tcp_echo(host: &Host, address: SocketAddr) -> Result<Self> {
        let listener = host.run(|| listen(address))?;
        let bound = listener.local_addr()?;
        Ok(Self { address: bound, _task: Task::start(host, || tcp_echo(listener)) })
    }

    /// Answers every datagram with `name`, a blank and what it said; `/peer` with the client's
    /// address and port.
    pub fn udp(host: &Host, address: SocketAddr, name: &str) -> Result<Self> {
        let socket = host
            .run(|| UdpSocket::bind(address))
            .with_context(|| format!("bind UDP {address} on {}", host.name()))?;
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?;
        let name = name.to_owned();
        Ok(Self { address: bound, _task: Task::start(host, || udp(socket, name)) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves HTTP as [`Server::http`] does, for a process that is nothing but a pod. Calls `ready`
/// once connections are taken.
pub fn answer_http(address: SocketAddr, name: &str, ready: impl FnOnce()) -> Result<()> {
    let listener = listen(address)?;
    ready();
    runtime().block_on(http(listener, name.to_owned()));
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("bind TCP {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn http(listener: TcpListener, name: String) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    let peer =
        |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { canonical(peer).to_string() };
    let router = Router::new().route("/peer", get(peer)).fallback(move || {
        let name = name.clone();
        async move { name }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await.expect("axum serves until it is dropped");
}

/// An IPv4 client as such, though an IPv6 socket serves it.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

async fn tcp_echo(listener: TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    each(&listener, |mut stream| async move {
        let (mut from, mut to) = stream.split();
        // A client may go as it likes.
        copy(&mut from, &mut to).await.ok();
    })
    .await;
}

async fn each<F>(listener: &tokio::net::TcpListener, serve: impl Fn(tokio::net::TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    }
}

async fn udp(socket: UdpSocket, name: String) {
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a runtime");
    let mut buffer = vec![0; 65536];
    loop {
        // An error is an ICMP message about an earlier answer: not this client's business.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let said = match &buffer[..length] {
            b"/peer" => canonical(client).to_string().into_bytes(),
            other => other.to_vec(),
        };
        let answer = [name.as_bytes(), b" ", &said].concat();
        socket.send_to(&answer, client).await.ok();
    }
}
