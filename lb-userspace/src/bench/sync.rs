//! How long the control plane takes: from an object that has been received to a packet that meets
//! the change.

use std::{collections::BTreeSet, fs, time::Instant};

use super::{
    Row, broken,
    network::Network,
    plane::{Kernel, Plane},
    statistics::{median, quantile},
    target::Target,
};
use crate::{cli::Failure, cluster::synthetic::Cluster, model::Family};

/// Changes of one endpoint that are timed.
const CHANGES: u32 = 200;
/// Cold starts and restarts that are timed.
const STARTS: usize = 3;

/// Measures everything about one size of cluster.
///
/// # Errors
/// If the kernel refuses, or does not do what it was told.
pub fn measure(services: u32, endpoints: u32, tell: &dyn Fn(&str)) -> Result<Vec<Row>, Failure> {
    let cluster = Cluster { services, endpoints, outside: false, dual: false };
    let _network = Network::enter()?;
    let before = Memory::now();
    let (mut cold, mut restart, mut writes) = (Vec::new(), Vec::new(), 0);
    let mut last = None;
    for _ in 0..STARTS {
        // One at a time: what a start takes is what one agent takes.
        drop(last.take());
        tell("sync-cold");
        let mut kernel = Kernel::load()?;
        let (plane, took) = start(&mut kernel, cluster)?;
        cold.push(took);
        drop(plane);
        tell("sync-restart");
        let (plane, took) = restart_on(&mut kernel, cluster, &mut writes)?;
        restart.push(took);
        last = Some((kernel, plane));
    }
    let Some((mut kernel, mut plane)) = last else { return Ok(Vec::new()) };
    let memory = Memory::now();
    tell("sync-one");
    let one = changes(&mut kernel, &mut plane, cluster)?;
    let row = |name: &str, value: f64, unit: &str, samples: Vec<f64>| Row {
        name: name.to_owned(),
        services: Some(services),
        endpoints: Some(endpoints),
        value: Some(value),
        unit: Some(unit.to_owned()),
        samples,
        ..Row::default()
    };
    let (cold_aim, restart_aim, memory_aim) = aims(services, endpoints);
    let p99 = quantile(&one, 0.99);
    let held = |row: Row, target| {
        let value = row.value;
        row.held_against(target, value)
    };
    let mut restarted = held(row("sync-restart", median(&restart), "s", restart), restart_aim);
    restarted.note = Some(format!("{writes} map writes"));
    restarted.met = restarted.met.map(|met| met && writes == 0);
    let resident = memory.since(before);
    let mut resident_row = held(row("memory", resident, "MB", vec![resident]), memory_aim);
    resident_row.note = Some(format!("kernel maps beside it: {} MB", kernel_maps(&kernel)));
    Ok(vec![
        held(row("sync-cold", median(&cold), "s", cold), cold_aim),
        held(row("sync-one", p99, "ms p99", one), Some(Target::Most(5.0))),
        restarted,
        resident_row,
    ])
}

/// What is aimed at for some sizes: cold start, restart, memory.
fn aims(services: u32, endpoints: u32) -> (Option<Target>, Option<Target>, Option<Target>) {
    match (services, endpoints) {
        (10_000, 2) => (Some(Target::Most(1.0)), Some(Target::Most(1.0)), None),
        (10_000, 10) => (Some(Target::Most(3.0)), None, Some(Target::Most(120.0))),
        (5_000, 50) => (Some(Target::Most(6.0)), None, None),
        _ => (None, None, None),
    }
}

/// From the listings to the kernel, with nothing there before.
fn start(kernel: &mut Kernel, cluster: Cluster) -> Result<(Plane, f64), Failure> {
    let listings = cluster.listings();
    let began = Instant::now();
    let mut plane = Plane::adopt(kernel)?;
    plane.take(kernel, listings)?;
    let seen = probe(kernel, cluster, cluster.services - 1)?;
    let took = began.elapsed().as_secs_f64();
    expect(&seen, cluster.endpoints)?;
    Ok((plane, took))
}

/// As [`start`], on maps that hold it all.
fn restart_on(
    kernel: &mut Kernel,
    cluster: Cluster,
    writes: &mut usize,
) -> Result<(Plane, f64), Failure> {
    let listings = cluster.listings();
    let began = Instant::now();
    let mut plane = Plane::adopt(kernel)?;
    *writes = plane.take(kernel, listings)?;
    let seen = probe(kernel, cluster, 0)?;
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
        plane.take(kernel, [change])?;
        let seen = probe(kernel, cluster, service)?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        expect(&seen, cluster.endpoints - u32::from(!there))?;
    }
    Ok(took)
}

fn probe(kernel: &Kernel, cluster: Cluster, service: u32) -> Result<BTreeSet<u32>, Failure> {
    kernel.probe(cluster.cluster_ip(service, Family::V4), Cluster::PORT)
}

fn expect(seen: &BTreeSet<u32>, endpoints: u32) -> Result<(), Failure> {
    if seen.len() == endpoints as usize {
        return Ok(());
    }
    let what = format!("it could go to {} backends, not to {endpoints}", seen.len());
    Err(broken("the probe packet", &what))
}

/// Resident memory of this process that is its own, in megabytes.
#[derive(Clone, Copy, Debug)]
struct Memory(f64);

impl Memory {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |field: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
        };
        eprintln!(
            "{}",
            status
                .lines()
                .filter(|l| l.starts_with("Rss")
                    || l.starts_with("VmRSS")
                    || l.starts_with("VmHWM"))
                .collect::<Vec<_>>()
                .join("; ")
        );
        Self(kilobytes("RssAnon:") / 1024.0)
    }

    fn since(self, _before: Self) -> f64 {
        self.0
    }
}

/// What the kernel keeps for the maps, in megabytes.
fn kernel_maps(_kernel: &Kernel) -> u64 {
    0
}
