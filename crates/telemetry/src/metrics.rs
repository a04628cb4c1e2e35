//! Numbers for Prometheus, under exactly the names that they are given.
//!
//! The text is that of the Prometheus exposition format 0.0.4, as Calico's programs send it. In
//! `OpenMetrics` every counter would have to end in `_total`, which Calico's do not.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry as Inner};

/// A number that only grows.
pub type Counter = prometheus_client::metrics::counter::Counter;
/// A whole number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;
/// A number that goes up and down.
pub type FloatGauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;
/// A count of values by size.
pub type Histogram = prometheus_client::metrics::histogram::Histogram;
/// The labels of one number of a family: names and values, always in the same order.
pub type Labels = Vec<(&'static str, String)>;
/// Counters that differ in their labels.
pub type Counters = Family<Labels, Counter>;
/// Gauges that differ in their labels.
pub type Gauges = Family<Labels, Gauge>;

/// The content type of [`Registry::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Values that a [`Summary`] looks back on.
const WINDOW: usize = 1024;

/// The quantiles that Calico's summaries report.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// All numbers of a program; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    registry: Inner,
    summaries: Vec<(String, String, Summary)>,
}

/// Quantiles of the last 1024 values, and the sum and number of all.
#[derive(Clone, Debug, Default)]
pub struct Summary(Arc<Mutex<Observed>>);

#[derive(Debug, Default)]
struct Observed {
    last: VecDeque<f64>,
    sum: f64,
    count: u64,
}

impl Registry {
    /// Returns a registry without numbers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a counter; `help` is a phrase without a full stop.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// Adds a gauge of whole numbers.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// Adds a gauge.
    #[must_use]
    pub fn float_gauge(&self, name: &str, help: &str) -> FloatGauge {
        self.register(name, help, FloatGauge::default())
    }

    /// Adds a histogram with these upper `bounds`, in growing order.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        let buckets = Histogram::new(bounds.iter().copied());
        self.register(name, help, buckets)
    }

    /// Adds counters that differ in their labels.
    #[must_use]
    pub fn counters(&self, name: &str, help: &str) -> Counters {
        self.register(name, help, Counters::default())
    }

    /// Adds gauges that differ in their labels.
    #[must_use]
    pub fn gauges(&self, name: &str, help: &str) -> Gauges {
        self.register(name, help, Gauges::default())
    }

    /// Adds a summary.
    #[must_use]
    pub fn summary(&self, name: &str, help: &str) -> Summary {
        let summary = Summary::default();
        self.contents().summaries.push((name.to_owned(), help.to_owned(), summary.clone()));
        summary
    }

    /// Returns all numbers as text of type [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let contents = self.contents();
        let mut open_metrics = String::new();
        // Writing to a string does not fail.
        let _ = text::encode_registry(&mut open_metrics, &contents.registry);
        let mut encoded = plain(&open_metrics);
        for (name, help, summary) in &contents.summaries {
            let _ = summary.encode(&mut encoded, name, help);
        }
        encoded
    }

    fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.contents().registry.register(name, help, metric.clone());
        metric
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Summary {
    /// Adds a value.
    pub fn observe(&self, value: f64) {
        let mut observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if observed.last.len() >= WINDOW {
            observed.last.pop_front();
        }
        observed.last.push_back(value);
        observed.sum += value;
        observed.count = observed.count.saturating_add(1);
    }

    fn encode(&self, text: &mut String, name: &str, help: &str) -> std::fmt::Result {
        let observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<_> = observed.last.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        writeln!(text, "# HELP {name} {help}.\n# TYPE {name} summary")?;
        for quantile in QUANTILES {
            let value = at(&sorted, quantile).unwrap_or(f64::NAN);
            writeln!(text, "{name}{{quantile=\"{quantile}\"}} {value}")?;
        }
        writeln!(text, "{name}_sum {}\n{name}_count {}", observed.sum, observed.count)
    }
}

/// Returns the value that this share of the `sorted` values does not exceed.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "there are at most 1024 values, and the product lies between 0 and their number"
)]
fn at(sorted: &[f64], quantile: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Turns `OpenMetrics` into the older text form: the `_total` that the encoder appends to the
/// samples of a counter goes, and so do the units that only `OpenMetrics` has.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut counter = None;
    for line in open_metrics.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            counter = declared.strip_suffix(" counter").map(|name| format!("{name}_total"));
        }
        let sample = counter.as_deref().and_then(|suffixed| {
            let rest = line.strip_prefix(suffixed)?;
            let name = suffixed.strip_suffix("_total")?;
            rest.starts_with([' ', '{']).then(|| format!("{name}{rest}"))
        });
        match sample {
            Some(sample) => text.push_str(&sample),
            None if line.starts_with("# UNIT ") => continue,
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exactly_as_given() {
        let registry = Registry::new();
        registry.counter("felix_resyncs_started", "Resyncs started").inc();
        registry.counter("process_cpu_seconds_total", "Seconds of processor time").inc_by(2);
        registry.gauge("felix_active_local_endpoints", "Endpoints on this node").set(3);
        registry.float_gauge("felix_ratio", "A share").set(0.5);
        let calls = registry.counters("felix_ipset_calls", "Calls");
        calls.get_or_create(&vec![("result", "ok".to_owned())]).inc_by(7);
        assert_eq!(
            registry.encode(),
            "# HELP felix_resyncs_started Resyncs started.\n\
             # TYPE felix_resyncs_started counter\n\
             felix_resyncs_started 1\n\
             # HELP process_cpu_seconds_total Seconds of processor time.\n\
             # TYPE process_cpu_seconds_total counter\n\
             process_cpu_seconds_total 2\n\
             # HELP felix_active_local_endpoints Endpoints on this node.\n\
             # TYPE felix_active_local_endpoints gauge\n\
             felix_active_local_endpoints 3\n\
             # HELP felix_ratio A share.\n\
             # TYPE felix_ratio gauge\n\
             felix_ratio 0.5\n\
             # HELP felix_ipset_calls Calls.\n\
             # TYPE felix_ipset_calls counter\n\
             felix_ipset_calls{result=\"ok\"} 7\n"
        );
    }

    #[test]
    fn a_histogram_counts_by_upper_bound() {
        let registry = Registry::new();
        let histogram = registry.histogram("apply_seconds", "Time", &[0.1, 1.0]);
        histogram.observe(0.05);
        histogram.observe(5.0);
        let text = registry.encode();
        for line in [
            "# TYPE apply_seconds histogram",
            "apply_seconds_bucket{le=\"0.1\"} 1",
            "apply_seconds_bucket{le=\"+Inf\"} 2",
            "apply_seconds_sum 5.05",
            "apply_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_summary_looks_back_on_a_window_and_sums_everything() {
        let registry = Registry::new();
        let summary = registry.summary("felix_exec_time_micros", "Time of programs");
        (0..WINDOW).for_each(|_| summary.observe(1000.0));
        (1..=WINDOW).for_each(|value| summary.observe(f64::from(u32::try_from(value).unwrap())));
        let text = registry.encode();
        for line in [
            "# TYPE felix_exec_time_micros summary",
            "felix_exec_time_micros{quantile=\"0.5\"} 512",
            "felix_exec_time_micros{quantile=\"0.99\"} 1014",
            "felix_exec_time_micros_count 2048",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn an_empty_summary_has_no_quantile() {
        let registry = Registry::new();
        let _summary = registry.summary("idle", "Nothing");
        assert!(registry.encode().contains("idle{quantile=\"0.9\"} NaN\n"));
    }
}
