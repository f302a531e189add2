//! The lab itself: a name that everything in it carries.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};

use super::{
    bpffs,
    cgroup::{self, Cgroup, Domain, Kept},
    cleanup,
    host::Host,
};

/// Where each lab has a folder, and in it the lock that says whether its owner lives.
const STATE: &str = "/run/lb-lab";

/// A set of hosts that appear and disappear together.
pub struct Lab {
    name: String,
    /// Where what belongs to no node runs.
    outside: Arc<Cgroup>,
    kept: Kept,
    // Locked as long as this process lives.
    _lock: File,
    // Last: the process leaves its cgroup after the lab's own are gone.
    domain: Arc<Domain>,
}

impl Lab {
    /// A lab that collides with no other, in this process or any.
    pub fn new(label: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("lb-{label}-{}-{count}", std::process::id()))
    }

    /// A lab with exactly this name. One of that name whose owner is gone, kept or not, is
    /// removed first; one whose owner lives is an error.
    pub fn named(name: &str) -> Result<Self> {
        cleanup::arm();
        let guard = exclusive()?;
        remove_leftovers()?;
        Self::remove_unlocked(name)?;
        let folder = Path::new(STATE).join(name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().context("lock a new lab")?;
        drop(guard);
        cleanup::register(name);
        let domain = Domain::join()?;
        let kept = Kept::default();
        let outside = Arc::new(domain.cgroup(name, "outside", &kept)?);
        Ok(Self { name: name.to_owned(), outside, kept, _lock: lock, domain })
    }

    /// Removes the lab of that name unless its owner lives; whether there was one.
    pub fn remove(name: &str) -> Result<bool> {
        let _guard = exclusive()?;
        Self::remove_unlocked(name)
    }

    fn remove_unlocked(name: &str) -> Result<bool> {
        let folder = Path::new(STATE).join(name);
        if !folder.exists() {
            return Ok(false);
        }
        if owner_lives(&folder) {
            bail!("the lab {name:?} is in use by another process\nwait for it, or end it first");
        }
        sweep(name);
        Ok(true)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A machine that belongs to no node of the cluster.
    pub fn host(&self, name: &str) -> Result<Host> {
        Host::create(&self.name, name, Arc::clone(&self.outside))
    }

    /// A machine with a cgroup of its own, where an agent can translate sockets.
    pub fn node(&self, name: &str) -> Result<Host> {
        let cgroup = self.domain.cgroup(&self.name, name, &self.kept)?;
        Host::create(&self.name, name, Arc::new(cgroup))
    }

    /// A network namespace of its own inside that node's cgroup.
    pub fn pod(&self, node: &Host, name: &str) -> Result<Host> {
        Host::create(&self.name, name, node.share_cgroup())
    }

    /// A folder for files and sockets; it goes with the lab.
    pub fn folder(&self) -> PathBuf {
        Path::new(STATE).join(&self.name)
    }

    /// A place for the pins of that node's agent; bpffs is mounted when it is not.
    pub fn bpffs(&self, node: &str) -> Result<PathBuf> {
        Ok(bpffs::folder(&self.name)?.join(node))
    }

    /// Leaves everything in place when this process ends, until [`Lab::remove`].
    pub fn keep(&self) -> Result<()> {
        fs::write(self.folder().join("kept"), "")?;
        cleanup::forget(&self.name);
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            let _pass = cleanup::pass();
            cleanup::forget(&self.name);
            sweep(&self.name);
        }
    }
}

/// Removes all that carries this name, whoever made it. What cannot be removed is reported and
/// the rest goes on: a clean-up that stops half-way leaves more behind.
pub(super) fn sweep(name: &str) {
    let steps = [
        ("processes and cgroups", cgroup::sweep(name)),
        ("pins", bpffs::sweep(name)),
        ("namespaces", Host::sweep(name)),
        ("files", remove_files(name)),
    ];
    for (what, result) in steps {
        if let Err(error) = result {
            eprintln!("lab {name}: cannot remove its {what}: {error:#}");
        }
    }
}

/// Moved away first, so that nobody who still knows the path adds a file meanwhile.
fn remove_files(name: &str) -> Result<()> {
    let trash = Path::new(STATE).join(format!(".{name}.{}", std::process::id()));
    gone(fs::rename(Path::new(STATE).join(name), &trash))?;
    gone(fs::remove_dir_all(&trash))
}

/// Does every step; the first error is the result.
pub(super) fn all(steps: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    steps.into_iter().fold(Ok(()), Result::and)
}

/// Nothing to remove is as good as removed.
pub(super) fn gone(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// One process at a time makes or removes labs, so none is swept before it holds its lock.
fn exclusive() -> Result<File> {
    fs::create_dir_all(STATE)
        .with_context(|| format!("create {STATE}\na lab needs root: try sudo"))?;
    let guard = File::create(Path::new(STATE).join(".lock"))?;
    guard.lock()?;
    Ok(guard)
}

/// Removes labs whose owner was killed; kept ones stay.
fn remove_leftovers() -> Result<()> {
    for entry in fs::read_dir(STATE)? {
        let entry = entry?;
        let folder = entry.path();
        if folder.is_dir() && !folder.join("kept").exists() && !owner_lives(&folder) {
            sweep(&entry.file_name().to_string_lossy());
        }
    }
    Ok(())
}

fn owner_lives(folder: &Path) -> bool {
    File::open(folder.join("lock")).is_ok_and(|lock| lock.try_lock().is_err())
}
