//! How much memory the process may still have: its cgroup's limits, of v1 and v2. And back to the
//! kernel with what it does not need any more.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A limit, and what it leaves; in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub limit: u64,
    pub left: u64,
}

/// The tightest limit of the cgroups that this process is in; `None` without one.
pub fn room() -> Option<Room> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups(&mounts, &own).iter().filter_map(Group::room).min_by_key(|room| room.left)
}

/// Gives freed memory back to the kernel. Reading a whole cluster takes twice what stays of it, and
/// what was freed lies between what stays, where glibc keeps it.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and touches only what nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A cgroup that may have a limit of memory.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    path: PathBuf,
    files: &'static Files,
}

/// What the two versions call the same things.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// Of `memory.stat`: pages of files, which the kernel takes back before it refuses.
    cache: &'static str,
}

static V1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", cache: "total_cache " };
static V2: Files = Files { limit: "memory.max", usage: "memory.current", cache: "file " };
/// No limit, in the words of v1, is more than any machine has.
const UNLIMITED: u64 = 1 << 60;

impl Group {
    fn room(&self) -> Option<Room> {
        let read = |name: &str| fs::read_to_string(self.path.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let limit = number(self.files.limit).filter(|limit| *limit < UNLIMITED)?;
        let stat = read("memory.stat").unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.files.cache)?.parse().ok());
        let used = number(self.files.usage)?.saturating_sub(cache.unwrap_or(0));
        Some(Room { limit, left: limit.saturating_sub(used) })
    }
}

/// The cgroup of each hierarchy that can limit memory, and those above it. In a container the path
/// may be that of the host: what is not there is passed over, and the mount's top is the container's.
fn groups(mounts: &str, own: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let [_, place, kind, options, ..] = fields[..] else { continue };
        let (files, inside) = match kind {
            "cgroup2" => (&V2, own.lines().find_map(|line| line.strip_prefix("0::/"))),
            "cgroup" if options.split(',').any(|option| option == "memory") => (
                &V1,
                own.lines().find_map(|line| line.split_once(":memory:/").map(|(_, path)| path)),
            ),
            _ => continue,
        };
        let (top, inside) = (Path::new(place), Path::new(inside.unwrap_or_default()));
        found.extend(inside.ancestors().map(|path| Group { path: top.join(path), files }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_both_versions_are_found_up_to_the_top() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let own = "4:memory:/pods/one\n3:cpu:/\n0::/two\n";
        let paths: Vec<_> =
            groups(mounts, own).into_iter().map(|group| group.path.display().to_string()).collect();
        assert_eq!(
            paths,
            [
                "/sys/fs/cgroup/memory/pods/one",
                "/sys/fs/cgroup/memory/pods",
                "/sys/fs/cgroup/memory/",
                "/sys/fs/cgroup/unified/two",
                "/sys/fs/cgroup/unified/",
            ]
        );
    }

    #[test]
    fn what_a_limit_leaves_counts_what_the_kernel_would_take_back() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("memory.max", "1000\n"),
            ("memory.current", "700\n"),
            ("memory.stat", "anon 400\nfile 200\n"),
        ] {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let group = Group { path: folder.path().to_owned(), files: &V2 };
        assert_eq!(group.room(), Some(Room { limit: 1000, left: 500 }));
        fs::write(folder.path().join("memory.max"), "max\n").expect("a file");
        assert_eq!(group.room(), None);
    }
}
