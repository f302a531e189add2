//! `lb` as one file that needs nothing else: linked statically, C library and all.
//!
//! Against glibc, whose `libc.a` comes with every compiler: it is the library that everything is
//! measured and tested with. What it would load at run time are name services, and those for
//! `/etc/hosts` and DNS have been inside it since 2.34.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{process, repo};

/// Builds it for this host; where it is.
pub(super) fn build() -> Result<PathBuf> {
    let host = host()?;
    let mut cargo = process::cargo(["build", "--release", "-p", "lb-userspace", "--bin", "lb"]);
    // With a target named, build scripts and macros are not linked that way too.
    cargo.args(["--target", &host]);
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", host.to_uppercase().replace('-', "_"));
    cargo.env(variable, "-Ctarget-feature=+crt-static").env_remove("RUSTFLAGS");
    process::run(&mut cargo)?;
    let binary = repo::target().join(host).join("release/lb");
    let bytes = fs::read(&binary).with_context(|| binary.display().to_string())?;
    ensure!(is_static(&bytes), "{} asks for an interpreter: it is not static", binary.display());
    shows_its_version(&binary)?;
    Ok(binary)
}

/// Rust's name for this host.
pub(super) fn host() -> Result<String> {
    let printed = process::output(Command::new("rustc").arg("-vV"))?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` tells no host")?.to_owned())
}

fn shows_its_version(binary: &Path) -> Result<()> {
    let shown = process::output(Command::new(binary).arg("version"))?;
    let expected = format!("lb {}\n", env!("CARGO_PKG_VERSION"));
    ensure!(shown == expected, "it says {shown:?}, not {expected:?}");
    Ok(())
}

/// Whether an ELF file (64 bits, little-endian) has no program header of type PT_INTERP.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = 3_u32.to_le_bytes();
    let two =
        |at: usize| Some(usize::from(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?)));
    let headers = || {
        let start = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?) as usize;
        let (size, count) = (two(54)?, two(56)?);
        (0..count).map(|at| elf.get(start + at * size..)?.get(..4)).collect::<Option<Vec<_>>>()
    };
    elf.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|kinds| kinds.iter().all(|kind| **kind != PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with program headers of these types and nothing else.
    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0);
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
        elf[56..58].copy_from_slice(&(kinds.len() as u16).to_le_bytes());
        for kind in kinds {
            elf.extend_from_slice(&kind.to_le_bytes());
            elf.extend_from_slice(&[0; 52]);
        }
        elf
    }

    #[test]
    fn a_binary_is_static_if_it_names_no_interpreter() {
        assert!(is_static(&elf(&[1, 2, 6])));
        assert!(!is_static(&elf(&[6, 3, 1])));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&elf(&[1, 2])[..70]), "cut off");
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&own), "tests are linked as usual");
    }
}
