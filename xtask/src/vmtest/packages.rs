//! Debian's kernel packages, through a configuration of apt's that touches nothing of the system's.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::Kernel;
use crate::{process, repo};

/// What a kernel's packages hold.
pub(super) struct Files {
    pub(super) kernel: PathBuf,
    /// Folder somewhere below which the modules are.
    pub(super) modules: PathBuf,
}

/// Debian's archive does not answer: what it holds cannot be told.
#[derive(Debug)]
pub(super) struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the archive is not reachable")
    }
}

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const SUITES: [(&str, &str); 3] = [
    ("debian-security", "bookworm-security"),
    ("debian-security", "trixie-security"),
    ("debian", "trixie-backports"),
];

impl Kernel {
    /// Beginnings of the packages' names; a version and `-cloud-amd64` follow.
    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Six1 => &["linux-image-6.1.0-"],
            Self::Six12 => &["linux-image-6.12."],
            Self::Six18 => &["linux-image-6.18."],
            // Split in two there.
            Self::Seven3 => &["linux-binary-7.3.", "linux-modules-7.3."],
        }
    }
}

/// The kernel and its modules, unpacked below `folder`; fetched unless they are there.
///
/// # Errors
/// [`Unreachable`] where nobody can say whether there is such a kernel.
pub(super) fn fetch(kernel: Kernel, folder: &Path) -> Result<Files> {
    let tree = folder.join("tree");
    if let Ok(files) = find(&tree) {
        return Ok(files);
    }
    let apt = Apt::open()?;
    let names = apt.names()?;
    let download = folder.join("download");
    fs::create_dir_all(&download)?;
    for prefix in kernel.packages() {
        let name = newest(&names, prefix).with_context(|| format!("no package {prefix}…"))?;
        eprintln!("vmtest: fetching {name}");
        let mut get = apt.command("apt-get");
        process::output(get.args(["download", name]).current_dir(&download))
            .context(Unreachable)?;
    }
    for package in fs::read_dir(&download)? {
        let mut unpack = Command::new("dpkg-deb");
        process::output(unpack.arg("-x").arg(package?.path()).arg(&tree))?;
    }
    fs::remove_dir_all(&download)?;
    find(&tree)
}

fn find(tree: &Path) -> Result<Files> {
    let kernel = files_below(tree)?
        .into_iter()
        .find(|file| file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .context("the packages hold no kernel")?;
    Ok(Files { kernel, modules: tree.to_owned() })
}

/// Every file below a folder.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// apt with lists, state and cache of its own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn open() -> Result<Self> {
        let folder = repo::target().join("vmtest/apt");
        for part in ["lists/partial", "state", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let sources: String = SUITES
            .iter()
            .map(|(archive, suite)| {
                format!(
                    "deb [arch=amd64 signed-by={KEYS}] http://deb.debian.org/{archive} {suite} main\n"
                )
            })
            .collect();
        fs::write(folder.join("sources.list"), sources)?;
        fs::write(folder.join("status"), "")?;
        let apt = Self { folder };
        eprintln!("vmtest: fetching the lists of packages");
        process::output(apt.command("apt-get").args(["update", "-qq", "--error-on=any"]))
            .context(Unreachable)?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::State", "state"),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{key}={}", self.folder.join(value).display()));
        }
        command.args(["-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User="]);
        command
    }

    fn names(&self) -> Result<Vec<String>> {
        let printed = process::output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        Ok(printed.lines().map(str::to_owned).collect())
    }
}

/// The package with the highest version of those whose names begin so.
fn newest<'a>(names: &'a [String], prefix: &str) -> Option<&'a str> {
    let numbers = |name: &str| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    names
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with(prefix) && name.ends_with("-cloud-amd64"))
        .max_by_key(|name| numbers(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_highest_numbers() {
        let names = [
            "linux-image-6.12.99+deb13-cloud-amd64",
            "linux-image-6.12.118+deb13-cloud-amd64",
            "linux-image-6.12.118+deb13-cloud-amd64-dbg",
            "linux-image-6.12.118+deb13-amd64",
            "linux-image-6.18.15+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        let newest = newest(&names, "linux-image-6.12.");
        assert_eq!(newest, Some("linux-image-6.12.118+deb13-cloud-amd64"));
    }
}
