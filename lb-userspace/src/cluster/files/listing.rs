//! Which files the named paths mean right now, and which folders tell when that changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::report::Report;

/// A manifest file that is there.
#[derive(Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    /// Where the contents are, all links followed.
    pub real: PathBuf,
    /// As the user would write it.
    pub shown: PathBuf,
    pub stamp: Stamp,
}

/// Tells one file behind a path from another without reading it. What is written into the same
/// file is told by events, which come when the writer is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// The files behind the named paths, in the order in which they count.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub files: Vec<Found>,
    pub reports: Vec<Report>,
    /// Named paths that are not there.
    pub missing: usize,
    /// Folders whose events can change this listing, by device and inode: under two names a
    /// folder is still one.
    pub folders: BTreeMap<(u64, u64), PathBuf>,
}

impl Listing {
    /// Looks all named paths up: a file is taken whatever its name is, a folder means its
    /// `*.yaml`, `*.yml` and `*.json`.
    pub fn of(named: &[PathBuf]) -> Self {
        let mut listing = Self::default();
        let mut seen = BTreeSet::new();
        for shown in named {
            // An event names its folder in full, so do we.
            let path = std::path::absolute(shown).unwrap_or_else(|_| shown.clone());
            listing.watch_way_to(&path);
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => listing.add_folder(&path, shown, &mut seen),
                Ok(meta) => listing.add_file(path, shown.clone(), &meta, &mut seen),
                Err(error) => {
                    listing.missing += 1;
                    listing.reports.push(Report::error(shown, in_words(&error)));
                }
            }
        }
        listing
    }

    fn add_folder(&mut self, path: &Path, shown: &Path, seen: &mut BTreeSet<PathBuf>) {
        self.watch(path);
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.reports.push(Report::error(shown, in_words(&error))),
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names.iter().filter(|name| is_manifest(Path::new(name))) {
            // A link to nowhere is a file that is on its way out, or not there yet.
            let Ok(meta) = fs::metadata(path.join(name)) else { continue };
            if meta.is_file() {
                self.add_file(path.join(name), shown.join(name), &meta, seen);
            }
        }
    }

    fn add_file(
        &mut self,
        path: PathBuf,
        shown: PathBuf,
        meta: &fs::Metadata,
        seen: &mut BTreeSet<PathBuf>,
    ) {
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if real != path {
            self.watch_way_to(&real);
        }
        if seen.insert(path.clone()) {
            self.files.push(Found { path, real, shown, stamp: Stamp::of(meta) });
        }
    }

    /// Watches the folder that a path is in, or would be in: the nearest that exists.
    fn watch_way_to(&mut self, path: &Path) {
        path.ancestors().skip(1).any(|folder| self.watch(folder));
    }

    fn watch(&mut self, folder: &Path) -> bool {
        let Some(meta) = fs::metadata(folder).ok().filter(fs::Metadata::is_dir) else {
            return false;
        };
        self.folders.entry((meta.dev(), meta.ino())).or_insert_with(|| folder.into());
        true
    }
}

/// A file of a folder that is meant to be read: no hidden one, no editor's copy.
pub(super) fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// An I/O error without the number that the standard library appends.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".into(),
        io::ErrorKind::PermissionDenied => "may not be read: permission denied".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_means_its_manifests_but_no_hidden_files_and_no_copies_of_editors() {
        for name in ["web.yaml", "web.yml", "web.json"] {
            assert!(is_manifest(Path::new(name)), "{name}");
        }
        for name in [".web.yaml", "web.yaml~", "web.yaml.swp", "#web.yaml#", "README.md", "yaml"] {
            assert!(!is_manifest(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_path_that_is_not_there_yet_is_awaited_in_the_nearest_folder_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let listing = Listing::of(&[folder.path().join("not/yet/web.yaml")]);
        assert_eq!(listing.missing, 1);
        assert_eq!(listing.folders.values().collect::<Vec<_>>(), [folder.path()]);
    }
}
