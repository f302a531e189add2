//! What joins hosts: cables, switches and tunnels.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};

use super::{
    bpffs,
    host::{Host, succeed},
};
use crate::datapath::{
    sys::{self, Passing},
    tc::Stranger,
};

/// One end of a cable: a host and the name of the interface there.
pub type End<'a> = (&'a Host, &'a str);

/// A pair of Ethernet interfaces joined by a cable, both up.
pub fn veth(one: End<'_>, other: End<'_>) -> Result<()> {
    let ((host, name), (peer_host, peer)) = (one, other);
    host.ip(&format!(
        "link add dev {name} type veth peer name {peer} netns {}",
        peer_host.namespace().display()
    ))?;
    host.ip(&format!("link set dev {name} up"))?;
    peer_host.ip(&format!("link set dev {peer} up"))
}

/// The address of every bridge. Left alone, a bridge takes the lowest of its ports' addresses,
/// so that each port that comes or goes makes its neighbours' tables wrong.
const BRIDGE: &str = "02:00:00:00:00:fe";

/// A switch without spanning tree, so ports forward at once.
pub fn bridge(host: &Host, name: &str) -> Result<()> {
    host.ip(&format!(
        "link add dev {name} address {BRIDGE} type bridge stp_state 0 mcast_snooping 0\n\
         link set dev {name} up"
    ))
}

/// A cable from `end` into a switch; `port` is the name of the interface at the switch.
pub fn plug(end: End<'_>, switch: End<'_>, port: &str) -> Result<()> {
    let (host, bridge) = switch;
    veth(end, (host, port))?;
    host.ip(&format!("link set dev {port} master {bridge}"))
}

/// Makes this end of a cable send whole checksums: XDP at the other end sees packets as they
/// left here, and an incremental update of a partial checksum is garbage.
pub fn whole_checksums((host, name): End<'_>) -> Result<()> {
    succeed(host.command("ethtool")?.args(["-K", name, "tx", "off"]))
}

/// Makes this end of a cable take packets that XDP at the other end sends back or redirects.
///
/// veth queues what XDP sends back for the other end, but wakes that end only if it has an XDP
/// program too (`veth_xdp_flush`): else the packet lies there until an ordinary one comes along. So
/// this end gets a program that passes everything.
pub fn takes_xdp(end: End<'_>) -> Result<()> {
    passes(end, "xdpdrv")
}

/// Puts an XDP program of somebody else on an interface, as `ip` calls the way (`xdpdrv`,
/// `xdpgeneric`): it passes everything.
pub fn passes((host, name): End<'_>, how: &str) -> Result<()> {
    with_passing(Passing::Xdp, |pin| {
        host.ip(&format!("link set dev {name} {how} pinned {}", pin.display()))
    })
}

/// Puts a filter of somebody else on an interface, `way` being `ingress` or `egress`: it lets everything
/// go on.
pub fn filtered((host, name): End<'_>, way: &str) -> Result<()> {
    // It may be there, as the place of other filters.
    succeed(host.command("tc")?.args(["qdisc", "add", "dev", name, "clsact"])).ok();
    with_passing(Passing::Tc, |pin| {
        let mut tc = host.command("tc")?;
        tc.args(["filter", "add", "dev", name, way, "pref", "7", "bpf", "da", "object-pinned"]);
        succeed(tc.arg(pin))
    })
}

/// Puts a program of somebody else on what comes in on an interface, by a link for tc (kernel 6.6), until
/// it is dropped: it lets everything go on.
pub fn linked((host, name): End<'_>) -> Result<Stranger> {
    with_passing(Passing::Tc, |pin| Ok(host.run(|| Stranger::join(name, pin))?))
}

/// A program that passes everything, pinned for as long as `work` needs to give it to who holds it.
fn with_passing<T>(at: Passing, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let pin = bpffs::scratch()?;
    sys::pin_passing(at, &pin).with_context(|| format!("{at:?} that passes everything"))?;
    let done = work(&pin);
    fs::remove_file(&pin)?;
    done
}

/// A VXLAN device between two addresses, up.
pub fn vxlan(host: &Host, name: &str, id: u32, local: IpAddr, remote: IpAddr) -> Result<()> {
    host.ip(&format!(
        "link add dev {name} type vxlan id {id} local {local} remote {remote} dstport 4789 noudp6zerocsumrx\n\
         link set dev {name} up"
    ))
    .with_context(|| format!("vxlan between {local} and {remote}"))
}

/// Whether this kernel has VXLAN: some are built without it.
pub fn has_vxlan(host: &Host) -> bool {
    host.ip("link add probe type vxlan id 1 dstport 4789\nlink del probe").is_ok()
}
