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
use lb_userspace::lab::{Host, Lab};
use nix::sys::signal::Signal;

use super::Outcome;
use crate::{
    Scale,
    flood::{Kind, flood, flood_from, source},
    rig::{Rig, TCP, UDP, VIP, address, tcp},
    streams::{Streams, open_new},
};

/// Connections through the load balancer, and a tenth as many past its rules.
pub(super) fn streams(rig: &Rig, count: usize) -> Result<(Streams, Streams)> {
    let held = Streams::open(&rig.client, tcp(), count)?;
    let direct = (address(1), TCP).into();
    let control = Streams::open(&rig.client, direct, (count / 10).max(1))?;
    Ok((held, control))
}

/// Names and inodes of the pins of links: a link that was made anew has another inode.
fn links(rig: &Rig) -> Result<Vec<(String, u64)>> {
    let pins = rig.pins()?.into_iter();
    pins.filter(|pin| pin.parent().is_some_and(|folder| folder.ends_with("links")))
        .map(|pin| Ok((pin.display().to_string(), fs::metadata(&pin)?.ino())))
        .collect()
}

pub(super) fn killed(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections)?;
    let before = links(&rig)?;
    rig.agent.kill()?;
    let opened = open_new(&rig.client, tcp(), scale.new);
    held.rounds(2)?;
    rig.agent.restart()?;
    rig.settle(&rig.everybody())?;
    let seen = held.rounds(2)?;
    outcome.undisturbed(&seen, &control.seen());
    outcome.prompt(&seen, scale);
    let new = format!("{} of {} new ones failed without an agent", opened.failed, scale.new);
    outcome.must(new, opened.failed == 0);
    // A filter has no link: the pin of its program is replaced with the program.
    let after = links(&rig)?;
    let by_links = !before.iter().any(|(name, _)| name.contains("filter"));
    if by_links {
        outcome.must(format!("{} links, all the same", after.len()), before == after);
    }
    Ok(outcome)
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

    fn close(mut self) -> usize {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        self.count.load(Relaxed)
    }
}

pub(super) fn swapped(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let leak = Leak::open(&rig.lb)?;
    let over = Arc::new(AtomicBool::new(false));
    let (stop, client) = (Arc::clone(&over), rig.client.clone());
    let flooding = std::thread::spawn(move || -> Result<usize> {
        let mut sent = 0;
        while !stop.load(Relaxed) {
            sent += flood(&client, Kind::Datagram, SocketAddrV4::new(VIP, UDP), 1000)?;
        }
        Ok(sent)
    });
    for _ in 0..scale.repeats {
        rig.agent.terminate()?;
        rig.agent.restart()?;
    }
    over.store(true, Relaxed);
    let sent = flooding.join().ok().context("the flood's thread")??;
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    let leaked = leak.close();
    let swaps = scale.repeats;
    outcome
        .must(format!("{leaked} of {sent} packets past the program in {swaps} swaps"), leaked == 0);
    Ok(outcome)
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
        asked.status.code() == Some(3),
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
    if all == 0 {
        bail!("none of the prepared flows was counted");
    }
    let most = gained.iter().max().copied().unwrap_or(0);
    Ok(most as f64 * gained.len() as f64 / all as f64)
}

pub(super) fn reseeded(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // A lab of its own, for a file that has to be there before the rig is.
    let shelf = Lab::new("shelf")?;
    let seed = shelf.folder().join("seed");
    fs::write(&seed, "the first secret of this cluster")?;
    let path = seed.display().to_string();
    let mut rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let known = most_of_prepared(&rig, 0)?;
    outcome.must(format!("seed known: most / mean {known:.2}"), known > 1.9);
    rig.agent.terminate()?;
    rig.agent.also(&["--seed-file", &path]);
    rig.agent.restart()?;
    // Flows that are known keep their backend: others show what the seed does.
    let secret = most_of_prepared(&rig, PREPARED)?;
    let what = format!("secret: {secret:.2} for {PREPARED} prepared flows");
    outcome.must(what, secret <= 1.3);
    rig.agent.terminate()?;
    fs::write(&seed, "and another one, as it leaked")?;
    rig.agent.restart()?;
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
