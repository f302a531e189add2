//! What the documents say is what the code does.

use lb_common::verdict::{Reason, Verdict};

const DATAPATH: &str = include_str!("../../../../docs/datapath.md");

#[test]
fn every_reason_has_a_row_with_its_anchor_and_its_verdict() {
    let rows: Vec<(&str, &str)> = DATAPATH
        .lines()
        .filter_map(|line| {
            let (label, rest) = line.strip_prefix("| <a id=\"")?.split_once("\"></a>`")?;
            let (again, rest) = rest.split_once("` | ")?;
            assert_eq!(label, again);
            Some((label, rest.split_once(" |")?.0))
        })
        .collect();
    let verdict = |reason: &Reason| match reason.verdict() {
        Verdict::Pass => "pass",
        Verdict::Deliver => "deliver",
        Verdict::Forward => "forward",
        Verdict::Answer => "answer",
        Verdict::Reject => "reject",
        Verdict::Drop => "drop",
    };
    let expected: Vec<_> =
        Reason::ALL.iter().map(|reason| (reason.label(), verdict(reason))).collect();
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    let mut all = expected;
    all.sort_unstable();
    assert_eq!(sorted, all);
}
