//! How long the control plane takes: from an object that has been received to a packet that meets
//! the change.

use std::{collections::BTreeSet, fs, process::Command, time::Instant};

use super::{
    Report, Row, Size, broken,
    network::Network,
    part::Tell,
    plane::{Kernel, Plane},
    probe,
    statistics::{median, quantile},
    target::Target,
    world,
};
use crate::{
    cli::Failure,
    cluster::synthetic::Cluster,
    datapath::object::{Sizes, Unused},
    model::Family,
};

/// What an agent's flow tables take unless it is told otherwise.
pub(super) const FLOW_BYTES: u64 = 64 << 20;
/// Changes of one endpoint that are timed.
pub(super) const CHANGES: u32 = 200;
/// Scrapes that are timed.
const SCRAPES: usize = 20;
/// Cold starts and restarts that are timed.
const STARTS: usize = 3;

/// As [`measure`], in a process of its own: what it takes of memory is then its own, too.
///
/// # Errors
/// As for [`measure`].
pub fn in_a_process(size: Size, quick: bool, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
    tell(&format!("sync: {} services × {} endpoints", size.services, size.endpoints), None);
    let failed = |error: &dyn std::fmt::Display| broken("lb bench sync", error);
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.args(["bench", "sync", "-o", "json"]);
    command.args(["--services", &size.services.to_string()]);
    command.args(["--endpoints", &size.endpoints.to_string()]);
    command.args(quick.then_some("--quick"));
    // It has a progress bar of its own where it sees a terminal.
    let output = command.output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let what = said.lines().next().unwrap_or_default();
        return Err(failed(&what.strip_prefix("error: ").unwrap_or(what)));
    }
    let report: Report = serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))?;
    Ok(report.cases)
}

/// Measures everything about one size of cluster.
///
/// # Errors
/// If the kernel refuses, or does not do what it was told.
pub fn measure(size: Size, quick: bool, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
    let Size { services, endpoints } = size;
    let cluster = Cluster::new(services, endpoints);
    let _network = Network::enter()?;
    let (mut cold, mut restart, mut writes) = (Vec::new(), Vec::new(), 0);
    let mut last = None;
    let starts = if quick { 1 } else { STARTS };
    for start_at in 0..starts {
        let done = |half: f64| Some((start_at as f64 + half) / (starts + 1) as f64);
        // One at a time: what a start takes is what one agent takes.
        drop(last.take());
        tell("sync-cold", done(0.0));
        let mut kernel =
            Kernel::load(Sizes::with_flow_bytes(FLOW_BYTES), &[probe::PROGRAM], Unused::PARTS)?;
        let (plane, took) = start(&mut kernel, cluster, services - 1, &mut 0)?;
        cold.push(took);
        drop(plane);
        tell("sync-restart", done(0.5));
        let (plane, took) = start(&mut kernel, cluster, 0, &mut writes)?;
        restart.push(took);
        last = Some((kernel, plane));
    }
    let Some((mut kernel, mut plane)) = last else { return Ok(Vec::new()) };
    let memory = resident();
    tell("sync-one", Some(starts as f64 / (starts + 1) as f64));
    let one = changes(&mut kernel, &mut plane, cluster)?;
    tell("scrape", None);
    let (scrapes, series) = scrapes(&kernel, &plane)?;
    let row = |name: &str, value: f64, unit: &str, samples: Vec<f64>, target| {
        let row = Row {
            name: name.to_owned(),
            services: Some(services),
            endpoints: Some(endpoints),
            value: Some(value),
            unit: Some(unit.to_owned()),
            samples,
            ..Row::default()
        };
        row.held_against(target, Some(value))
    };
    let (cold_aim, restart_aim, memory_aim) = aims(size);
    let mut restarted = row("sync-restart", median(&restart), "s", restart, restart_aim);
    restarted.note = Some(format!("{writes} map writes"));
    restarted.met = restarted.met.map(|met| met && writes == 0);
    let mut remembered = row("memory", memory, "MB", vec![memory], memory_aim);
    let scrape_aim = (services == 10_000).then_some(Target::Most(200.0));
    let mut scraped = row("scrape", quantile(&scrapes, 1.0), "ms", scrapes, scrape_aim);
    scraped.note = Some(format!("the slowest; {series} series"));
    let mut changed = row("sync-one", quantile(&one, 0.99), "ms", one, Some(Target::Most(5.0)));
    changed.note = Some(format!("the median: {:.2} ms", median(&changed.samples)));
    remembered.note = Some(format!("kernel maps beside it: {:.0} MB", kernel.megabytes()?));
    Ok(vec![
        row("sync-cold", median(&cold), "s", cold, cold_aim),
        changed,
        restarted,
        remembered,
        scraped,
    ])
}

/// What is aimed at for some sizes: cold start, restart, memory.
const fn aims(size: Size) -> (Option<Target>, Option<Target>, Option<Target>) {
    match (size.services, size.endpoints) {
        (10_000, 2) => (Some(Target::Most(1.0)), Some(Target::Most(1.0)), None),
        (10_000, 10) => (Some(Target::Most(3.0)), None, Some(Target::Most(120.0))),
        (5_000, 50) => (Some(Target::Most(6.0)), None, None),
        _ => (None, None, None),
    }
}

/// From the listings to the kernel, whatever is there; `service` is asked for at the end.
fn start(
    kernel: &mut Kernel,
    cluster: Cluster,
    service: u32,
    writes: &mut usize,
) -> Result<(Plane, f64), Failure> {
    let listings = cluster.listings();
    let began = Instant::now();
    let mut plane = Plane::adopt(kernel, world::node())?;
    *writes = plane.take(&mut kernel.maps, listings)?;
    let seen = seen(kernel, cluster, service)?;
    let took = began.elapsed().as_secs_f64();
    expect(&seen, cluster.endpoints)?;
    Ok((plane, took))
}

/// One endpoint goes or comes, in another service each time; in milliseconds.
fn changes(kernel: &mut Kernel, plane: &mut Plane, cluster: Cluster) -> Result<Vec<f64>, Failure> {
    let mut took = Vec::new();
    for at in 0..CHANGES {
        let service = (at / 2).wrapping_mul(7919) % cluster.services;
        let there = at % 2 == 1;
        let change = cluster.one_endpoint(service, there);
        let began = Instant::now();
        plane.take(&mut kernel.maps, [change])?;
        let seen = seen(kernel, cluster, service)?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        expect(&seen, cluster.endpoints - u32::from(!there))?;
    }
    Ok(took)
}

/// In milliseconds, and how many series there were.
fn scrapes(kernel: &Kernel, plane: &Plane) -> Result<(Vec<f64>, usize), Failure> {
    let (mut took, mut series) = (Vec::new(), 0);
    for _ in 0..SCRAPES {
        let began = Instant::now();
        let text = plane.scrape(kernel)?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        series = text.lines().filter(|line| !line.starts_with('#')).count();
    }
    Ok((took, series))
}

fn seen(kernel: &Kernel, cluster: Cluster, service: u32) -> Result<BTreeSet<u32>, Failure> {
    probe::backends(kernel, cluster.cluster_ip(service, Family::V4), Cluster::PORT)
}

fn expect(seen: &BTreeSet<u32>, endpoints: u32) -> Result<(), Failure> {
    if seen.len() == endpoints as usize {
        return Ok(());
    }
    let what = format!("it could go to {} backends, not to {endpoints}", seen.len());
    Err(broken("the probe packet", &what))
}

/// Resident memory that is this process's own, in megabytes: neither the maps, which it shares with
/// the kernel, nor the pages of its file.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |field: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
    };
    kilobytes("RssAnon:") / 1024.0
}
