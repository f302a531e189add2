//! What may not grow unnoticed: the verifier's work, the maps' memory, the time that packets take, and
//! packets that go astray.
//!
//! The budgets are `lb-ebpf/verified.tsv` and `lb-ebpf/memory.tsv`. Who needs more than a tenth above
//! them changes the file, and says in the commit why.

use std::{collections::BTreeMap, fs, os::fd::AsFd as _, os::fd::AsRawFd as _};

use aya::maps::{Map, MapData};
use lb_userspace::{
    bench::{self, Report, Row, Wanted},
    datapath::object::{Sizes, Unused, create_private},
};

const VERIFIED: &str = include_str!("../../../../lb-ebpf/verified.tsv");
const MEMORY: &str = include_str!("../../../../lb-ebpf/memory.tsv");
/// The flow tables' memory unless the configuration says otherwise.
const FLOW_BYTES: u64 = 64 << 20;
/// More than any cache holds, and made in seconds.
const FLOWS: u32 = 1 << 17;
/// Other work on the machine may spoil a run; twice as slow thrice in a row is no accident.
const RUNS: usize = 3;

/// Holds counts of this kernel's verifier against what is recorded of it; of a kernel that nothing is
/// recorded of, nothing is known.
pub fn check_verified(counts: &BTreeMap<String, u32>) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let kernel = release.trim().split('.').take(2).collect::<Vec<_>>().join(".");
    let rows = rows(VERIFIED).filter(|row| row[0] == kernel);
    let budget: BTreeMap<_, u64> =
        rows.map(|row| (row[1].to_owned(), row[2].parse().unwrap())).collect();
    if !budget.is_empty() {
        let counts = counts.iter().map(|(name, count)| (name.clone(), u64::from(*count)));
        assert_within(&budget, &counts.collect(), "lb-ebpf/verified.tsv");
    }
}

#[test]
fn no_map_takes_more_memory_than_its_budget() {
    let object = create_private(Sizes::with_flow_bytes(FLOW_BYTES), Unused::default()).unwrap();
    let bytes = object.maps().filter_map(|(name, map)| Some((name.to_owned(), memory(map)?)));
    let budget = rows(MEMORY).map(|row| (row[0].to_owned(), row[1].parse().unwrap()));
    assert_within(&budget.collect(), &bytes.collect(), "lb-ebpf/memory.tsv");
}

#[test]
fn packets_take_no_more_than_twice_what_is_aimed_at() {
    let cases = ["established-v4", "dsr-v4"].map(str::to_owned).to_vec();
    let wanted = Wanted { cases, quick: true, flows: FLOWS, ..Wanted::default() };
    let mut too_much = String::new();
    for _ in 0..RUNS {
        let report = bench::run(&wanted, &|_| ()).unwrap();
        let net = |name, flows| row(&report, name, flows).net_ns.unwrap();
        let ratios = [
            ("established-v4 × floor", net("established-v4", 1) / net("floor", 1), 3.2),
            ("many flows × floor", net("established-v4", FLOWS) / net("floor", FLOWS), 1.5),
            ("dsr-v4, many flows × 1", net("dsr-v4", FLOWS) / net("dsr-v4", 1), 2.5),
        ];
        too_much = ratios
            .iter()
            .filter(|(_, ratio, most)| ratio > most)
            .map(|(what, ratio, most)| format!("{what}: {ratio:.2}, not {most}\n"))
            .collect();
        if too_much.is_empty() {
            return;
        }
    }
    panic!("in each of {RUNS} runs, the last of which:\n{too_much}");
}

#[test]
fn no_packet_of_a_known_flow_goes_astray_while_backends_come_and_go() {
    let cases = vec!["consistency".to_owned()];
    let wanted = Wanted { cases, quick: true, ..Wanted::default() };
    let report = bench::run(&wanted, &|_| ()).unwrap();
    for name in ["consistency-tracked", "consistency-dsr-known"] {
        let row = report.cases.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row.value, Some(0.0), "{row:?}");
    }
}

#[track_caller]
fn row<'a>(report: &'a Report, name: &str, flows: u32) -> &'a Row {
    let mut rows = report.cases.iter();
    rows.find(|row| row.name == name && row.flows == Some(flows)).expect(name)
}

/// What the kernel keeps for a map; what it keeps for each CPU once.
fn memory(map: &Map) -> Option<u64> {
    let (data, shares) = match map {
        Map::PerCpuArray(data) => (data, aya::util::nr_cpus().unwrap() as u64),
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data) => (data, 1),
        _ => return None,
    };
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor(data))).unwrap();
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
    Some(bytes.trim().parse::<u64>().unwrap() / shares)
}

fn descriptor(data: &MapData) -> i32 {
    data.fd().as_fd().as_raw_fd()
}

fn rows(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

#[track_caller]
fn assert_within(budget: &BTreeMap<String, u64>, used: &BTreeMap<String, u64>, file: &str) {
    let over = used
        .iter()
        .filter(|(name, used)| budget.get(*name).is_none_or(|budget| **used > budget * 11 / 10));
    let over: Vec<String> =
        over.map(|(name, used)| format!("{name}\t{used}, not {:?}", budget.get(name))).collect();
    assert!(over.is_empty(), "more than {file} allows:\n{}", over.join("\n"));
}
