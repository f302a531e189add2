//! A folder for pins under the BPF file system.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{cleanup, laboratory::gone};

const MOUNT: &str = "/sys/fs/bpf";

/// The lab's folder.
pub(super) fn folder(lab: &str) -> Result<PathBuf> {
    let _pass = cleanup::pass();
    mounted()?;
    let folder = Path::new(MOUNT).join(lab);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// A path where nothing is pinned, for a moment.
pub(super) fn scratch() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    mounted()?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(Path::new(MOUNT).join(format!("lb-lab-{}-{count}", std::process::id())))
}

/// Mounts the file system where nobody did.
fn mounted() -> Result<()> {
    if statfs(MOUNT)?.filesystem_type() != BPF_FS_MAGIC {
        mount(Some("bpf"), MOUNT, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a BPF file system at {MOUNT}"))?;
    }
    Ok(())
}

/// Removes that lab's pins; programs whose links were pinned there detach with them.
pub(super) fn sweep(lab: &str) -> Result<()> {
    gone(fs::remove_dir_all(Path::new(MOUNT).join(lab)))
}
