//! Clients that get addresses for containers and give them back, by the plugin's own library.
//!
//! What is not measured is what a process adds: its start and its connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datastore::{Client, Options};
use ipam::Selectors;
use ipam_plugin::add::{AddRequest, add};
use ipam_plugin::delete::delete;
use ipam_plugin::holder::Holder;
use lab::Error;
use ledger::{Driver, HostLock, Wanted};
use model::id::NodeName;
use model::net::Family;
use tokio::task::JoinSet;

use crate::statistics::{Summary, per_second};

/// Who wants how much.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The nodes; clients and containers are spread over them.
    pub(super) nodes: Vec<String>,
    /// The clients, each with a connection of its own.
    pub(super) clients: usize,
    /// The addresses, one for a container each.
    pub(super) addresses: usize,
}

/// What clients managed.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
    pub(crate) add: Part,
    pub(crate) del: Part,
}

/// One command of many containers.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) per_second: f64,
    pub(crate) summary: Summary,
    /// Requests to the API server: half of the commands needed no more.
    pub(crate) requests_p50: u64,
    /// The most that one command needed.
    pub(crate) requests_max: u64,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Add,
    Del,
}

/// Assigns addresses to containers, then releases them.
pub(super) async fn measure(kubeconfig: &Path, locks: &Path, shape: Shape) -> Result<Load, Error> {
    let mut clients = Vec::new();
    for _ in 0..shape.clients {
        clients.push(Client::connect(&Options::kubeconfig(kubeconfig)).map_err(Error::wrong)?);
    }
    let add = part(&clients, locks, &shape, Command::Add).await?;
    let del = part(&clients, locks, &shape, Command::Del).await?;
    Ok(Load { nodes: shape.nodes.len(), clients: shape.clients, add, del })
}

async fn part(
    clients: &[Client],
    locks: &Path,
    shape: &Shape,
    command: Command,
) -> Result<Part, Error> {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for client in clients {
        let client = client.clone();
        let (next, locks, shape) = (Arc::clone(&next), locks.to_owned(), shape.clone());
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= shape.addresses {
                    return Ok::<_, Error>(took);
                }
                took.push(one(&client, &locks, (&shape, number), command).await?);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(took) = workers.join_next().await {
        all.extend(took.map_err(Error::wrong)??);
    }
    Ok(summary(&all, started.elapsed()))
}

/// Carries out one command and returns how long it took and how many requests.
async fn one(
    client: &Client,
    locks: &Path,
    (shape, number): (&Shape, usize),
    command: Command,
) -> Result<(Duration, u64), Error> {
    let at = number.checked_rem(shape.nodes.len()).unwrap_or_default();
    let node = shape.nodes.get(at).map(String::as_str).unwrap_or_default();
    let name: NodeName = node.parse().map_err(Error::wrong)?;
    let lock = HostLock::at(locks.join(format!("{node}.lock")));
    let container_id = format!("{node}-{}-{number}", shape.clients);
    let network = "k8s-pod-network".to_owned();
    let holder = Holder { network, container_id, pod: None };
    let before = client.requests();
    let started = Instant::now();
    let mut driver = Driver::new(client.clone(), lock);
    match command {
        Command::Add => {
            let wanted = vec![Wanted::Any(Family::V4, Vec::new())];
            let selectors = Selectors::OfRequestedIgnored;
            let request = AddRequest { node: name, holder, vrf: None, wanted, selectors };
            Box::pin(add(&mut driver, &request)).await.map_err(Error::wrong)?;
        }
        Command::Del => delete(&mut driver, &holder).await.map_err(Error::wrong)?,
    }
    Ok((started.elapsed(), client.requests().saturating_sub(before)))
}

fn summary(all: &[(Duration, u64)], elapsed: Duration) -> Part {
    let durations: Vec<Duration> = all.iter().map(|(took, _)| *took).collect();
    let mut requests: Vec<u64> = all.iter().map(|(_, requests)| *requests).collect();
    requests.sort_unstable();
    let middle = requests.len().saturating_sub(1) / 2;
    Part {
        per_second: per_second(all.len(), elapsed),
        summary: Summary::of(&durations),
        requests_p50: requests.get(middle).copied().unwrap_or_default(),
        requests_max: requests.last().copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_commands_needed_no_more_requests() {
        let all: Vec<_> = [9, 9, 30, 9, 12].map(|count| (Duration::from_millis(1), count)).into();
        let part = summary(&all, Duration::from_secs(1));
        assert_eq!((part.requests_p50, part.requests_max), (9, 30));
        assert_eq!(summary(&[], Duration::ZERO).requests_max, 0);
    }
}
