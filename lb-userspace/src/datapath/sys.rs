//! The calls of bpf(2) that aya 0.14 does not have: links by pin, whatever their type; and what nix
//! does not know of sockets.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

#[cfg(feature = "lab")]
const BPF_PROG_LOAD: i64 = 5;
const BPF_MAP_LOOKUP_ELEM: i64 = 1;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_OBJ_PIN: i64 = 6;
const BPF_OBJ_GET: i64 = 7;
const BPF_LINK_CREATE: i64 = 28;
const BPF_LINK_UPDATE: i64 = 29;
const BPF_LINK_DETACH: i64 = 34;
/// The place of a link on an interface's way in (kernel 6.6).
const BPF_TCX_INGRESS: u32 = 46;

/// `union bpf_attr` for BPF_OBJ_GET and BPF_OBJ_PIN.
#[repr(C)]
struct Obj {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` for BPF_LINK_CREATE (kernel 5.7), as far as it is used.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
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
    let attributes = Obj { path: path.as_ptr() as u64, fd: 0, flags: 0 };
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

/// Takes a link's program off its hook, at once (kernel 5.9; of TCX 6.6). The kernel puts off what
/// the end of a link's last descriptor or pin means.
///
/// # Errors
/// What the kernel answers; `EINVAL` for what is no link.
pub fn detach_link(link: impl AsFd) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &(link.as_fd().as_raw_fd() as u32)).map(drop)
}

/// `union bpf_attr` for BPF_MAP_LOOKUP_ELEM and BPF_MAP_UPDATE_ELEM.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Changes some words of the only element of an array map whose type is another version's: it is
/// read, given to `change`, and written.
///
/// # Errors
/// What the kernel answers.
pub fn change_element(
    map: impl AsFd,
    words: usize,
    change: impl FnOnce(&mut [u64]),
) -> io::Result<()> {
    let (key, mut value) = (0_u32, vec![0_u64; words]);
    let element = Element {
        map: map.as_fd().as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &element)?;
    change(&mut value);
    bpf(BPF_MAP_UPDATE_ELEM, &element).map(drop)
}

/// What tells the calling thread's network namespace from any other (kernel 5.14).
///
/// # Errors
/// What the kernel answers.
pub fn namespace_cookie() -> io::Result<u64> {
    // Of a family without ports, for all of those may be taken.
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes `length` bytes to a word that has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// `union bpf_attr` for BPF_PROG_LOAD, as far as it is needed.
#[cfg(feature = "lab")]
#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
}

/// Where a program that lets every packet go on is to be.
#[cfg(feature = "lab")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    Xdp,
    Tc,
}

/// Pins such a program, for ends of cables that need one there, and to be somebody else's.
///
/// # Errors
/// What the kernel answers.
#[cfg(feature = "lab")]
pub fn pin_passing(at: Passing, path: &Path) -> io::Result<()> {
    // The kinds of programs, and XDP_PASS and TC_ACT_UNSPEC.
    let (kind, answer) = match at {
        Passing::Xdp => (6, 2_i32),
        Passing::Tc => (3, -1),
    };
    let [a, b, c, d] = answer.to_le_bytes();
    // r0 = answer; exit
    let instructions = [[0xb7_u8, 0, 0, 0, a, b, c, d], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let licence = c"Dual MIT/GPL";
    let load = ProgLoad {
        kind,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &load)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    pin(program, path)
}

/// Pins a map, program or link at `path`.
///
/// # Errors
/// What the kernel answers.
pub fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = object.as_fd().as_raw_fd() as u32;
    bpf(BPF_OBJ_PIN, &Obj { path: path.as_ptr() as u64, fd, flags: 0 }).map(drop)
}

/// Whether this kernel has links for tc (TCX): it is asked to put a loaded tc program on no
/// interface, and complains about the interface only if it knows what is asked for.
pub fn has_tcx(program: impl AsFd) -> bool {
    let program = program.as_fd().as_raw_fd() as u32;
    let attributes = LinkCreate { program, interface: 0, attach_type: BPF_TCX_INGRESS, flags: 0 };
    let answer = bpf(BPF_LINK_CREATE, &attributes);
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

fn bpf<T>(command: i64, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are a plain structure of the size given, and what they point to outlives
    // the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
