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

#[test]
fn what_is_nanoseconds_is_told_against_the_floor_with_as_many_flows_as_were_asked_for() {
    let cases = measured(&["--flows", "16384", "--case", "syn-flood", "--case", "dsr-v4"]);
    let names: Vec<_> = cases.keys().map(String::as_str).collect();
    assert_eq!(names, ["dsr-v4", "floor", "syn-flood"]);
    for case in cases.values() {
        let net = case["net_ns"].as_f64().unwrap();
        assert!(net > 0.0 && net < case["raw_ns"].as_f64().unwrap(), "{case}");
    }
    // The last of its name is the largest.
    assert_eq!(cases["dsr-v4"]["flows"], 16_384);
    assert_eq!(cases["floor"]["ratio_floor"], 1.0);
    assert!(cases["floor"]["target"].is_null());
    let flood = &cases["syn-flood"];
    let figure = flood["ratio_floor"].as_f64().unwrap();
    assert_eq!(flood["target"], 1.25);
    assert_eq!(flood["met"], figure <= 1.25, "{flood}");
}

#[test]
fn as_few_flows_as_say_nothing_about_many_are_refused() {
    for flows in ["0", "16383", "1048577", "many"] {
        let outcome = lb(&["bench", "--flows", flows]);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.stderr.contains("--flows"), "{outcome:?}");
    }
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
