//! The faults, by the numbers that the matrix of faults gives them.

mod agents;
mod backends;
mod deaths;
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

use anyhow::Result;

pub(crate) use self::table::{Place, ROWS, Row};
use crate::{Scale, streams::Seen};

impl Row {
    /// Breaks what the row says, and runs the tests that tell the rest of it.
    pub(crate) fn run(&self, scale: &Scale) -> Result<Outcome> {
        let mut outcome = self.fault.map_or_else(|| Ok(Outcome::default()), |run| run(scale))?;
        // The quick rows run where all tests do anyway.
        if !scale.fast && !self.tests.is_empty() {
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
