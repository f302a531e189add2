//! A host: a network namespace, and the cgroup of the node that it is or lives on.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::{cgroup::Cgroup, cleanup, laboratory::all};

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";

/// What every new namespace starts with, whatever the machine's own defaults are: addresses
/// serve at once (no duplicate address detection), and no packet is lost to the path it took.
const DEFAULTS: [(&str, &str); 6] = [
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.ip_forward", "0"),
];

/// A machine or a pod as the network sees it. Clones are the same host; the namespace goes with
/// the last of them.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: PathBuf,
    file: File,
    cgroup: Arc<Cgroup>,
}

impl Host {
    pub(super) fn create(lab: &str, name: &str, cgroup: Arc<Cgroup>) -> Result<Self> {
        let namespace = Path::new(NAMES).join(format!("{lab}.{name}"));
        let file = add(&namespace)?;
        let host = Self(Arc::new(Inner { name: name.to_owned(), namespace, file, cgroup }));
        host.sysctls(&DEFAULTS)?;
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// The short name, without the lab's.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file for `nsenter --net=…` (`ip netns exec` would hide the BPF file system).
    pub fn namespace(&self) -> &Path {
        &self.0.namespace
    }

    /// The cgroup whose sockets are this node's.
    pub fn cgroup(&self) -> &Path {
        self.0.cgroup.path()
    }

    /// Whether it shall outlive this process.
    pub(super) fn kept(&self) -> bool {
        self.0.cgroup.kept()
    }

    pub(super) fn share_cgroup(&self) -> Arc<Cgroup> {
        Arc::clone(&self.0.cgroup)
    }

    /// Runs `work` on a thread of its own on this host and waits for it. Sockets that it opens
    /// belong here for good, whoever uses them later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let on_host = scope.spawn(|| {
                self.enter().expect("a thread can move to a host");
                work()
            });
            on_host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `work` on a thread of its own on this host.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let host = self.clone();
        thread::spawn(move || {
            host.enter().expect("a thread can move to a host");
            // A thread must not keep the namespace's name alive.
            drop(host);
            work()
        })
    }

    fn enter(&self) -> Result<()> {
        setns(self.0.file.as_fd(), CloneFlags::CLONE_NEWNET).context("enter a namespace")?;
        self.0.cgroup.enter().context("enter a cgroup")
    }

    /// A command that will run on this host. The host must live until it is started.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        let namespace = self.0.file.try_clone()?;
        let door = self.0.cgroup.door()?;
        // SAFETY: between fork and exec this makes two system calls on open descriptors; it
        // neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                (&door).write_all(b"0")?;
                match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        Ok(command)
    }

    /// `ip` commands without the word `ip`, one a line; they happen in this order.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut ip = self.command("ip")?;
        ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ip.stderr(Stdio::piped()).spawn().context("start ip")?;
        child.stdin.take().context("a pipe")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("on {}: ip: {}\nin:\n{lines}", self.name(), said.trim());
        }
        Ok(())
    }

    /// Gives an interface an address with its prefix length, `10.0.0.1/24`.
    pub fn address(&self, interface: &str, address: &str) -> Result<()> {
        let flag = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {interface} {flag}"))
    }

    /// A route to `destination` (or `default`) through `gateway`.
    pub fn route(&self, destination: &str, gateway: IpAddr) -> Result<()> {
        let family = if gateway.is_ipv6() { "-6" } else { "-4" };
        let mut ip = self.command("ip")?;
        succeed(ip.args([family, "route", "add", destination, "via", &gateway.to_string()]))
    }

    /// Sets kernel parameters of this host, named as for `sysctl`. A name with a dot in an
    /// interface's name is written with slashes.
    pub fn sysctls(&self, values: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            values.iter().try_for_each(|(key, value)| {
                let path =
                    if key.contains('/') { (*key).to_owned() } else { key.replace('.', "/") };
                fs::write(Path::new("/proc/sys").join(path), value)
                    .with_context(|| format!("set {key}={value}"))
            })
        })
    }

    /// Makes the host forward packets of both families.
    pub fn forward(&self) -> Result<()> {
        self.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])
    }

    /// Removes that lab's namespaces.
    pub(super) fn sweep(lab: &str) -> Result<()> {
        let prefix = format!("{lab}.");
        let names = fs::read_dir(NAMES).into_iter().flatten().flatten();
        let of_lab = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        all(of_lab.map(|entry| remove(&entry.path())))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.cgroup.kept() {
            let _pass = cleanup::pass();
            // What cannot be removed now is the sweep's to report.
            remove(&self.namespace).ok();
        }
    }
}

fn add(namespace: &Path) -> Result<File> {
    let _pass = cleanup::pass();
    let name = namespace.file_name().context("a name")?;
    succeed(Command::new("ip").args(["netns", "add"]).arg(name))?;
    Ok(File::open(namespace)?)
}

/// Removes a namespace, unless the lab has been swept before.
fn remove(namespace: &Path) -> Result<()> {
    match namespace.file_name() {
        Some(name) if namespace.exists() => {
            succeed(Command::new("ip").args(["netns", "del"]).arg(name))
        }
        _ => Ok(()),
    }
}

/// Runs a command to its end; what it said is the error.
pub(super) fn succeed(command: &mut Command) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}", said.trim());
    }
    Ok(())
}
