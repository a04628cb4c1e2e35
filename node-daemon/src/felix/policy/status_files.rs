//! Files that tell the CNI plugin whose policy is in the kernel.
//!
//! Routes of workloads are the plugin's own work, so policy is all that it waits for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::endpoint_status::{DIRECTORY, EndpointStatus, file_name, is_file_name};
use kernel::{directory, files};
use model::desired::policy::WorkloadPolicy;
use model::net::IfName;
use model::time::Timestamp;
use reconcile::{Backoff, Change, Table};

/// How often the directory is read though nothing happens.
const REREAD: Duration = Duration::from_secs(300);
/// How long to wait after failures.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };
/// How long a status file may be, in bytes; a longer one is written anew.
const LIMIT: u64 = 1 << 16;

/// The files of this node's workloads.
#[derive(Debug)]
pub(crate) struct StatusFiles {
    /// `None` if administrators want no files.
    directory: Option<PathBuf>,
    table: Table<String, String>,
    /// Is there something to be written that was not there before?
    is_wanted: bool,
}

impl StatusFiles {
    /// Starts with nothing wanted; `prefix` is `endpointStatusPathPrefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        let directory = (!prefix.is_empty()).then(|| Path::new(prefix).join(DIRECTORY));
        Self { directory, table: Table::new(BACKOFF), is_wanted: false }
    }

    /// Takes note of all workloads whose policy is in the kernel.
    pub(crate) fn want(&mut self, workloads: &BTreeMap<IfName, WorkloadPolicy>) {
        self.table.want_all(wanted(workloads));
        self.is_wanted = true;
    }

    /// Writes and deletes what is due.
    ///
    /// Nothing before the first [`StatusFiles::want`]: what an earlier life of this daemon has
    /// written is still true, as the kernel enforces on.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        let Some(directory) = self.directory.as_ref().filter(|_| self.is_wanted) else { return };
        if self.table.needs_list(now) {
            let listed =
                directory::make(directory).and_then(|()| directory::read(directory, LIMIT));
            match listed {
                Ok(mut found) => {
                    found.retain(|name, _| is_file_name(name));
                    self.table.listed(found, now + REREAD);
                }
                Err(error) => {
                    tracing::warn!(%error, "the CNI plugin is not told whose policy is in force");
                    self.table.listed(BTreeMap::new(), now + BACKOFF.longest);
                }
            }
        }
        for change in self.table.due(now) {
            let path = directory.join(change.key());
            let result = match &change {
                Change::Upsert(_, text) => files::publish(&path, text.as_bytes(), 0o644),
                Change::Delete(..) => files::delete(&path).map(drop),
            };
            match result {
                Ok(()) => self.table.succeeded(change),
                Err(error) => {
                    tracing::warn!(%error, "endpoint status not written, will be retried");
                    self.table.failed(change.key().clone(), now);
                }
            }
        }
    }

    /// Returns when [`StatusFiles::settle`] has something to do although nothing happens.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let is_used = self.is_wanted && self.directory.is_some();
        self.table.next_deadline().filter(|_| is_used)
    }
}

/// Returns the files that there should be, by name.
fn wanted(workloads: &BTreeMap<IfName, WorkloadPolicy>) -> BTreeMap<String, String> {
    let file = |(if_name, workload): (&IfName, &WorkloadPolicy)| {
        let status = EndpointStatus::new(if_name.as_str(), workload.mac, &workload.addrs);
        (file_name(&workload.endpoint), status.to_text())
    };
    workloads.iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::id::NamespacedName;

    use super::*;

    fn workloads(names: &[&str]) -> BTreeMap<IfName, WorkloadPolicy> {
        let workload = |name: &&str| {
            let policy = WorkloadPolicy {
                endpoint: NamespacedName { namespace: "red".to_owned(), name: (*name).to_owned() },
                addrs: vec!["10.0.0.1".parse().unwrap()],
                mac: None,
                allowed_sources: Vec::new(),
                controls: model::endpoint::Controls::default(),
                path: Arc::default(),
            };
            (format!("cali{name}").parse().unwrap(), policy)
        };
        names.iter().map(workload).collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        directory::read(directory, LIMIT).unwrap().into_keys().collect()
    }

    #[test]
    fn files_are_of_those_whose_policy_is_in_force() {
        let prefix = tempfile::tempdir().unwrap();
        let mut status = StatusFiles::new(prefix.path().to_str().unwrap());
        let path = prefix.path().join(DIRECTORY);
        directory::make(&path).unwrap();
        let old = [("k8s red%2Fgone eth0", ""), ("notes", "not ours")];
        for (name, text) in old {
            std::fs::write(path.join(name), text).unwrap();
        }
        status.settle(Timestamp::ZERO);
        assert_eq!(names(&path), ["k8s red%2Fgone eth0", "notes"], "nothing is in force yet");
        status.want(&workloads(&["a", "b"]));
        status.settle(Timestamp::ZERO);
        assert_eq!(names(&path), ["k8s red%2Fa eth0", "k8s red%2Fb eth0", "notes"]);
        status.want(&workloads(&["b"]));
        status.settle(Timestamp::ZERO);
        assert_eq!(names(&path), ["k8s red%2Fb eth0", "notes"]);
    }

    #[test]
    fn no_prefix_is_no_files() {
        let mut status = StatusFiles::new("");
        status.want(&workloads(&["a"]));
        status.settle(Timestamp::ZERO);
        assert_eq!(status.next_deadline(), None);
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let prefix = tempfile::tempdir().unwrap();
        let path = prefix.path().join(DIRECTORY);
        std::fs::write(&path, "in the way").unwrap();
        let mut status = StatusFiles::new(prefix.path().to_str().unwrap());
        status.want(&workloads(&["a"]));
        status.settle(Timestamp::ZERO);
        let due = status.next_deadline().unwrap();
        assert!(due > Timestamp::ZERO);
        std::fs::remove_file(&path).unwrap();
        directory::make(&path).unwrap();
        status.settle(due);
        assert_eq!(names(&path), ["k8s red%2Fa eth0"]);
    }
}
