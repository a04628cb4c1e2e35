//! The file by which calico-node tells the CNI plugin whether this node is in sync.
//!
//! Differs from Calico, which has no such file and whose plugin has no STATUS.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The file's name, below `endpointStatusPathPrefix`.
pub const FILE: &str = "node-status.json";

/// How often calico-node writes it.
pub const WRITTEN_EVERY: Duration = Duration::from_secs(30);

/// How long calico-node may be away or out of sync before containers may suffer from it.
///
/// Long enough for a new version to start: a runtime that says meanwhile that the network is not
/// ready makes the node `NotReady`, and its pods are taken out of all Services.
const PATIENCE: Duration = Duration::from_secs(180);

/// What such a file says. Times are seconds since the machine was started, which no clock's
/// step changes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonStatus {
    /// When it was written.
    pub at: u64,
    /// Are routes and policy in the kernel as the datastore has them?
    pub in_sync: bool,
    /// Since when.
    pub since: u64,
    /// What is missing; empty if nothing is.
    #[serde(default)]
    pub reason: String,
}

impl DaemonStatus {
    /// Returns the text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns why existing containers may suffer, if they may; `now` as the times above.
    ///
    /// A file from before the machine was started anew says nothing.
    #[must_use]
    pub fn trouble(&self, now: u64) -> Option<String> {
        let age = |then: u64| now.checked_sub(then).map(Duration::from_secs);
        let (at, since) = (age(self.at)?, age(self.since)?);
        if at > PATIENCE {
            let secs = at.as_secs();
            return Some(format!(
                "calico-node on this node was last heard of {secs} s ago, so that routes and \
                 policy may be out of date: see why its pod does not run"
            ));
        }
        if !self.in_sync && since > PATIENCE {
            let (secs, reason) = (since.as_secs(), &self.reason);
            return Some(format!(
                "calico-node on this node has not been in sync for {secs} s ({reason}), so that \
                 routes and policy may be out of date: see its log"
            ));
        }
        None
    }
}

/// Returns how long the machine runs, in seconds, as `/proc/uptime` has it.
#[must_use]
pub fn uptime(proc_uptime: &str) -> Option<u64> {
    proc_uptime.split(['.', ' ']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_of_calico_node_is_no_trouble() {
        let status = |at, in_sync, since| {
            let reason = "waiting for Pools".to_owned();
            DaemonStatus { at, in_sync, since, reason }
        };
        assert_eq!(status(1000, true, 10).trouble(1100), None);
        assert_eq!(status(1000, false, 990).trouble(1010), None);
        assert_eq!(status(5000, true, 10).trouble(100), None, "of an earlier life of the machine");
        let away = status(1000, true, 10).trouble(1181).unwrap();
        assert!(away.contains("181 s ago"), "{away}");
        let behind = status(1190, false, 1000).trouble(1200).unwrap();
        assert!(behind.contains("200 s (waiting for Pools)"), "{behind}");
    }

    #[test]
    fn the_file_and_the_uptime_are_read() {
        let status = DaemonStatus { at: 7, in_sync: true, since: 5, reason: String::new() };
        let text = status.to_text();
        assert_eq!(text, r#"{"at":7,"inSync":true,"since":5,"reason":""}"#);
        assert_eq!(serde_json::from_str::<DaemonStatus>(&text).unwrap(), status);
        assert_eq!(uptime("350735.47 234388.90\n"), Some(350_735));
        assert_eq!(uptime("x"), None);
    }
}
