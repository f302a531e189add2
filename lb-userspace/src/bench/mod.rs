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
mod plane;
mod pps;
mod probe;
pub mod report;
mod rules;
mod statistics;
mod sync;
pub mod target;
mod world;

use std::fmt::Display;

pub use self::report::{Report, Row};
use self::{cases::Stage, machine::Machine, measure::Effort};
use crate::cli::{Exit, Failure};

/// What shall be measured.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of cases; none means all. A name stands for those that begin with it and a dash, too.
    pub cases: Vec<String>,
    pub quick: bool,
    /// As many flows as there are in the largest case, if not 1,048,576.
    pub flows: Option<u32>,
    /// Only the control plane, with a cluster of this size.
    pub sync: Option<Size>,
}

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub services: u32,
    /// Of each Service.
    pub endpoints: u32,
}

/// The sizes at which the control plane is measured.
const SIZES: [Size; 5] = [
    Size { services: 100, endpoints: 10 },
    Size { services: 1000, endpoints: 10 },
    Size { services: 10_000, endpoints: 2 },
    Size { services: 10_000, endpoints: 10 },
    Size { services: 5_000, endpoints: 50 },
];

/// Those at which others' rules are: more take minutes.
const RULED: [Size; 3] = [
    Size { services: 100, endpoints: 10 },
    Size { services: 1000, endpoints: 10 },
    Size { services: 2000, endpoints: 10 },
];

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

/// Cases of packets that the harness programs bring, one at a time.
const PACKETS: &[&str] = &[
    "established-v4",
    "established-v6",
    "new-v4",
    "syn-flood",
    "pass-other",
    "services-10000",
    "services-10000x10",
    "dsr-v4",
];

/// The cases of the control plane.
const SYNC: &[&str] = &["sync-cold", "sync-one", "sync-restart", "memory", "scrape"];

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
pub fn run(wanted: &Wanted, tell: &dyn Fn(&str)) -> Result<Report, Failure> {
    machine::pin();
    let mut cases = Vec::new();
    if let Some(size) = wanted.sync {
        cases = sync::measure(size, wanted.quick, tell)?;
        return Ok(Report { machine: Machine::here(), cases });
    }
    if wanted.any(PACKETS) {
        let effort = if wanted.quick { Effort::QUICK } else { Effort::FULL };
        let mut stage = Stage::set_up(wanted, tell)?;
        cases.extend(measure::measure(&mut stage, effort, tell)?);
    }
    if wanted.any(&["consistency"]) {
        let effort =
            if wanted.quick { consistency::Effort::QUICK } else { consistency::Effort::FULL };
        cases.extend(consistency::measure(effort, tell)?);
    }
    if wanted.any(&["live-pps"]) {
        let effort = if wanted.quick { pps::Effort::QUICK } else { pps::Effort::FULL };
        cases.extend(pps::measure(effort, tell)?);
    }
    if wanted.any(&["connect-rate"]) {
        let effort = if wanted.quick { connect::Effort::QUICK } else { connect::Effort::FULL };
        cases.extend(connect::measure(effort, tell)?);
    }
    if wanted.any(SYNC) {
        for size in SIZES {
            cases.extend(sync::in_a_process(size, wanted.quick, tell)?);
        }
    }
    let sizes = &RULED[..if wanted.quick { 2 } else { RULED.len() }];
    cases.extend(rules::measure(sizes, &|name| wanted.any(&[name]), tell)?);
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
