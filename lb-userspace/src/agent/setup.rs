//! What is found out once, at start.

use std::{fs, num::NonZeroU64, path::Path, path::PathBuf, time::Duration};

use lb_common::{
    abi::{Settings, Timeouts},
    hash,
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    cli::{Exit, Failure},
    config::{self, Config},
    datapath::{maps::Birth, object::Sizes, sys},
    host, net,
};

/// Refuses a configuration that does not fit this host.
pub fn check(config: &Config) -> Result<(), Failure> {
    if let Ok(kernel) = host::local_ports() {
        config::check_local_ports(config.snat_ports, kernel)?;
    }
    if let Some(file) = &config.seed_file {
        secret(file)?;
    }
    if config.socket_termination {
        net::can_end_udp().map_err(|error| {
            Failure::new(
                Exit::Error,
                format!("socketTermination: this kernel ends no sockets: {error}"),
                "leave it off, or use a kernel with CONFIG_INET_DIAG_DESTROY",
            )
        })?;
    }
    Ok(())
}

/// For tests of what is left then: `LB_CRASH_AFTER` writes to the kernel, and the end.
#[cfg(feature = "lab")]
pub fn end_in_the_middle() {
    let writes = std::env::var("LB_CRASH_AFTER").ok().and_then(|writes| writes.parse().ok());
    if let Some(writes) = writes {
        crate::datapath::crash::after(writes, std::process::abort);
    }
}

/// The clock of the programs, in ticks.
pub fn ticks() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Into::into);
    (now.as_nanos() >> Settings::TICK_SHIFT) as u32
}

/// The clock of the programs, in nanoseconds.
pub fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Into::into);
    now.as_nanos() as u64
}

/// A length of time in ticks; at least one.
fn in_ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() >> Settings::TICK_SHIFT).unwrap_or(u32::MAX / 4).max(1)
}

/// What the configuration says to the programs of maps that began so.
pub fn settings(config: &Config, sizes: Sizes, birth: Birth) -> Result<Settings, Failure> {
    let takeover = match config.takeover.0 {
        Duration::ZERO => 0,
        time => birth.tick.wrapping_add(in_ticks(time)),
    };
    let config::Timeouts { tcp, tcp_closing, half_open, udp, sctp } = config.timeouts;
    Ok(Settings {
        seed: seed(config.seed_file.as_deref())?,
        // As old as the flows: the cluster's seed may be another than theirs.
        table_key: birth.table_key.get(),
        jiffy: host::jiffy(),
        flow_mask_v4: sizes.flow_sets_v4 - 1,
        flow_mask_v6: sizes.flow_sets_v6 - 1,
        takeover_until: takeover,
        snat_first: config.snat_ports.first,
        snat_last: config.snat_ports.last,
        timeouts: Timeouts {
            tcp: in_ticks(tcp.0),
            tcp_closing: in_ticks(tcp_closing.0),
            half_open: in_ticks(half_open.0),
            udp: in_ticks(udp.0),
            sctp: in_ticks(sctp.0),
        },
        reset_gone: u32::from(config.reset_gone),
        // Without it no bind() is refused.
        namespace: sys::namespace_cookie().unwrap_or(0),
        ..Settings::default()
    })
}

fn seed(file: Option<&Path>) -> Result<u64, Failure> {
    let Some(file) = file else {
        tracing::warn!("no seedFile: flows are hashed with the built-in seed, which is no secret");
        return Ok(Settings::default().seed);
    };
    let secret = secret(file)?;
    let words = secret.chunks(8).map(|chunk| chunk.iter().fold(0, |w, b| w << 8 | u64::from(*b)));
    Ok(hash::finish(words.fold(secret.len() as u64, hash::mix)))
}

/// What the cluster's nodes know and nobody else.
fn secret(file: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |what: &dyn std::fmt::Display| {
        let make = format!(
            "put a secret into it, the same on every node: head -c 32 /dev/urandom > {}",
            file.display()
        );
        Failure::new(Exit::Error, format!("seedFile {}: {what}", file.display()), make)
    };
    let secret = fs::read(file).map_err(|error| wrong(&error))?;
    if secret.trim_ascii().is_empty() {
        return Err(wrong(&"nothing is in it"));
    }
    Ok(secret)
}

/// A number that nobody outside can know.
pub fn draw() -> NonZeroU64 {
    use std::hash::BuildHasher as _;
    // Its keys are the system's random bytes.
    let drawn = std::hash::RandomState::new().hash_one(std::process::id());
    NonZeroU64::new(drawn).unwrap_or(NonZeroU64::MIN)
}

/// The cgroup whose processes' sockets are translated: the configured one, or the root of the v2
/// hierarchy wherever it is mounted.
pub fn cgroup(config: &Config) -> Result<PathBuf, Failure> {
    config.cgroup_root.clone().map_or_else(cgroup_mount, Ok)
}

/// The root of the v2 hierarchy, wherever it is mounted.
pub fn cgroup_mount() -> Result<PathBuf, Failure> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    mount.ok_or_else(|| {
        Failure::new(
            Exit::Error,
            "no cgroup v2 hierarchy is mounted",
            "mount one (`mount -t cgroup2 none /sys/fs/cgroup`), or give --cgroup-root",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_file_with_nothing_in_it_is_no_secret_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seed");
        let said = |text: &str| {
            fs::write(&file, text).unwrap();
            seed(Some(&file)).map_err(|failure| failure.what)
        };
        let empty = Err(format!("seedFile {}: nothing is in it", file.display()));
        assert_eq!((said(""), said("\n")), (empty.clone(), empty));
        assert_ne!(said("one").unwrap(), said("another").unwrap());
    }
}
