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

/// What is above the record.
pub(super) fn compare(counts: &Counts<'_>) -> Result<Vec<String>> {
    let text = fs::read_to_string(path()).context("no record: make one with --record")?;
    Ok(risen(&parse(&text), counts))
}

fn parse(text: &str) -> BTreeMap<(String, String), u32> {
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let (kernel, program) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(((kernel, program), fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

fn risen(record: &BTreeMap<(String, String), u32>, counts: &Counts<'_>) -> Vec<String> {
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
}
