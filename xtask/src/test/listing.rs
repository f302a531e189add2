//! `cargo nextest list --message-format json`.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

/// The tests that match the filter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) tests: usize,
    /// Names of those marked `#[ignore]`.
    pub(super) ignored: Vec<String>,
}

pub(super) fn parse(json: &str) -> Result<Listing> {
    let listing: Value = serde_json::from_str(json)?;
    let mut found = Listing::default();
    for (_, suite) in object(&listing, "rust-suites")? {
        for (name, test) in object(suite, "testcases")? {
            if test["filter-match"]["status"] != "matches" {
                continue;
            }
            found.tests += 1;
            if test["ignored"].as_bool().context("a test without `ignored`")? {
                found.ignored.push(name.clone());
            }
        }
    }
    Ok(found)
}

fn object<'a>(value: &'a Value, key: &str) -> Result<&'a Map<String, Value>> {
    value[key].as_object().with_context(|| format!("no object `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_match_are_counted_and_ignored_ones_named() {
        let json = r#"{"rust-suites": {"lb-userspace::it": {"testcases": {
            "kube::a": {"ignored": false, "filter-match": {"status": "matches"}},
            "kube::b": {"ignored": true, "filter-match": {"status": "matches"}},
            "netns::c": {"ignored": true, "filter-match": {"status": "mismatch"}}}},
          "lb-common": {"testcases": {}}}}"#;
        let expected = Listing { tests: 2, ignored: vec!["kube::b".to_owned()] };
        assert_eq!(parse(json).unwrap(), expected);
    }

    #[test]
    fn another_format_is_an_error_and_not_zero_tests() {
        assert!(parse("{}").is_err());
        assert!(parse(r#"{"rust-suites": {"a": {}}}"#).is_err());
    }
}
