//! Takes back what was pinned, and what it holds on its hook.

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{attach::links_folder, crash, filter, moving::Folders, sys};

/// The map that goes first: a folder of maps that has none is not whole.
pub(super) const META: &str = "META";

/// Removes every link and map under `bpffs`, and the folder; names what was there.
///
/// # Errors
/// If something cannot be removed.
pub fn remove_all(bpffs: &Path) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for folder in folders(bpffs) {
        removed.extend(remove_pins(&folder)?);
    }
    match fs::remove_dir(bpffs) {
        Err(error)
            if !matches!(
                error.kind(),
                // The root of a mount stays, and so does what others have in the folder.
                ErrorKind::NotFound | ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(error)
        }
        _ => Ok(removed),
    }
}

/// Whether that is how a folder is named that we make under a bpffs path.
pub fn is_ours(name: &OsStr) -> bool {
    folders(Path::new("")).iter().any(|folder| folder == name)
}

/// All folders that there may be, those of hooks first: no program is left then that would find its
/// maps gone.
fn folders(bpffs: &Path) -> [PathBuf; 4] {
    let Folders { maps, new, old } = Folders::of(bpffs);
    [links_folder(bpffs), maps, new, old]
}

/// Removes a folder of pins, if there is one; names what was in it.
pub(super) fn remove_pins(folder: &Path) -> io::Result<Vec<String>> {
    let names = match pins(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let mut removed = Vec::new();
    for name in names {
        unpin(folder, &name)?;
        removed.push(folder.join(name).display().to_string());
    }
    crash::point();
    fs::remove_dir(folder)?;
    Ok(removed)
}

/// Removes a pin; what it holds on its hook is off it when this returns.
pub(super) fn unpin(folder: &Path, name: &str) -> io::Result<()> {
    crash::point();
    filter::remove(name)?;
    crash::point();
    let path = folder.join(name);
    // What is no link has nothing to be taken off.
    if let Err(error) = sys::detach_link(sys::open_pin(&path)?)
        && error.raw_os_error() != Some(libc::EINVAL)
    {
        tracing::debug!(%error, name, "its end takes it off");
    }
    crash::point();
    fs::remove_file(path)
}

/// The names of the pins in a folder, in the order to remove them in.
pub(super) fn pins(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    let mut names = entries.map(name).collect::<io::Result<Vec<_>>>()?;
    // What opens flows goes before what answers them.
    names.sort_by_key(|name| (filter::is_place(name), name.starts_with("egress@"), name != META));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_goes_first_without_which_a_folder_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["LAYOUT", "FLOWS_V4", META, "ARENA"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(pins(folder.path()).unwrap()[0], META);
    }
}
