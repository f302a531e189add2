//! What runs on backends: servers that say who they are and then repeat what they hear.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use lb_userspace::lab::{Host, Task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{TCP, UDP};

/// Longer than any datagram here.
const ROOM: usize = 64;
/// What a connection is read by: more than a usual packet has.
const PIECE: usize = 4096;

/// A backend's processes; they die when this is dropped, and the kernel resets what they had open.
pub(crate) struct Servers {
    _tasks: [Task; 2],
}

/// Starts both servers on a backend.
pub(crate) fn start(host: &Host, id: u8) -> Result<Servers> {
    let tcp: SocketAddr = (Ipv4Addr::UNSPECIFIED, TCP).into();
    let listener = host.run(|| std::net::TcpListener::bind(tcp));
    let listener = listener.with_context(|| format!("listen on {}", host.name()))?;
    listener.set_nonblocking(true)?;
    let udp: SocketAddr = (Ipv4Addr::UNSPECIFIED, UDP).into();
    let socket = host.run(|| std::net::UdpSocket::bind(udp))?;
    socket.set_nonblocking(true)?;
    let tasks = [
        Task::start(host, move || accept(listener, id)),
        Task::start(host, move || datagrams(socket, id)),
    ];
    Ok(Servers { _tasks: tasks })
}

async fn accept(listener: std::net::TcpListener, id: u8) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(repeat(stream, id));
        }
    }
}

async fn repeat(mut stream: tokio::net::TcpStream, id: u8) {
    let mut buffer = vec![0; PIECE];
    if stream.write_all(&[id]).await.is_err() {
        return;
    }
    // A client may go as it likes.
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Answers with its number in front.
async fn datagrams(socket: std::net::UdpSocket, id: u8) {
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a runtime");
    let mut buffer = [0; ROOM];
    loop {
        // An error is an ICMP message about an earlier answer: not this client's business.
        let Ok((length, client)) = socket.recv_from(&mut buffer[1..]).await else { continue };
        buffer[0] = id;
        socket.send_to(&buffer[..=length], client).await.ok();
    }
}
