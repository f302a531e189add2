//! What the agent may do: three capabilities while it loads, two afterwards, whoever started it; and
//! of what root has besides, what its configuration takes.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};

use super::syscalls;
use crate::{
    cli::{Exit, Failure},
    config::{Config, SourceKind},
};

/// To load programs, to put them on hooks, and to let them compute with addresses of packets.
const NEEDED: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Takes as many open files as it may have without asking: each node port that answers health checks
/// is one, and containers begin with 1,024.
pub fn take_all_files() {
    let taken = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = taken {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

/// Refuses to start without a capability, and names it. From here on this process can neither have
/// more privileges nor ask the kernel for what it has no use for.
pub fn check(config: &Config) -> Result<(), Failure> {
    let held = caps::read(None, CapSet::Effective).map_err(|error| unknown(&error))?;
    let all = held.contains(&Capability::CAP_SYS_ADMIN);
    if config.socket_termination && !all {
        return Err(Failure::new(
            Exit::Unreachable,
            "socketTermination: this process lacks CAP_SYS_ADMIN, to enter the namespaces of pods",
            "leave it off, or give it that capability too",
        ));
    }
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|needed| !held.contains(needed) && !all)
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            Exit::Unreachable,
            format!("this process lacks {}", missing.join(" and ")),
            "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        ));
    }
    nix::sys::prctl::set_no_new_privs()
        .map_err(|error| Failure::new(Exit::Error, error, "the kernel is too old"))?;
    syscalls::limit(config.socket_termination).map_err(|error| {
        Failure::new(Exit::Error, error, "use a kernel with CONFIG_SECCOMP_FILTER")
    })
}

/// Gives up, for good, everything but what is needed from here on. Threads that are started later lack
/// it too.
pub fn give_up_the_rest(config: &Config) -> Result<(), Failure> {
    let held = caps::read(None, CapSet::Permitted).map_err(|error| unknown(&error))?;
    let kept: CapsHashSet = held.intersection(&needed(config, &held)).copied().collect();
    let none = CapsHashSet::new();
    for (set, left) in
        [(CapSet::Inheritable, &none), (CapSet::Effective, &kept), (CapSet::Permitted, &kept)]
    {
        caps::set(None, set, left).map_err(|error| unknown(&error))?;
    }
    Ok(())
}

/// What the agent needs once its programs are loaded, as far as it has it.
fn needed(config: &Config, held: &CapsHashSet) -> CapsHashSet {
    use Capability::{
        CAP_BPF, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE,
        CAP_SYS_ADMIN, CAP_SYS_PTRACE,
    };
    // Maps; hooks; and health checks, for which a Service may name any port.
    let mut needed = CapsHashSet::from([CAP_BPF, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE]);
    if config.socket_termination {
        // To find the namespaces of other users' processes, and to enter them.
        needed.extend([CAP_SYS_PTRACE, CAP_SYS_ADMIN]);
    }
    if !held.contains(&CAP_BPF) || !held.contains(&CAP_NET_ADMIN) {
        // It stands for them.
        needed.insert(CAP_SYS_ADMIN);
    }
    if inputs(config).iter().any(|path| path.exists() && is_others(path)) {
        needed.insert(CAP_DAC_READ_SEARCH);
    }
    // The socket's folder, and the pins'.
    if [&config.socket, &config.bpffs].into_iter().filter_map(|it| it.parent()).any(is_others) {
        needed.insert(CAP_DAC_OVERRIDE);
    }
    needed
}

/// What is read as long as the agent lives, or for the first time after this.
fn inputs(config: &Config) -> Vec<PathBuf> {
    let mut paths = config.files.clone();
    paths.extend(config.seed_file.clone());
    if config.source == SourceKind::Kubernetes {
        // Where kubectl looks too.
        let usual = || Some(PathBuf::from(env::var_os("HOME")?).join(".kube/config"));
        let named = || env::var_os("KUBECONFIG").map(PathBuf::from);
        paths.extend(config.kubeconfig.clone().or_else(named).or_else(usual));
    }
    paths
}

/// Whether the path, or what there is of it, is another user's, or in a folder that he keeps closed.
fn is_others(path: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(real) = path.ancestors().find_map(|it| fs::canonicalize(it).ok()) else {
        return true;
    };
    let user = geteuid().as_raw();
    let of_another = |it: &Path, unless: u32| {
        fs::metadata(it).is_ok_and(|it| it.uid() != user && it.mode() & unless == 0)
    };
    of_another(&real, 0) || real.ancestors().skip(1).any(|folder| of_another(folder, 0o001))
}

fn unknown(error: &CapsError) -> Failure {
    Failure::new(Exit::Error, format!("capabilities: {error}"), "see that /proc is mounted")
}
