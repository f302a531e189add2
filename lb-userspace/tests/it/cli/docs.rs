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

/// Whether there is a test `level::file::…::name`, or `rules file::name`.
fn is_there(path: &str) -> bool {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.replacen(' ', "::", 1);
    let (level, rest) = path.split_once("::").unwrap_or_default();
    let (modules, name) = rest.rsplit_once("::").unwrap_or(("", rest));
    let file = modules.replace("::", "/");
    let tests_of = |file: &str| file.strip_suffix("/tests").unwrap_or(file).to_owned();
    let places = [
        root.join(format!("../lb-common/tests/rules/{file}.rs")),
        root.join(format!("tests/it/{level}/{file}.rs")),
        // Beside the code: in its file, or in a file of its own.
        root.join(format!("src/{level}/{file}.rs")),
        root.join(format!("src/{level}/{}.rs", tests_of(&file))),
    ];
    let text = |place: &std::path::PathBuf| std::fs::read_to_string(place).unwrap_or_default();
    let lines = [format!("fn {name}()"), format!("async fn {name}()")];
    places.iter().any(|place| {
        let text = text(place);
        text.lines().any(|line| lines.iter().any(|it| line.trim().starts_with(it.as_str())))
    })
}

#[test]
fn the_tests_that_kubernetes_md_names_are_there() {
    let text = include_str!("../../../../docs/kubernetes.md");
    let levels =
        ["rules ", "cluster::", "cli::", "packet::", "netns::", "kube::", "plan::", "config::"];
    let quoted = text.split('`').skip(1).step_by(2);
    let named: Vec<&str> =
        quoted.filter(|it| levels.iter().any(|level| it.starts_with(level))).collect();
    assert!(named.len() > 60, "{named:?}");
    let lost: Vec<_> = named.into_iter().filter(|path| !is_there(path)).collect();
    assert_eq!(lost, [""; 0]);
}

#[test]
fn documents_that_are_made_from_the_code_are_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let made = super::lb(&["docs", folder.path().to_str().unwrap()]);
    assert_eq!(made.code, 0, "{made:?}");
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for name in ["cli.md", "configuration.md", "metrics.md"] {
        let read = |folder: &std::path::Path| std::fs::read_to_string(folder.join(name)).unwrap();
        let is_same = read(folder.path()) == read(&docs);
        assert!(is_same, "docs/{name} is out of date: run `lb docs docs`");
    }
}

#[test]
fn every_verb_has_a_man_page_with_its_flags_and_every_key_a_row() {
    let folder = tempfile::tempdir().unwrap();
    super::lb(&["docs", folder.path().to_str().unwrap()]);
    for (verb, flags) in super::verbs::verbs() {
        let page = folder.path().join(format!("man/lb-{}.1", verb.replace(' ', "-")));
        let text = std::fs::read_to_string(&page);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".TH"), "{}", page.display());
        // As roff writes dashes.
        let text = text.replace("\\-", "-");
        for flag in flags {
            assert!(text.contains(&format!("--{flag}")), "--{flag} in {}", page.display());
        }
    }
    let keys = super::lb(&["agent", "--print-config"]).stdout;
    let keys = keys
        .lines()
        .filter(|line| !line.starts_with([' ', '-']))
        .map(|line| line.split(':').next().unwrap().to_owned());
    let rows = std::fs::read_to_string(folder.path().join("configuration.md")).unwrap();
    for key in keys {
        assert!(rows.contains(&format!("| `{key}` |")), "{key}\n{rows}");
    }
}

#[test]
fn alerts_ask_for_metrics_that_exist_and_lead_to_a_runbook() {
    let read = |path: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(root.join(path)).unwrap()
    };
    let (rules, runbook) = (read("deploy/monitoring/alerts.yaml"), read("docs/operations.md"));
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 8);
    for alert in alerts {
        assert!(runbook.contains(&format!("### {alert}\n")), "{alert}");
        let anchor = format!("docs/operations.md#{}", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{anchor}");
    }
    let known: Vec<_> = lb_userspace::observe::metrics::METRICS
        .iter()
        .map(lb_userspace::observe::metrics::Metric::full_name)
        .collect();
    for expression in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        let words =
            expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        for name in words.filter(|word| word.starts_with("lb_")) {
            let base = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(known.iter().any(|metric| metric == base), "{name}");
        }
    }
}
