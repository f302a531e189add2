//! A copy of the checkout that faults are planted in. It stays under `target`, with its own target
//! folder, so that the next run compiles only what changed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::faults::Fault;
use crate::process;

pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) target: PathBuf,
}

/// A file with a fault in it, and what it held before.
pub(super) struct Planted {
    path: PathBuf,
    before: String,
}

impl Tree {
    /// Makes `folder/tree` equal to what git knows of `from`, changes not yet committed included.
    pub(super) fn copy(from: &Path, folder: &Path) -> Result<Self> {
        let tree = Self { root: folder.join("tree"), target: folder.join("target") };
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let listing = process::output(git.current_dir(from))?;
        let files: BTreeSet<PathBuf> = listing.lines().map(PathBuf::from).collect();
        let wanted = files.iter().filter(|file| from.join(file).is_file());
        for file in wanted {
            copy_changed(&from.join(file), &tree.root.join(file))
                .with_context(|| format!("cannot copy {}", file.display()))?;
        }
        remove_others(&tree.root, &tree.root, &files)?;
        Ok(tree)
    }

    /// Puts the fault into the copy.
    pub(super) fn plant(&self, fault: &Fault) -> Result<Planted> {
        let path = self.root.join(fault.file);
        let before = read(&path)?;
        fs::write(&path, planted(&self.root, fault)?)?;
        Ok(Planted { path, before })
    }
}

impl Planted {
    /// Takes the fault out again; the new time of the file makes cargo see it.
    pub(super) fn remove(self) -> Result<()> {
        let Self { path, before } = self;
        fs::write(&path, before).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The text of the fault's file with the fault in it.
pub(super) fn planted(root: &Path, fault: &Fault) -> Result<String> {
    let Fault { name, file, find, replace, .. } = fault;
    let text = read(&root.join(file))?;
    match text.matches(find).count() {
        1 => Ok(text.replacen(find, replace, 1)),
        number => bail!("fault {name}: its text is {number} times in {file}, not once:\n{find}"),
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Leaves a file that is the same already, and its time, alone: cargo then has nothing to do.
fn copy_changed(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from)?;
    if !fs::read(to).is_ok_and(|old| old == content) {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(to, content)?;
    }
    // Scripts are run by tests.
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}

fn remove_others(folder: &Path, root: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, root, files)?;
        } else if !files.contains(path.strip_prefix(root)?) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Level;

    const FAULT: Fault =
        Fault { name: "f", file: "src/a.rs", find: "1 + 1", replace: "1 - 1", level: Level::Rules };

    fn checkout(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/a.rs"), text).unwrap();
        process::output(Command::new("git").args(["init", "-q"]).current_dir(folder.path()))
            .unwrap();
        folder
    }

    #[test]
    fn a_fault_is_planted_in_the_copy_alone_and_taken_out_again() {
        let (from, to) = (checkout("x = 1 + 1;"), tempfile::tempdir().unwrap());
        let tree = Tree::copy(from.path(), to.path()).unwrap();
        let copy = tree.root.join("src/a.rs");
        let planted = tree.plant(&FAULT).unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "x = 1 - 1;");
        assert_eq!(fs::read_to_string(from.path().join("src/a.rs")).unwrap(), "x = 1 + 1;");
        planted.remove().unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "x = 1 + 1;");
    }

    #[test]
    fn a_fault_whose_text_is_missing_or_there_twice_is_an_error() {
        for (text, times) in [("x = 2;", "0 times"), ("1 + 1; 1 + 1", "2 times")] {
            let error = planted(checkout(text).path(), &FAULT).unwrap_err().to_string();
            assert!(error.contains(times), "{error}");
        }
    }

    #[test]
    fn a_second_copy_mends_what_an_interrupted_run_left_and_drops_files_that_went() {
        let (from, to) = (checkout("x = 1 + 1;"), tempfile::tempdir().unwrap());
        let tree = Tree::copy(from.path(), to.path()).unwrap();
        tree.plant(&FAULT).unwrap();
        fs::write(tree.root.join("src/gone.rs"), "").unwrap();
        let tree = Tree::copy(from.path(), to.path()).unwrap();
        assert_eq!(fs::read_to_string(tree.root.join("src/a.rs")).unwrap(), "x = 1 + 1;");
        assert!(!tree.root.join("src/gone.rs").exists());
    }

    #[test]
    fn what_did_not_change_keeps_its_time() {
        let (from, to) = (checkout("x"), tempfile::tempdir().unwrap());
        let time =
            |tree: &Tree| fs::metadata(tree.root.join("src/a.rs")).unwrap().modified().unwrap();
        let before = time(&Tree::copy(from.path(), to.path()).unwrap());
        assert_eq!(time(&Tree::copy(from.path(), to.path()).unwrap()), before);
    }
}
