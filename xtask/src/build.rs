//! `cargo xtask build`: the host crates; lb-userspace's build script compiles the eBPF object.

use anyhow::Result;

use crate::{
    process,
    setup::{self, Scope},
};

/// Sets up, then builds everything that ships.
pub(crate) fn all(release: bool) -> Result<()> {
    setup::ensure(Scope::Build)?;
    process::run(process::cargo(["build", "-p", "lb-userspace", "--bins"]).args(if release {
        Some("--release")
    } else {
        None
    }))
}
