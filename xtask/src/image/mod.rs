//! `cargo xtask image`: a container image that holds one static binary and nothing else, and beside it
//! the bill of materials.

mod archive;
mod binary;
mod maker;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use self::maker::Maker;
pub(crate) use self::maker::is_here as maker_is_here;
use crate::{
    process, repo,
    setup::{self, Scope},
    timing::Timings,
};

const CONTAINERFILE: &str = "deploy/image/Containerfile";

/// What goes into the image's labels and name.
struct Label {
    version: String,
    revision: String,
    /// Of the last commit, so that the same commit makes the same image.
    time: String,
}

/// Makes everything under `target/image`.
pub(crate) fn run(timings: &mut Timings) -> Result<()> {
    timings.part("setup", || setup::ensure(Scope::Image))?;
    let folder = repo::target().join("image");
    fs::create_dir_all(&folder)?;
    let label = label()?;
    let built = timings.part("static binary", binary::build)?;
    let context = folder.join("context");
    fs::create_dir_all(&context)?;
    fs::copy(&built, context.join("lb"))?;
    fs::copy(repo::root().join(CONTAINERFILE), context.join("Containerfile"))?;
    let archive = folder.join(format!("lb-{}.tar", label.version));
    let maker = Maker::find().context("none of buildah, podman and docker works here")?;
    timings.part("image", || {
        maker.build(&context, &label)?;
        maker.save(&label, &archive)
    })?;
    let entrypoint = timings.part("what is in it", || archive::check(&archive))?;
    let bills = timings.part("bill of materials", || bills(&folder, &label))?;
    timings.print("image");
    println!("{}: {} ({entrypoint})", maker.name(), archive.display());
    bills.iter().for_each(|bill| println!("cyclonedx: {}", bill.display()));
    Ok(())
}

fn label() -> Result<Label> {
    let git = |format: &str| -> Result<String> {
        let mut git = Command::new("git");
        git.args(["log", "-1", &format!("--format={format}")]).current_dir(repo::root());
        Ok(process::output(&mut git)?.trim().to_owned())
    };
    Ok(Label {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: git("%H")?,
        time: git("%ct")?,
    })
}

/// What the binary, and the programs inside it, are made of: a document each.
fn bills(folder: &Path, label: &Label) -> Result<Vec<PathBuf>> {
    let name = format!("{}.cdx", label.version);
    let mut cargo = process::cargo(["cyclonedx", "--quiet", "--format", "json"]);
    cargo.args(["--spec-version", "1.5", "--target", &binary::host()?]);
    process::run(cargo.args(["--override-filename", &name]))?;
    let mut written = Vec::new();
    // It writes beside the manifest of every member of the workspace.
    for member in ["lb-common", "lb-ebpf", "lb-userspace", "xtask"] {
        let made = repo::root().join(member).join(format!("{name}.json"));
        if matches!(member, "lb-ebpf" | "lb-userspace") {
            let to = folder.join(format!("{member}-{name}.json"));
            fs::rename(&made, &to).with_context(|| format!("no {}", made.display()))?;
            written.push(to);
        } else if made.exists() {
            fs::remove_file(made)?;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sudo;

    /// All but the long build of the binary, for which a small one stands in.
    #[test]
    fn an_image_is_made_written_unpacked_and_started() {
        let Some(maker) = Maker::find().filter(|_| sudo::is_root()) else {
            println!("SKIPPED: no root, or none of buildah, podman and docker works here");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let (context, source) = (folder.path().join("context"), folder.path().join("lb.rs"));
        fs::create_dir(&context).unwrap();
        fs::copy(repo::root().join(CONTAINERFILE), context.join("Containerfile")).unwrap();
        let program = "fn main() { println!(\"lb says {:?}\", std::env::args().nth(1)); }";
        fs::write(&source, program).unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["-Ctarget-feature=+crt-static", "--target", &binary::host().unwrap(), "-o"]);
        process::run(rustc.arg(context.join("lb")).arg(&source)).unwrap();

        let version = format!("test-{}", std::process::id());
        let label = Label { version, revision: "abc".into(), time: "1700000000".into() };
        let archive = folder.path().join("lb.tar");
        maker.build(&context, &label).unwrap();
        let written = maker.save(&label, &archive);
        maker.forget(&label).unwrap();
        written.unwrap();
        let said = archive::check(&archive).unwrap();
        assert_eq!(said, "/usr/bin/lb says: lb says Some(\"version\")");
    }
}
