//! `cargo xtask demo`: the `lb-demo` binary, as root.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{
    build, process, repo,
    setup::{self, Scope},
    sudo,
};

/// Sets up, builds, and becomes the demo.
pub(crate) fn exec(args: &[String]) -> Result<()> {
    setup::ensure(Scope::Demo)?;
    build::all(false)?;
    let mut demo = command(args)?;
    Err(sudo::exec(&mut demo)).with_context(|| format!("cannot start `{}`", process::show(&demo)))
}

/// Runs the demo, already built, at the speed of CI.
pub(crate) fn run_fast() -> Result<()> {
    process::run(&mut command(&["--fast".to_owned()])?)
}

fn command(args: &[String]) -> Result<Command> {
    let binary = repo::target().join("debug/lb-demo");
    let mut command = sudo::command(binary, "the demo makes network namespaces and loads BPF")?;
    command.args(args).current_dir(repo::root());
    Ok(command)
}
