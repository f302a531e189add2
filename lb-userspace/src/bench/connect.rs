//! Real connections, one after the other, from this node to a pod that accepts whatever comes: dialled
//! at the pod, at the ClusterIP of its Service through the socket programs, and at the ClusterIP
//! through the rules that Kubernetes' own proxy would write.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use aya::programs::{CgroupAttachMode, CgroupSockAddr, cgroup_sock_addr::CgroupSockAddrLink};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{Backlog, setsockopt, sockopt},
};

use super::{
    broken, machine,
    network::{self, Network},
    part::Tell,
    report::Row,
    rules::Rules,
    statistics::{self, median},
    target::Target,
    world::{self, World},
};
use crate::{
    agent::setup, cli::Failure, cluster::synthetic::Cluster, datapath::object::Sizes, model::Family,
};

/// Services that are there beside the one that is dialled.
const SERVICES: u32 = 1000;
/// What the socket programs need to lead a connection.
const PROGRAMS: &[&str] = &["connect4"];
/// Where the pod listens: what the synthetic cluster says of every endpoint.
const PORT: u16 = 8080;
/// Connections that nobody has accepted yet.
const BACKLOG: i32 = 4096;
/// How long the pod may take to accept what was dialled.
const DRAINED: Duration = Duration::from_secs(10);

/// How much is dialled.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Connections of each side in a round.
    pub connections: u32,
}

impl Effort {
    pub const FULL: Self = Self { rounds: 31, connections: 3000 };
    pub const QUICK: Self = Self { rounds: 15, connections: 1000 };
}

/// What is dialled, and what leads it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Pod,
    Ours,
    Nftables,
}

const SIDES: [(Side, &str); 3] = [
    (Side::Pod, "connect-rate-direct"),
    (Side::Ours, "connect-rate"),
    (Side::Nftables, "connect-rate-nftables"),
];

/// Measures all sides in turn.
///
/// # Errors
/// If the kernel refuses, a tool is missing, or a connection fails.
pub fn measure(effort: Effort, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
    let cluster = Cluster::new(SERVICES, 1);
    let pod = cluster.endpoint_ip(0, 0, Family::V4);
    // One after the other: each is where the thread is then.
    let ruled = Site::make(pod)?;
    Rules::Nftables.load(&cluster)?;
    let plain = Site::make(pod)?;
    let mut world = World::load(Sizes::SMALL, PROGRAMS, cluster, world::node())?;
    let cgroup = Cgroup::enter()?;
    let address = SocketAddr::new(cluster.cluster_ip(0, Family::V4), Cluster::PORT);
    let mut rates = [const { Vec::new() }; SIDES.len()];
    for round in 0..=effort.rounds {
        for at in 0..SIDES.len() {
            let at = if round % 2 == 0 { at } else { SIDES.len() - 1 - at };
            let (side, name) = SIDES[at];
            tell(name, Some(round as f64 / (effort.rounds + 1) as f64));
            let rate = match side {
                Side::Pod => plain.rate(SocketAddr::new(pod, PORT), effort.connections)?,
                Side::Ours => {
                    let _hook = cgroup.hook(&mut world)?;
                    plain.rate(address, effort.connections)?
                }
                Side::Nftables => ruled.rate(address, effort.connections)?,
            };
            if round > 0 {
                rates[at].push(rate);
            }
        }
    }
    Ok(rows(&rates))
}

fn rows(rates: &[Vec<f64>; SIDES.len()]) -> Vec<Row> {
    let [direct, ours, theirs] = rates;
    let over = |those: &[f64]| -> Vec<f64> {
        ours.iter().zip(those).map(|(ours, those)| ours / those).collect()
    };
    let row = |((side, name), rates): (&(Side, &str), &Vec<f64>)| {
        let row = Row {
            name: (*name).to_owned(),
            services: Some(SERVICES),
            value: Some(median(rates)),
            unit: Some("/s".to_owned()),
            samples: rates.clone(),
            ..Row::default()
        };
        if *side != Side::Ours {
            return row;
        }
        let (direct, theirs) = (over(direct), over(theirs));
        let [low, high] = statistics::interval(&direct);
        let note = format!(
            "{low:.3} to {high:.3} times as many as direct (95 %); {:.2} times the rules of nftables",
            median(&theirs)
        );
        let row = Row { note: Some(note), ..row };
        row.held_against(Some(Target::Least(0.95)), Some(median(&direct)))
    };
    SIDES.iter().zip(rates).map(row).collect()
}

/// This node and a pod, each in a namespace of its own, from which the calling thread goes home when
/// this ends.
struct Site {
    node: File,
    accepted: Arc<AtomicU64>,
    _home: Network,
}

impl Site {
    /// Makes both; the calling thread is on the node then.
    fn make(pod: IpAddr) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| broken("a pod's namespace", error);
        let home = Network::enter()?;
        let node = network::current().map_err(|error| failed(&error))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed(&error))?;
        let inside = network::current().map_err(|error| failed(&error))?;
        network::go(&node).map_err(|error| failed(&error))?;
        let place = format!("/proc/{}/fd/{}", std::process::id(), inside.as_raw_fd());
        let host = Ipv4Addr::new(169, 254, 1, 1);
        network::ip(&format!(
            "link add pod0 type veth peer name eth0 netns {place}\naddr add {host}/32 dev pod0\n\
             link set pod0 up\nroute add {pod}/32 dev pod0 src {host}\n"
        ))
        .map_err(|error| failed(&error))?;
        network::go(&inside).map_err(|error| failed(&error))?;
        let listener = listen(pod, host);
        network::go(&node).map_err(|error| failed(&error))?;
        let (listener, accepted) = (listener.map_err(|error| failed(&error))?, Arc::default());
        let count = Arc::clone(&accepted);
        // It ends with the process: nobody dials it any more then.
        thread::spawn(move || accept(&listener, &count));
        Ok(Self { node, accepted, _home: home })
    }

    /// Connections a second, each ended as soon as it is there.
    fn rate(&self, to: SocketAddr, connections: u32) -> Result<f64, Failure> {
        let failed = |error: &dyn std::fmt::Display| broken(format_args!("dialling {to}"), error);
        network::go(&self.node).map_err(|error| failed(&error))?;
        let accepted = self.accepted.load(Relaxed) + u64::from(connections);
        let began = Instant::now();
        for _ in 0..connections {
            let connection = TcpStream::connect(to).map_err(|error| failed(&error))?;
            // No port shall wait for what is late.
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&connection, sockopt::Linger, &at_once).map_err(|error| failed(&error))?;
        }
        let rate = f64::from(connections) / began.elapsed().as_secs_f64();
        let late = Instant::now() + DRAINED;
        while self.accepted.load(Relaxed) < accepted {
            if Instant::now() > late {
                return Err(failed(&"the pod does not accept what was dialled"));
            }
            thread::yield_now();
        }
        Ok(rate)
    }
}

/// In the pod: its address, and who listens there.
fn listen(pod: IpAddr, host: Ipv4Addr) -> io::Result<TcpListener> {
    network::ip(&format!(
        "link set lo up\naddr add {pod}/32 dev eth0\nlink set eth0 up\n\
         route add {host}/32 dev eth0\nroute add default via {host} dev eth0\n"
    ))?;
    fs::write("/proc/sys/net/core/somaxconn", BACKLOG.to_string())?;
    let listener = TcpListener::bind(SocketAddr::new(pod, PORT))?;
    // The library's backlog is shorter than a round.
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

fn accept(listener: &TcpListener, count: &AtomicU64) {
    machine::unpin();
    // One that was ended before it was accepted counts as well.
    while listener.accept().is_ok() {
        count.fetch_add(1, Relaxed);
    }
}

/// A cgroup that this process is in as long as this lives.
struct Cgroup {
    path: PathBuf,
    origin: PathBuf,
}

impl Cgroup {
    fn enter() -> Result<Self, Failure> {
        let failed = |error: io::Error| broken("a cgroup", &error);
        let mount = setup::cgroup_mount()?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(failed)?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let cgroup = Self {
            origin: mount.join(own),
            path: mount.join(format!("lb-bench-{}", std::process::id())),
        };
        fs::create_dir(&cgroup.path).map_err(failed)?;
        move_to(&cgroup.path).map_err(failed)?;
        Ok(cgroup)
    }

    /// Translates this process's sockets for as long as what is returned lives.
    fn hook(&self, world: &mut World) -> Result<CgroupSockAddrLink, Failure> {
        let name = PROGRAMS[0];
        let failed = |error: &dyn std::error::Error| broken(name, error);
        let cgroup = File::open(&self.path).map_err(|error| failed(&error))?;
        let program = world.kernel.object.program_mut(name);
        let program: &mut CgroupSockAddr = program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| broken(name, &"it is not in the object"))?;
        let link = program.attach(&cgroup, CgroupAttachMode::Single);
        link.and_then(|link| program.take_link(link)).map_err(|error| failed(&error))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What cannot be left stays, empty, and hinders nobody.
        if move_to(&self.origin).is_ok() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}
