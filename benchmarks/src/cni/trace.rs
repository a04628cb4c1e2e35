//! What the plugins say of themselves: round trips, and where the time went.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A line of the file that `CALICO_CNI_TRACE` names.
#[derive(Debug, Deserialize)]
struct Record {
    command: String,
    requests: u64,
    phases_ms: BTreeMap<String, f64>,
    total_ms: f64,
    code: u32,
}

/// What the calls of one command have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Calls {
    /// How many there were.
    pub(crate) count: usize,
    /// How many of them failed.
    pub(crate) failed: usize,
    /// The fewest round trips of a call.
    pub(crate) requests_least: u64,
    /// The most.
    pub(crate) requests_most: u64,
    /// How long each phase took, half of the time.
    pub(crate) phases_p50_ms: BTreeMap<String, f64>,
    /// How long it took from the start of `main` to the answer, half of the time.
    pub(crate) inside_p50_ms: f64,
}

/// Summarises such a file, per command.
///
/// Lines that are no records are passed over: the file is for people, too.
#[must_use]
pub(crate) fn summarise(text: &str) -> BTreeMap<String, Calls> {
    let mut commands: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
        commands.entry(record.command.clone()).or_default().push(record);
    }
    commands.into_iter().map(|(command, records)| (command, summary(&records))).collect()
}

fn summary(records: &[Record]) -> Calls {
    let mut phases: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (phase, took) in records.iter().flat_map(|record| &record.phases_ms) {
        phases.entry(phase.clone()).or_default().push(*took);
    }
    let requests = || records.iter().map(|record| record.requests);
    Calls {
        count: records.len(),
        failed: records.iter().filter(|record| record.code != 0).count(),
        requests_least: requests().min().unwrap_or_default(),
        requests_most: requests().max().unwrap_or_default(),
        phases_p50_ms: phases.into_iter().map(|(phase, all)| (phase, p50(all))).collect(),
        inside_p50_ms: p50(records.iter().map(|record| record.total_ms).collect()),
    }
}

fn p50(mut millis: Vec<f64>) -> f64 {
    millis.sort_unstable_by(f64::total_cmp);
    millis.get(millis.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn phases_and_requests_are_summarised_per_command() {
        let text = concat!(
            r#"{"command":"ADD","requests":4,"phases_ms":{"read":2.0,"wire":3.0},"total_ms":6.0,"code":0}"#,
            "\nnoise\n",
            r#"{"command":"ADD","requests":5,"phases_ms":{"read":4.0},"total_ms":8.0,"code":11}"#,
            "\n",
            r#"{"command":"DEL","requests":2,"phases_ms":{},"total_ms":1.5,"code":0}"#,
        );
        let expected = json!({
            "ADD": {
                "count": 2, "failed": 1, "requests_least": 4, "requests_most": 5,
                "phases_p50_ms": {"read": 2.0, "wire": 3.0}, "inside_p50_ms": 6.0,
            },
            "DEL": {
                "count": 1, "failed": 0, "requests_least": 2, "requests_most": 2,
                "phases_p50_ms": {}, "inside_p50_ms": 1.5,
            },
        });
        assert_eq!(serde_json::to_value(summarise(text)).unwrap(), expected);
    }
}
