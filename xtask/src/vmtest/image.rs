//! The guest's file system: an initramfs with busybox, the test binary, `lb`, and what they need.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::packages::{Files, files_below};
use crate::{process, repo};

/// What the tests speak to the network with; each brings its libraries.
const TOOLS: &[&str] = &["ethtool", "ip", "nft", "nsenter", "setpriv", "tc"];

/// What tests read where it lies in the checkout.
const INPUTS: &[&str] =
    &["lb-userspace/tests/it/cli/dump.yaml", "lb-userspace/tests/it/packet/corpus"];

/// Modules that the tests need where the kernel does not have them built in.
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "act_gact",
    "sch_netem",
    "sch_fq",
    "8021q",
    "ipip",
    "vxlan",
    "dummy",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
];

/// The test binary and the programs that it starts, where they expect each other.
pub(super) struct Programs {
    tests: PathBuf,
    binaries: Vec<PathBuf>,
}

/// Compiles them.
pub(super) fn build() -> Result<Programs> {
    let tests = test_binary()?;
    let binaries =
        ["debug/lb", "debug/lb-chaos", "debug/lb-demo"].map(|binary| repo::target().join(binary));
    Ok(Programs { tests, binaries: binaries.to_vec() })
}

/// Compiles lb-userspace's integration tests: the one binary that they are.
pub(crate) fn test_binary() -> Result<PathBuf> {
    let mut cargo = process::cargo(["test", "--no-run", "--message-format", "json", "--quiet"]);
    // With both packages, as `cargo xtask test` has them: nothing is compiled twice.
    cargo.args(["-p", "lb-common", "-p", "lb-userspace"]);
    cargo.args(["--features", "lb-userspace/lab", "--test", "it"]);
    let printed = process::output(&mut cargo)?;
    let executable = |line: &str| -> Option<PathBuf> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["name"] == "it";
        is_test.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    };
    printed.lines().find_map(executable).context("cargo names no test binary")
}

/// The initramfs for a kernel, packed.
pub(super) fn make(
    files: &Files,
    programs: &Programs,
    tests: &[&str],
    rows: &[u32],
    folder: &Path,
) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for part in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "modules"] {
        fs::create_dir_all(root.join(part))?;
    }
    copy_program(&root, &process::find("busybox").context("busybox")?, Path::new("/bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    copy_program(&root, &programs.tests, Path::new("/tests"))?;
    for program in &programs.binaries {
        copy_program(&root, program, program)?;
    }
    for tool in TOOLS {
        let path = process::find(tool).with_context(|| format!("no {tool} on PATH"))?;
        copy_program(&root, &path, &path)?;
    }
    for input in INPUTS.iter().map(|input| repo::root().join(input)) {
        let files = if input.is_dir() { files_below(&input)? } else { vec![input] };
        files.iter().try_for_each(|file| copy(&root, file, file).map(drop))?;
    }
    fs::write(root.join("modules/order"), modules(&files.modules, &root)?.join("\n") + "\n")?;
    fs::write(root.join("filters"), tests.join(" "))?;
    fs::write(root.join("chaos"), chaos(programs, rows))?;
    fs::write(root.join("init"), include_str!("init.sh"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    pack(&root, &folder.join("initramfs"))
}

/// The command for rows of faults; nothing for none.
fn chaos(programs: &Programs, rows: &[u32]) -> String {
    let program = programs.binaries.iter().find(|program| program.ends_with("lb-chaos"));
    let Some(program) = program.filter(|_| !rows.is_empty()) else { return "true".to_owned() };
    let rows: String = rows.iter().map(|row| format!(" {row}")).collect();
    format!("{} --fast --in-guest --tests /tests{rows}", program.display())
}

/// Copies a program without its debug information, and the libraries that it is linked with.
fn copy_program(root: &Path, from: &Path, to: &Path) -> Result<()> {
    let target = copy(root, from, to)?;
    // A static program has none, and `ldd` says so by failing.
    process::output(Command::new("strip").arg("--strip-debug").arg(&target))?;
    let Ok(printed) = process::output(Command::new("ldd").arg(from)) else { return Ok(()) };
    for library in printed.split_whitespace().filter(|word| word.starts_with('/')) {
        let library = Path::new(library.trim_end_matches(':'));
        if !root.join(library.strip_prefix("/")?).exists() {
            copy(root, library, library)?;
        }
    }
    Ok(())
}

fn copy(root: &Path, from: &Path, to: &Path) -> Result<PathBuf> {
    let target = root.join(to.strip_prefix("/").unwrap_or(to));
    fs::create_dir_all(target.parent().context("a folder")?)?;
    fs::copy(from, &target).with_context(|| format!("copy {}", from.display()))?;
    Ok(target)
}

/// Copies the modules, and those that they need; their names in the order to load them in.
fn modules(tree: &Path, root: &Path) -> Result<Vec<String>> {
    let mut there = BTreeMap::new();
    for file in files_below(tree)? {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some((name, "ko" | "ko.xz")) = name.as_deref().and_then(|n| n.split_once('.')) {
            there.insert(name.replace('-', "_"), file.clone());
        }
    }
    let mut order = Vec::new();
    for name in MODULES {
        add(name, &there, root, &mut order)?;
    }
    Ok(order)
}

/// Copies a module behind those that it needs; what no file is there for is built in.
fn add(
    name: &str,
    there: &BTreeMap<String, PathBuf>,
    root: &Path,
    order: &mut Vec<String>,
) -> Result<()> {
    let Some(file) = there.get(name).filter(|_| !order.iter().any(|known| known == name)) else {
        return Ok(());
    };
    let module = unpacked(file)?;
    for needed in needs(&module) {
        add(&needed, there, root, order)?;
    }
    fs::write(root.join("modules").join(format!("{name}.ko")), module)?;
    order.push(name.to_owned());
    Ok(())
}

fn unpacked(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "ko") {
        return Ok(fs::read(file)?);
    }
    let output = Command::new("busybox").args(["unxz", "-c"]).arg(file).output()?;
    if !output.status.success() {
        bail!("{} cannot be unpacked", file.display());
    }
    Ok(output.stdout)
}

/// The modules that a module says it needs.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else {
        return Vec::new();
    };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value).replace('-', "_");
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn pack(root: &Path, to: &Path) -> Result<PathBuf> {
    let mut names = String::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            names += &format!("{}\n", name.display());
            if entry.file_type()?.is_dir() {
                folders.push(name);
            }
        }
    }
    let mut cpio = Command::new("busybox");
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(root);
    cpio.stdin(Stdio::piped()).stdout(fs::File::create(to)?).stderr(Stdio::null());
    let mut child = cpio.spawn().context("cannot start busybox cpio")?;
    child.stdin.take().context("a pipe")?.write_all(names.as_bytes())?;
    if !child.wait()?.success() {
        bail!("cpio failed");
    }
    fs::remove_dir_all(root)?;
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=stp,llc\0name=bridge\0";
        assert_eq!(needs(module), ["stp", "llc"]);
        assert_eq!(needs(b"license=GPL\0depends=\0name=llc"), Vec::<String>::new());
    }
}
