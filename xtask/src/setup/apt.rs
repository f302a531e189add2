//! Debian's packages.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{process, sudo};

/// Programs that tests and demo start, each with its package.
pub(super) const PROGRAMS: &[(&str, &str)] = &[
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
];

/// What boots other kernels, in the same form.
pub(super) const GUESTS: &[(&str, &str)] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")];

/// Packages of those programs that this machine lacks.
pub(super) fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let missing = programs.iter().filter(|(program, _)| process::find(program).is_none());
    missing.map(|(_, package)| *package).collect()
}

/// Installs packages, after a look for newer lists when there are none or they know no such package.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if !is_here() {
        bail!("there is no apt-get here: install {} the way of this system", packages.join(" "));
    }
    if !has_lists() {
        update()?;
    }
    install_now(packages).or_else(|_| {
        update()?;
        install_now(packages)
    })
}

/// Fetches a package's file into a folder and installs nothing.
pub(super) fn download(package: &str, into: &Path) -> Result<()> {
    if !has_lists() {
        update()?;
    }
    let fetch = || {
        let mut apt = Command::new("apt-get");
        // Root's own folder, which apt's own account may not enter.
        let words = ["-o", "APT::Sandbox::User=root", "download", "-qq", package];
        process::run(apt.args(words).current_dir(into))
    };
    fetch().or_else(|_| {
        update()?;
        fetch()
    })
}

/// The same as a command line.
pub(super) fn by_hand(packages: &[&str]) -> String {
    let sudo = if sudo::is_root() { "" } else { "sudo " };
    format!("{sudo}apt-get update && {sudo}apt-get install {}", packages.join(" "))
}

/// Whether this is a Debian-like system.
pub(super) fn is_here() -> bool {
    process::find("apt-get").is_some()
}

fn install_now(packages: &[&str]) -> Result<()> {
    eprintln!("setup: apt-get install {}", packages.join(" "));
    let mut apt = sudo::command("apt-get", "installing packages")?;
    apt.args(["install", "-qq", "--yes", "--no-install-recommends"]).args(packages);
    process::run(apt.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn update() -> Result<()> {
    eprintln!("setup: apt-get update: its package lists are missing or old");
    process::run(sudo::command("apt-get", "fetching package lists")?.args(["update", "-qq"]))
}

fn has_lists() -> bool {
    list_in(Path::new("/var/lib/apt/lists"))
}

fn list_in(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_count_only_when_they_list_packages() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lock"), "").unwrap();
        assert!(!list_in(folder.path()));
        fs::write(folder.path().join("deb_dists_bookworm_main_binary-amd64_Packages.lz4"), "")
            .unwrap();
        assert!(list_in(folder.path()));
        assert!(!list_in(Path::new("/no/such/folder")));
    }

    #[test]
    fn the_command_to_type_names_every_package() {
        assert!(by_hand(&["gcc", "nftables"]).ends_with("apt-get install gcc nftables"));
    }
}
