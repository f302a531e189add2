//! One agent per BPF file system: an abstract socket in the node's network namespace, named after
//! the file system's device and path. It holds across containers, and goes with the process.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::MetadataExt as _,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::Path,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::cli::{Exit, Failure};

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _listener: UnixListener,
}

/// Becomes the one agent of `bpffs`.
///
/// # Errors
/// If there is another, which is named.
pub fn take(bpffs: &Path) -> Result<Lock, Failure> {
    let address = address(bpffs)
        .map_err(|error| Failure::new(Exit::Error, error, "see that the bpffs path is right"))?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Lock { _listener: listener }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Failure::new(
            Exit::Error,
            format!("another agent has {}: {}", bpffs.display(), owner(&address)),
            "stop it, or give --bpffs another path",
        )),
        Err(error) => Err(Failure::new(Exit::Error, error, "the lock cannot be taken")),
    }
}

fn address(bpffs: &Path) -> io::Result<SocketAddr> {
    let existing = bpffs.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let device = fs::metadata(existing)?.dev();
    SocketAddr::from_abstract_name(format!("lb/{device}/{}", bpffs.display()))
}

/// The process that listens there.
fn owner(address: &SocketAddr) -> String {
    let peer = UnixStream::connect_addr(address)
        .and_then(|stream| getsockopt(&stream, PeerCredentials).map_err(io::Error::from));
    match peer {
        Ok(peer) => format!("process {}", peer.pid()),
        Err(_) => "a process that does not answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_the_first_named() {
        let folder = tempfile::tempdir().unwrap();
        let bpffs = folder.path().join("lb");
        let first = take(&bpffs).unwrap();
        let second = take(&bpffs).unwrap_err();
        let me = format!("process {}", std::process::id());
        assert!(second.to_string().contains(&me), "{second}");
        drop(first);
        take(&bpffs).unwrap();
    }
}
