//! `lb bench` as scripts meet it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cli::lb;

/// What every case says, whatever it is about.
const ALWAYS: [&str; 7] = ["name", "flows", "services", "ratio_floor", "samples", "target", "met"];
/// What a case may say beside it.
const MORE: [&str; 8] = ["raw_ns", "net_ns", "value", "unit", "endpoints", "aim", "figure", "note"];

/// Runs it, and holds what it printed against what is promised; names are told with their cases.
fn measured(arguments: &[&str]) -> BTreeMap<String, Value> {
    let outcome = lb(&[&["bench"], arguments, &["--quick", "-o", "json"]].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    let document = outcome.json();
    assert_eq!(
        keys(&document),
        ["apiVersion", "cases", "kind", "machine"].map(str::to_owned).into()
    );
    assert_eq!((&document["apiVersion"], &document["kind"]), (&"lb/v1".into(), &"Bench".into()));
    for field in ["cpu", "kernel", "date", "version"] {
        assert!(document["machine"][field].is_string(), "{field}: {}", document["machine"]);
    }
    let known: BTreeSet<String> = ALWAYS.iter().chain(&MORE).map(|it| (*it).to_owned()).collect();
    let mut cases = BTreeMap::new();
    for case in document["cases"].as_array().expect("cases") {
        let keys = keys(case);
        assert!(keys.is_subset(&known), "{case}");
        assert!(ALWAYS.iter().all(|field| keys.contains(*field)), "{case}");
        let (nanoseconds, other) = (case["net_ns"].is_f64(), case["value"].is_f64());
        assert!(nanoseconds != other, "one of them: {case}");
        let units = (case["raw_ns"].is_f64(), case["unit"].is_string());
        assert_eq!(units, (nanoseconds, other), "{case}");
        assert_eq!(case["ratio_floor"].is_f64(), nanoseconds, "{case}");
        assert_eq!(case["target"].is_null(), case["met"].is_null(), "{case}");
        assert!(!case["samples"].as_array().expect("samples").is_empty(), "{case}");
        cases.insert(case["name"].as_str().expect("a name").to_owned(), case.clone());
    }
    cases
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().expect("an object").keys().cloned().collect()
}

/// With copies of names, and what was freed kept, a cluster of that size took 50.
const MEGABYTES: f64 = 20.0;

#[test]
fn what_is_not_is_told_with_its_unit_and_the_tables_take_no_more_than_their_budget() {
    let cases = measured(&["sync", "--services", "500", "--endpoints", "10"]);
    let units = cases.iter().map(|(name, case)| (name.as_str(), case["unit"].as_str().unwrap()));
    let wanted = [
        ("memory", "MB"),
        ("scrape", "ms"),
        ("sync-cold", "s"),
        ("sync-one", "ms"),
        ("sync-restart", "s"),
    ];
    assert_eq!(units.collect::<Vec<_>>(), wanted);
    let memory = &cases["memory"];
    assert!(memory["value"].as_f64().unwrap() <= MEGABYTES, "{memory}");
    assert!(cases["sync-restart"]["note"].as_str().unwrap().starts_with("0 map writes"));
}
