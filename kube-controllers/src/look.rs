//! One look at all addresses of the cluster, and the repair of what was seen long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use datastore::Client;
use ipam::Key;
use ipam::audit::{self, Finding, Limits, Plan, Problem, Refused};
use ledger::{Outcome, Scene, described};
use model::block::Block;
use model::pool::IpPool;
use model::time::Timestamp;
use model::vrf::VrfName;
use tracing::{info, warn};

use crate::metrics::{Metrics, Seen};
use crate::watchlist::Watchlist;

/// Why a look changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The datastore.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The circuit breaker.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Objects that are not valid: who holds what is not known.
    #[error("{count} objects cannot be read, so nothing is released; first: {first}")]
    Unreadable {
        /// How many.
        count: usize,
        /// The first.
        first: String,
    },
}

/// How to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long a suspicion must last; `None` repairs nothing.
    pub(crate) grace: Option<Duration>,
    /// When to refuse.
    pub(crate) limits: Limits,
}

/// Suspicions, by VRF.
pub(crate) type Watchlists = BTreeMap<Option<VrfName>, Watchlist>;

/// Looks at everything, VRF by VRF, and repairs what is due.
///
/// # Errors
///
/// The first [`Error`]; the other VRFs were looked at. The suspicions are then forgotten, except
/// when the limit was exceeded.
pub(crate) async fn look(
    client: &Client,
    watchlists: &mut Watchlists,
    metrics: &Metrics,
    (rules, now): (Rules, Timestamp),
) -> Result<(), Error> {
    let vrfs = match Box::pin(ledger::vrfs(client)).await {
        Ok(vrfs) => vrfs,
        Err(error) => {
            watchlists.clear();
            return Err(error.into());
        }
    };
    watchlists.retain(|vrf, _| vrfs.contains(vrf));
    let mut seen = Seen::default();
    let mut result = Ok(());
    for vrf in vrfs {
        let watchlist = watchlists.entry(vrf.clone()).or_default();
        let looked = look_at(client, (vrf.as_ref(), watchlist), (metrics, &mut seen), (rules, now));
        result = result.and(Box::pin(looked).await);
    }
    metrics.tell(&seen);
    result
}

/// Looks at a VRF, or at those who are in none.
async fn look_at(
    client: &Client,
    (vrf, watchlist): (Option<&VrfName>, &mut Watchlist),
    (metrics, seen): (&Metrics, &mut Seen),
    (rules, now): (Rules, Timestamp),
) -> Result<(), Error> {
    let mut count = |block: &Block, pools: &[IpPool]| seen.block(block, pools);
    let scene = match Box::pin(Scene::screened(client, vrf, &mut count)).await {
        Ok(scene) => scene,
        Err(error) => {
            watchlist.forget();
            return Err(error.into());
        }
    };
    let findings = audit::check(&scene.snapshot);
    seen.found(&scene.snapshot, &findings);
    let Some(grace) = rules.grace else { return Ok(()) };
    if let Some(first) = scene.unreadable.first() {
        watchlist.forget();
        return Err(Error::Unreadable { count: scene.unreadable.len(), first: first.clone() });
    }
    let due = watchlist.observe(&findings, grace, now);
    if due.is_empty() {
        return Ok(());
    }
    let plan = audit::plan(&scene.snapshot, &due, &rules.limits)?;
    for finding in &due {
        let vrf = vrf.map(VrfName::as_str);
        info!(problem = %finding.problem, vrf, evidence = finding.evidence.join("; "), "found");
    }
    carry_out(client, &scene, (&plan, &due), metrics).await
}

async fn carry_out(
    client: &Client,
    scene: &Scene,
    (plan, due): (&Plan, &[Finding]),
    metrics: &Metrics,
) -> Result<(), Error> {
    if plan.writes.is_empty() {
        return Ok(());
    }
    let repaired = ledger::repair(client, scene, plan).await?;
    let vrf = scene.vrf.as_ref().map(VrfName::as_str);
    for (key, outcome) in &repaired.outcomes {
        let object: &Key = key;
        match outcome {
            Outcome::Done => info!(object = described(object), vrf, "repaired"),
            Outcome::Left(reason) => {
                warn!(object = described(object), vrf, reason, "left for later");
            }
        }
    }
    let is_released = |finding: &&Finding| matches!(&finding.problem, Problem::Leak(held) if repaired.released.contains(&held.addr));
    let released = due.iter().filter(is_released);
    metrics.count_released(&scene.snapshot, released);
    Ok(())
}
