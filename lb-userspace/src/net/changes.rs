//! News of the network, without the contents.

use std::io;

use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// How much of a message is read; the rest goes with it.
const ENOUGH: usize = 16;

/// Tells that interfaces, addresses or routes have changed.
///
/// The kernel keeps the news until somebody asks, so any number of changes in between are one.
/// Nobody reads what exactly it was; so a flood that the socket could not hold loses nothing.
pub struct Changes(TokioSocket);

impl Changes {
    /// What happens from now on is a change.
    pub fn begin() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS.iter().fold(0, |all, group| all | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Waits until something has changed since the last time. May be dropped while it waits.
    pub async fn next(&mut self) -> io::Result<()> {
        heard(self.0.recv(&mut &mut [0; ENOUGH][..]).await)?;
        loop {
            // Not through the runtime: it would have us pause every so many messages.
            match heard(self.0.socket_ref().recv(&mut &mut [0; ENOUGH][..], 0)) {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn heard<T>(received: io::Result<T>) -> io::Result<()> {
    match received {
        // There were more than the socket could hold: certainly something has changed.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
        other => other.map(drop),
    }
}
