//! Pins that have to be there. Whoever deletes one under a running agent finds it again: what a pin
//! stands for is held open, so nothing is detached or lost meanwhile.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{crash, object::make_folder, sys};

/// What is held, by the names of the pins in one folder.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    held: BTreeMap<String, OwnedFd>,
}

impl Pins {
    /// None yet.
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder, held: BTreeMap::new() }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// They are in another folder now.
    pub fn moved_to(&mut self, folder: PathBuf) {
        self.folder = folder;
    }

    /// Holds what is pinned under this name.
    ///
    /// # Errors
    /// If nothing is.
    pub fn hold(&mut self, name: &str) -> io::Result<()> {
        let held = sys::open_pin(&self.folder.join(name))?;
        self.held.insert(name.to_owned(), held);
        Ok(())
    }

    /// What is held under this name, pinned or not.
    pub fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.held.get(name).map(OwnedFd::as_fd)
    }

    /// Lets go of what is to be removed.
    pub fn release(&mut self, name: &str) {
        self.held.remove(name);
    }

    /// Pins again what is not pinned any more; the names.
    ///
    /// # Errors
    /// If there is no BPF file system to pin on, or it refuses.
    pub fn mend(&self) -> io::Result<Vec<String>> {
        let mut mended = Vec::new();
        for (name, held) in &self.held {
            let path = self.folder.join(name);
            if !path.try_exists()? {
                make_folder(&self.folder).map_err(io::Error::other)?;
                crash::point();
                sys::pin(held, &path)?;
                mended.push(name.clone());
            }
        }
        Ok(mended)
    }
}
