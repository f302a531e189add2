//! `cargo xtask build`: the host crates; lb-userspace's build script compiles the eBPF object.

use anyhow::Result;

use crate::{
    process,
    setup::{self, Scope},
};

/// Sets up, then builds everything that ships.
pub(crate) fn all(release: bool) -> Result<()> {
    setup::ensure(Scope::Build)?;
    let mut cargo = process::cargo(["build", "-p", "lb-userspace", "--bins"]);
    // `lb-demo` is a binary of the laboratory.
    cargo.args(["--features", "lab"]);
    process::run(cargo.args(if release { Some("--release") } else { None }))
}
