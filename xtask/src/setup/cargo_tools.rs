//! Programs that come from cargo's registry or with the toolchain.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The versions that are known to compile with this workspace's Rust.
const VERSIONS: &[(&str, &str)] =
    &[("cargo-cyclonedx", "0.5.9"), ("cargo-deny", "0.20.2"), ("cargo-nextest", "0.9.143")];

/// Whether the program is on PATH, or where cargo puts what it installs, and starts.
pub(super) fn is_here(name: &str) -> bool {
    process::find(name).is_some_and(|program| {
        // A rustup proxy is there for components that are not.
        process::succeeds(Command::new(program).args([subcommand(name), "--version"]))
    })
}

pub(super) fn install(name: &str) -> Result<()> {
    process::run(&mut command(name)?)
}

pub(super) fn by_hand(name: &str) -> String {
    command(name).map_or_else(|error| error.to_string(), |command| process::show(&command))
}

/// Adds what lint needs of the toolchain.
pub(super) fn components() -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rustfmt", "clippy"]);
    rustup
}

fn command(name: &str) -> Result<Command> {
    let (_, version) =
        VERSIONS.iter().find(|(tool, _)| *tool == name).context("no version is noted")?;
    // Unoptimised: compiled in half the time, and none of them has much to do.
    Ok(process::cargo(["install", "--locked", "--debug", name, "--version", version]))
}

/// What a cargo subcommand expects as its first argument.
fn subcommand(name: &str) -> &str {
    name.strip_prefix("cargo-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_installed_at_a_version_that_is_noted() {
        assert!(
            by_hand("cargo-deny").ends_with("install --locked --debug cargo-deny --version 0.20.2")
        );
        assert_eq!(by_hand("cargo-unheard-of"), "no version is noted");
    }

    #[test]
    fn a_tool_that_is_not_on_path_is_not_here() {
        assert!(!is_here("cargo-unheard-of"));
    }
}
