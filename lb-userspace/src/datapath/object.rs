//! The object with the programs: its maps' sizes, loading, and what is pinned of it.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Program, ProgramError},
};
use lb_common::{
    abi::FlowSet,
    addr::{V4, V6},
    limits,
};

use super::{
    crash,
    layout::MAPS,
    moving::{self, Moving},
    pins::Pins,
    room::{self, TooLittle},
};

/// A loaded object: its programs, and its maps until they are taken.
pub type Object = Ebpf;

/// The compiled programs.
static BYTES: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT"));

/// Sizes of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub services: u32,
    pub backends: u32,
    pub arena_lines: u32,
    /// Sets of the flow table of each family: powers of two.
    pub flow_sets_v4: u32,
    pub flow_sets_v6: u32,
}

impl Sizes {
    /// What a private instance for a few questions needs.
    pub const SMALL: Self = Self {
        services: 16_384,
        backends: 65_536,
        arena_lines: 131_072,
        flow_sets_v4: 64,
        flow_sets_v6: 64,
    };

    /// The sizes of a node whose flow tables may take `flow_bytes` bytes together: half for each
    /// family, rounded down to a power of two of sets.
    pub fn with_flow_bytes(flow_bytes: u64) -> Self {
        let sets = |bytes_per_set: u64| {
            let sets = (flow_bytes / 2 / bytes_per_set).clamp(16, 1 << 24) as u32;
            1 << sets.ilog2()
        };
        Self {
            services: limits::SERVICES,
            backends: limits::BACKENDS,
            arena_lines: limits::ARENA_LINES,
            flow_sets_v4: sets(size_of::<FlowSet<V4>>() as u64),
            flow_sets_v6: sets(size_of::<FlowSet<V6>>() as u64),
        }
    }
}

/// Why the object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the kernel does not take the maps: {0}")]
    Object(#[source] EbpfError),
    #[error("the kernel does not take program {name}: {source}")]
    Program { name: String, source: ProgramError },
    #[error("{} cannot be made: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{} is not on a BPF file system: mount one with `mount -t bpf bpf {}`", .0.display(), .0.display())]
    NoBpffs(PathBuf),
    #[error("{} is read-only: nothing can be pinned there", .0.display())]
    ReadOnly(PathBuf),
    #[error("{} is not pinned", .0.display())]
    Unpinned(PathBuf),
    #[error("not allowed to use BPF")]
    NotAllowed,
    #[error("{0}")]
    NoRoom(TooLittle),
    #[error("the maps under {} are of a version that did not write down their layout", .0.display())]
    OldLayout(PathBuf),
}

/// Folder of the pinned maps under a bpffs path.
pub fn maps_folder(bpffs: &Path) -> PathBuf {
    bpffs.join("maps")
}

/// Loads the object with maps of its own.
///
/// # Errors
/// If the kernel refuses maps or programs, or the privilege is missing.
pub fn load_private(sizes: Sizes) -> Result<Object, LoadError> {
    load(sizes, None, Programs::All, Unused::default())
}

/// As [`load_private`], but only with the programs that explain, which count nothing: the other
/// programs and the counters of every CPU would take most of the time.
///
/// # Errors
/// As [`load_private`].
pub fn load_explaining(sizes: Sizes) -> Result<Object, LoadError> {
    load(sizes, None, Programs::Explaining, Unused::default())
}

/// As [`load_private`], but only with the programs that are named, and without what is unused.
///
/// # Errors
/// As [`load_private`].
pub fn load_only(
    sizes: Sizes,
    names: &'static [&'static str],
    unused: Unused,
) -> Result<Object, LoadError> {
    load(sizes, None, Programs::Only(names), unused)
}

/// As [`load_private`], but with no program loaded yet, and without what is unused.
///
/// # Errors
/// As [`load_private`].
pub fn create_private(sizes: Sizes, unused: Unused) -> Result<Object, LoadError> {
    load(sizes, None, Programs::None, unused)
}

/// Loads the object on the maps pinned under `bpffs`; what is not pinned yet is made and pinned. If
/// they have another layout than this program's, new ones are made beside them, and the move from
/// those to these is begun.
///
/// # Errors
/// As [`load_private`], and if `bpffs` is not on a BPF file system.
pub fn load_pinned(
    sizes: Sizes,
    bpffs: &Path,
    unused: Unused,
) -> Result<(Object, Option<Moving>), LoadError> {
    let (folder, moving) = moving::prepare(bpffs)?;
    let loaded = room::check(sizes, &folder)
        .map_err(LoadError::NoRoom)
        .and_then(|()| load(sizes, Some(&folder), Programs::But(unused), unused));
    match loaded {
        Ok(object) => Ok((object, moving)),
        Err(error) => {
            // Of a start that failed nothing stays: folders with pins in them do not go.
            for folder in [folder.as_path(), bpffs] {
                fs::remove_dir(folder).ok();
            }
            Err(error)
        }
    }
}

/// The programs that explain, on the maps pinned under `bpffs`, of which none is made or changed.
///
/// # Errors
/// As [`load_private`], and if a map is not pinned.
pub fn load_explaining_pinned(bpffs: &Path) -> Result<Object, LoadError> {
    let folder = maps_folder(bpffs);
    // The loader would make what is missing.
    if let Some(missing) = MAPS.iter().map(|map| folder.join(map.name)).find(|pin| !pin.exists()) {
        return Err(LoadError::Unpinned(missing));
    }
    load(Sizes::SMALL, Some(&folder), Programs::Explaining, Unused::default())
}

/// What the configuration has no use for, so that the kernel need not look through it, which takes it
/// longer than all else at a start: whole programs, and parts of all others, which a constant keeps
/// from being reached. It stays out until the programs are loaded anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unused {
    /// The programs of interfaces of pods.
    pub pods: bool,
    /// The program of XDP.
    pub xdp: bool,
    /// The programs of uplinks without an Ethernet header.
    pub raw: bool,
    /// Both steps of DSR, in every program.
    pub dsr: bool,
}

impl Unused {
    /// Every part that can be left out of all programs.
    pub const PARTS: Self = Self { pods: false, xdp: false, raw: false, dsr: true };

    /// A part that can be left out of the programs, and how its constant is named there.
    const fn constants(self) -> [(&'static str, u32); 1] {
        [("DSR", !self.dsr as u32)]
    }
}

/// Which programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Programs {
    All,
    But(Unused),
    Explaining,
    Only(&'static [&'static str]),
    None,
}

impl Programs {
    fn contains(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::But(Unused { pods, xdp, raw, dsr: _ }) => {
                !(pods && name.starts_with("pod_")
                    || raw && name.starts_with("raw_")
                    || xdp && name == "uplink_xdp")
            }
            Self::Explaining => name.starts_with("explain_"),
            Self::Only(names) => names.contains(&name),
            Self::None => false,
        }
    }
}

fn load(
    sizes: Sizes,
    pins: Option<&Path>,
    programs: Programs,
    unused: Unused,
) -> Result<Object, LoadError> {
    let Sizes { services, backends, arena_lines, flow_sets_v4, flow_sets_v6 } = sizes;
    let counted = |entries| if programs == Programs::Explaining { 1 } else { entries };
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries("SERVICES", services)
        .map_max_entries("SERVICE_COUNTS", counted(services))
        .map_max_entries("SERVICE_NAMES", services)
        .map_max_entries("BACKENDS", backends)
        .map_max_entries("BACKEND_COUNTS", counted(backends))
        .map_max_entries("BACKEND_NAMES", backends)
        .map_max_entries("TURNS", services)
        .map_max_entries("LOADS", backends)
        .map_max_entries("ARENA", arena_lines)
        .map_max_entries("FLOWS_V4", flow_sets_v4)
        .map_max_entries("FLOWS_V6", flow_sets_v6);
    let constants = unused.constants();
    for (name, value) in &constants {
        loader.override_global(name, value, true);
    }
    if let Some(folder) = pins {
        loader.default_map_pin_directory(folder);
        for map in MAPS {
            loader.map_pin_path(map.name, folder.join(map.name));
        }
    }
    // The loader pins one map after another: where it is ended, nothing says yet how they began.
    crash::point();
    let mut object = loader.load(BYTES).map_err(|error| refused(error, LoadError::Object))?;
    crash::point();
    for (name, program) in object.programs_mut().filter(|(name, _)| programs.contains(name)) {
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSkb(program) => program.load(),
            _ => Ok(()),
        };
        loaded.map_err(|source| LoadError::Program { name: name.to_owned(), source })?;
    }
    Ok(object)
}

/// Holds the maps pinned in a folder, so that their pins can be mended.
///
/// # Errors
/// If one is not pinned.
pub fn hold_maps(folder: PathBuf) -> io::Result<Pins> {
    let mut pins = Pins::new(folder);
    MAPS.iter().try_for_each(|map| pins.hold(map.name))?;
    Ok(pins)
}

/// Makes a folder on the BPF file system.
///
/// # Errors
/// If it cannot be made, or `path` is on another file system, or on one that is read-only.
pub fn make_folder(path: &Path) -> Result<(), LoadError> {
    use nix::sys::{
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::FsFlags,
    };
    let failed = |source: io::Error| LoadError::Folder { path: path.to_owned(), source };
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let system = statfs(existing).map_err(|errno| failed(errno.into()))?;
    if system.filesystem_type() != BPF_FS_MAGIC {
        return Err(LoadError::NoBpffs(existing.to_owned()));
    }
    // Not only where a folder is missing: what is to be pinned later could not be.
    if system.flags().contains(FsFlags::ST_RDONLY) {
        return Err(LoadError::ReadOnly(existing.to_owned()));
    }
    crash::point();
    // For its owner alone: whoever can open the topmost can lock it, which is an agent's to do.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

fn refused(error: EbpfError, or: impl FnOnce(EbpfError) -> LoadError) -> LoadError {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().is_some_and(denied) {
            return LoadError::NotAllowed;
        }
        source = cause.source();
    }
    or(error)
}
