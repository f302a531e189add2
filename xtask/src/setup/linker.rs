//! `bpf-linker`, which must link against an LLVM no older than rustc's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::process;

const VERSION: &str = "0.13.0";

/// Whether it starts, is new enough, and its LLVM too.
pub(super) fn is_here() -> bool {
    let Some(program) = process::find("bpf-linker") else { return false };
    let printed = process::output(Command::new(&program).arg("--version")).unwrap_or_default();
    new_enough(&printed) && llvm_fits(&program)
}

/// The first way that works, and says which: Debian's LLVM, an LLVM that is here already, or the
/// binary that the linker's project publishes.
pub(super) fn install() -> Result<()> {
    let major = llvm_major()?;
    if !Path::new(&prefix(major)).join("include/llvm-c").is_dir() && apt::is_here() {
        apt::install(&packages(major).each_ref().map(String::as_str)).unwrap_or_else(|error| {
            eprintln!("setup: Debian's LLVM {major} is not to be had: {error}");
        });
    }
    if let Some(prefix) = llvm_prefix(major) {
        eprintln!("setup: compiling bpf-linker {VERSION} with the LLVM in {}", prefix.display());
        return process::run(&mut compile(major, &prefix));
    }
    if process::find("cargo-binstall").is_some() {
        eprintln!("setup: taking the binary that bpf-linker's project publishes");
        return process::run(&mut process::cargo(["binstall", "--no-confirm", "bpf-linker"]));
    }
    bail!("found neither LLVM {major} (rustc's) with its headers nor cargo-binstall")
}

pub(super) fn by_hand() -> String {
    let major = llvm_major().unwrap_or(22);
    let packages = packages(major);
    let prefix = prefix(major);
    let compile = process::show(&compile(major, Path::new(&prefix)));
    let apt = apt::by_hand(&packages.each_ref().map(String::as_str));
    format!("{apt}\n  LLVM_PREFIX={prefix} {compile}")
}

fn compile(major: u32, prefix: &Path) -> Command {
    let mut install = process::cargo(["install", "bpf-linker", "--version", VERSION, "--force"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{major}")]);
    install.env("LLVM_PREFIX", prefix);
    install
}

/// LLVM's headers and libraries, and what its own libraries link with.
fn packages(major: u32) -> [String; 5] {
    let plain = ["zlib1g-dev", "libzstd-dev", "libxml2-dev"];
    let [zlib, zstd, xml] = plain.map(str::to_owned);
    [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"), zlib, zstd, xml]
}

fn prefix(major: u32) -> String {
    format!("/usr/lib/llvm-{major}")
}

fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(prefix(major));
    std::env::var_os("LLVM_PREFIX")
        .map(PathBuf::from)
        .into_iter()
        .chain([debian])
        .find(|prefix| prefix.join("include/llvm-c").is_dir())
}

/// The major version of rustc's own LLVM.
fn llvm_major() -> Result<u32> {
    let printed = process::output(Command::new("rustc").arg("-vV"))?;
    llvm_in(&printed).context("`rustc -vV` does not tell its LLVM version")
}

fn llvm_in(rustc: &str) -> Option<u32> {
    let version = rustc.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn new_enough(printed: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        version.split('.').map_while(|part| part.parse().ok()).collect()
    };
    let version = printed.trim().strip_prefix("bpf-linker ").unwrap_or_default();
    numbers(version) >= numbers(VERSION)
}

/// A linker that loads an older LLVM than rustc's cannot read its bitcode; one that holds its LLVM
/// within cannot be told apart here, and is trusted.
fn llvm_fits(program: &Path) -> bool {
    let Ok(major) = llvm_major() else { return false };
    fs::read(program).is_ok_and(|binary| llvm_loaded(&binary).is_none_or(|loaded| loaded >= major))
}

fn llvm_loaded(binary: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"libLLVM.so.";
    let at = binary.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let digits: Vec<u8> = binary[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_rustc_is_read_from_its_version() {
        assert_eq!(llvm_in("rustc 1.95.0\nrelease: 1.95.0\nLLVM version: 22.1.2\n"), Some(22));
        assert_eq!(llvm_in("rustc 1.95.0\n"), None);
    }

    #[test]
    fn an_older_linker_is_not_good_enough() {
        assert!(new_enough("bpf-linker 0.13.0\n"));
        assert!(new_enough("bpf-linker 1.0.0"));
        assert!(!new_enough("bpf-linker 0.9.15"));
        assert!(!new_enough(""));
    }

    #[test]
    fn the_llvm_that_a_linker_loads_is_found_in_its_binary() {
        assert_eq!(llvm_loaded(b"\x7fELF\0libc.so.6\0libLLVM.so.21.1\0"), Some(21));
        assert_eq!(llvm_loaded(b"\x7fELF\0libc.so.6\0"), None);
    }
}
