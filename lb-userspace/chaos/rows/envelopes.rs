//! Packets in envelopes, as DSR sends them to other nodes.

use anyhow::{Context as _, Result};
use lb_userspace::lab::Host;
use serde_json::{Value, json};

use super::{Outcome, backends::wait};
use crate::{
    Scale,
    manifests::{Said, slice},
    rig::{Rig, TCP, UDP, VIP, address, tcp},
    streams::{bulk, open_new},
};

/// Bytes that go there, each of whose packets is too long for an envelope at first, and come back.
const BULK: usize = 1_000_000;
/// Linux's own device for IPIP: it takes off whatever header is for this machine.
const TUNNEL: &str = "tunl0";

/// The other node has no agent: its kernel opens the envelopes, and serves.
pub(super) fn opened_by_linux(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 1, &["--forwarding", "dsr"])?;
    let far = &rig.backends[0].host;
    // The module brings it into every namespace.
    far.ip(&format!("link set dev {TUNNEL} up"))?;
    far.address("lo", &format!("{VIP}/32"))?;
    far.sysctls(&[("net.ipv4.conf.all.rp_filter", "0"), ("net.ipv4.conf.tunl0.rp_filter", "0")])?;
    rig.manifest(
        "nodes.json",
        &[node("lb", "192.168.20.1"), node("far", &address(1).to_string())],
    )?;
    let ready = [(1, Said::Ready)];
    let slices = [("tcp", "TCP", TCP), ("udp", "UDP", UDP)].map(|(name, protocol, port)| {
        let mut slice = slice(name, protocol, port, &ready);
        slice["endpoints"][0]["nodeName"] = "far".into();
        slice
    });
    rig.manifest("endpoints.json", &slices)?;
    wait(|| rig.status("Forwarding").is_ok_and(|line| line.contains("2 of 2")).then_some(()))?;
    outcome.note(rig.status("Forwarding")?);
    let before = opened(far)?;
    let new = open_new(&rig.client, tcp(), 50);
    outcome.must(new.told(), new.failed == 0);
    let whole = bulk(&rig.client, tcp(), BULK)?;
    outcome.must(format!("{BULK} bytes there and back: {whole}"), whole);
    let told = rig.drops("too-big")?;
    outcome.must(format!("{told} packets too long"), told > 0);
    let taken = opened(far)? - before;
    outcome.must(format!("{taken} envelopes opened by Linux"), taken > 100);
    Ok(outcome)
}

fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {"lb/forwarding": "dsr"}},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

/// Packets that have come out of the tunnel.
fn opened(host: &Host) -> Result<u64> {
    let output = host.command("ip")?.args(["-s", "-j", "link", "show", TUNNEL]).output()?;
    let links: Value = serde_json::from_slice(&output.stdout).context("a device for IPIP")?;
    links[0]["stats64"]["rx"]["packets"].as_u64().context("a count of packets")
}
