//! What runs on backends: servers that say who they are and then repeat what they hear. Those of a
//! backend are a process of its own: it dies as processes do, and thousands of connections have two
//! ends, which are more files than one process may have open.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::lab::{Host, Process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{TCP, UDP};

/// Longer than any datagram here.
const ROOM: usize = 64;
/// What a connection is read by: more than a usual packet has.
const PIECE: usize = 4096;
/// What a process says when it listens.
const READY: &str = "ready";

/// A backend's process; it dies when this is dropped, and the kernel resets what it had open.
pub(crate) struct Servers {
    _process: Process,
}

/// Starts both servers on a backend; returns when they listen.
pub(crate) fn start(host: &Host, id: u8) -> Result<Servers> {
    let mut command = host.command(std::env::current_exe()?)?;
    command.arg(format!("--serve={id}")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(host, &mut command)?;
    let mut said = String::new();
    let stdout = process.child().stdout.take().context("a pipe")?;
    BufReader::new(stdout).read_line(&mut said)?;
    ensure!(said.trim() == READY, "the servers of {} do not begin: {said:?}", host.name());
    Ok(Servers { _process: process })
}

/// Serves until it is killed.
pub(crate) fn serve(id: u8) -> Result<()> {
    let tcp: SocketAddr = (Ipv4Addr::UNSPECIFIED, TCP).into();
    let listener = std::net::TcpListener::bind(tcp).context("listen")?;
    listener.set_nonblocking(true)?;
    let udp: SocketAddr = (Ipv4Addr::UNSPECIFIED, UDP).into();
    let socket = std::net::UdpSocket::bind(udp)?;
    socket.set_nonblocking(true)?;
    println!("{READY}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::spawn(datagrams(socket, id));
        accept(listener, id).await;
    });
    Ok(())
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

/// What an answer to a datagram begins with: the backend's number, and the port that it saw the
/// client at, which is another one for each flow.
pub(crate) const HEAD: usize = 3;

/// Repeats what it hears behind that.
async fn datagrams(socket: std::net::UdpSocket, id: u8) {
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a runtime");
    let mut buffer = [0; ROOM];
    loop {
        // An error is an ICMP message about an earlier answer: not this client's business.
        let Ok((length, client)) = socket.recv_from(&mut buffer[HEAD..]).await else { continue };
        buffer[0] = id;
        buffer[1..HEAD].copy_from_slice(&client.port().to_be_bytes());
        socket.send_to(&buffer[..HEAD + length], client).await.ok();
    }
}
