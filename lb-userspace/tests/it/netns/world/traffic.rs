//! Questions to the servers, and who answers.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
};

use lb_userspace::lab::{self, Host, PATIENCE};

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Tcp,
    Udp,
}

impl Over {
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Who answers there, asked from a new socket.
    pub fn ask(self, from: &Host, target: SocketAddr) -> io::Result<String> {
        match self {
            Self::Tcp => lab::get(from, target),
            Self::Udp => {
                let answer = lab::udp_ask(from, target, "who?")?;
                Ok(answer.trim_end_matches(" who?").to_owned())
            }
        }
    }

    /// The same in one word for comparing: the server's name, or what went wrong.
    pub fn who(self, from: &Host, target: SocketAddr) -> String {
        self.ask(from, target).unwrap_or_else(|error| error.to_string())
    }

    /// Whom a server there believes to talk to.
    pub fn peer(self, from: &Host, target: SocketAddr) -> io::Result<SocketAddr> {
        let answer = match self {
            Self::Tcp => lab::get_path(from, target, "/peer")?,
            Self::Udp => lab::udp_ask(from, target, "/peer")?,
        };
        let peer = answer.rsplit(' ').next().unwrap_or_default();
        peer.parse().map_err(|_| io::Error::other(format!("no address: {answer}")))
    }
}

/// Sends that many bytes there and back over one connection: what comes back is what was sent.
pub fn there_and_back(from: &Host, target: SocketAddr, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(5 * PATIENCE)).unwrap();
    stream.set_write_timeout(Some(5 * PATIENCE)).unwrap();
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::with_capacity(bytes);
        (&stream).read_to_end(&mut back).map(|_| back)
    });
    let back = back.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert!(back == sent, "{target}: {} bytes came back of {bytes}, or others", back.len());
}
