//! Programs on their hooks, by pinned links: they stay when the agent goes, and a new agent puts
//! its programs behind the same links without a packet passing between.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType, Xdp,
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

    /// Whether it says nothing about the hook: the same may succeed in a moment.
    pub fn is_passing(&self) -> bool {
        let no_descriptor = [libc::EMFILE, libc::ENFILE];
        match self {
            Self::Program { source, .. } => no_descriptor.iter().any(|it| says(source, *it)),
            Self::Link { .. } => true,
            Self::Folder(_) | Self::Missing(_) | Self::Foreign { .. } => false,
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
    pub(super) pins: Pins,
    pub(super) held: BTreeSet<String>,
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
        self.keep_tc(index);
        let [egress, ingress] = faces.programs();
        for (program, at, to) in
            [(egress, "egress", TcAttachType::Egress), (ingress, "ingress", TcAttachType::Ingress)]
        {
            let hook: &mut SchedClassifier = find(object, program)?;
            if self.tc == Tc::Filters {
                let pins = filter::put(hook, self.pins.folder(), name, index, to);
                for pin in pins.map_err(|source| failed(program, name, source))? {
                    self.pins.hold(&pin).map_err(|error| link_failed(program, name, error))?;
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
        let pin = format!("xdp@{index}");
        self.held.insert(pin.clone());
        let hook: &mut Xdp = find(object, program)?;
        let fd = descriptor(hook.fd(), program, name)?;
        self.hold(program, pin, name, &fd, || {
            let link =
                hook.attach_to_if_index(index, mode).and_then(|link| hook.take_link(link))?;
            Ok(FdLink::try_from(link))
        })
    }

    /// Takes XDP off an interface where an agent before this one has put it; whether it had. A link that
    /// is put behind another program runs it as it ran the one before.
    ///
    /// # Errors
    /// If the pin cannot be removed.
    pub fn end_inherited_xdp(&mut self, index: u32) -> io::Result<bool> {
        let pin = format!("xdp@{index}");
        if self.pins.get(&pin).is_some() || !self.pins.folder().join(&pin).exists() {
            return Ok(false);
        }
        self.held.insert(pin.clone());
        unpin(self.pins.folder(), &pin)?;
        Ok(true)
    }

    /// Removes the links that nobody tried to take since this was opened, or last [`Links::forget`] was
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

    /// Counts the tc hooks of an interface as taken: nothing that is there is removed, whether or not
    /// it can be had now.
    pub fn keep_tc(&mut self, index: u32) {
        match self.tc {
            Tc::Links => self.held.extend(["egress", "ingress"].map(|at| format!("{at}@{index}"))),
            Tc::Filters => self.held.extend(filter::pins_of(index)),
        }
    }

    /// Puts a program behind the pinned link, or makes and pins one. Whatever comes of it, what is pinned
    /// there counts as taken.
    pub(super) fn hold<E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        program: &'static str,
        pin: String,
        target: &str,
        fd: impl AsFd,
        attach: impl FnOnce() -> Result<Result<FdLink, E>, ProgramError>,
    ) -> Result<(), AttachError> {
        self.held.insert(pin.clone());
        let path = self.pins.folder().join(&pin);
        crash::point();
        let swapped = sys::open_pin(&path).and_then(|link| sys::update_link(link.as_fd(), fd));
        if let Err(error) = swapped {
            // Of anything else it says nothing: the link goes on with the program that it has.
            if !is_gone(&error) {
                return Err(link_failed(program, target, error));
            }
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
        self.pins.hold(&pin).map_err(|error| link_failed(program, target, error))
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

pub(super) fn find<'a, P>(
    object: &'a mut Object,
    name: &'static str,
) -> Result<&'a mut P, AttachError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = object.program_mut(name).ok_or(AttachError::Missing(name))?;
    program.try_into().map_err(|_| AttachError::Missing(name))
}

/// A program's descriptor, for as long as the program itself is borrowed.
pub(super) fn descriptor(
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

/// Whether a pin is not there, or holds a link without an interface or cgroup.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOLINK))
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
