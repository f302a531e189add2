//! Backends that come, go, die, and dial themselves.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    manifests::{Said, service, slice},
    rig::{Rig, TCP, UDP, VIP, tcp, udp},
    streams::open_new,
    udp::Datagrams,
};

/// Between two datagrams of a stream.
const PACE: Duration = Duration::from_millis(1);
/// How much of a stream of datagrams may be lost when its backend dies and the cluster says so.
const MOVED: Duration = Duration::from_millis(200);
/// How long a backend that terminates may still get new connections.
const TOLD: Duration = Duration::from_millis(200);
/// How many connections are opened at a time to see whether it still gets some, and how often it must
/// get none until it is asked whether the kernel has it.
const HANDFUL: usize = 10;
const QUIET: usize = 5;
/// A first SYN is answered before it would be sent again.
const AT_ONCE: Duration = Duration::from_millis(900);
/// How long a backend that terminates lives on, as a pod by default.
const GRACE: Duration = Duration::from_secs(30);
/// How long it may take until a stream is answered again that nobody served.
const RETURNED: Duration = Duration::from_secs(1);
/// How long something may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

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
    let written = Instant::now();
    rig.write(&said)?;
    let last = last_of_first(&rig, written)?;
    outcome.within("the last new one to it opened after", last, TOLD, scale);
    rig.settle(&said)?;
    let opened = open_new(&rig.client, tcp(), scale.new);
    let stray = opened.by.get(&1).copied().unwrap_or(0);
    outcome.must(format!("{stray} of {} new ones to it", scale.new), stray == 0);
    outcome.must(opened.told(), opened.failed == 0);
    let mut seen = held.rounds(2)?;
    while !scale.fast && written.elapsed() < GRACE {
        seen = held.rounds(1)?;
    }
    outcome.must(format!("its {of_first} connections live on"), of_first > 0);
    outcome.undisturbed(&seen, &control.seen());
    outcome.note(format!("a grace of {:.1?}", written.elapsed()));
    // The end of its grace: whoever still talks to it is reset, and nobody else.
    rig.publish(&said[1..])?;
    rig.crash(1);
    let seen = held.wait(PATIENCE, |seen| seen.reset() >= of_first)?;
    let others = seen.reset() - seen.reset.get(&1).copied().unwrap_or(0);
    outcome.must(format!("{others} connections to others reset after its end"), others == 0);
    Ok(outcome)
}

/// How long after `since` the first backend was last given a new connection: by then it was open.
fn last_of_first(rig: &Rig, since: Instant) -> Result<Duration> {
    let (mut last, mut quiet) = (Duration::ZERO, 0);
    while quiet < QUIET {
        let opened = open_new(&rig.client, tcp(), HANDFUL);
        ensure!(since.elapsed() < PATIENCE, "it is given new connections for ever");
        quiet += 1;
        if opened.by.contains_key(&1) {
            (last, quiet) = (since.elapsed(), 0);
        }
    }
    Ok(last)
}

/// Both backends of this node terminate, to which the policy keeps clients; a third one elsewhere does
/// not.
pub(super) fn all_terminate(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 3, &[])?;
    let mut local = service("tcp", VIP, "TCP", TCP);
    local["spec"]["externalTrafficPolicy"] = "Local".into();
    rig.manifest("services.json", &[local])?;
    let publish = |said, why| {
        let mut slice = slice("tcp", "TCP", TCP, &[(1, said), (2, said), (3, Said::Ready)]);
        for here in [0, 1] {
            slice["endpoints"][here]["nodeName"] = rig.lb.name().into();
        }
        rig.manifest("endpoints.json", &[slice])?;
        wait(|| (used_because(&rig, why).ok()? == 2).then_some(()))
    };
    publish(Said::Ready, "ready")?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    publish(
        Said::Terminating,
        "the last that serves, though terminating; for clients that the policy keeps local",
    )?;
    let opened = open_new(&rig.client, tcp(), scale.new);
    outcome.must(opened.told(), opened.failed == 0);
    let strays = opened.by.get(&3).copied().unwrap_or(0);
    outcome.must(format!("{strays} to the one elsewhere"), strays == 0);
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

/// How many endpoints of the TCP Service get new connections for exactly that reason, as the agent says
/// of what is in the kernel.
fn used_because(rig: &Rig, why: &str) -> Result<usize> {
    let described = rig.agent.json(["describe", "service", "chaos/tcp"])?;
    let endpoints = described["ports"][0]["endpoints"].as_array().context("a list of endpoints")?;
    Ok(endpoints.iter().filter(|it| it["used"] == true && it["why"] == why).count())
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
    let healed = wait(|| stream.heard().healed(published, first))?;
    // Whatever is in the place of the dead backend now.
    let ghost = &rig.backends[usize::from(first) - 1].host;
    let ghost = ghost.run(|| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, UDP)))?;
    ghost.set_nonblocking(true)?;
    let unanswered = unanswered(&stream, published + healed, 500)?;
    let strays = std::iter::from_fn(|| ghost.recv(&mut [0; 64]).ok()).count();
    outcome.within("answered again after", healed, MOVED, scale);
    outcome.must(format!("{unanswered} of 500 without an answer then"), unanswered == 0);
    outcome.must(format!("{strays} packets to the dead backend"), strays == 0);
    Ok(outcome)
}

/// How many questions since `from` stay without an answer, once so many more than by now were asked.
fn unanswered(stream: &Datagrams, from: Instant, more: usize) -> Result<usize> {
    let sent = stream.heard().sent;
    wait(|| (stream.heard().sent > sent + more).then_some(()))?;
    let until = Instant::now();
    let count = || {
        let heard = stream.heard();
        heard.unanswered_since(from) - heard.unanswered_since(until)
    };
    // The last are under way.
    wait(|| (count() == 0).then_some(())).ok();
    Ok(count())
}

pub(super) fn datagrams_return(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 2, &[])?;
    let stream = Datagrams::start(&rig.client, udp(), PACE)?;
    let first = wait(|| stream.heard().by.keys().next().copied())?;
    [1, 2].into_iter().for_each(|id| rig.crash(id));
    rig.publish(&[])?;
    let sent = stream.heard().sent;
    wait(|| (stream.heard().sent > sent + 100).then_some(()))?;
    // The other one: a flow stays where it is as long as nobody is better.
    let other = 3 - first;
    rig.revive(other)?;
    let back = Instant::now();
    rig.publish(&[(other, Said::Ready)])?;
    let healed = wait(|| stream.heard().healed(back, first))?;
    let unanswered = unanswered(&stream, back + healed, 200)?;
    outcome.within("the same socket answered again after", healed, RETURNED, scale);
    outcome.must(format!("{unanswered} of 200 without an answer then"), unanswered == 0);
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
    // A port whose connection is over may be dialled from again, a second later.
    rig.client.sysctls(&[("net.ipv4.tcp_tw_reuse", "1")])?;
    let dial = |port: u16| {
        rig.client.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(dial_from(port, tcp()))
        })
    };
    let mut ports = Vec::new();
    for port in 20_000..20_040 {
        if dial(port)?.0 == 1 {
            ports.push(port);
        }
    }
    rig.publish(&rig.everybody()[1..])?;
    let waiting = rig.client.run(|| fs::read_to_string("/proc/thread-self/net/tcp"))?;
    // The fourth column is the state.
    let waiting = waiting.lines().filter(|line| line.split_whitespace().nth(3) == Some(TIME_WAIT));
    let (waiting, count) = (waiting.count(), ports.len());
    outcome.must(format!("{waiting} ports in TIME_WAIT"), waiting >= count && count > 0);
    let (mut wrong, mut failed, mut longest) = (0, 0, Duration::ZERO);
    for port in ports {
        match dial(port) {
            Ok((id, took)) => {
                wrong += usize::from(id == 1);
                longest = longest.max(took);
            }
            Err(_) => failed += 1,
        }
    }
    outcome.must(format!("{wrong} of {count} to the backend that had left"), wrong == 0);
    outcome.must(format!("{failed} failed"), failed == 0);
    outcome.within("the slowest answered after", longest, AT_ONCE, scale);
    Ok(outcome)
}

/// As proc_net_tcp(5) has it.
const TIME_WAIT: &str = "06";

/// Who answers a connection from that port, and how long after its SYN. The client closes it first, so
/// that its port waits for stragglers.
async fn dial_from(port: u16, target: SocketAddr) -> Result<(u8, Duration)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        let begun = Instant::now();
        let connecting = tokio::time::timeout(PATIENCE, socket.connect(target));
        let mut stream = match connecting.await.context("no answer to a SYN")? {
            // The kernel does not say when the second is over: it is asked again, up to a bound.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && begun < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            stream => stream?,
        };
        let id = stream.read_u8().await?;
        let took = begun.elapsed();
        stream.shutdown().await?;
        ensure!(stream.read(&mut [0]).await? == 0, "more than a number");
        return Ok((id, took));
    }
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
