//! Cgroups (v2) of nodes: socket hooks act by cgroup, so each node on this kernel needs its own.
//!
//! They are *threaded* ones, so that a single thread of a test can be "on" a node while its
//! neighbours are on others. Threads can only be spread inside one domain; the process moves
//! into a domain of its own with its first lab and back with the end of its last.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    cleanup,
    laboratory::{all, gone},
};

/// The subtree of the mount that labs use.
const SUBTREE: &str = "lb-lab";

/// How long killed processes may take to leave a cgroup, in milliseconds.
const LEAVE: u16 = 5000;

/// How often a cgroup is emptied before giving up on it.
const ATTEMPTS: usize = 20;

/// This process's own part of the hierarchy.
#[derive(Debug)]
pub(super) struct Domain {
    path: PathBuf,
    /// Where the process came from.
    origin: PathBuf,
}

impl Domain {
    /// Moves the process into its domain, or joins the labs that are there already.
    pub(super) fn join() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Domain>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(domain) = shared.upgrade() {
            return Ok(domain);
        }
        let domain = Arc::new(Self::create()?);
        *shared = Arc::downgrade(&domain);
        Ok(domain)
    }

    fn create() -> Result<Self> {
        let mount = mount()?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let origin = mount.join(own);
        let path = mount.join(SUBTREE).join(std::process::id().to_string());
        fs::create_dir_all(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        fs::write(path.join("cgroup.procs"), "0")
            .with_context(|| format!("move into cgroup {}", path.display()))?;
        Ok(Self { path, origin })
    }

    /// A cgroup for one node of that lab.
    pub(super) fn cgroup(&self, lab: &str, name: &str, kept: &Kept) -> Result<Cgroup> {
        let _pass = cleanup::pass();
        let path = self.path.join(format!("{lab}.{name}"));
        fs::create_dir(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        fs::write(path.join("cgroup.type"), "threaded")
            .with_context(|| format!("make cgroup {} threaded", path.display()))?;
        Ok(Cgroup { path, kept: Arc::clone(kept) })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // Best effort: an empty cgroup that stays is harmless and goes with the next sweep.
        fs::write(self.origin.join("cgroup.procs"), "0").ok();
        fs::remove_dir(&self.path).ok();
    }
}

/// Set once a lab shall outlive its process.
pub(super) type Kept = Arc<AtomicBool>;

/// One node's cgroup; it goes with the last host in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    kept: Kept,
}

impl Cgroup {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it shall outlive this process, with what runs inside.
    pub(super) fn kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Moves the calling thread in.
    pub(super) fn enter(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.threads"), "0")
    }

    /// A child that writes "0" here before exec starts inside.
    pub(super) fn door(&self) -> io::Result<File> {
        File::options().write(true).open(self.path.join("cgroup.procs"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.kept() {
            // Busy while a server that outlives its host runs inside: the sweep gets it.
            fs::remove_dir(&self.path).ok();
        }
    }
}

/// Kills what runs in that lab's cgroups and removes them.
pub(super) fn sweep(lab: &str) -> Result<()> {
    let prefix = format!("{lab}.");
    let domains = entries(&mount()?.join(SUBTREE));
    let done = all(domains.iter().flat_map(|domain| {
        let of_lab = |cgroup: &PathBuf| {
            cgroup.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        };
        entries(domain).into_iter().filter(of_lab).map(|cgroup| remove(&cgroup, domain))
    }));
    // Other labs may still be in there, or their processes.
    domains.iter().for_each(|domain| drop(fs::remove_dir(domain)));
    done
}

/// What is in there; another process may just have removed it.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A thread that was on its way may come in behind the killing: then once more.
fn remove(cgroup: &Path, domain: &Path) -> Result<()> {
    for _ in 0..ATTEMPTS {
        empty(cgroup, domain)?;
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            result => return gone(result),
        }
    }
    bail!("threads keep coming into {}", cgroup.display())
}

/// Kills every process with a thread inside; this one's own threads are moved up to `domain`.
fn empty(cgroup: &Path, domain: &Path) -> Result<()> {
    for thread in fs::read_to_string(cgroup.join("cgroup.threads"))?.lines() {
        // Whatever fails here has ended meanwhile, or is waited for in vain below.
        match process_of(thread) {
            Some(process) if process == Pid::this() => {
                fs::write(domain.join("cgroup.threads"), thread).ok();
            }
            Some(process) => {
                kill(process, Signal::SIGKILL).ok();
            }
            None => {}
        }
    }
    wait_until_empty(cgroup)
}

fn process_of(thread: &str) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    process.trim().parse().ok().map(Pid::from_raw)
}

/// The kernel tells of the last process that leaves by a poll event on `cgroup.events`.
fn wait_until_empty(cgroup: &Path) -> Result<()> {
    let events = File::open(cgroup.join("cgroup.events"))?;
    while io::read_to_string(&events)?.contains("populated 1") {
        let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        if poll(&mut polled, LEAVE)? == 0 {
            bail!("processes in {} do not end", cgroup.display());
        }
        io::Seek::rewind(&mut &events)?;
    }
    Ok(())
}

/// Where the v2 hierarchy is mounted: at the top, or beside v1 in `unified`.
fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, path, "cgroup2", ..] => Some(PathBuf::from(path)),
            _ => None,
        })
        .context("no cgroup v2 mount\nmount it: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_where_the_mount_table_says() {
        assert!(mount().expect("a v2 mount").join("cgroup.procs").exists());
    }
}
