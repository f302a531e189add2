//! What the agent may do: three capabilities while it loads, two afterwards, and never more but what
//! the end of other people's sockets takes, if that is asked for.

use caps::{CapSet, Capability, errors::CapsError};

use super::syscalls;
use crate::{
    cli::{Exit, Failure},
    config::Config,
};

/// To load programs, to put them on hooks, and to let them compute with addresses of packets.
const NEEDED: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

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

/// Gives up, for good, what only loading needs. Threads that are started later lack it too.
pub fn give_up_loading() -> Result<(), Failure> {
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::drop(None, set, Capability::CAP_PERFMON).map_err(|error| unknown(&error))?;
    }
    Ok(())
}

fn unknown(error: &CapsError) -> Failure {
    Failure::new(Exit::Error, format!("capabilities: {error}"), "see that /proc is mounted")
}
