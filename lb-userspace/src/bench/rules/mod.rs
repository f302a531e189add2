//! What Kubernetes' own proxy would write for the same Services, in nftables and in iptables: how long
//! the kernel's tools take to load it, and to change one endpoint.

mod iptables;
mod nftables;

use std::{process::Command, time::Instant};

use super::{
    Row, Size, broken,
    network::{self, Network},
    part::Tell,
    statistics::median,
};
use crate::{cli::Failure, cluster::synthetic::Cluster};

/// Who holds the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Nftables,
    Iptables,
}

/// Changes that are timed: some take seconds.
const CHANGES: u32 = 6;

impl Rules {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nftables, Self::Iptables];

    /// As a case is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// Everything for a cluster, and the command that reads it.
    fn all(self, cluster: &Cluster) -> (Command, String) {
        match self {
            Self::Nftables => (nft(), nftables::all(cluster)),
            Self::Iptables => (restore(), iptables::all(cluster)),
        }
    }

    /// The last endpoint of a Service goes, or comes back.
    fn change(self, cluster: &Cluster, service: u32, there: bool) -> (Command, String) {
        match self {
            Self::Nftables => (nft(), nftables::change(cluster, service, there)),
            Self::Iptables => (restore(), iptables::change(cluster, service, there)),
        }
    }

    /// Loads everything into the namespace of the calling thread, which has none of it.
    ///
    /// # Errors
    /// If the tool is missing, or the kernel refuses.
    pub fn load(self, cluster: &Cluster) -> Result<(), Failure> {
        self.write(self.all(cluster))
    }

    fn write(self, (mut command, text): (Command, String)) -> Result<(), Failure> {
        network::feed(&mut command, &text).map_err(|error| broken(self.name(), &error))
    }
}

fn nft() -> Command {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    command
}

fn restore() -> Command {
    let mut command = Command::new("iptables-restore");
    command.args(["--noflush", "--wait"]);
    command
}

/// Times a tool with a cluster of this size.
///
/// # Errors
/// As [`Rules::load`].
pub fn measure(rules: Rules, size: Size, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
    let name = format!("{}: {} × {}", rules.name(), size.services, size.endpoints);
    tell(&name, None);
    let cluster = Cluster::new(size.services, size.endpoints);
    // With the namespace go its rules.
    let _network = Network::enter()?;
    let input = rules.all(&cluster);
    let began = Instant::now();
    rules.write(input)?;
    let cold = vec![began.elapsed().as_secs_f64()];
    let mut one = Vec::new();
    for at in 0..CHANGES {
        tell(&name, Some(f64::from(1 + at) / f64::from(1 + CHANGES)));
        let service = (at / 2).wrapping_mul(7919) % size.services;
        let input = rules.change(&cluster, service, at % 2 == 1);
        let began = Instant::now();
        rules.write(input)?;
        one.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let row = |what: &str, unit: &str, samples: Vec<f64>| Row {
        name: format!("{}-{what}", rules.name()),
        services: Some(size.services),
        endpoints: Some(size.endpoints),
        value: Some(median(&samples)),
        unit: Some(unit.to_owned()),
        samples,
        ..Row::default()
    };
    Ok(vec![row("cold", "s", cold), row("one", "ms", one)])
}

/// Endpoints of a Service, as numbers; the last may have gone.
fn endpoints(cluster: &Cluster, there: bool) -> std::ops::Range<u32> {
    0..cluster.endpoints - u32::from(!there)
}
