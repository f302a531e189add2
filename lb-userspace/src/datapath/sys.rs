//! The calls of bpf(2) that aya 0.14 does not have: links by pin, whatever their type.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: i64 = 7;
const BPF_LINK_UPDATE: i64 = 29;

/// `union bpf_attr` for BPF_OBJ_GET.
#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` for BPF_LINK_UPDATE (kernel 5.7).
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// What the kernel answers; `NotFound` if nothing is there.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts another program behind a link, at once: no packet passes between the two.
///
/// # Errors
/// `ENOLINK` if what the link was attached to is gone.
pub fn update_link(link: BorrowedFd<'_>, program: impl AsFd) -> io::Result<()> {
    let attributes = LinkUpdate {
        link: link.as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    bpf(BPF_LINK_UPDATE, &attributes).map(drop)
}

fn bpf<T>(command: i64, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are a plain structure of the size given, and the path in them, where
    // there is one, outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
