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
        Err(error) if is_no_answer(&error) => Err(error),
        // No route, one that says so (`prohibit`, `blackhole`), nothing of that family to send from, or
        // a program that lets nobody go there: ours, if it is the address of a Service.
        Err(_) => Ok(None),
    }
}

/// Whether the kernel has not even looked.
fn is_no_answer(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::EAGAIN
                | libc::EADDRINUSE
                | libc::EINTR
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_no_answer() {
        let is_no_answer = |errno| is_no_answer(&io::Error::from_raw_os_error(errno));
        for passes in [libc::EMFILE, libc::ENOBUFS, libc::EADDRINUSE] {
            assert!(is_no_answer(passes), "{passes}");
        }
        // The last two are what programs on `connect` answer.
        for told in [libc::ENETUNREACH, libc::EACCES, libc::ECONNREFUSED, libc::EPERM] {
            assert!(!is_no_answer(told), "{told}");
        }
    }
}
