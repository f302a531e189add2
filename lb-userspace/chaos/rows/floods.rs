//! Floods from sources that do not exist.

use std::{net::SocketAddrV4, time::Instant};

use anyhow::{Context as _, Result};

use super::Outcome;
use crate::{
    Scale,
    flood::{Kind, flood},
    rig::{Rig, TCP, UDP, VIP, address, tcp, udp},
    streams::{Streams, open_new},
    udp::Flows,
};

/// Established flows that are idle, those that somebody answered, and honest connections while the
/// floods last.
pub(super) fn both(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // UDP flows that are silent must not end by themselves, however long the floods take.
    let mut rig = Rig::build(scale, 4, &["--timeout", "udp=1h"])?;
    let held = Streams::idle(&rig.client, tcp(), scale.connections)?;
    let direct = (address(1), TCP).into();
    let control = Streams::open(&rig.witness, direct, scale.connections / 10)?;
    let flows = Flows::open(&rig.client, udp(), scale.connections / 10)?;
    for (kind, port, names) in [(Kind::Syn, TCP, "SYNs"), (Kind::Datagram, UDP, "datagrams")] {
        flood_of(&rig, scale, kind, SocketAddrV4::new(VIP, port), names, &mut outcome)?;
    }
    outcome.note(format!("flows: {}", rig.status("Flows")?));
    // By another seed nothing would go where it went, but for flows that are known: one that was lost
    // and is opened anew is not the same.
    rig.reseed("nobody knows it")?;
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    let (kept, of) = (flows.ask_again(), flows.count());
    outcome.must(format!("{} of {of} UDP flows lost", of - kept), kept == of && of > 0);
    Ok(outcome)
}

fn flood_of(
    rig: &Rig,
    scale: &Scale,
    kind: Kind,
    target: SocketAddrV4,
    names: &str,
    outcome: &mut Outcome,
) -> Result<()> {
    let honest = scale.connections / 10;
    let service = if kind == Kind::Syn { "tcp" } else { "udp" };
    let count = || -> Result<[u64; 3]> {
        Ok([rig.connections(service)?.iter().sum(), refused(rig)?, rig.lost_on_link()?])
    };
    let before = count()?;
    let (begun, cpu) = (Instant::now(), rig.agent_cpu()?);
    let (client, packets) = (rig.client.clone(), scale.flood);
    let flooding = std::thread::spawn(move || flood(&client, kind, target, packets));
    let opened = open_new(&rig.client, tcp(), honest);
    let lasts = !flooding.is_finished();
    let sent = flooding.join().ok().context("the flood's thread")??;
    let took = begun.elapsed();
    let now = count()?;
    let [given, full, lost] = [0, 1, 2].map(|what| now[what] - before[what]);
    let what = format!("{sent} {names}: {} of {honest} new ones failed meanwhile", opened.failed);
    outcome.must(what, opened.failed * 100 <= honest && (scale.fast || lasts));
    // The honest ones are counted, too: each at least once, and again with a SYN that is sent again.
    let (told, honest, sent) = (given + full + lost, honest as u64, sent as u64);
    let what = format!("{given} given a backend, {full} refused, {lost} lost before");
    outcome.must(what, sent <= told && told <= sent + 4 * honest && (scale.fast || full > 0));
    let cpu = rig.agent_cpu()?.saturating_sub(cpu);
    // The programs run where packets are sent, so that a packet's time is theirs, too.
    outcome.note(format!("{:.1} µs a packet", took.as_secs_f64() * 1e6 / sent.max(1) as f64));
    let what = format!("the agent took {cpu:.1?} of {took:.1?}");
    outcome.must(what, scale.fast || cpu * 5 < took);
    Ok(())
}

/// Packets that were dropped because there was no room for their flow, in the table or among the
/// ports towards a backend.
pub(super) fn refused(rig: &Rig) -> Result<u64> {
    ["flow-table-full", "half-open-full", "snat-ports-full"]
        .iter()
        .try_fold(0, |sum, reason| Ok(sum + rig.drops(reason)?))
}
