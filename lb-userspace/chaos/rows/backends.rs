//! Backends that come, go, die, and dial themselves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncReadExt as _;

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    rig::{Rig, Said, UDP, tcp, udp},
    streams::open_new,
    udp::Datagrams,
};

/// Between two datagrams of a stream.
const PACE: Duration = Duration::from_millis(2);
/// How much of a stream of datagrams may be lost when its backend dies and the cluster says so.
const MOVED: Duration = Duration::from_millis(200);
/// How long it may take until a stream is answered again that nobody served.
const RETURNED: Duration = Duration::from_secs(1);
/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each second another backend leaves, without terminating, or the last one that left comes back.
pub(super) fn churn(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let (backends, changes) = if scale.fast { (20, 5) } else { (100, 600) };
    let rig = Rig::build(scale, backends, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let (mut failed, mut strays) = (0, 0);
    for change in 0..changes {
        let mut said = rig.everybody();
        let away = (change % 2 == 0).then(|| said.remove(change / 2 % usize::from(backends)).0);
        rig.publish(&said)?;
        let opened = open_new(&rig.client, tcp(), 20);
        failed += opened.failed;
        strays += away.and_then(|id| opened.by.get(&id)).copied().unwrap_or(0);
        // A second, as connections count.
        held.rounds(1)?;
    }
    let seen = held.rounds(1)?;
    outcome.note(format!("{changes} changes among {backends} backends"));
    let new = 20 * changes;
    outcome.must(format!("{failed} of {new} new ones failed"), failed == 0);
    outcome.must(format!("{strays} of them to one that had left"), strays == 0);
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

pub(super) fn terminates(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let of_first = held.seen().alive.get(&1).copied().unwrap_or(0);
    let mut said = rig.everybody();
    said[0].1 = Said::Terminating;
    rig.publish(&said)?;
    let opened = open_new(&rig.client, tcp(), scale.new);
    let stray = opened.by.get(&1).copied().unwrap_or(0);
    outcome.must(format!("{stray} of {} new ones to it", scale.new), stray == 0);
    outcome.must(format!("{} failed", opened.failed), opened.failed == 0);
    let seen = held.rounds(2)?;
    outcome.must(format!("its {of_first} connections live on"), of_first > 0);
    outcome.undisturbed(&seen, &control.seen());
    // The end of its grace: whoever still talks to it is reset, and nobody else.
    rig.publish(&said[1..])?;
    rig.crash(1);
    let seen = held.wait(PATIENCE, |seen| seen.reset() >= of_first)?;
    let others = seen.reset() - seen.reset.get(&1).copied().unwrap_or(0);
    outcome.must(format!("{others} connections to others reset after its end"), others == 0);
    Ok(outcome)
}

pub(super) fn all_terminate(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 3, &[])?;
    let said: Vec<_> = rig.everybody().iter().map(|(id, _)| (*id, Said::Terminating)).collect();
    rig.write(&said)?;
    // There is no state of the maps to wait for that would not already be the answer: who is asked
    // while the change is on its way gets an answer too.
    let opened = open_new(&rig.client, tcp(), scale.new);
    outcome.must(format!("{} of {} failed", opened.failed, scale.new), opened.failed == 0);
    Ok(outcome)
}

pub(super) fn datagrams_move(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 3, &[])?;
    let stream = Datagrams::start(&rig.client, udp(), PACE)?;
    let first = wait(|| stream.heard().by.keys().next().copied())?;
    let rest: Vec<_> = rig.everybody().into_iter().filter(|(id, _)| *id != first).collect();
    rig.crash(first);
    let published = Instant::now();
    rig.publish(&rest)?;
    let in_kernel = Instant::now();
    let healed = wait(|| stream.heard().healed(published, first))?;
    // Whatever is in the place of the dead backend now.
    let ghost = &rig.backends[usize::from(first) - 1].host;
    let ghost = ghost.run(|| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, UDP)))?;
    ghost.set_nonblocking(true)?;
    let sent = stream.heard().sent;
    wait(|| (stream.heard().sent > sent + 500).then_some(()))?;
    let strays = std::iter::from_fn(|| ghost.recv(&mut [0; 64]).ok()).count();
    outcome.within("answered again after", healed, MOVED, scale);
    outcome.must(format!("{strays} of 500 packets to the dead backend"), strays == 0);
    let heard = stream.heard();
    let answered = heard.answers.iter().filter(|(at, _)| *at >= in_kernel).count();
    let asked = heard.questions.iter().filter(|at| **at >= in_kernel).count();
    outcome.must(format!("{answered} of {asked} answered once it was in the kernel"), answered > 0);
    Ok(outcome)
}

pub(super) fn datagrams_return(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 2, &[])?;
    let stream = Datagrams::start(&rig.client, udp(), PACE)?;
    wait(|| stream.heard().by.keys().next().copied())?;
    [1, 2].into_iter().for_each(|id| rig.crash(id));
    rig.publish(&[])?;
    let sent = stream.heard().sent;
    wait(|| (stream.heard().sent > sent + 100).then_some(()))?;
    [1, 2].into_iter().try_for_each(|id| rig.revive(id))?;
    rig.publish(&rig.everybody())?;
    let back = Instant::now();
    let healed = wait(|| stream.heard().healed(back, 0))?;
    let from = Instant::now();
    let sent = stream.heard().sent;
    wait(|| (stream.heard().sent > sent + 200).then_some(()))?;
    // The last may be under way.
    let unanswered = stream.heard().unanswered_since(from);
    outcome.within("the same socket answered again after", healed, RETURNED, scale);
    outcome.must(format!("{unanswered} of 200 without an answer then"), unanswered <= 5);
    Ok(outcome)
}

pub(super) fn hairpin(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 2, &[])?;
    let opened = open_new(&rig.backends[0].host, tcp(), 100);
    let own = opened.by.get(&1).copied().unwrap_or(0);
    outcome.must(format!("{} of 100 failed", opened.failed), opened.failed == 0);
    outcome.must(format!("{own} of them to itself"), own > 0);
    Ok(outcome)
}

pub(super) fn port_again(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 2, &[])?;
    let dial = |port: u16| {
        rig.client.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(dial_from(port, tcp()))
        })
    };
    let (mut wrong, mut failed, count) = (0, 0, 20);
    for port in 20_000..20_000 + count {
        rig.publish(&rig.everybody())?;
        let first = dial(port)?;
        let rest: Vec<_> = rig.everybody().into_iter().filter(|(id, _)| *id != first).collect();
        rig.publish(&rest)?;
        match dial(port) {
            Ok(second) => wrong += usize::from(second == first),
            Err(_) => failed += 1,
        }
    }
    outcome.must(format!("{wrong} of {count} to the backend that had left"), wrong == 0);
    outcome.must(format!("{failed} failed"), failed == 0);
    Ok(outcome)
}

/// Who answers a connection from that port. It is closed by the client, as a browser does; the port
/// is free at once, for it is reset after the answer.
async fn dial_from(port: u16, target: SocketAddr) -> Result<u8> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    let connecting = tokio::time::timeout(PATIENCE, socket.connect(target));
    let mut stream = connecting.await.context("no answer to a SYN")??;
    let id = stream.read_u8().await?;
    stream.set_zero_linger()?;
    Ok(id)
}

/// Looks until something is there. Nothing tells a stranger when.
pub(super) fn wait<T>(look: impl FnMut() -> Option<T>) -> Result<T> {
    wait_for(PATIENCE, look)
}

/// As [`wait`], for what may take longer.
pub(super) fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited in vain");
        }
        // What the agent answers has no event to wait for: it is asked again, up to a bound.
        std::thread::sleep(Duration::from_millis(5));
    }
}
