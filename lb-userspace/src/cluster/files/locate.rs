//! The line of a field, found by walking a document a second time.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// The line on which the field at `path` (`items[2].spec.ports[0].port`) stands, or the line of
/// the last part of the path that the document has.
pub(super) fn line_of(document: &str, path: &str) -> Option<u64> {
    let steps: Vec<&str> = path.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
    (0..=steps.len()).rev().find_map(|length| {
        serde_saphyr::with_deserializer_from_str_with_options(
            document,
            super::document::options(),
            |deserializer| Walk(&steps[..length]).deserialize(deserializer),
        )
        .ok()
        .flatten()
    })
}

/// Descends along the steps and answers with the line it ends on.
#[derive(Clone, Copy)]
struct Walk<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            let here = <Spanned<IgnoredAny> as serde::Deserialize>::deserialize(deserializer)?;
            return Ok(Some(here.referenced.line()));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "something that has `{}`", self.0[0])
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0[0] && found.is_none() {
                found = map.next_value_seed(Walk(&self.0[1..]))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let wanted: Option<usize> = self.0[0].parse().ok();
        let mut found = None;
        for index in 0.. {
            let more = if wanted == Some(index) {
                seq.next_element_seed(Walk(&self.0[1..]))?.map(|line| found = line).is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "kind: List\nitems:\n- kind: A\n- kind: B\n  spec:\n    ports:\n    - name: x\n      port: 1\n";

    #[test]
    fn a_field_deep_in_a_list_is_found() {
        assert_eq!(line_of(LIST, "items[1].spec.ports[0].port"), Some(8));
    }

    #[test]
    fn a_field_that_is_missing_is_placed_where_it_should_have_been() {
        assert_eq!(line_of(LIST, "items[1].spec.clusterIP"), Some(6));
    }
}
