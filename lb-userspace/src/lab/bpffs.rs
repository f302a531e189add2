//! A folder for pins under the BPF file system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{cleanup, laboratory::gone};

const MOUNT: &str = "/sys/fs/bpf";

/// The lab's folder; mounts the file system where nobody did.
pub(super) fn folder(lab: &str) -> Result<PathBuf> {
    let _pass = cleanup::pass();
    if statfs(MOUNT)?.filesystem_type() != BPF_FS_MAGIC {
        mount(Some("bpf"), MOUNT, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a BPF file system at {MOUNT}"))?;
    }
    let folder = Path::new(MOUNT).join(lab);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// Removes that lab's pins; programs whose links were pinned there detach with them.
pub(super) fn sweep(lab: &str) -> Result<()> {
    gone(fs::remove_dir_all(Path::new(MOUNT).join(lab)))
}
