//! How many instructions each kernel's verifier walks, as recorded: a rise shows before it becomes a
//! refusal.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::repo;

/// By kernel, then by program.
pub(super) type Counts<'a> = BTreeMap<&'a str, BTreeMap<String, u32>>;

/// More than this in a hundred is an error.
const TOLERANCE: u64 = 10;

fn path() -> PathBuf {
    repo::root().join("lb-ebpf/verified.tsv")
}

/// Replaces what is recorded of these kernels.
pub(super) fn record(counts: &Counts<'_>) -> Result<()> {
    let old = fs::read_to_string(path()).unwrap_or_default();
    let mut rows = parse(&old);
    for (kernel, programs) in counts {
        rows.retain(|(of, _), _| of != kernel);
        for (program, count) in programs {
            rows.insert(((*kernel).to_owned(), program.clone()), *count);
        }
    }
    let text: String =
        rows.iter().map(|((kernel, program), n)| format!("{kernel}\t{program}\t{n}\n")).collect();
    fs::write(path(), text).context("cannot write the record")
}

/// What is above the record, and where `all` programs were to be loaded, what is only there.
pub(super) fn compare(counts: &Counts<'_>, all: bool) -> Result<Vec<String>> {
    let text = fs::read_to_string(path()).context("no record: make one with --record")?;
    let record = parse(&text);
    let mut wrong = risen(&record, counts);
    if all {
        wrong.extend(unseen(&record, counts));
    }
    Ok(wrong)
}

/// By kernel and program.
type Record = BTreeMap<(String, String), u32>;

fn parse(text: &str) -> Record {
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let (kernel, program) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(((kernel, program), fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// What is recorded of a kernel that ran, and was not loaded there.
fn unseen(record: &Record, counts: &Counts<'_>) -> Vec<String> {
    let is_unseen = |kernel: &str, program: &str| {
        counts.get(kernel).is_some_and(|programs| !programs.contains_key(program))
    };
    let unseen = record.iter().filter(|((kernel, program), _)| is_unseen(kernel, program));
    let named = unseen.map(|((kernel, program), recorded)| {
        format!("{kernel}: {program}: not seen, {recorded} instructions recorded")
    });
    named.collect()
}

fn risen(record: &Record, counts: &Counts<'_>) -> Vec<String> {
    let mut risen = Vec::new();
    for (kernel, programs) in counts {
        for (program, count) in programs {
            let recorded = record.get(&((*kernel).to_owned(), program.clone()));
            let most = recorded.map_or(0, |n| u64::from(*n) * (100 + TOLERANCE) / 100);
            if u64::from(*count) > most {
                let recorded = recorded.map_or("nothing".to_owned(), u32::to_string);
                risen.push(format!(
                    "{kernel}: {program}: {count} instructions verified, {recorded} recorded"
                ));
            }
        }
    }
    risen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_borne_and_more_is_named() {
        let record = parse("6.1\ta\t1000\n6.1\tb\t1000\n");
        let programs = [("a", 1100), ("b", 1101), ("c", 1)];
        let counts = Counts::from([("6.1", programs.map(|(n, c)| (n.to_owned(), c)).into())]);
        assert_eq!(
            risen(&record, &counts),
            [
                "6.1: b: 1101 instructions verified, 1000 recorded",
                "6.1: c: 1 instructions verified, nothing recorded"
            ]
        );
    }

    #[test]
    fn a_recorded_program_that_was_not_seen_is_named_where_its_kernel_ran() {
        let record = parse("6.1\ta\t1000\n6.1\tb\t1000\n6.12\ta\t1000\n");
        let counts = Counts::from([("6.1", [("a".to_owned(), 1000)].into())]);
        assert_eq!(unseen(&record, &counts), ["6.1: b: not seen, 1000 instructions recorded"]);
        let nothing = Counts::from([("6.12", BTreeMap::new())]);
        assert_eq!(unseen(&record, &nothing).len(), 1, "nor is a kernel that told nothing");
    }
}
