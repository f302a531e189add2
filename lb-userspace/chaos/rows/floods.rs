//! Floods from sources that do not exist.

use std::{net::SocketAddrV4, time::Instant};

use anyhow::{Context as _, Result, bail};

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
    let flows_told = rig.status("Flows")?;
    let (used, most) = room_for_ipv4(&flows_told)?;
    outcome.must(format!("flows: {flows_told}"), used > 0 && used <= most);
    // By another seed nothing would go where it went, but for flows that are known: one that was lost
    // and is opened anew is not the same.
    rig.reseed("nobody knows it")?;
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    let (kept, of) = (flows.ask_again(), flows.count());
    outcome.must(format!("{} of {of} UDP flows lost", of - kept), kept == of && of > 0);
    Ok(outcome)
}

/// How many IPv4 flows there are, and how many there may be, as `lb status` tells it.
pub(super) fn room_for_ipv4(told: &str) -> Result<(u64, u64)> {
    let words: Vec<&str> = told.split(' ').collect();
    let ["IPv4", used, "of", most, ..] = words[..] else { bail!("no count of flows: {told}") };
    Ok((used.parse()?, most.parse()?))
}

/// SYNs that the client has sent again.
pub(super) fn sent_again(rig: &Rig) -> Result<u64> {
    let output = rig.client.command("nstat")?.args(["-asz", "TcpExtTCPSynRetrans"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("TcpExtTCPSynRetrans"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.context("a count of SYNs that were sent again")
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
    let count = || -> Result<[u64; 4]> {
        let given = rig.connections("tcp")?.iter().chain(&rig.connections("udp")?).sum();
        Ok([given, refused(rig)?, rig.lost_on_link()?, sent_again(rig)?])
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
    let [given, full, lost, again] = [0, 1, 2, 3].map(|what| now[what] - before[what]);
    outcome.must(format!("{sent} of {packets} {names} sent"), sent == packets);
    let what = format!("{sent} {names}: {} of {honest} new ones failed meanwhile", opened.failed);
    outcome.must(what, opened.failed * 100 <= honest && (scale.fast || lasts));
    // The honest ones are counted, too, and again with each SYN that is sent again.
    let (told, honest, sent) = (given + full + lost, honest as u64, sent as u64);
    let all = sent + honest + again;
    let what = format!(
        "{given} given a backend, {full} refused, {lost} lost before: {told} of {all}, of which \
         {again} sent again"
    );
    outcome.must(what, told == all && (scale.fast || full > 0));
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
