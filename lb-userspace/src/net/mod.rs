//! The network as this node's kernel sees it: interfaces, addresses, routes, and when they change.
//!
//! Only here does anybody speak netlink. Everything is read from the network namespace of the
//! calling thread, and nothing is ever changed but that a place for filters that we made is taken
//! away with them, and that sockets are ended ([`end_udp`]) if the configuration says so.
//!
//! Who follows the network begins with [`Changes::begin`] and takes a [`snapshot`] then and after
//! each change. In this order nothing is missed, not even what happens between the parts of a
//! snapshot: a change answers for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

mod changes;
mod clsact;
mod forwarding;
mod snapshot;
mod source;
mod termination;
mod uplinks;
mod xdp;

pub use changes::Changes;
pub use clsact::{interface_name, is_gone, remove_unused_clsact};
pub use forwarding::forwarding_off;
pub use snapshot::{Error, snapshot};
pub use source::source_towards;
pub use termination::{can_end_udp, end_udp};
pub use uplinks::{Named, matching, named, uplinks};
pub use xdp::{XdpProgram, xdp_programs};

/// What the kernel knew at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By index.
    pub interfaces: BTreeMap<u32, Interface>,
    /// This host's own addresses, by the index of the interface that carries them.
    pub addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
    pub routes: BTreeSet<Route>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What the kernel calls it; a name may pass to another device, an index hardly ever.
    pub index: u32,
    pub name: String,
    /// The driver's name for what is not a plain network card: `veth`, `vxlan`, `bridge`…
    pub kind: Option<String>,
    /// Whether its packets begin with an Ethernet header. Those of most tunnels do not.
    pub ethernet: bool,
    pub loopback: bool,
    /// Switched on; says nothing about the cable.
    pub up: bool,
    /// Index of the bridge, bond or VRF that it is a part of.
    pub master: Option<u32>,
    /// How an XDP program runs there, whoever put it there: `native` or `generic`.
    pub xdp: Option<&'static str>,
}

/// A route of any table, but for those to the host itself and to groups of hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub destination: IpNet,
    /// Indices of those that packets leave by: several for a multipath route, none for one that
    /// says that there is no way (`blackhole`, `throw`…).
    pub interfaces: BTreeSet<u32>,
}
