//! Programs on the hooks of sockets, which are a cgroup's: see [`Links`].

use std::{fs, io};

use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, links::FdLink,
};

use super::{
    attach::{AttachError, Links, descriptor, find},
    object::Object,
    removal::unpin,
};

/// The socket hooks.
const SOCKETS: &[&str] = &[
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];

/// The hooks at the beginning and the end of sockets.
const LIVES: &[&str] = &["post_bind4", "post_bind6", "sock_release"];
/// Looks at what sockets send.
const EGRESS: &str = "socket_egress";

impl Links {
    /// Translates the sockets of all processes in a cgroup (v2) and below. `id` is its inode.
    ///
    /// # Errors
    /// If a program cannot be attached.
    pub fn sockets(
        &mut self,
        object: &mut Object,
        cgroup: &fs::File,
        id: u64,
    ) -> Result<(), AttachError> {
        for program in SOCKETS.iter().copied() {
            let hook: &mut CgroupSockAddr = find(object, program)?;
            let fd = descriptor(hook.fd(), program, "the cgroup")?;
            self.hold(program, format!("{program}@{id}"), "the cgroup", &fd, || {
                let link = hook
                    .attach(cgroup, CgroupAttachMode::Single)
                    .and_then(|link| hook.take_link(link))?;
                Ok(FdLink::try_from(link))
            })?;
        }
        for program in LIVES.iter().copied() {
            let hook: &mut CgroupSock = find(object, program)?;
            let fd = descriptor(hook.fd(), program, "the cgroup")?;
            self.hold(program, format!("{program}@{id}"), "the cgroup", &fd, || {
                let link = hook
                    .attach(cgroup, CgroupAttachMode::Single)
                    .and_then(|link| hook.take_link(link))?;
                Ok(FdLink::try_from(link))
            })?;
        }
        Ok(())
    }

    /// Looks at what sockets in a cgroup send.
    ///
    /// # Errors
    /// If the program cannot be attached.
    pub fn egress(
        &mut self,
        object: &mut Object,
        cgroup: &fs::File,
        id: u64,
    ) -> Result<(), AttachError> {
        let hook: &mut CgroupSkb = find(object, EGRESS)?;
        let fd = descriptor(hook.fd(), EGRESS, "the cgroup")?;
        self.hold(EGRESS, format!("{EGRESS}@{id}"), "the cgroup", &fd, || {
            let link = hook
                .attach(cgroup, CgroupSkbAttachType::Egress, CgroupAttachMode::Single)
                .and_then(|link| hook.take_link(link))?;
            Ok(FdLink::try_from(link))
        })
    }

    /// Looks no longer at what sockets in a cgroup send.
    ///
    /// # Errors
    /// If the pin cannot be removed.
    pub fn end_egress(&mut self, id: u64) -> io::Result<()> {
        let pin = format!("{EGRESS}@{id}");
        self.held.remove(&pin);
        self.pins.release(&pin);
        match unpin(self.pins.folder(), &pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Counts the socket hooks of a cgroup as taken.
    pub fn keep_sockets(&mut self, cgroup: u64) {
        let hooks = SOCKETS.iter().chain(LIVES);
        self.held.extend(hooks.map(|program| format!("{program}@{cgroup}")));
        // Whether it is needed is decided elsewhere.
        self.held.insert(format!("{EGRESS}@{cgroup}"));
    }
}
