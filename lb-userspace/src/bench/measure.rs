//! Rounds of all cases in alternating order: what disturbs the machine for a while disturbs all of
//! them alike.

use super::{
    broken,
    cases::{Case, Expect, Stage},
    harness::Entry,
    part::Tell,
    report::Row,
    statistics::median,
    target::Target,
};
use crate::cli::Failure;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Packets of each case in a round.
    pub packets: u32,
}

impl Effort {
    pub const FULL: Self = Self { rounds: 11, packets: 1 << 18 };
    pub const QUICK: Self = Self { rounds: 7, packets: 1 << 15 };
}

/// What a case took in each round, in nanoseconds a packet.
#[derive(Debug, Default)]
struct Samples {
    raw: Vec<f64>,
    net: Vec<f64>,
}

/// Measures every case; `tell` is told of each sample.
///
/// # Errors
/// If the kernel refuses, or packets went another way than the case is about.
pub fn measure(stage: &mut Stage, effort: Effort, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
    let count = stage.cases.len();
    let mut samples: Vec<Samples> = std::iter::repeat_with(Samples::default).take(count).collect();
    // The first round warms up.
    for round in 0..=effort.rounds {
        for turn in 0..count {
            let at = if round % 2 == 0 { turn } else { count - 1 - turn };
            let done = (round * count + turn) as f64 / ((effort.rounds + 1) * count) as f64;
            tell(stage.cases[at].name, Some(done));
            let (raw, empty) = sample(stage, at, effort.packets)?;
            if round > 0 {
                samples[at].raw.push(raw);
                samples[at].net.push(raw - empty);
            }
        }
    }
    Ok(rows(&stage.cases, &samples))
}

/// One sample of a case, and one of the harness alone on the same packets.
fn sample(stage: &mut Stage, at: usize, packets: u32) -> Result<(f64, f64), Failure> {
    let Stage { harness, worlds, cases, .. } = stage;
    let case = &mut cases[at];
    // New flows fill the table: fewer of them.
    let packets = if case.entry == Entry::FreshV4 { packets / 2 } else { packets };
    let empty = harness.run(case.entry, &mut case.empty, packets)?;
    let world = case.world.map(|world| &worlds[world]);
    let reasons = match case.expect {
        Expect::Each(reasons) | Expect::Nearly(reasons) => reasons,
        Expect::Nothing | Expect::Known => &[],
    };
    let before = world.map(|world| world.counted(reasons)).transpose()?.unwrap_or_default();
    let missed = harness.missed()?;
    let took = harness.run(case.entry, &mut case.run, packets)?;
    let after = world.map(|world| world.counted(reasons)).transpose()?.unwrap_or_default();
    let (these, all) = (after.0 - before.0, after.1 - before.1);
    let packets = u64::from(packets);
    let fine = match case.expect {
        Expect::Each(_) => these == packets,
        Expect::Nearly(_) => all == packets && (packets - these) * 1000 <= packets,
        Expect::Nothing => all == 0,
        Expect::Known => harness.missed()? == missed,
    };
    if !fine {
        let what = format!(
            "{these} of {packets} packets went the way that it is about, {all} were counted; the last \
             ended with {}",
            took.code
        );
        return Err(broken(case.name, &what));
    }
    Ok((took.ns, empty.ns))
}

fn rows(cases: &[Case], samples: &[Samples]) -> Vec<Row> {
    let find = |name: &str, flows: u32, services: u32| {
        let is = |case: &&Case| (case.name, case.flows, case.services) == (name, flows, services);
        let at = cases.iter().position(|case| is(&case))?;
        Some(&samples[at])
    };
    let row = |(case, samples): (&Case, &Samples)| {
        let floor = find("floor", case.floor, 0);
        let ratio_floor = floor.map(|floor| ratio(&samples.net, &floor.net));
        let figure = match case.target {
            Some(Target::Case { name, flows, services, .. }) => {
                find(name, flows, services).map(|other| ratio(&samples.net, &other.net))
            }
            Some(Target::Most(_) | Target::Least(_)) => Some(median(&samples.net)),
            Some(Target::Floor(_)) | None => ratio_floor,
        };
        Row {
            name: case.name.to_owned(),
            flows: Some(case.flows),
            services: Some(case.services),
            raw_ns: Some(median(&samples.raw)),
            net_ns: Some(median(&samples.net)),
            ratio_floor,
            samples: samples.net.clone(),
            ..Row::default()
        }
        .held_against(case.target, figure)
    };
    cases.iter().zip(samples).map(row).collect()
}

/// The median of the ratios of samples that were taken in the same round.
fn ratio(these: &[f64], those: &[f64]) -> f64 {
    median(&these.iter().zip(those).map(|(this, that)| this / that).collect::<Vec<_>>())
}
