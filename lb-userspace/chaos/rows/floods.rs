//! Floods from sources that do not exist.

use std::{net::SocketAddrV4, time::Instant};

use anyhow::{Context as _, Result};

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    flood::{Kind, flood},
    rig::{Rig, TCP, UDP, VIP, tcp, udp},
    streams::open_new,
    udp::Flows,
};

/// Established flows, those that somebody answered, and honest connections while the floods last.
pub(super) fn both(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // UDP flows that are silent must not end by themselves, however long the floods take.
    let rig = Rig::build(scale, 4, &["--timeout", "udp=1h"])?;
    let (held, control) = streams(&rig, scale.connections)?;
    let flows = Flows::open(&rig.client, udp(), scale.connections / 10)?;
    let honest = scale.connections / 10;
    for (kind, port, name) in [(Kind::Syn, TCP, "SYNs"), (Kind::Datagram, UDP, "datagrams")] {
        let full = refused(&rig)?;
        let (begun, cpu) = (Instant::now(), rig.agent_cpu()?);
        let (client, count) = (rig.client.clone(), scale.flood);
        let flooding =
            std::thread::spawn(move || flood(&client, kind, SocketAddrV4::new(VIP, port), count));
        let opened = open_new(&rig.client, tcp(), honest);
        let sent = flooding.join().ok().context("the flood's thread")??;
        let (full, took) = (refused(&rig)? - full, begun.elapsed());
        let what = format!("{sent} {name}: {} of {honest} new ones failed", opened.failed);
        outcome.must(what, opened.failed * 100 <= honest);
        outcome.note(format!("{full} refused for want of room"));
        let cpu = rig.agent_cpu()?.saturating_sub(cpu);
        // The programs run where packets are sent, so that a packet's time is theirs, too.
        outcome.note(format!("{:.1} µs a packet", took.as_secs_f64() * 1e6 / sent.max(1) as f64));
        let what = format!("the agent took {cpu:.1?} of {took:.1?}");
        outcome.must(what, scale.fast || cpu * 5 < took);
    }
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    let (kept, of) = (flows.ask_again(), flows.count());
    outcome.must(format!("{} of {of} UDP flows lost", of - kept), kept == of && of > 0);
    outcome.note(format!("flows: {}", rig.status("Flows")?));
    Ok(outcome)
}

/// Packets that were dropped because there was no room for their flow, in the table or among the
/// ports towards a backend.
pub(super) fn refused(rig: &Rig) -> Result<u64> {
    ["flow-table-full", "half-open-full", "snat-ports-full"]
        .iter()
        .try_fold(0, |sum, reason| Ok(sum + rig.drops(reason)?))
}
