//! One agent per BPF file system: it locks the folder of its pins (flock(2)), which only its user and
//! root may open. The lock holds across containers, and goes with the process.
//!
//! So does its sign for `lb doctor`: an abstract socket in the node's network namespace, named after the
//! file system's device and the folder's path. Anybody may take that name; then there is no sign.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use crate::{
    cli::{Exit, Failure},
    datapath::{object::make_folder, removal},
    host::FileLock,
};

/// For its owner alone: whoever can open a folder can lock it.
const PRIVATE: u32 = 0o700;
/// How often a folder may be removed between its opening and its lock.
const ATTEMPTS: usize = 10;

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    bpffs: PathBuf,
    held: File,
    _sign: Option<UnixListener>,
}

/// Becomes the one agent of `bpffs`; the folder is made if it is not there.
///
/// # Errors
/// If there is another, which is named, or if the folder is somebody else's.
pub fn take(bpffs: &Path) -> Result<Lock, Failure> {
    for _ in 0..ATTEMPTS {
        make_folder(bpffs)?;
        if let Some(held) = hold(bpffs)? {
            make_private(&held, bpffs)?;
            let sign = sign(&held, bpffs).ok();
            return Ok(Lock { bpffs: bpffs.to_owned(), held, _sign: sign });
        }
    }
    let what = format!("{} comes and goes", bpffs.display());
    Err(Failure::new(Exit::Error, what, "see who removes it"))
}

/// Keeps agents away from `bpffs` while it is removed; `None` if it is not there.
///
/// # Errors
/// If there is an agent, which is named.
pub fn take_to_remove(bpffs: &Path) -> Result<Option<Lock>, Failure> {
    let held = hold(bpffs)?;
    Ok(held.map(|held| Lock { bpffs: bpffs.to_owned(), held, _sign: None }))
}

impl Lock {
    /// Locks the folder again if somebody has removed it, and it was made anew.
    ///
    /// # Errors
    /// If another agent was faster, which is named.
    pub fn renew(&mut self) -> Result<(), Failure> {
        if !is(&self.held, &self.bpffs) {
            self.held = take(&self.bpffs)?.held;
        }
        Ok(())
    }
}

/// The folder, locked; `None` if it is not there, or not any more.
fn hold(folder: &Path) -> Result<Option<File>, Failure> {
    let failed = |error: io::Error| {
        let what = format!("{} cannot be locked: {error}", folder.display());
        Failure::new(Exit::Error, what, "run it as root, or as the user whose folder it is")
    };
    let file = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    match file.try_lock() {
        Ok(()) => Ok(is(&file, folder).then_some(file)),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Exit::Error,
            format!("another agent has {}: {}", folder.display(), owner(&file)),
            "stop it, or give --bpffs another path",
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether this is what lies at `path` now.
fn is(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::metadata(path).map(identity).ok();
    there.is_some() && there == file.metadata().map(identity).ok()
}

/// Takes from others the right to open the folder, and so to lock it. Only of a folder that is ours
/// alone: a BPF file system, and a folder with pins of others in it, are theirs to open.
fn make_private(held: &File, folder: &Path) -> Result<(), Failure> {
    let place = folder.display();
    let failed = |error: io::Error| {
        let what = format!("{place} cannot be made private: {error}");
        Failure::new(Exit::Error, what, format!("chmod 700 {place}"))
    };
    let metadata = held.metadata().map_err(failed)?;
    let (user, of) = (geteuid().as_raw(), metadata.uid());
    if of != 0 && of != user {
        return Err(Failure::new(
            Exit::Error,
            format!("{place} belongs to user {of}, who could keep agents from starting"),
            format!("chown {user} {place}, or `lb uninstall` and start again"),
        ));
    }
    if metadata.mode() & 0o777 & !PRIVATE != 0 {
        if let Some(others) = shared_because(&metadata, folder).map_err(failed)? {
            return Err(Failure::new(
                Exit::Error,
                format!("{place} is open to others, and {others}"),
                format!(
                    "give --bpffs a folder of its own, such as {}",
                    folder.join("lb").display()
                ),
            ));
        }
        held.set_permissions(Permissions::from_mode(PRIVATE)).map_err(failed)?;
    }
    Ok(())
}

/// What says that others use that folder too.
fn shared_because(metadata: &fs::Metadata, folder: &Path) -> io::Result<Option<String>> {
    if metadata.dev() != fs::metadata(folder.join(".."))?.dev() {
        return Ok(Some("it is the root of a mount".to_owned()));
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !removal::is_ours(&name) {
            return Ok(Some(format!("has {} in it, which is not lb's", name.display())));
        }
    }
    Ok(None)
}

fn sign(held: &File, bpffs: &Path) -> io::Result<UnixListener> {
    let name = format!("lb/{}/{}", held.metadata()?.dev(), bpffs.display());
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// The process that has the lock.
fn owner(file: &File) -> String {
    let table = fs::read_to_string("/proc/locks").unwrap_or_default();
    let metadata = file.metadata().ok();
    let mut locks = FileLock::all(&table);
    let lock = metadata.and_then(|metadata| locks.find(|lock| lock.is_of(&metadata)));
    lock.map_or_else(
        || "a process that cannot be seen from here".to_owned(),
        |lock| format!("process {}", lock.process),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[test]
    fn a_second_agent_is_refused_and_the_first_named() {
        let folder = folder(0o755);
        let first = hold(folder.path()).unwrap().unwrap();
        let second = hold(folder.path()).unwrap_err();
        let me = format!("process {}", std::process::id());
        assert!(second.to_string().contains(&me), "{second}");
        drop(first);
        hold(folder.path()).unwrap().unwrap();
    }

    #[test]
    fn nobody_else_can_open_what_is_locked() {
        let folder = folder(0o755);
        let held = hold(folder.path()).unwrap().unwrap();
        make_private(&held, folder.path()).unwrap();
        assert_eq!(folder.path().metadata().unwrap().mode() & 0o777, PRIVATE);
    }

    #[test]
    fn a_folder_with_things_of_others_in_it_keeps_its_mode() {
        let folder = folder(0o755);
        fs::create_dir(folder.path().join("maps")).unwrap();
        fs::create_dir(folder.path().join("tc")).unwrap();
        let held = hold(folder.path()).unwrap().unwrap();
        let refused = make_private(&held, folder.path()).unwrap_err();
        assert!(refused.to_string().contains("has tc in it"), "{refused}");
        assert_eq!(folder.path().metadata().unwrap().mode() & 0o777, 0o755);
        fs::remove_dir(folder.path().join("tc")).unwrap();
        make_private(&held, folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_was_made_anew_is_another_one() {
        let parent = folder(PRIVATE);
        let bpffs = parent.path().join("lb");
        assert!(hold(&bpffs).unwrap().is_none());
        fs::create_dir(&bpffs).unwrap();
        let first = hold(&bpffs).unwrap().unwrap();
        fs::rename(&bpffs, parent.path().join("old")).unwrap();
        assert!(!is(&first, &bpffs));
        fs::create_dir(&bpffs).unwrap();
        assert!(!is(&first, &bpffs));
        assert!(is(&hold(&bpffs).unwrap().unwrap(), &bpffs));
    }
}
