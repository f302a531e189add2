//! Odd links and odd clocks.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use lb_userspace::lab::{Host, link};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};

use super::{Outcome, agents::streams, backends::wait};
use crate::{
    Scale,
    rig::{Rig, tcp, udp},
    streams::{bulk, open_new},
    udp::{Datagrams, Flows},
};

/// Bytes that go there and come back.
const BULK: usize = 10_000_000;

/// Links of 9,000 bytes, by XDP where the driver takes it and else by tc.
pub(super) fn jumbo(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 2, &[])?;
    rig.agent.terminate()?;
    rig.agent.lb(["uninstall"])?;
    rig.widen(9000)?;
    rig.agent.restart()?;
    rig.settle(&rig.everybody())?;
    outcome.note(rig.status("Uplinks")?);
    let whole = bulk(&rig.client, tcp(), BULK)?;
    outcome.must(format!("{BULK} bytes there and back: {whole}"), whole);
    let opened = open_new(&rig.client, tcp(), 50);
    outcome.must(opened.told(), opened.failed == 0);
    Ok(outcome)
}

/// A client behind VLAN 7, and one behind VLAN 8 in service VLAN 9.
pub(super) fn tagged(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig =
        Rig::build(scale, 2, &["--node-address", "203.0.114.1", "--node-address", "203.0.115.1"])?;
    let host = rig.lab.host("tagged")?;
    link::veth((&host, "eth0"), (&rig.lb, "trunk"))?;
    link::whole_checksums((&host, "eth0"))?;
    link::whole_checksums((&rig.lb, "trunk"))?;
    for (end, trunk, last) in [(&host, "eth0", 9), (&rig.lb, "trunk", 1)] {
        end.ip(&format!(
            "link add link {trunk} name v7 type vlan id 7\n\
             link add link {trunk} name v9 type vlan proto 802.1ad id 9\n\
             link add link v9 name v98 type vlan id 8\n\
             link set dev v7 up\nlink set dev v9 up\nlink set dev v98 up"
        ))?;
        end.address("v7", &format!("203.0.114.{last}/24"))?;
        end.address("v98", &format!("203.0.115.{last}/24"))?;
    }
    for (name, net) in [("v7", 114), ("v98", 115)] {
        wait(|| rig.status("Uplinks").is_ok_and(|line| line.contains(name)).then_some(()))?;
        let gateway = Ipv4Addr::new(203, 0, net, 1);
        host.ip(&format!("route replace default via {gateway}"))?;
        let opened = open_new(&host, tcp(), 50);
        outcome.must(format!("{name}: {}", opened.told()), opened.failed == 0);
        let flows = Flows::open(&host, udp(), 20)?;
        outcome.note(format!("{name}: {} UDP flows answered", flows.count()));
        let whole = bulk(&host, tcp(), BULK / 10)?;
        outcome.must(format!("{name}: {} bytes there and back: {whole}", BULK / 10), whole);
    }
    Ok(outcome)
}

/// A year, in seconds.
const YEAR: i64 = 365 * 86_400;

/// The wall clock goes a year on, two back, and home again; the agent is started in between. Then the
/// machine sleeps for a while.
pub(super) fn another_year(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // UDP flows that are silent must not end by themselves, however long this takes.
    let mut rig = Rig::build(scale, 3, &["--timeout", "udp=1h"])?;
    let (held, control) = streams(&rig, scale.connections)?;
    let flows = Flows::open(&rig.client, udp(), scale.connections / 10)?;
    for years in [1, -2, 1] {
        turn_clock(years * YEAR)?;
        let opened = open_new(&rig.client, tcp(), 20);
        outcome.must(format!("{years:+}: {}", opened.told()), opened.failed == 0);
        rig.agent.kill()?;
        rig.agent.restart()?;
        rig.settle(&rig.everybody())?;
        held.rounds(1)?;
    }
    let asleep = suspend()?;
    outcome.must(format!("asleep for {asleep:.1?}"), asleep >= NAP / 2);
    let opened = open_new(&rig.client, tcp(), 20);
    outcome.must(format!("awake: {}", opened.told()), opened.failed == 0);
    held.rounds(1)?;
    // By another seed a flow that was lost and is opened anew is not the same.
    rig.reseed("nobody knows it")?;
    let (kept, of) = (flows.ask_again(), flows.count());
    outcome.must(format!("{} of {of} UDP flows lost", of - kept), kept == of && of > 0);
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

/// How long the machine sleeps.
const NAP: Duration = Duration::from_secs(20);

/// Suspends the machine, of which only the memory lives on, until its clock wakes it. How long it slept:
/// by so much the clock that stands still meanwhile has fallen behind the other.
fn suspend() -> Result<Duration> {
    let behind = || -> Result<Duration> {
        let [boot, awake] = [ClockId::CLOCK_BOOTTIME, ClockId::CLOCK_MONOTONIC].map(clock_gettime);
        Ok(Duration::from(boot?).saturating_sub(awake?.into()))
    };
    let before = behind()?;
    fs::write("/sys/class/rtc/rtc0/wakealarm", format!("+{}", NAP.as_secs()))
        .context("set the clock that wakes the machine")?;
    fs::write("/sys/power/mem_sleep", "deep").context("choose how to suspend the machine")?;
    fs::write("/sys/power/state", "mem").context("suspend the machine")?;
    Ok(behind()?.saturating_sub(before))
}

fn turn_clock(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).context("set the wall clock")
}

/// How long a closed flow stays in [`lossy`].
const CLOSING: Duration = Duration::from_secs(5);

/// The client's link and those of the backends lose, repeat and reorder.
pub(super) fn lossy(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let closing = format!("tcpClosing={}s", CLOSING.as_secs());
    let rig = Rig::build(scale, 3, &["--timeout", &closing])?;
    let ends = std::iter::once(&rig.client).chain(rig.backends.iter().map(|b| &b.host));
    ends.clone()
        .try_for_each(|end| disturb(end, "loss 3% duplicate 3% delay 5ms reorder 5% 50%"))?;
    let (held, control) = streams(&rig, scale.connections / 4)?;
    let stream = Datagrams::start(&rig.client, udp(), Duration::from_millis(5))?;
    let opened = open_new(&rig.client, tcp(), scale.new);
    outcome.must(opened.told(), opened.failed == 0);
    held.rounds(5)?;
    let heard = stream.heard();
    let strays = heard.by.len().saturating_sub(1);
    let (sent, answered) = (heard.sent, heard.answers.len());
    outcome.must(
        format!("{answered} answers to {sent} datagrams, {strays} wrong backends"),
        strays == 0 && answered > 0,
    );
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    let alive = seen.alive();
    let left = wait(|| rig.flows("tcp").ok().filter(|flows| *flows == alive));
    let left = left.map_or_else(|_| rig.flows("tcp"), Ok)?;
    outcome.must(
        format!("{left} flows for {alive} connections when the rest had closed"),
        left == alive,
    );
    Ok(outcome)
}

fn disturb(end: &Host, how: &str) -> Result<()> {
    let mut tc = end.command("tc")?;
    tc.args(["qdisc", "add", "dev", "eth0", "root", "netem"]).args(how.split(' '));
    let output = tc.output().context("start tc")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "netem: {}", said.trim());
    Ok(())
}
