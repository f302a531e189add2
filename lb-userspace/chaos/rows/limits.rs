//! What is full.

use std::net::SocketAddrV4;

use anyhow::Result;
use lb_common::limits;

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    flood::{Kind, flood},
    rig::{Rig, Said, TCP, UDP, VIP, service, slice, tcp},
    streams::{Streams, open_new},
};

pub(super) fn full_of_flows(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // The smallest that there is: room for some thousand flows.
    let rig = Rig::build(scale, 4, &["--flow-table-bytes", "1048576"])?;
    let (held, control) = streams(&rig, 100)?;
    let target = SocketAddrV4::new(VIP, UDP);
    let sent = flood(&rig.client, Kind::Datagram, target, scale.flood.min(50_000))?;
    outcome.note(format!("{sent} flows more, flows: {}", rig.status("Flows")?));
    let before = rig.drops("flow-table-full")?;
    let opened = open_new(&rig.client, tcp(), 100);
    let full = rig.drops("flow-table-full")? - before;
    // Whose SYN is sent again may find a place of a flow that nobody answered.
    outcome.must(
        format!(
            "{} of 100 new ones refused, {full} packets dropped as flow-table-full",
            opened.failed
        ),
        full > 0 && full as usize >= opened.failed,
    );
    let seen = held.rounds(2)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

pub(super) fn full_of_services(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 2, &[])?;
    let held = Streams::open(&rig.client, tcp(), 20)?;
    let surplus = 100;
    let objects: Vec<_> = (0..limits::SERVICES + surplus)
        .flat_map(|number| {
            let name = format!("many-{number:05}");
            let port = 1024 + (number % 60_000) as u16;
            let mut object = service(&name, VIP, "TCP", port);
            object["spec"]["clusterIP"] =
                format!("10.98.{}.{}", number / 250, 1 + number % 250).into();
            [object, slice(&name, "TCP", TCP, &[(1, Said::Ready)])]
        })
        .collect();
    rig.manifest("many.json", &objects)?;
    super::backends::wait(|| {
        let objects = rig.status("Objects").ok()?;
        objects.starts_with("left out").then_some(())
    })?;
    outcome.note(rig.status("Objects")?);
    let opened = open_new(&rig.client, tcp(), 100);
    outcome.must(
        format!("{} of 100 new ones to the first Service failed", opened.failed),
        opened.failed == 0,
    );
    let seen = held.rounds(1)?;
    outcome.must(
        format!("{} connections lost", seen.reset() + seen.lost),
        seen.reset() + seen.lost == 0,
    );
    Ok(outcome)
}
