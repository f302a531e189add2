//! A tunnel without Ethernet: two TUN devices, and who carries packets from one to the other.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;

use super::{link::End, task::Task};

/// Longer than any packet.
const ROOM: usize = 65_536;

/// As `TUNSETIFF` takes it (`struct ifreq`).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Two devices that are up and have no Ethernet header, joined until this is dropped.
#[derive(Debug)]
pub struct Tunnel {
    _task: Task,
}

impl Tunnel {
    /// Between two hosts.
    ///
    /// # Errors
    /// If the kernel has no TUN, or a host has an interface of that name.
    pub fn between(one: End<'_>, other: End<'_>) -> Result<Self> {
        let [left, right] = [open(one)?, open(other)?];
        let task = Task::start(one.0, move || async move {
            // SAFETY: a `File` has the same descriptor, which is its own, as long as it lives.
            let ends = unsafe { (AsyncFd::register(left), AsyncFd::register(right)) };
            let (Ok(left), Ok(right)) = ends else { return };
            tokio::join!(carry(&left, &right), carry(&right, &left));
        });
        Ok(Self { _task: task })
    }
}

/// Makes a device, and sets it up.
fn open((host, name): End<'_>) -> Result<File> {
    let made = || -> io::Result<File> {
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        let mut request = Request { name: [0; 16], flags, rest: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the kernel reads and writes one `struct ifreq`, which `request` is as long as.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(file)
    };
    let file = host.run(made).with_context(|| format!("TUN device {name}"))?;
    host.ip(&format!("link set dev {name} up"))?;
    Ok(file)
}

async fn carry(from: &AsyncFd<File>, to: &AsyncFd<File>) {
    let mut packet = vec![0; ROOM];
    while let Ok(mut ready) = from.readable().await {
        // None was there after all, or the device is gone.
        let Ok(Ok(length)) = ready.try_io(|file| file.get_ref().read(&mut packet)) else {
            continue;
        };
        // As on any link: who has no room loses it.
        to.get_ref().write_all(&packet[..length]).ok();
    }
}
