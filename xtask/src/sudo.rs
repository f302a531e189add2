//! Root where root is needed: as is for root, through sudo (and saying so) for others.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// What sudo must not reset: where cargo, its caches and the toolchains are, and how to print.
const KEPT: &[&str] =
    &["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "KUBEBUILDER_ASSETS", "NO_COLOR", "CI"];

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A command that runs `program` as root; says so when that takes sudo.
pub(crate) fn command(program: impl AsRef<OsStr>, why: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let program = program.as_ref();
    eprintln!("sudo {}: {why}", program.to_string_lossy());
    ask(why)?;
    let mut command = Command::new("sudo");
    command.arg("env").args(kept_variables()).arg(program);
    Ok(command)
}

/// The value for cargo's `…_RUNNER`, so that the test binaries run as root though they were built
/// by us. `None` for root.
pub(crate) fn runner(why: &str) -> Result<Option<String>> {
    if is_root() {
        return Ok(None);
    }
    eprintln!("the test binaries run through sudo: {why}");
    ask(why)?;
    // Cargo splits a runner at blanks; nextest's own variables must get through.
    Ok(Some("sudo --preserve-env --".to_owned()))
}

/// Lets sudo ask for the password now: later its prompt would be lost among the output.
fn ask(why: &str) -> Result<()> {
    if process::find("sudo").is_none() {
        bail!("{why} needs root, and there is no sudo here\ntype it again as root");
    }
    let status = Command::new("sudo")
        .arg("--validate")
        .stdin(Stdio::inherit())
        .status()
        .context("cannot start `sudo --validate`")?;
    if !status.success() {
        bail!("{why} needs root, and sudo refused\ntype it again as root");
    }
    Ok(())
}

fn kept_variables() -> impl Iterator<Item = String> {
    KEPT.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
}

/// Replaces this process, so that Ctrl-C and the exit code are the program's own.
pub(crate) fn exec(command: &mut Command) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    command.exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_keeps_where_the_programs_are() {
        let kept: Vec<_> = kept_variables().collect();
        let path = std::env::var("PATH").unwrap();
        assert!(kept.contains(&format!("PATH={path}")), "{kept:?}");
    }
}
