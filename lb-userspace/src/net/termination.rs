//! The end of other people's sockets, in whatever network namespace they are (`SOCK_DESTROY`, kernel
//! 4.9 with `CONFIG_INET_DIAG_DESTROY`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    thread,
};

use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG},
};

/// Where container runtimes, and `ip netns`, keep names of network namespaces.
const NAMES: &str = "/run/netns";

/// Whether this kernel can end sockets.
///
/// # Errors
/// `EOPNOTSUPP` if it was built without; what else it says.
pub fn can_end_udp() -> io::Result<()> {
    match end(&Diagnosis::open()?, &SocketId::new_v4()) {
        // Nobody has it: so it was looked for.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Ends the connected UDP sockets with these cookies: who waits for an answer on one gets
/// `ECONNABORTED`, and nothing more can be sent on it. How many there were. Namespaces of which
/// nobody can be seen in `/proc` and that have no name in `/run/netns` are not looked into.
///
/// # Errors
/// If a namespace cannot be entered (`CAP_SYS_ADMIN`) or asked; the others are looked into first.
pub fn end_udp(cookies: &BTreeSet<u64>) -> io::Result<usize> {
    let ended = thread::scope(|scope| {
        let travels = || {
            let (mut ended, mut problem) = (0, None);
            for namespace in namespaces() {
                match end_in(&namespace, cookies) {
                    Ok(count) => ended += count,
                    Err(error) => problem = Some(error),
                }
            }
            problem.map_or(Ok(ended), Err)
        };
        // A thread of its own: it does not come back from where it goes.
        scope.spawn(travels).join()
    });
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Every network namespace that can be found, once.
fn namespaces() -> Vec<File> {
    let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
    let of_processes = entries("/proc").map(|entry| entry.path().join("ns/net"));
    let named = entries(NAMES).map(|entry| entry.path());
    let open = |path: PathBuf| {
        // A process that has ended meanwhile, or none; a name whose namespace is gone.
        let file = File::open(path).ok()?;
        let system = fstatfs(&file).ok()?.filesystem_type();
        if system != NSFS_MAGIC {
            return None;
        }
        let known_by = file.metadata().ok()?;
        Some(((known_by.dev(), known_by.ino()), file))
    };
    let found: BTreeMap<_, _> = of_processes.chain(named).filter_map(open).collect();
    found.into_values().collect()
}

/// Ends those that are in this namespace, which the calling thread enters.
fn end_in(namespace: &File, cookies: &BTreeSet<u64>) -> io::Result<usize> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let diagnosis = Diagnosis::open()?;
    let mut count = 0;
    for family in [AF_INET, AF_INET6] {
        let wanted = |id: &SocketId| cookies.contains(&u64::from_ne_bytes(id.cookie));
        for id in diagnosis.connected(family)?.iter().filter(|id| wanted(id)) {
            match end(&diagnosis, id) {
                Ok(()) => count += 1,
                // Closed by its owner meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(count)
}

fn end(diagnosis: &Diagnosis, id: &SocketId) -> io::Result<()> {
    let request = SockDiagMessage::InetRequest(request(id.clone()));
    diagnosis.ask(NLM_F_ACK, SockDiagDestroy::new(request))?;
    diagnosis.answers(|_| {})
}

/// A question about connected UDP sockets.
fn request(socket_id: SocketId) -> InetRequest {
    let family = if socket_id.source_address.is_ipv4() { AF_INET } else { AF_INET6 };
    InetRequest {
        family,
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id,
    }
}

/// Who knows of the sockets of the namespace that it was opened in.
struct Diagnosis(Socket);

impl Diagnosis {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The UDP sockets that are connected to somebody.
    fn connected(&self, family: u8) -> io::Result<Vec<SocketId>> {
        let any = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
        self.ask(NLM_F_DUMP, SockDiagMessage::InetRequest(request(any)))?;
        let mut found = Vec::new();
        self.answers(|message| {
            if let SockDiagMessage::InetResponse(socket) = message {
                found.push(socket.header.socket_id);
            }
        })?;
        Ok(found)
    }

    fn ask<T: NetlinkSerializable>(&self, flags: u16, message: T) -> io::Result<()>
    where
        NetlinkPayload<T>: From<T>,
    {
        let mut question = NetlinkMessage::from(message);
        question.header.flags = NLM_F_REQUEST | flags;
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop)
    }

    /// Takes all of the answer, which may have many parts.
    fn answers(&self, mut take: impl FnMut(SockDiagMessage)) -> io::Result<()> {
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let part = NetlinkMessage::<SockDiagMessage>::deserialize(rest);
                let part = part.map_err(io::Error::other)?;
                match part.payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    // The last word: that all is done, or that there was no more.
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
                rest = rest.get(part.header.length as usize..).unwrap_or_default();
            }
        }
    }
}
