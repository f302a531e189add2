//! Which of its addresses this host uses to speak to somebody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// UDP's discard port; any would do, as nothing is sent.
const DISCARD: u16 = 9;

/// The source address that the kernel would choose towards `destination`; none if there is no way.
pub fn source_towards(destination: IpAddr) -> Option<IpAddr> {
    let any = match destination {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((destination, DISCARD)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
