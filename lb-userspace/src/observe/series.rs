//! Metrics at one time, as plain values, and how they are written.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    Histogram,
    metrics::{Kind, Metric},
};

/// A label and its value.
pub type Label = (&'static str, String);

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
    Info,
}

/// Every series at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Vec<(&'static str, Vec<Label>, Value)>);

impl Snapshot {
    /// Adds a series of a metric, by the name that [`Metric::find`] knows.
    pub fn put(&mut self, name: &'static str, labels: Vec<Label>, value: Value) {
        debug_assert!(Metric::find(name).is_some(), "{name} is undocumented");
        self.0.push((name, labels, value));
    }

    /// Adds a count.
    pub fn counter(&mut self, name: &'static str, labels: Vec<Label>, count: u64) {
        self.put(name, labels, Value::Counter(count));
    }

    /// Adds a number that goes up and down.
    pub fn gauge(&mut self, name: &'static str, labels: Vec<Label>, value: f64) {
        self.put(name, labels, Value::Gauge(value));
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As OpenMetrics text.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn into_text(mut self) -> Result<String, fmt::Error> {
        self.0.sort_by_key(|(name, ..)| *name);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.0.chunk_by(|a, b| a.0 == b.0) {
            let Some(metric) = Metric::find(family[0].0) else { continue };
            let Metric { help, kind, .. } = metric;
            let name = metric.base_name();
            let kind = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(&name, help, None, kind)?;
            for (_, labels, value) in family {
                match (labels.as_slice(), value) {
                    (labels, Value::Info) => metric.encode_info(&labels)?,
                    ([], value) => write(&mut metric, value)?,
                    (labels, value) => write(&mut metric.encode_family(&labels)?, value)?,
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &mut MetricEncoder<'_>, value: &Value) -> Result<(), fmt::Error> {
    match value {
        Value::Counter(count) => metric.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Gauge(value) => metric.encode_gauge(value),
        Value::Histogram(histogram) => {
            let (sum, count, buckets) = histogram.parts();
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
        // Written with its labels, which are all there is of it.
        Value::Info => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn series_are_written_by_family_and_labels_are_escaped() {
        let mut snapshot = Snapshot::default();
        let reason = |label: &str| vec![("reason", label.to_owned())];
        snapshot.counter("drops", reason("no-route"), 3);
        snapshot.gauge("map_entries", vec![("map", "ARENA".into())], 7.0);
        snapshot.counter("drops", reason("a\"b"), 4);
        let mut took = Histogram::default();
        took.put(Duration::from_millis(3));
        snapshot.put("sync_duration_seconds", vec![], Value::Histogram(took));
        snapshot.put("build", vec![("version", "1".into())], Value::Info);
        let text = snapshot.into_text().unwrap();
        for line in [
            "# TYPE lb_drops counter",
            "lb_drops_total{reason=\"no-route\"} 3",
            "lb_drops_total{reason=\"a\\\"b\"} 4",
            "lb_map_entries{map=\"ARENA\"} 7.0",
            "lb_sync_duration_seconds_bucket{le=\"0.005\"} 1",
            "lb_sync_duration_seconds_bucket{le=\"+Inf\"} 1",
            "lb_sync_duration_seconds_count 1",
            "lb_build_info{version=\"1\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE lb_drops ").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }
}
