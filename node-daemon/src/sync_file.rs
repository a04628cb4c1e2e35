//! The file that tells the CNI plugin whether this node is in sync ([`api::daemon_status`]).

use std::path::Path;

use api::daemon_status::{DaemonStatus, FILE, WRITTEN_EVERY, uptime};
use kernel::files;
use tokio::sync::watch;

use crate::felix::policy;
use crate::felix::run::Status;

/// Writes the file below `prefix` whenever something changes, and now and then; an empty prefix
/// means that administrators want no files.
pub(crate) async fn run(
    prefix: String,
    mut routes: watch::Receiver<Status>,
    mut policy: watch::Receiver<policy::run::Status>,
) {
    if prefix.is_empty() {
        return;
    }
    let path = Path::new(&prefix).join(FILE);
    let mut last = DaemonStatus::default();
    loop {
        let reason = reason(&routes.borrow_and_update(), &policy.borrow_and_update());
        if let Some(now) = now() {
            let next = next(&last, reason, now);
            if next != last {
                write(&path, &next);
                last = next;
            }
        }
        let changed = async {
            tokio::select! {
                changed = routes.changed() => changed.is_ok(),
                changed = policy.changed() => changed.is_ok(),
            }
        };
        if tokio::time::timeout(WRITTEN_EVERY, changed).await == Ok(false) {
            return;
        }
    }
}

/// Returns what is missing, in words; empty if nothing is.
fn reason(routes: &Status, policy: &policy::run::Status) -> String {
    let waiting = |what: &str| format!("waiting for the datastore: {what}");
    if !routes.is_in_sync {
        return waiting(&routes.unsynced);
    }
    if !policy.is_in_sync {
        return waiting(&policy.unsynced);
    }
    if !routes.has_applied {
        return "routes are not in the kernel yet".to_owned();
    }
    if !policy.has_applied {
        return "policy is not in the kernel yet".to_owned();
    }
    match routes.failing_routes {
        0 => String::new(),
        count => format!("{count} routes refused by the kernel"),
    }
}

/// Returns what the file should say at `now`, when it last said `last`: the same, as long as
/// that is not old and still true.
fn next(last: &DaemonStatus, reason: String, now: u64) -> DaemonStatus {
    let in_sync = reason.is_empty();
    let is_first = last.at == 0;
    let is_turned = is_first || last.in_sync != in_sync;
    let age = now.saturating_sub(last.at);
    if !is_turned && last.reason == reason && age < WRITTEN_EVERY.as_secs() {
        return last.clone();
    }
    let since = if is_turned { now } else { last.since };
    DaemonStatus { at: now, in_sync, since, reason }
}

fn now() -> Option<u64> {
    uptime(&std::fs::read_to_string("/proc/uptime").ok()?)
}

fn write(path: &Path, status: &DaemonStatus) {
    if let Err(error) = files::publish(path, status.to_text().as_bytes(), 0o644) {
        tracing::debug!(%error, "CNI STATUS will not know whether this node is in sync");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_since_when() {
        let first = next(&DaemonStatus::default(), "x".to_owned(), 100);
        assert_eq!((first.at, first.in_sync, first.since), (100, false, 100));
        let other = next(&first, "y".to_owned(), 110);
        assert_eq!((other.at, other.since, other.reason.as_str()), (110, 100, "y"));
        let well = next(&other, String::new(), 120);
        assert_eq!((well.in_sync, well.since), (true, 120));
        assert_eq!(next(&well, String::new(), 149), well, "nothing new is not written");
        let later = next(&well, String::new(), 150);
        assert_eq!((later.at, later.since), (150, 120));
    }

    #[test]
    fn routes_and_policy_must_both_be_there() {
        let mut routes = Status { unsynced: "Pools".to_owned(), ..Status::default() };
        let mut policy = policy::run::Status::default();
        assert_eq!(reason(&routes, &policy), "waiting for the datastore: Pools");
        (routes.is_in_sync, policy.is_in_sync, routes.has_applied) = (true, true, true);
        assert_eq!(reason(&routes, &policy), "policy is not in the kernel yet");
        policy.has_applied = true;
        assert_eq!(reason(&routes, &policy), "");
        routes.failing_routes = 2;
        assert_eq!(reason(&routes, &policy), "2 routes refused by the kernel");
    }
}
