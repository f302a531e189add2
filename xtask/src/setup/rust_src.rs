//! The source of `core`, in the toolchain's own tree: from rustup, or where rustup cannot, from
//! Debian's package of exactly the same version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{process, repo};

/// Where Debian may have the version, newest stable first.
const SUITES: &[&str] =
    &["bookworm-backports", "trixie", "trixie-backports", "testing", "unstable"];

pub(super) fn is_here() -> bool {
    folder().is_ok_and(|folder| folder.join("core/src/lib.rs").is_file())
}

pub(super) fn install() -> Result<()> {
    let rustup = process::run(Command::new("rustup").args(["component", "add", "rust-src"]));
    let Err(refused) = rustup else { return Ok(()) };
    eprintln!("setup: rustup cannot ({refused}); trying Debian's package of the same version");
    from_debian().with_context(|| format!("nor could rustup: {refused}"))
}

/// `library` of the toolchain in use.
fn folder() -> Result<PathBuf> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library"))
}

/// Unpacks the package beside; apt's own lists, sources and state are left alone.
fn from_debian() -> Result<()> {
    let version = process::output(Command::new("rustc").arg("-V"))?;
    let version = version.split(' ').nth(1).context("`rustc -V` tells no version")?;
    let work = repo::target().join("setup/rust-src");
    let apt = PrivateApt::new(&work)?;
    process::run(apt.command("apt-get").args(["update", "-qq"]))?;
    let known = process::output(apt.command("apt-cache").args(["madison", "rust-src"]))?;
    let Some(package) = same_version(&known, version) else {
        bail!("Debian has no rust-src {version}");
    };
    eprintln!("setup: fetching Debian's rust-src {package}");
    process::run(apt.command("apt-get").current_dir(&work).args([
        "download",
        "-qq",
        &format!("rust-src={package}"),
    ]))?;
    let archive = fs::read_dir(&work)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    process::run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(work.join("tree")))?;
    let target = folder()?;
    let parent = target.parent().context("the sysroot has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot write {}", parent.display()))?;
    let library = work.join(format!("tree/usr/src/rustc-{version}/library"));
    process::run(Command::new("cp").arg("-a").arg(library).arg(parent))?;
    fs::remove_dir_all(&work).context("cannot tidy up")
}

/// The newest package of this version of Rust in a listing of `apt-cache madison`.
fn same_version<'a>(madison: &'a str, rustc: &str) -> Option<&'a str> {
    let versions = madison.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim()));
    let mut same = versions.filter(|version| {
        version.strip_prefix(rustc).is_some_and(|rest| rest.starts_with(['+', '-', '~']))
    });
    same.next()
}

/// apt with folders of its own, on the mirror that this system uses.
struct PrivateApt {
    options: Vec<String>,
}

impl PrivateApt {
    fn new(work: &Path) -> Result<Self> {
        let targets = process::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        let mirror = mirror(&targets).context("apt knows no mirror of Debian's archive")?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(work.join(folder))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let sources: String = SUITES
            .iter()
            .map(|suite| format!("deb [signed-by={keyring}] {mirror} {suite} main\n"))
            .collect();
        let file = work.join("sources.list");
        fs::write(&file, sources)?;
        let options = vec![
            format!("Dir::Etc::sourcelist={}", file.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", work.join("lists").display()),
            format!("Dir::Cache={}", work.join("cache").display()),
            "APT::Sandbox::User=".to_owned(),
        ];
        Ok(Self { options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// The archive itself: not the one for security updates, nor other people's.
fn mirror(targets: &str) -> Option<&str> {
    targets.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_version_of_rust_will_do() {
        let madison = "  rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://mirror testing/main amd64
  rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror trixie-backports/main amd64
  rust-src | 1.63.0+dfsg1-2 | http://mirror bookworm/main amd64";
        assert_eq!(same_version(madison, "1.95.0"), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(same_version(madison, "1.9"), None);
        assert_eq!(same_version(madison, "1.94.0"), None);
    }

    #[test]
    fn the_mirror_is_the_one_the_system_uses() {
        let targets = "http://mirror/debian-security/\nhttp://mirror/debian/\nhttp://else/apt/";
        assert_eq!(mirror(targets), Some("http://mirror/debian/"));
        assert_eq!(mirror("http://else/apt/"), None);
    }
}
