//! What an image really holds, read from its archive.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{process, sudo};

/// Holds one file and starts it; how, in words.
pub(super) fn check(archive: &Path) -> Result<String> {
    let folder = archive.with_extension("unpacked");
    // What an interrupted run left.
    drop(fs::remove_dir_all(&folder));
    let outcome = look(archive, &folder);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn look(archive: &Path, folder: &Path) -> Result<String> {
    let layout = folder.join("layout");
    fs::create_dir_all(&layout)?;
    process::run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout))?;
    let index = json(&layout.join("index.json"))?;
    let manifest = json(&blob(&layout, &index["manifests"][0])?)?;
    let root = folder.join("root");
    fs::create_dir_all(&root)?;
    for layer in manifest["layers"].as_array().context("the image has no layers")? {
        let layer = blob(&layout, layer)?;
        process::run(Command::new("tar").arg("-xf").arg(layer).arg("-C").arg(&root))?;
    }
    let files = files(&root)?;
    ensure!(files == BTreeSet::from(["usr/bin/lb".into()]), "it holds {files:?}");
    let config = json(&blob(&layout, &manifest["config"])?)?;
    let entrypoint = config["config"]["Entrypoint"][0].as_str().unwrap_or_default().to_owned();
    ensure!(entrypoint == "/usr/bin/lb", "it starts {entrypoint:?}");
    if sudo::is_root() {
        // Nothing but the image is there.
        let mut chroot = Command::new("chroot");
        let shown = process::output(chroot.arg(&root).args([entrypoint.as_str(), "version"]))?;
        return Ok(format!("{entrypoint} says: {}", shown.trim_end()));
    }
    Ok(entrypoint)
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

/// The file of a descriptor.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor without a digest")?;
    let (kind, hash) = digest.split_once(':').context("a digest without a kind")?;
    Ok(layout.join("blobs").join(kind).join(hash))
}

/// Every file below, by its path.
fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    Ok(found)
}
