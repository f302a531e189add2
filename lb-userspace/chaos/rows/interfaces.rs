//! Interfaces that change under a running agent, and programs of others.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_userspace::{
    datapath::tc::linked,
    lab::{Host, link},
};
use serde_json::Value;

use super::{Outcome, agents::streams, backends::wait};
use crate::{
    Scale,
    rig::{Rig, tcp},
    streams::{bulk, open_new},
};

/// How long the agent may take to follow.
const PROMPT: Duration = Duration::from_secs(2);
/// Bytes that go there and come back.
const BULK: usize = 1_000_000;

pub(super) fn change(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    appear_and_go(scale, &mut outcome)?;
    of_others(scale, &mut outcome)?;
    Ok(outcome)
}

/// Interfaces come, go, flap, and get other names, MTUs and queues.
fn appear_and_go(scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    // Uplinks are found by the node's addresses.
    let rig = Rig::build(scale, 2, &["--node-address", "203.0.114.1"])?;
    let (held, control) = streams(&rig, 20)?;
    let before = hooks(&rig.lb, "front")?;
    for mtu in [1400, 1500] {
        rig.client.ip(&format!("link set dev eth0 mtu {mtu}"))?;
        rig.lb.ip(&format!("link set dev front mtu {mtu}"))?;
        let whole = bulk(&rig.client, tcp(), BULK)?;
        outcome.must(format!("MTU {mtu}: {BULK} bytes there and back: {whole}"), whole);
        outcome.must("the same hooks", hooks(&rig.lb, "front")? == before);
    }

    // A client behind an interface that comes later, and goes, and comes again.
    let late = rig.lab.host("late")?;
    let works = |outcome: &mut Outcome, what: &str| {
        let opened = open_new(&late, tcp(), 20);
        outcome.must(format!("{what}: {}", opened.told()), opened.failed == 0);
    };
    for round in ["comes", "comes again"] {
        link::veth((&late, "eth0"), (&rig.lb, "late"))?;
        link::whole_checksums((&late, "eth0"))?;
        link::whole_checksums((&rig.lb, "late"))?;
        late.address("eth0", "203.0.114.9/24")?;
        late.route("default", Ipv4Addr::new(203, 0, 114, 1).into())?;
        let mut follows = Follows { rig: &rig, scale, outcome };
        follows.until(round, "addr add 203.0.114.1/24 dev late", "late (tc", true)?;
        works(outcome, round);
        let before = hooks(&rig.lb, "late")?;
        rig.lb.ip("link set dev late down\nlink set dev late up")?;
        works(outcome, "down and up");
        for (host, name) in [(&rig.lb, "late"), (&late, "eth0")] {
            // As many as there may be processors in the smallest machine that has more than one.
            let queues = ["-L", name, "rx", "2", "tx", "2"];
            let changed = host.command("ethtool")?.args(queues).output()?;
            let said = String::from_utf8_lossy(&changed.stderr).trim().to_owned();
            anyhow::ensure!(changed.status.success(), "queues of {name}: {said}");
        }
        works(outcome, "more queues");
        outcome.must("the same hooks", hooks(&rig.lb, "late")? == before);
        let rename = "link set dev late down\nlink set dev late name other\nlink set dev other up";
        let mut follows = Follows { rig: &rig, scale, outcome };
        follows.until("renamed", rename, "other (tc", true)?;
        works(outcome, "renamed");
        let mut follows = Follows { rig: &rig, scale, outcome };
        follows.until("gone", "link del dev other", "other (tc", false)?;
    }
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(())
}

/// What the agent makes of a change of the load balancer's interfaces.
struct Follows<'a> {
    rig: &'a Rig,
    scale: &'a Scale,
    outcome: &'a mut Outcome,
}

impl Follows<'_> {
    /// Makes the change, and waits until the agent names that uplink, or does no longer.
    fn until(&mut self, what: &str, change: &str, uplink: &str, there: bool) -> Result<()> {
        let begun = Instant::now();
        self.rig.lb.ip(change)?;
        let shown = || self.rig.status("Uplinks").is_ok_and(|line| line.contains(uplink) == there);
        wait(|| shown().then_some(())).with_context(|| format!("{what}: {uplink}"))?;
        self.outcome.within(&format!("{what} after"), begun.elapsed(), PROMPT, self.scale);
        Ok(())
    }
}

/// What the agent does not touch, on interfaces that it uses.
const OTHERS: &str = "a program of somebody else is there";

/// Programs of others on the hooks that the agent wants: they stay, whatever it does.
fn of_others(scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let own = ["203.0.115.1", "203.0.116.1", "203.0.117.1"].map(|own| ["--node-address", own]);
    let mut rig = Rig::build(scale, 2, own.as_flattened())?;
    rig.agent.terminate()?;
    rig.agent.lb(["uninstall"])?;
    // Two whose drivers have XDP, which somebody uses, and one whose driver has none.
    rig.lb.ip("tuntap add dev theirs mode tap\ntuntap add dev lent mode tap\nlink add dev bare type bridge")?;
    link::passes((&rig.lb, "theirs"), "xdpdrv")?;
    // A program of the driver's own cannot be beside one of the stack's.
    link::passes((&rig.lb, "lent"), "xdpgeneric")?;
    for (name, address) in [("theirs", 115), ("lent", 116), ("bare", 117)] {
        rig.lb.address(name, &format!("203.0.{address}.1/24"))?;
        rig.lb.ip(&format!("link set dev {name} up"))?;
    }
    for way in ["ingress", "egress"] {
        link::filtered((&rig.lb, "front"), way)?;
    }
    let _linked = link::linked((&rig.lb, "front"))?;
    let mut theirs = all_hooks(&rig)?;
    outcome.must(format!("{} programs of others", theirs.len()), theirs.len() == 5);

    rig.agent.restart()?;
    rig.settle(&rig.everybody())?;
    let stay = |outcome: &mut Outcome, what: &str, now: &[String], theirs: &[String]| {
        let gone: Vec<_> = theirs.iter().filter(|it| !now.contains(it)).collect();
        outcome.must(format!("{what}: gone of theirs: {gone:?}"), gone.is_empty());
    };
    let first = all_hooks(&rig)?;
    stay(outcome, "a start", &first, &theirs);
    let uplinks = rig.status("Uplinks")?;
    for told in [
        format!("theirs (tc; no XDP: {OTHERS})"),
        format!("lent (tc; no XDP: {OTHERS})"),
        "bare (tc; no XDP: the driver has none)".to_owned(),
    ] {
        outcome.must(format!("told: {told}"), uplinks.contains(&told));
    }
    let (held, control) = streams(&rig, 20)?;

    rig.agent.kill()?;
    rig.agent.restart()?;
    let second = all_hooks(&rig)?;
    stay(outcome, "other programs", &second, &theirs);
    let same = first.iter().filter(|it| second.contains(it)).count();
    let (ours, kept) = (first.len() - theirs.len(), same - theirs.len());
    outcome.must(format!("{kept} of our {ours} stayed"), kept == 0 && ours > 0);
    let opened = open_new(&rig.client, tcp(), 20);
    outcome.must(format!("beside them {}", opened.told()), opened.failed == 0);

    // What somebody gives up is ours to use.
    let mut follows = Follows { rig: &rig, scale, outcome };
    follows.until("given up", "link set dev lent xdpgeneric off", "lent (xdp native, tc)", true)?;
    theirs.retain(|it| !it.starts_with("lent "));
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    drop((held, control));

    rig.agent.terminate()?;
    let removed = rig.agent.lb(["uninstall"])?;
    outcome.must("uninstalled", removed.status.success());
    let left = all_hooks(&rig)?;
    outcome.must(format!("{} programs left, all theirs", left.len()), left == theirs);
    Ok(())
}

fn all_hooks(rig: &Rig) -> Result<Vec<String>> {
    let names = ["front", "back", "theirs", "lent", "bare"].into_iter();
    let found = names.map(|name| hooks(&rig.lb, name)).collect::<Result<Vec<_>>>()?;
    Ok(found.concat())
}

/// What is on an interface's hooks, whoever put it there, each named by its place and its number.
pub(super) fn hooks(host: &Host, name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let link = host.command("ip")?.args(["-j", "link", "show", "dev", name]).output()?;
    let link: Value = serde_json::from_slice(&link.stdout).context("what ip says of a link")?;
    if let Some(id) = link[0]["xdp"]["prog"]["id"].as_u64() {
        found.push(format!("{name} xdp {id}"));
    }
    let links = host.run(|| linked(name)).into_iter();
    found.extend(links.map(|(way, id)| format!("{name} {way} link {id}")));
    for way in ["ingress", "egress"] {
        let filters = host.command("tc")?.args(["filter", "show", "dev", name, way]).output()?;
        let filters = String::from_utf8_lossy(&filters.stdout).into_owned();
        let filters = filters.lines().filter(|line| line.contains(" handle "));
        found.extend(filters.map(|filter| format!("{name} {way} {}", filter.trim())));
    }
    Ok(found)
}
