//! Taking the place of Calico on a node: its rules, sets and routes go once ours are in force.
//!
//! Not before: until then its rules enforce what ours do not yet. A node where nothing is left
//! costs one look.

use std::time::Duration;

use api::{BlockAffinity, IpPool};
use datastore::{Client, Filter};
use kernel::Netlink;
use model::block::{Affinity, AffinityState};
use takeover::routes::{self, Claims};
use tokio::sync::watch;

use crate::bgp::Snapshot;
use crate::felix::policy;
use crate::felix::run::Status;

/// How soon to try again what could not be removed.
const RETRY: Duration = Duration::from_secs(30);
/// How often is looked for routes of BIRD's that ours have come beside, while it has any.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// What must be so before anything of Calico's goes.
pub(crate) struct InForce {
    /// Routes in the kernel.
    pub(crate) routes: watch::Receiver<Status>,
    /// Policy in the kernel.
    pub(crate) policy: watch::Receiver<policy::run::Status>,
    /// Routes of peers; `None` if this node speaks no BGP.
    pub(crate) bgp: Option<watch::Receiver<Snapshot>>,
}

impl InForce {
    /// Waits; `None` if the daemon ends before.
    async fn wait(mut self) -> Option<()> {
        self.policy.wait_for(|status| status.is_in_force).await.ok()?;
        if let Some(bgp) = &mut self.bgp {
            bgp.wait_for(|snapshot| snapshot.status.has_converged).await.ok()?;
        }
        self.routes.wait_for(|status| status.has_applied).await.ok()?;
        Some(())
    }
}

/// Waits until this node is in sync, then removes what Calico has left.
pub(crate) async fn run(client: Client, netlink: Netlink, in_force: InForce) {
    if in_force.wait().await.is_none() {
        return;
    }
    while let Err(problems) = Box::pin(tidy(&client, &netlink)).await {
        for problem in problems {
            tracing::warn!(%problem, "not everything that Calico has left could be removed");
        }
        tokio::time::sleep(RETRY).await;
    }
    tidy_later(&netlink).await;
}

/// Removes what BIRD has left where a peer that was away tells us a route at last, until BIRD has
/// none. A BIRD of the administrator's own has some forever.
async fn tidy_later(netlink: &Netlink) {
    // Nobody's claims: they say which routes are superfluous beside those that ours replace.
    let nobodys = Claims::default();
    while routes::are_left(netlink).await.unwrap_or(true) {
        tokio::time::sleep(LOOK_AGAIN).await;
        if let Err(problem) = remove_routes(netlink, &nobodys).await {
            tracing::warn!(%problem, "not everything that Calico has left could be removed");
        }
    }
}

/// Removes what is left; also after a failure as much as can be.
async fn tidy(client: &Client, netlink: &Netlink) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let found = takeover::look().await;
    for (tool, removal) in &found.removals {
        let (chains, rules) = (removal.chains, removal.rules);
        tracing::info!(by = tool.restore, chains, rules, "removing what Calico has left");
    }
    if !found.sets.is_empty() {
        tracing::info!(sets = found.sets.len(), "removing what Calico has left");
    }
    for unknown in &found.unknown {
        tracing::warn!(%unknown, "rules of Calico may be left in iptables");
    }
    problems.extend(takeover::remove(&found).await.err().into_iter().flatten());
    problems.extend(Box::pin(tidy_routes(client, netlink)).await.err());
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

async fn tidy_routes(client: &Client, netlink: &Netlink) -> Result<(), String> {
    let claims = Box::pin(claims(client)).await?;
    remove_routes(netlink, &claims).await
}

async fn remove_routes(netlink: &Netlink, claims: &Claims) -> Result<(), String> {
    let stale = routes::look(netlink, claims).await.map_err(|error| error.to_string())?;
    for route in stale {
        tracing::info!(%route, "removing what Calico's BIRD has left");
        netlink.delete_route(&route).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Reads what the cluster says of addresses of pods. A pool that cannot be read is none, which
/// protects its routes; a claim that cannot be read protects all.
async fn claims(client: &Client) -> Result<Claims, String> {
    let everything = Filter::default();
    let (pools, affinities) = tokio::try_join!(
        client.list::<IpPool>(&everything),
        client.list::<BlockAffinity>(&everything)
    )
    .map_err(|error| error.to_string())?;
    let affinities = affinities.iter().map(Affinity::try_from).collect::<Result<Vec<_>, _>>();
    let affinities = affinities.map_err(|error| error.to_string())?;
    let is_claim = |affinity: &&Affinity| affinity.state != AffinityState::PendingDeletion;
    let pools = pools.iter().filter_map(|pool| model::pool::IpPool::try_from(pool).ok());
    Ok(Claims {
        pools: pools.map(|pool| pool.cidr).collect(),
        blocks: affinities.iter().filter(is_claim).map(|affinity| affinity.cidr).collect(),
    })
}
