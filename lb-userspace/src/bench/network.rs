//! Where measured programs route: a network namespace with one uplink, and a neighbour behind it
//! that everything goes to.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    process::{Command, Stdio},
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::cli::{Exit, Failure};

/// The interface that every frame comes in on and goes out on.
pub const UPLINK: u32 = 7;
/// Its name.
pub const UPLINK_NAME: &str = "up0";
/// The name of its other end, from which packets come.
pub const FAR: &str = "far0";
/// The index of the other end.
pub const FAR_INDEX: u32 = 8;
/// Index of the first of [`IDLE`] interfaces that nothing passes.
pub const IDLE_FIRST: u32 = 9;
/// How many of them there are.
pub const IDLE: u32 = 6;
/// This node's addresses.
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// What a pod of this node has as its address.
pub const POD: [u8; 4] = [10, 244, 1, 7];

const SET_UP: &str = "\
link set dev lo up
link add dev up0 index 7 address 02:00:00:00:00:aa type veth peer name far0 index 8
link add dev idle0 index 9 type veth peer name idle1 index 10
link add dev idle2 index 11 type veth peer name idle3 index 12
link add dev idle4 index 13 type veth peer name idle5 index 14
link set dev far0 address 02:00:00:00:00:bb
link set dev far0 up
link set dev up0 up
addr add 192.0.2.1/24 dev up0
addr add 2001:db8::1/64 dev up0 nodad
neigh add 192.0.2.254 lladdr 02:00:00:00:00:bb nud permanent dev up0
neigh add 2001:db8::fe lladdr 02:00:00:00:00:bb nud permanent dev up0
route add default via 192.0.2.254
route add default via 2001:db8::fe
";

/// A namespace that the calling thread is in as long as this lives.
#[derive(Debug)]
pub struct Network {
    home: File,
}

impl Network {
    /// Makes it and goes there.
    ///
    /// # Errors
    /// If the privilege or the command `ip` is missing.
    pub fn enter() -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let what = format!("no network namespace can be made: {error}");
            Failure::new(Exit::Unreachable, what, "run it as root, with iproute2 installed")
        };
        let home = current().map_err(|error| failed(&error))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed(&error))?;
        let network = Self { home };
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{key}"), "1").map_err(|error| failed(&error))?;
        }
        ip(SET_UP).map_err(|error| failed(&error))?;
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The thread ends with the command if it cannot go home.
        let _ = go(&self.home);
    }
}

/// The namespace of the calling thread.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Takes the calling thread to a namespace.
pub fn go(to: &File) -> io::Result<()> {
    Ok(setns(to, CloneFlags::CLONE_NEWNET)?)
}

/// `ip` commands without the word `ip`, one a line.
pub(super) fn ip(lines: &str) -> io::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]), lines)
}

/// Runs a command that reads `text` and has to succeed.
pub(super) fn feed(command: &mut Command, text: &str) -> io::Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} failed ({status})", command.get_program().display())))
}
