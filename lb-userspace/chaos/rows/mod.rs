//! The faults, by the numbers that the matrix of faults gives them.

mod agents;
mod backends;
mod deaths;
mod floods;
mod interfaces;
mod layouts;
mod limits;
mod pins;
mod privileges;

use anyhow::Result;

use crate::{Scale, streams::Seen};

/// A fault.
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    /// Whether it is one of the quick ones.
    pub(crate) fast: bool,
    pub(crate) run: fn(&Scale) -> Result<Outcome>,
}

const fn row(
    number: u32,
    name: &'static str,
    fast: bool,
    run: fn(&Scale) -> Result<Outcome>,
) -> Row {
    Row { number, name, fast, run }
}

pub(crate) const ROWS: &[Row] = &[
    row(1, "kill -9, new connections without an agent, restart", true, agents::killed),
    row(2, "a new program over the old one, again and again, under a flood", true, agents::swapped),
    row(3, "a version whose maps lie otherwise, and back", false, layouts::there_and_back),
    row(4, "an agent that dies before each of its writes", true, deaths::anywhere),
    row(5, "an agent that is stopped for a while", true, agents::stopped),
    row(6, "one backend leaves or comes, again and again", false, backends::churn),
    row(7, "a backend that terminates", true, backends::terminates),
    row(8, "all backends terminate", true, backends::all_terminate),
    row(9, "a UDP backend dies", true, backends::datagrams_move),
    row(10, "UDP without any backend, and back", true, backends::datagrams_return),
    row(11, "floods of SYNs and of datagrams", true, floods::both),
    row(12, "a flow table full of established flows", true, limits::full_of_flows),
    row(13, "another hash seed for the cluster", true, agents::reseeded),
    row(14, "more Services than there is room for", false, limits::full_of_services),
    row(25, "a backend that dials its own Service", true, backends::hairpin),
    row(27, "a port that is used again after its backend left", true, backends::port_again),
    row(34, "nobody, with three capabilities", true, privileges::three_capabilities),
    row(35, "interfaces that come, go, and change their names", true, interfaces::change),
    row(36, "pins that are deleted under a running agent", true, pins::deleted),
    row(37, "a second agent", true, agents::second),
    row(39, "uninstall", true, pins::uninstall),
];

/// What a row counted, and which of it should not be.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) numbers: Vec<String>,
    pub(crate) broken: Vec<String>,
}

impl Outcome {
    /// A number for the record.
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.numbers.push(what.into());
    }

    /// Something that must be so.
    pub(crate) fn must(&mut self, what: impl Into<String>, holds: bool) {
        let what = what.into();
        if holds {
            self.numbers.push(what);
        } else {
            self.numbers.push(format!("!! {what}"));
            self.broken.push(what);
        }
    }

    /// Connections of which none may have been disturbed. `control` are others that no rule of ours
    /// touches: what is slow there too is the machine.
    pub(crate) fn undisturbed(&mut self, seen: &Seen, control: &Seen) {
        let Seen { reset: _, lost, failed, exchanges, longest, slow, alive: _ } = seen;
        self.must(format!("{} connections held", seen.alive()), seen.alive() > 0);
        self.must(format!("{} reset", seen.reset()), seen.reset() == 0);
        self.must(format!("{lost} silent"), *lost == 0);
        self.must(format!("{failed} not opened"), *failed == 0);
        self.note(format!(
            "{exchanges} exchanges, the longest {:.0?} ({slow} over a second; past the rules \
             {:.0?} and {})",
            longest, control.longest, control.slow
        ));
    }
}
