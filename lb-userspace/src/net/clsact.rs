//! The place where tc filters of incoming and outgoing packets hang, on kernels where they must.

use std::{io, thread};

use futures::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::tc::TcHandle;

/// Removes the place of filters (the qdisc `clsact`) from an interface, unless filters are there.
/// That it is gone is no error.
pub fn remove_unused_clsact(index: u32) -> io::Result<()> {
    // A runtime of its own: who calls may be on another one.
    thread::scope(|scope| {
        let removal = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(remove(index as i32)).map_err(io::Error::other)
        });
        removal.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn remove(index: i32) -> Result<(), rtnetlink::Error> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|_no_socket| rtnetlink::Error::RequestFailed)?;
    tokio::spawn(connection);
    let filters = |handle: &rtnetlink::Handle| handle.traffic_filter(index).get();
    for filters in [filters(&handle).ingress(), filters(&handle).egress()] {
        match filters.execute().try_next().await {
            Ok(None) => {}
            // In use; or there is no such interface, or no such place on it.
            Ok(Some(_)) | Err(rtnetlink::Error::NetlinkError(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    let mut removal = handle.qdisc().del(index);
    let header = &mut removal.message_mut().header;
    (header.parent, header.handle) = (TcHandle::CLSACT, TcHandle { major: 0xffff, minor: 0 });
    match removal.execute().await {
        Err(rtnetlink::Error::NetlinkError(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What an interface is called now; `None` if it is gone.
pub fn interface_name(index: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index).ok()?;
    // nix takes only -1 for a failure, and this call says NULL.
    name.into_string().ok().filter(|name| !name.is_empty())
}

/// Whether an interface is gone; `false` if the kernel cannot be asked.
pub fn is_gone(index: u32) -> bool {
    interface_name(index).is_none() && Errno::last() == Errno::ENXIO
}
