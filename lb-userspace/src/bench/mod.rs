//! `lb bench`: what packets, changes and restarts cost on this machine, measured so that anyone can
//! do it again.
//!
//! A figure is quoted as a ratio to the *floor*, the least that a tracking load balancer with the
//! kernel's own hash map could do, measured in the same run: machines differ, and so do their days.

mod cases;
mod flows;
mod harness;
pub mod machine;
mod measure;
mod network;
mod plane;
pub mod report;
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
];

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
    let effort = if wanted.quick { Effort::QUICK } else { Effort::FULL };
    let mut stage = Stage::set_up(wanted, tell)?;
    let rows = measure::measure(&mut stage, effort, tell)?;
    let cases =
        rows.into_iter().filter(|row| row.name == "floor" || wanted.selects(&row.name)).collect();
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
