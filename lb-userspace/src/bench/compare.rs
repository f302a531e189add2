//! This run beside an older one.

use std::{fs, path::Path};

use super::{Report, Row};
use crate::cli::{Exit, Failure};

/// Reads what `lb bench -o json` wrote.
///
/// # Errors
/// If it cannot be read, or is something else.
pub fn read(path: &Path) -> Result<Report, Failure> {
    let unfit = |error: &dyn std::fmt::Display| {
        let what = format!("--compare {}: {error}", path.display());
        Failure::new(Exit::Usage, what, "name a file that `lb bench -o json` wrote")
    };
    let text = fs::read_to_string(path).map_err(|error| unfit(&error))?;
    serde_json::from_str(&text).map_err(|error| unfit(&error))
}

/// Notes at each case what it was before.
pub fn against(report: &mut Report, old: &Report) {
    for row in &mut report.cases {
        let Some(before) = old.cases.iter().find(|other| other.key() == row.key()) else {
            continue;
        };
        let (Some(now), Some(then)) = (measure(row), measure(before)) else { continue };
        if then > 0.0 {
            let change = (now / then - 1.0) * 100.0;
            row.note = Some(format!("was {then:.2}: {change:+.0} %"));
        }
    }
}

/// The ratio where there is one: machines differ, and so do their days.
fn measure(row: &Row) -> Option<f64> {
    row.ratio_floor.or(row.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;

    #[test]
    fn a_case_is_held_against_the_one_of_its_name_and_size() {
        let row = |ratio, flows| Row {
            name: "established-v4".to_owned(),
            flows: Some(flows),
            ratio_floor: Some(ratio),
            ..Row::default()
        };
        let machine = Machine::here();
        let old = Report { machine: machine.clone(), cases: vec![row(9.0, 2), row(2.0, 1)] };
        let mut new = Report { machine, cases: vec![row(1.0, 1), row(1.0, 3)] };
        against(&mut new, &old);
        let notes: Vec<_> = new.cases.iter().map(|row| row.note.as_deref()).collect();
        assert_eq!(notes, [Some("was 2.00: -50 %"), None]);
    }
}
