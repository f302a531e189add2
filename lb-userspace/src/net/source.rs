//! Which of its addresses this host uses to speak to somebody.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

/// UDP's discard port; any would do, as nothing is sent.
const DISCARD: u16 = 9;

/// The source address that the kernel would choose towards `destination`; none if there is no way.
///
/// # Errors
/// If the kernel cannot be asked now: no descriptor, no memory, no port.
pub fn source_towards(destination: IpAddr) -> io::Result<Option<IpAddr>> {
    let any = match destination {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let asked = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((destination, DISCARD))?;
        socket.local_addr()
    });
    match asked {
        Ok(own) => Ok(Some(own.ip())),
        Err(error) if is_no_way(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether that is an answer: no route, one that says so (`prohibit`, `blackhole`), or nothing of that
/// family to send from.
fn is_no_way(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EACCES
                | libc::EINVAL
                | libc::EADDRNOTAVAIL
                | libc::EAFNOSUPPORT
        )
    )
}
