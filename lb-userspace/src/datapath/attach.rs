//! Programs on their hooks, by pinned links: they stay when the agent goes, and a new agent puts
//! its programs behind the same links without a packet passing between.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, ProgramError,
    SchedClassifier, TcAttachType, Xdp,
    links::{FdLink, LinkOrder},
    tc::TcAttachOptions,
};

use super::{
    crash, filter,
    object::{LoadError, Object, make_folder},
    pins::Pins,
    removal::{pins, unpin},
    sys,
    tc::Tc,
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

pub use aya::programs::XdpMode;

/// Who is behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faces {
    /// Other hosts: it is an uplink.
    Others,
    /// The same, by a device whose packets have no Ethernet header.
    OthersRaw,
    /// Pods of this node.
    Pods,
}

impl Faces {
    /// The programs that look at what goes out there, and at what comes in.
    const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Others => ["uplink_egress", "uplink_ingress"],
            Self::OthersRaw => ["raw_egress", "raw_ingress"],
            Self::Pods => ["pod_egress", "pod_ingress"],
        }
    }
}

/// Whether the programs of such interfaces were loaded.
pub fn is_loaded(object: &mut Object, faces: Faces) -> bool {
    let loaded =
        |program| find(object, program).is_ok_and(|it: &mut SchedClassifier| it.fd().is_ok());
    faces.programs().into_iter().all(loaded)
}

/// Why a program is not on its hook.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    Folder(#[from] LoadError),
    #[error("program {0} is not in the object")]
    Missing(&'static str),
    #[error("{program} on {target}: {source}")]
    Program { program: &'static str, target: String, source: ProgramError },
    #[error("{program} on {target}: a program of somebody else is there: {source}")]
    Foreign { program: &'static str, target: String, source: ProgramError },
    #[error("{program} on {target}: its link: {source}")]
    Link { program: &'static str, target: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl AttachError {
    /// Whether the driver has no such hook, or none for so long an MTU: another may serve.
    pub fn is_unsupported(&self) -> bool {
        // ERANGE: the interface's packets are longer than its driver's XDP takes.
        let unsupported = [libc::EOPNOTSUPP, libc::ERANGE];
        matches!(self, Self::Program { source, .. } if unsupported.iter().any(|it| says(source, *it)))
    }

    /// Why XDP is not there, for who knows where.
    pub fn why_not(&self) -> String {
        match self {
            Self::Foreign { .. } => "a program of somebody else is there".to_owned(),
            Self::Program { source, .. } if says(source, libc::ERANGE) => {
                "the driver has none for such an MTU".to_owned()
            }
            _ if self.is_unsupported() => "the driver has none".to_owned(),
            _ => self.to_string(),
        }
    }
}

/// Folder of the pinned links under a bpffs path.
pub fn links_folder(bpffs: &Path) -> PathBuf {
    bpffs.join("links")
}

/// What is on its hook, by the names of the pins.
#[derive(Debug)]
pub struct Links {
    pins: Pins,
    held: BTreeSet<String>,
    tc: Tc,
}

impl Links {
    /// The links under `bpffs`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(bpffs: &Path, tc: Tc) -> Result<Self, LoadError> {
        let folder = links_folder(bpffs);
        make_folder(&folder)?;
        Ok(Self { pins: Pins::new(folder), held: BTreeSet::new(), tc })
    }

    /// How tc programs are held here.
    pub const fn tc_kind(&self) -> Tc {
        self.tc
    }

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

    /// Looks at what comes in and goes out on an interface, by tc.
    ///
    /// # Errors
    /// If a program cannot be attached.
    pub fn tc(
        &mut self,
        object: &mut Object,
        name: &str,
        index: u32,
        faces: Faces,
    ) -> Result<(), AttachError> {
        let [egress, ingress] = faces.programs();
        for (program, at, to) in
            [(egress, "egress", TcAttachType::Egress), (ingress, "ingress", TcAttachType::Ingress)]
        {
            let hook: &mut SchedClassifier = find(object, program)?;
            if self.tc == Tc::Filters {
                let pins = filter::put(hook, self.pins.folder(), name, index, to);
                for pin in pins.map_err(|source| failed(program, name, source))? {
                    self.pins.hold(&pin).map_err(|error| link_failed(program, name, error))?;
                    self.held.insert(pin);
                }
                continue;
            }
            let fd = descriptor(hook.fd(), program, name)?;
            self.hold(program, format!("{at}@{index}"), name, &fd, || {
                let order = TcAttachOptions::TcxOrder(LinkOrder::default());
                let link = hook
                    .attach_with_options(name, to, order)
                    .and_then(|link| hook.take_link(link))?;
                Ok(FdLink::try_from(link))
            })?;
        }
        Ok(())
    }

    /// Looks at what comes in on an interface before the stack does.
    ///
    /// # Errors
    /// If the driver has no XDP, or another program is there.
    pub fn xdp(
        &mut self,
        object: &mut Object,
        name: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<(), AttachError> {
        let program = "uplink_xdp";
        let hook: &mut Xdp = find(object, program)?;
        let fd = descriptor(hook.fd(), program, name)?;
        self.hold(program, format!("xdp@{index}"), name, &fd, || {
            let link = hook.attach(name, mode).and_then(|link| hook.take_link(link))?;
            Ok(FdLink::try_from(link))
        })
    }

    /// Removes the links that were not taken since this was opened, or last [`Links::forget`] was
    /// called: their interface or cgroup is no longer ours.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn prune(&mut self) -> io::Result<Vec<String>> {
        let mut left = pins(self.pins.folder())?;
        left.retain(|name| !self.held.contains(name));
        for name in &left {
            self.pins.release(name);
            unpin(self.pins.folder(), name)?;
        }
        Ok(left)
    }

    /// Pins again what somebody has unpinned; see [`Pins::mend`].
    ///
    /// # Errors
    /// As there.
    pub fn mend(&self) -> io::Result<Vec<String>> {
        self.pins.mend()
    }

    /// Begins anew: what is taken from here on is what [`Links::prune`] leaves.
    pub fn forget(&mut self) {
        self.held.clear();
    }

    /// Counts the socket hooks of a cgroup as taken.
    pub fn keep_sockets(&mut self, cgroup: u64) {
        let hooks = SOCKETS.iter().chain(LIVES);
        self.held.extend(hooks.map(|program| format!("{program}@{cgroup}")));
        // Whether it is needed is decided elsewhere.
        self.held.insert(format!("{EGRESS}@{cgroup}"));
    }

    /// Puts a program behind the pinned link, or makes and pins one.
    fn hold<E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        program: &'static str,
        pin: String,
        target: &str,
        fd: impl AsFd,
        attach: impl FnOnce() -> Result<Result<FdLink, E>, ProgramError>,
    ) -> Result<(), AttachError> {
        let path = self.pins.folder().join(&pin);
        crash::point();
        let is_swapped = match sys::open_pin(&path) {
            Ok(link) => sys::update_link(link.as_fd(), fd).is_ok(),
            Err(_) => false,
        };
        if !is_swapped {
            crash::point();
            // A link whose interface or cgroup is gone.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(link_failed(program, target, error));
                }
                _ => {}
            }
            crash::point();
            let link = attach().map_err(|source| failed(program, target, source))?;
            let link = link.map_err(|error| link_failed(program, target, error))?;
            crash::point();
            link.pin(&path).map_err(|error| link_failed(program, target, error))?;
        }
        self.pins.hold(&pin).map_err(|error| link_failed(program, target, error))?;
        self.held.insert(pin);
        Ok(())
    }
}

/// How tc programs are held on this kernel.
///
/// # Errors
/// If the object lacks the program that is asked about, or it is not loaded.
pub fn tc_kind(object: &mut Object) -> Result<Tc, AttachError> {
    // For tests of what older kernels do.
    #[cfg(feature = "lab")]
    if std::env::var_os("LB_TC_FILTERS").is_some() {
        return Ok(Tc::Filters);
    }
    let program = "uplink_ingress";
    let hook: &mut SchedClassifier = find(object, program)?;
    let fd = hook.fd().map_err(|e| failed(program, "no interface", e))?;
    Ok(if sys::has_tcx(fd) { Tc::Links } else { Tc::Filters })
}

fn find<'a, P>(object: &'a mut Object, name: &'static str) -> Result<&'a mut P, AttachError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = object.program_mut(name).ok_or(AttachError::Missing(name))?;
    program.try_into().map_err(|_| AttachError::Missing(name))
}

/// A program's descriptor, for as long as the program itself is borrowed.
fn descriptor(
    fd: Result<&aya::programs::ProgramFd, ProgramError>,
    program: &'static str,
    target: &str,
) -> Result<std::os::fd::OwnedFd, AttachError> {
    let fd = fd.map_err(|error| failed(program, target, error))?.as_fd().try_clone_to_owned();
    fd.map_err(|error| link_failed(program, target, error))
}

fn failed(program: &'static str, target: &str, source: ProgramError) -> AttachError {
    let target = target.to_owned();
    // EEXIST: a generic one is where a native one is to be, or the other way round.
    if says(&source, libc::EBUSY) || says(&source, libc::EEXIST) {
        return AttachError::Foreign { program, target, source };
    }
    AttachError::Program { program, target, source }
}

/// Whether that is what the kernel answered.
fn says(error: &(dyn std::error::Error + 'static), errno: i32) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|error| error.raw_os_error() == Some(errno))
    })
}

fn link_failed(
    program: &'static str,
    target: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> AttachError {
    AttachError::Link { program, target: target.to_owned(), source: Box::new(source) }
}
