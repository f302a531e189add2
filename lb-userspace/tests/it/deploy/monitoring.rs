//! Alert rules and dashboard: Prometheus' own tool judges them, and they ask for what there is.

use std::collections::BTreeSet;

use lb_userspace::observe::metrics::{Kind, METRICS, Metric};
use serde_json::Value;

use super::{manifests::documents, printed, read, tool};

const RULES: &str = "deploy/monitoring/alerts.yaml";

fn rules() -> Vec<Value> {
    documents(&read(RULES))[0]["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn prometheus_takes_the_rules_and_their_own_tests_pass() {
    let checked = printed(tool("promtool").args(["check", "rules", RULES]));
    assert!(checked.contains("SUCCESS: 8 rules found"), "{checked}");
    let tested =
        printed(tool("promtool").args(["test", "rules", "deploy/monitoring/alerts_test.yaml"]));
    assert!(tested.contains("SUCCESS"), "{tested}");
}

/// Such as fires, and such as does not: a rule that nobody saw in both states may be wrong in either.
#[test]
fn every_alert_is_seen_firing_and_silent_in_the_tests_of_the_rules() {
    let tests = &documents(&read("deploy/monitoring/alerts_test.yaml"))[0]["tests"];
    let mut seen = BTreeSet::new();
    for case in tests.as_array().unwrap() {
        for expectation in case["alert_rule_test"].as_array().unwrap() {
            let fires = expectation["exp_alerts"].as_array().is_some_and(|it| !it.is_empty());
            seen.insert((expectation["alertname"].as_str().unwrap().to_owned(), fires));
        }
    }
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap().to_owned();
        for fires in [true, false] {
            assert!(seen.contains(&(alert.clone(), fires)), "{alert}, fires: {fires}");
        }
    }
}

#[test]
fn every_alert_leads_to_a_section_of_the_runbook() {
    let runbook = read("docs/operations.md");
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(runbook.contains(&format!("\n### {alert}\n")), "{alert}");
        let anchor = format!("docs/operations.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], anchor.as_str());
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")));
    }
}

/// The metrics that an expression asks for, and the labels that it names beside each.
fn asked(expression: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = expression.split(|letter| !is_word(letter));
    words.filter(|word| word.starts_with("lb_")).map(str::to_owned).collect()
}

/// The names that a metric is scraped under.
fn scraped(metric: &Metric) -> Vec<String> {
    let name = metric.full_name();
    match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].map(|part| name.clone() + part).into(),
        Kind::Counter | Kind::Gauge | Kind::Info => vec![name],
    }
}

/// Every expression of the dashboard: of its panels and of its variables.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value.as_str() {
                        Some(text) if matches!(key.as_str(), "expr" | "query" | "definition") => {
                            found.push(text.to_owned());
                        }
                        _ => collect(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&serde_json::from_str(&read("deploy/grafana/lb.json")).unwrap(), &mut found);
    found
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are_and_the_dashboard_for_all() {
    let known: BTreeSet<String> = METRICS.iter().flat_map(scraped).collect();
    let rules: Vec<_> =
        rules().iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect();
    let on_board: BTreeSet<String> = dashboard().iter().flat_map(|text| asked(text)).collect();
    for name in rules.iter().flat_map(|text| asked(text)).chain(on_board.iter().cloned()) {
        assert!(known.contains(&name), "{name}: there is no such metric");
    }
    let documented = read("docs/metrics.md");
    for metric in METRICS {
        let name = metric.full_name();
        let shown = scraped(metric).iter().any(|name| on_board.contains(name));
        assert!(shown, "{name} has no panel");
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not documented");
    }
}

#[test]
fn the_dashboards_expressions_parse() {
    let mut text = String::from("groups:\n- name: dashboard\n  rules:\n");
    let expressions = dashboard().into_iter().filter(|text| !text.starts_with("label_values("));
    for (at, expression) in expressions.enumerate() {
        // What Grafana puts in.
        let filled = expression.replace("$__rate_interval", "5m");
        assert!(!filled.contains("$__"), "{filled}");
        let quoted = serde_json::to_string(&filled).unwrap();
        text += &format!("  - {{record: \"panel:{at}\", expr: {quoted}}}\n");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let checked = printed(tool("promtool").args(["check", "rules"]).arg(file.path()));
    assert!(checked.contains("rules found"), "{checked}");
}

#[test]
fn panels_do_not_overlap_and_each_says_what_it_shows() {
    let board: Value = serde_json::from_str(&read("deploy/grafana/lb.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title}: its id");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_i64().unwrap());
        assert!(x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies on another at {cell:?}");
        }
        let is_row = panel["type"] == "row";
        assert!(is_row || !panel["description"].as_str().unwrap_or_default().is_empty(), "{title}");
    }
}
