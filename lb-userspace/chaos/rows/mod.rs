//! The faults, by the numbers that the matrix of faults gives them.

mod agents;
mod backends;
mod deaths;
mod envelopes;
mod floods;
mod interfaces;
mod layouts;
mod limits;
mod memory;
mod odd;
mod pins;
mod privileges;
mod table;
mod told;

use std::time::Duration;

use anyhow::Result;

pub(crate) use self::table::{Place, ROWS, Row};
use crate::{
    Scale,
    streams::{Seen, because},
};

impl Row {
    /// Breaks what the row says, and runs the tests that tell the rest of it.
    pub(crate) fn run(&self, scale: &Scale) -> Result<Outcome> {
        let fault = self.fault.filter(|_| self.place != Place::Both || scale.in_guest);
        let mut outcome = fault.map_or_else(|| Ok(Outcome::default()), |run| run(scale))?;
        if !scale.fast && outcome.was_watched {
            let slow = outcome.slow;
            outcome.must(format!("{slow} answers after more than a second"), slow == 0);
        }
        // Where all tests run anyway, nobody asks for a quick row without a fault of its own.
        if (!scale.fast || fault.is_none()) && !self.tests.is_empty() {
            told::run(scale, self.tests, &mut outcome)?;
        }
        Ok(outcome)
    }
}

/// What a row counted, and which of it should not be.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) numbers: Vec<String>,
    pub(crate) broken: Vec<String>,
    /// Whether connections looked on, and how many of their questions waited for more than a second
    /// though those past the load balancer did not.
    was_watched: bool,
    slow: usize,
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

    /// How long something took, which at full size is held against what the row asks for.
    pub(crate) fn within(&mut self, what: &str, took: Duration, most: Duration, scale: &Scale) {
        self.must(format!("{what} {took:.0?}"), scale.fast || took <= most);
    }

    /// Connections of which none may have been disturbed. `control` are others that meet no program
    /// of ours: what is slow there as often is the machine.
    pub(crate) fn undisturbed(&mut self, seen: &Seen, control: &Seen) {
        let Seen { reset: _, lost, failed, why, exchanges, longest, slow, alive: _ } = seen;
        self.was_watched = true;
        if slow * control.exchanges > control.slow * exchanges {
            self.slow += slow;
        }
        self.must(format!("{} connections held", seen.alive()), seen.alive() > 0);
        self.must(format!("{} reset", seen.reset()), seen.reset() == 0);
        self.must(format!("{lost} silent"), *lost == 0);
        self.must(format!("{failed} not opened{}", because(why.as_deref())), *failed == 0);
        self.note(format!(
            "{exchanges} exchanges, the longest {:.0?} ({slow} over a second; past it \
             {:.0?} and {})",
            longest, control.longest, control.slow
        ));
    }
}
