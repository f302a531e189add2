//! Who is at the other end of a socket: the kernel's word for it, as of when it connected.

use std::{io, os::fd::AsRawFd as _};

use libc::gid_t;
use tokio::net::UnixStream;

/// The groups of the peer besides its own; kernel 4.13.
///
/// # Errors
/// If the kernel does not say.
pub(super) fn groups(stream: &UnixStream) -> io::Result<Vec<gid_t>> {
    let mut groups: Vec<gid_t> = vec![0; 64];
    loop {
        let mut bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: `bytes` is the size of what `groups` holds, and the kernel writes no more than that.
        let code = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<gid_t>();
        if code == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}
