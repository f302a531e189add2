//! What is full.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::limits;

use super::{
    Outcome,
    agents::streams,
    backends::wait_for,
    floods::{refused, room_for_ipv4, sent_again},
};
use crate::{
    Scale,
    flood::{Kind, flood},
    manifests::{Said, service, slice},
    rig::{Rig, TCP, UDP, VIP, tcp, udp},
    streams::{Seen, Streams, open_new},
    udp::Flows,
};

pub(super) fn full_of_flows(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // The smallest that there is: room for some thousand flows. UDP flows that are silent must not end
    // by themselves.
    let flags = ["--flow-table-bytes", "1048576", "--timeout", "udp=1h"];
    let rig = Rig::build(scale, 4, &flags)?;
    let (held, control) = streams(&rig, 100)?;
    let flows = Flows::open(&rig.client, udp(), scale.connections / 10)?;
    let target = SocketAddrV4::new(VIP, UDP);
    let count = || -> Result<[u64; 3]> {
        Ok([rig.connections("udp")?.iter().sum(), refused(&rig)?, rig.lost_on_link()?])
    };
    let before = count()?;
    let sent = flood(&rig.client, Kind::Datagram, target, scale.flood.min(50_000))?;
    let now = count()?;
    let [opened, dropped, lost] = [0, 1, 2].map(|what| now[what] - before[what]);
    let what = format!("{sent} flows more: {opened} opened, {dropped} refused, {lost} lost before");
    outcome.must(what, dropped > 0 && opened + dropped + lost == sent as u64);
    outcome.note(format!("flows: {}", rig.status("Flows")?));
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
    let (kept, of) = (flows.ask_again(), flows.count());
    outcome.must(format!("{} of {of} UDP flows lost", of - kept), kept == of && of > 0);
    drop((held, control, flows));
    if !scale.fast {
        full_of_connections(scale, &mut outcome)?;
    }
    Ok(outcome)
}

/// How many connections the smallest table has no room for, twice over.
const TWICE_FULL: usize = 8_000;

/// Twice as many connections as there is room for: those that were opened live on, and what refuses
/// the others counts each of their SYNs.
fn full_of_connections(scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let rig = Rig::build(scale, 4, &["--flow-table-bytes", "1048576"])?;
    // A SYN is sent again for some seconds, and not for minutes.
    rig.client.sysctls(&[("net.ipv4.tcp_syn_retries", "1")])?;
    let count = || -> Result<[u64; 4]> {
        let given = rig.connections("tcp")?.iter().sum();
        Ok([given, refused(&rig)?, rig.lost_on_link()?, sent_again(&rig)?])
    };
    let before = count()?;
    let (held, control) = streams(&rig, TWICE_FULL)?;
    let now = count()?;
    let [given, dropped, lost, again] = [0, 1, 2, 3].map(|what| now[what] - before[what]);
    let seen = held.rounds(3)?;
    let (alive, failed) = (seen.alive(), seen.failed);
    outcome.must(
        format!("{TWICE_FULL} connections: {alive} opened, {failed} refused"),
        alive > 0 && failed > 0 && alive + failed == TWICE_FULL,
    );
    let (told, all) = (given + dropped + lost, TWICE_FULL as u64 + again);
    outcome.must(
        format!(
            "{given} SYNs given a backend, {dropped} refused, {lost} lost before: {told} of {all}, \
             of which {again} sent again"
        ),
        told == all && dropped as usize >= failed,
    );
    let (used, most) = room_for_ipv4(&rig.status("Flows")?)?;
    outcome.must(format!("{used} flows of {most}"), used <= most && used as usize >= alive);
    let survivors = Seen { failed: 0, why: None, ..seen };
    outcome.undisturbed(&survivors, &control.seen());
    Ok(())
}

/// How long it may take to read and write down tens of thousands of Services.
const READING: Duration = Duration::from_secs(1200);

/// Of how many objects `lb status` says that they are left out: it names the first.
fn left_out_of(said: &str) -> usize {
    let more = said.rsplit_once(" and ").and_then(|(_, more)| more.split(' ').next()?.parse().ok());
    1 + more.unwrap_or(0)
}

/// The agent's metric of that name.
fn metric(rig: &Rig, name: &str) -> Result<f64> {
    const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
    let mut stream = rig.lb.run(|| TcpStream::connect(METRICS))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    let value = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no metric {name}"))?.trim().parse()?)
}

/// One of too many Services.
fn many(number: u32) -> String {
    format!("many-{number:05}")
}

/// Its port. There are fewer ports than Services: the first of one port has it.
const fn port_of(number: u32) -> u16 {
    1024 + (number % 60_000) as u16
}

/// Services of which each has a port of its own.
const DIALLED: std::ops::Range<u32> = limits::SERVICES + 1_000 - 60_000..60_000;

pub(super) fn full_of_services(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 2, &[])?;
    let held = Streams::open(&rig.client, tcp(), 20)?;
    let surplus = 100;
    let objects: Vec<_> = (0..limits::SERVICES + surplus)
        .flat_map(|number| {
            let (name, port) = (many(number), port_of(number));
            let mut object = service(&name, VIP, "TCP", port);
            let cluster_ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 98, 0, 1).to_bits() + number);
            object["spec"]["clusterIP"] = cluster_ip.to_string().into();
            [object, slice(&name, "TCP", TCP, &[(1, Said::Ready)])]
        })
        .collect();
    rig.manifest("many.json", &objects)?;
    let before = rig.agent_process()?;
    let left_out = || rig.status("Objects").ok().filter(|said| said.starts_with("left out"));
    let said = wait_for(READING, left_out)?;
    let refused = left_out_of(&said);
    outcome.must(format!("{refused} of {} {said}", objects.len() / 2), refused >= surplus as usize);
    let log = std::fs::read_to_string(rig.agent.log())?;
    let full = log.lines().filter(|line| line.contains("is full"));
    let named = full.filter_map(|line| line.split_once("Service ")?.1.split(':').next());
    let named = named.collect::<BTreeSet<_>>();
    outcome.must(format!("{} named in the log", named.len()), named.len() == refused);
    let counted = metric(&rig, "lb_refused_services")?;
    outcome.must(format!("{counted} by the metric"), counted as usize == refused);
    outcome.must("the agent lives on", rig.agent_process()? == before);
    let opened = open_new(&rig.client, tcp(), 100);
    outcome.must(
        format!("{} of 100 new ones to the first Service failed", opened.failed),
        opened.failed == 0,
    );
    let has_room = |number: &u32| !named.contains(format!("chaos/{}", many(*number)).as_str());
    let dialled = DIALLED.step_by(100).filter(has_room).map(port_of);
    let failed = dialled.clone().map(|port| open_new(&rig.client, (VIP, port).into(), 1).failed);
    let (failed, of) = (failed.sum::<usize>(), dialled.count());
    outcome.must(
        format!("{failed} of {of} others that there is room for failed"),
        failed == 0 && of >= 100,
    );
    let seen = held.rounds(1)?;
    outcome.must(
        format!("{} connections lost", seen.reset() + seen.lost),
        seen.reset() + seen.lost == 0,
    );
    Ok(outcome)
}
