//! What the kubelet's probes are told, and how they ask.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use model::id::NodeName;
use telemetry::health::{Aggregator, Health, Reporter};
use tokio::sync::watch;

use crate::arguments::Probe;
use crate::bgp::Snapshot;
use crate::felix::policy;
use crate::felix::run::Status;

/// How long a part may be silent before the node counts as stuck.
const SILENCE: Duration = Duration::from_secs(60);
/// How often BGP's state is told though nothing changed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a probe waits for an answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells the aggregator how routes are, until they are no longer looked after.
///
/// A loop that hangs tells nothing any more, and the aggregator takes it for dead.
pub(crate) async fn of_felix(aggregator: Aggregator, mut status: watch::Receiver<Status>) {
    let reporter = aggregator.register("felix", Some(SILENCE));
    reporter.report(Health::NotReady("not started".to_owned()));
    while status.changed().await.is_ok() {
        let health = felix(&status.borrow_and_update());
        reporter.report(health);
    }
    reporter.report(Health::Dead("the loop that programs routes has ended".to_owned()));
}

fn felix(status: &Status) -> Health {
    if !status.is_in_sync {
        return Health::NotReady(format!("waiting for the datastore: {}", status.unsynced));
    }
    if !status.has_applied {
        return Health::NotReady("routes are not in the kernel yet".to_owned());
    }
    if status.failing_routes > 0 {
        let count = status.failing_routes;
        return Health::NotReady(format!("{count} routes refused by the kernel; see the log"));
    }
    Health::Ready
}

/// Tells the aggregator how policy is, until it is no longer looked after.
pub(crate) async fn of_policy(
    aggregator: Aggregator,
    mut status: watch::Receiver<policy::run::Status>,
) {
    let reporter = aggregator.register("policy", Some(SILENCE));
    reporter.report(Health::NotReady("not started".to_owned()));
    while status.changed().await.is_ok() {
        let health = enforced(&status.borrow_and_update());
        reporter.report(health);
    }
    reporter.report(Health::Dead("the loop that programs policy has ended".to_owned()));
}

/// A node serves once policy has been in force; what goes wrong later closes doors and opens none.
fn enforced(status: &policy::run::Status) -> Health {
    if !status.is_in_sync {
        return Health::NotReady(format!("waiting for the datastore: {}", status.unsynced));
    }
    if !status.has_applied {
        return Health::NotReady("policy is not in the kernel yet".to_owned());
    }
    Health::Ready
}

/// Tells the aggregator how BGP is, until the speaker ends.
pub(crate) async fn of_bgp(aggregator: Aggregator, mut status: watch::Receiver<Snapshot>) {
    let reporter: Reporter = aggregator.register("bgp", Some(SILENCE));
    loop {
        let health = bgp(&status.borrow_and_update().status);
        reporter.report(health);
        let change = tokio::time::timeout(HEARTBEAT, status.changed()).await;
        if matches!(change, Ok(Err(_))) {
            reporter.report(Health::Dead("the BGP speaker has ended".to_owned()));
            return;
        }
    }
}

/// A node serves if routes have been exchanged and not every peer is away: one
/// dead peer is the peer's trouble.
fn bgp(status: &bgp::Status) -> Health {
    let established =
        status.peers.iter().filter(|peer| peer.state == bgp::State::Established).count();
    let all = status.peers.len();
    if !status.has_converged {
        return Health::NotReady(format!("exchanging routes, {established} of {all} peers up"));
    }
    if established == 0 && all > 0 {
        return Health::NotReady(format!("none of {all} BGP peers is up"));
    }
    Health::Ready
}

/// Asks a running daemon's health endpoint; returns whether it is well, and its words.
///
/// # Errors
///
/// The reason why there is no answer.
pub(crate) fn ask(host: &str, port: u16, probe: Probe) -> std::io::Result<(bool, String)> {
    let path = match probe {
        Probe::Liveness => "/liveness",
        Probe::Readiness => "/readiness",
    };
    let mut stream = TcpStream::connect((host, port))?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let is_good = head.split_whitespace().nth(1).is_some_and(|code| code.starts_with('2'));
    Ok((is_good, body.trim().to_owned()))
}

/// Tells Kubernetes that this node's network works, once it does.
pub(crate) async fn announce_up(
    client: datastore::Client,
    node: NodeName,
    mut status: watch::Receiver<Status>,
) {
    if status.wait_for(|status| status.has_applied).await.is_err() {
        return;
    }
    let up = crate::startup::Availability::Up;
    while let Err(error) = crate::startup::announce(&client, node.as_str(), up).await {
        tracing::warn!(%error, "cannot set the node's condition NetworkUnavailable to false");
        tokio::time::sleep(HEARTBEAT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_its_routes_are_in_the_kernel() {
        let mut status = Status { unsynced: "Pools".to_owned(), ..Status::default() };
        assert_eq!(felix(&status), Health::NotReady("waiting for the datastore: Pools".to_owned()));
        status.is_in_sync = true;
        assert!(matches!(felix(&status), Health::NotReady(_)));
        status.has_applied = true;
        assert_eq!(felix(&status), Health::Ready);
        status.failing_routes = 1;
        assert!(matches!(felix(&status), Health::NotReady(_)));
    }

    #[test]
    fn bgp_is_ready_without_peers_once_it_has_converged() {
        let mut status = bgp::Status::default();
        assert!(matches!(bgp(&status), Health::NotReady(_)));
        status.has_converged = true;
        assert_eq!(bgp(&status), Health::Ready);
    }
}
