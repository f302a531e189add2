//! `lb bench`: what packets, changes and restarts cost on this machine, measured so that anyone can
//! do it again.
//!
//! A figure is quoted as a ratio to the *floor*, the least that a tracking load balancer with the
//! kernel's own hash map could do, measured in the same run: machines differ, and so do their days.

mod cases;
pub mod compare;
mod connect;
mod consistency;
mod flows;
mod harness;
pub mod html;
pub mod machine;
mod measure;
mod network;
mod node;
mod part;
mod plane;
mod pps;
mod probe;
pub mod report;
mod rules;
mod statistics;
mod sync;
pub mod target;
mod through;
mod world;

use std::{fmt::Display, path::PathBuf};

use self::{machine::Machine, part::Part};
pub use self::{
    part::Step,
    report::{Report, Row},
};
use crate::cli::{Exit, Failure};

/// Flows of the largest cases, unless fewer are wanted.
pub const MANY: u32 = 1 << 20;
/// With fewer a case about many flows would be about something else.
pub const FEWEST: u32 = 1 << 14;

/// What shall be measured.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Names of cases; none means all. A name stands for those that begin with it and a dash, too.
    pub cases: Vec<String>,
    pub quick: bool,
    /// As many flows as there are in the largest cases: [`FEWEST`] to [`MANY`].
    pub flows: u32,
    /// Only the control plane, with a cluster of this size.
    pub sync: Option<Size>,
    /// The same through the API server that this file names.
    pub kubeconfig: Option<PathBuf>,
}

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub services: u32,
    /// Of each Service.
    pub endpoints: u32,
}

/// The cases, each with what it is: what `--case` may name.
pub const CASES: &[(&str, &str)] = &[
    ("established-v4", "packets of known flows to a backend on another node, and the replies"),
    ("established-v6", "the same with IPv6"),
    ("new-v4", "every packet a new flow"),
    ("syn-flood", "SYNs from everywhere, past what the table takes in"),
    ("pass-other", "packets for somebody else"),
    ("services-10000", "10,000 services loaded, one visited"),
    ("services-10000x10", "10,000 services with 10 endpoints each, visited at random"),
    ("sync-cold", "from complete listings to the kernel, nothing there before; in seconds"),
    ("sync-one", "one endpoint changed; the 99th percentile of 200, in milliseconds"),
    ("sync-restart", "a new agent on the maps of the old one, nothing changed; in seconds"),
    ("dsr-v4", "packets of DSR's first step: to another node in an envelope, no flow kept"),
    (
        "consistency",
        "backends come and go: packets that went elsewhere than to their flow's backend",
    ),
    (
        "connect-rate",
        "real connections a second through a ClusterIP, direct, and through the rules of nftables",
    ),
    (
        "live-pps",
        "packets a second to a NodePort, one core for all, and through the rules of nftables",
    ),
    (
        "nftables",
        "the rules that Kubernetes' own proxy would write: loaded, and one endpoint changed",
    ),
    ("iptables", "the same in iptables"),
    (
        "scrape",
        "the metrics of all Services, gathered and written; the slowest of 20, in milliseconds",
    ),
    ("memory", "what the agent's tables take of its memory"),
];

impl Default for Wanted {
    fn default() -> Self {
        Self { cases: Vec::new(), quick: false, flows: MANY, sync: None, kubeconfig: None }
    }
}

impl Wanted {
    fn selects(&self, name: &str) -> bool {
        let begins = |case: &String| {
            name.strip_prefix(case.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        self.cases.is_empty() || self.cases.iter().any(begins)
    }

    /// Whether one of some families of cases is wanted.
    fn any(&self, families: &[&str]) -> bool {
        let begins = |case: &String| families.iter().any(|family| case.starts_with(family));
        self.cases.is_empty()
            || self.cases.iter().any(begins)
            || families.iter().any(|family| self.selects(family))
    }
}

/// Measures; `tell` is told what is being done, a step at a time.
///
/// # Errors
/// If something is missing that the wanted cases need, or a case is not what it claims to be.
pub fn run(wanted: &Wanted, tell: &dyn Fn(&Step<'_>)) -> Result<Report, Failure> {
    machine::pin();
    let mut cases = Vec::new();
    let parts = Part::of(wanted);
    for (at, part) in parts.iter().enumerate() {
        let place = (at, parts.len());
        let tell = |what: &str, done| tell(&Step { what, part: place, done });
        cases.extend(part.measure(wanted, &tell)?);
    }
    cases.retain(|row| row.name == "floor" || wanted.selects(&row.name));
    Ok(Report { machine: Machine::here(), cases })
}

/// Something that the kernel, or a case, did not do.
fn broken(what: impl Display, why: &(impl Display + ?Sized)) -> Failure {
    Failure::new(
        Exit::Error,
        format!("{what}: {why}"),
        "run it as root on a machine with a few gigabytes of free memory",
    )
}
