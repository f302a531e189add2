//! Agents that die, stop, are replaced, or come in twice.

use std::{
    fs,
    net::SocketAddrV4,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lb_common::{abi::Settings, addr::V4, flow::Tuple, hash, wire::proto};
use lb_userspace::lab::Host;
use nix::sys::signal::Signal;

use super::{
    Outcome,
    backends::{PATIENCE, wait},
};
use crate::{
    Scale,
    flood::{Kind, flood, flood_from, source},
    rig::{Rig, TCP, UDP, VIP, address, tcp},
    streams::{Streams, open_new},
};

/// Connections through the load balancer, and a tenth as many past it.
pub(super) fn streams(rig: &Rig, count: usize) -> Result<(Streams, Streams)> {
    let held = Streams::open(&rig.client, tcp(), count)?;
    let direct = (address(1), TCP).into();
    let control = Streams::open(&rig.witness, direct, (count / 10).max(1))?;
    Ok((held, control))
}

/// Names and inodes of the pins of links: a link that was made anew has another inode.
fn links(rig: &Rig) -> Result<Vec<(String, u64)>> {
    let pins = rig.pins()?.into_iter();
    pins.filter(|pin| pin.parent().is_some_and(|folder| folder.ends_with("links")))
        .map(|pin| Ok((pin.display().to_string(), fs::metadata(&pin)?.ino())))
        .collect()
}

/// By tc, as a virtual link is served by itself, and by XDP.
const BOTH: [(&str, &[&str]); 2] = [("tc", &[]), ("XDP", &["--xdp-mode", "native"])];

pub(super) fn killed(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (hook, flags) in BOTH {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            // The quick run has each of them once.
            if !scale.fast || (hook == "tc") == (signal == Signal::SIGKILL) {
                outcome.note(format!("{hook}, {signal}"));
                without_an_agent(scale, flags, signal, &mut outcome)?;
            }
        }
    }
    Ok(outcome)
}

/// How long there is no agent, at least.
const WITHOUT: Duration = Duration::from_secs(5);

fn without_an_agent(
    scale: &Scale,
    flags: &[&str],
    signal: Signal,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut rig = Rig::build(scale, 4, flags)?;
    let (held, control) = streams(&rig, scale.connections)?;
    let before = links(&rig)?;
    rig.agent.end(signal)?;
    let ended = Instant::now();
    let opened = open_new(&rig.client, tcp(), scale.new);
    held.rounds(2)?;
    if !scale.fast {
        // How long the fault lasts: nothing is waited for.
        std::thread::sleep(WITHOUT.saturating_sub(ended.elapsed()));
    }
    outcome.note(format!("{:.1?} without an agent", ended.elapsed()));
    rig.agent.restart()?;
    rig.settle(&rig.everybody())?;
    let seen = held.rounds(2)?;
    outcome.undisturbed(&seen, &control.seen());
    let new = format!("{} of {} new ones failed without an agent", opened.failed, scale.new);
    outcome.must(new, opened.failed == 0);
    the_same_links(&before, &links(&rig)?, outcome);
    Ok(())
}

/// A filter has no link: the pin of its program is replaced with the program.
fn the_same_links(before: &[(String, u64)], after: &[(String, u64)], outcome: &mut Outcome) {
    let is_filter = |(name, _): &&(String, u64)| name.contains("filter");
    let links = |all: &[(String, u64)]| -> Vec<_> {
        all.iter().filter(|pin| !is_filter(pin)).cloned().collect()
    };
    let (before, after) = (links(before), links(after));
    let what = format!("{} links, all the same", after.len());
    outcome.must(what, !after.is_empty() && before == after);
}

/// A socket behind the programs: it gets what they let through.
struct Leak {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Leak {
    fn open(lb: &Host) -> Result<Self> {
        lb.address("lo", &format!("{VIP}/32"))?;
        let socket = lb.run(|| std::net::UdpSocket::bind((VIP, UDP)))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                if socket.recv(&mut [0; 8]).is_ok() {
                    counted.fetch_add(1, Relaxed);
                }
            }
        });
        Ok(Self { stop, count, thread: Some(thread) })
    }

    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
}

impl Drop for Leak {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// How many sources send in a turn of the flood, and how many of them are new in each: new flows open
/// during every swap, and not so many that there would be no room for them.
const SOURCES: usize = 1000;
const NEW_SOURCES: usize = 3;

/// An emulated processor has no time for a flood and for connections. There each of the packets'
/// portions waits until so many questions of the connections were answered.
const PORTION: usize = 100;
const ANSWERS: usize = 20;

/// What a flood has sent.
struct Flooded {
    sent: usize,
    flows: usize,
    took: Duration,
}

/// Datagrams of the same flows and of some new ones, until it is over.
fn keep_flooding(
    client: &Host,
    scale: &Scale,
    held: &Streams,
    over: &AtomicBool,
) -> Result<Flooded> {
    let portion = if scale.in_guest { PORTION } else { SOURCES };
    let (mut sent, mut first, mut answered, begun) = (0, 0, 0, Instant::now());
    while !over.load(Relaxed) {
        for part in (first..first + SOURCES).step_by(portion) {
            let sources = (part..part + portion).map(source);
            sent += flood_from(client, Kind::Datagram, SocketAddrV4::new(VIP, UDP), sources)?;
            if scale.in_guest {
                let seen = held.wait(PATIENCE, |seen| seen.exchanges >= answered + ANSWERS)?;
                answered = seen.exchanges;
            }
        }
        first += NEW_SOURCES;
    }
    Ok(Flooded { sent, flows: first + SOURCES - NEW_SOURCES, took: begun.elapsed() })
}

pub(super) fn swapped(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (hook, flags) in BOTH {
        outcome.note(hook);
        swapped_under(scale, flags, &mut outcome)?;
    }
    Ok(outcome)
}

/// Flows of the UDP Service that got a backend, and packets that the link had no room for.
fn given_and_lost(rig: &Rig) -> Result<[u64; 2]> {
    Ok([rig.connections("udp")?.iter().sum(), rig.lost_on_link()?])
}

fn swapped_under(scale: &Scale, flags: &[&str], outcome: &mut Outcome) -> Result<()> {
    let mut rig = Rig::build(scale, 4, flags)?;
    let (held, control) = streams(&rig, scale.connections)?;
    let leak = Leak::open(&rig.lb)?;
    let (links_before, drops_before) = (links(&rig)?, rig.all_drops()?);
    let before = given_and_lost(&rig)?;
    let over = AtomicBool::new(false);
    let (client, agent) = (&rig.client, &mut rig.agent);
    let (swapped, flooded) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| keep_flooding(client, scale, &held, &over));
        let swapped = (0..scale.repeats).try_for_each(|_| {
            agent.terminate()?;
            agent.restart()
        });
        over.store(true, Relaxed);
        (swapped, flooding.join())
    });
    swapped?;
    let Flooded { sent, flows, took } = flooded.ok().context("the flood's thread")??;
    outcome.note(format!("{:.0} packets a second", sent as f64 / took.as_secs_f64()));
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    let (leaked, swaps) = (leak.count(), scale.repeats);
    let what = format!("{leaked} of {sent} packets past the program in {swaps} swaps");
    outcome.must(what, leaked == 0 && sent > swaps * SOURCES);
    let now = given_and_lost(&rig)?;
    let [given, lost] = [0, 1].map(|what| now[what] - before[what]);
    let what = format!("{given} of {flows} flows given a backend, {lost} packets lost before");
    // Each once: one that is lost in a swap would be opened again.
    outcome.must(what, given <= flows as u64 && flows as u64 <= given + lost);
    let dropped: u64 = rig.all_drops()?.values().sum();
    let dropped = dropped - drops_before.values().sum::<u64>();
    outcome.must(format!("{dropped} dropped"), dropped == 0);
    the_same_links(&links_before, &links(&rig)?, outcome);
    // What would have been counted: without the programs all of it arrives there.
    rig.agent.terminate()?;
    rig.agent.lb(["uninstall"])?;
    flood(&rig.client, Kind::Datagram, SocketAddrV4::new(VIP, UDP), SOURCES)?;
    wait(|| (leak.count() > 0).then_some(()))?;
    outcome.note(format!("{} of {SOURCES} past it once there was none", leak.count()));
    Ok(())
}

/// How long an agent that wakes up may take until the kernel has what it missed.
const CONVERGED: Duration = Duration::from_secs(2);

pub(super) fn stopped(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    rig.agent.signal(Signal::SIGSTOP)?;
    let fewer = rig.everybody()[1..].to_vec();
    rig.write(&fewer)?;
    let asked = rig.agent.lb(["status"])?;
    let said = String::from_utf8_lossy(&asked.stderr).lines().next().unwrap_or_default().to_owned();
    outcome.must(
        format!("status without an answer: exit {:?}, {said:?}", asked.status.code()),
        asked.status.code() == Some(3) && said.contains("has not answered for 10 s"),
    );
    let rounds = if scale.fast { 3 } else { 60 };
    held.rounds(rounds)?;
    rig.agent.signal(Signal::SIGCONT)?;
    let awake = Instant::now();
    rig.settle(&fewer)?;
    let what = format!("{rounds} s stopped, converged afterwards in");
    outcome.within(&what, awake.elapsed(), CONVERGED, scale);
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

/// Flows that an attacker has prepared.
const PREPARED: usize = 10_000;
/// Parts of all hashes, of which the prepared ones share one: fewer than a ring has slots.
const PARTS: u32 = 1021;

/// Sources whose flows have hashes close to each other under the seed that everybody knows.
fn prepared() -> impl Iterator<Item = SocketAddrV4> {
    let seed = Settings::default().seed;
    let hash = move |from: &SocketAddrV4| {
        let flow = Tuple {
            src: V4(from.ip().octets()),
            dst: V4(VIP.octets()),
            sport: from.port().to_be_bytes(),
            dport: UDP.to_be_bytes(),
            protocol: proto::UDP,
        };
        hash::scale(hash::tuple(seed, &flow), PARTS)
    };
    (0..).map(source).filter(move |from| hash(from) == PARTS / 2)
}

/// What the most loaded backend got of the prepared flows behind those, as a multiple of the mean.
fn most_of_prepared(rig: &Rig, passed: usize) -> Result<f64> {
    let before = rig.connections("udp")?;
    let sources = prepared().skip(passed).take(PREPARED);
    flood_from(&rig.client, Kind::Datagram, SocketAddrV4::new(VIP, UDP), sources)?;
    let gained = rig.connections("udp")?.into_iter().zip(before).map(|(now, then)| now - then);
    let gained: Vec<u64> = gained.collect();
    let all: u64 = gained.iter().sum();
    if all * 10 < PREPARED as u64 * 9 {
        bail!("{all} of {PREPARED} prepared flows were counted");
    }
    let most = gained.iter().max().copied().unwrap_or(0);
    Ok(most as f64 * gained.len() as f64 / all as f64)
}

pub(super) fn reseeded(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let known = most_of_prepared(&rig, 0)?;
    outcome.must(format!("seed known: most / mean {known:.2}"), known > 1.9);
    rig.reseed("the first secret of this cluster")?;
    // Flows that are known keep their backend: others show what the seed does.
    let secret = most_of_prepared(&rig, PREPARED)?;
    let what = format!("secret: {secret:.2} for {PREPARED} prepared flows");
    outcome.must(what, secret <= 1.3);
    rig.reseed("and another one, as it leaked")?;
    let opened = open_new(&rig.client, tcp(), 50);
    outcome.must(format!("{} of 50 new ones failed", opened.failed), opened.failed == 0);
    let seen = held.rounds(2)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

pub(super) fn second(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 2, &[])?;
    let (held, control) = streams(&rig, 20)?;
    let mut other = rig.agent.lb_command(["agent", "--node-name", "lb"])?;
    other.args(["--socket"]).arg(rig.lab.folder().join("second.sock"));
    let other = other.arg("-f").arg(rig.lab.folder().join("manifests")).output()?;
    let said = String::from_utf8_lossy(&other.stderr).trim().to_owned();
    let named = said.contains(&rig.agent_process()?);
    outcome
        .must(format!("the second ends with {:?}", other.status.code()), !other.status.success());
    outcome.must(format!("says {:?}", said.lines().next().unwrap_or_default()), named);
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}
