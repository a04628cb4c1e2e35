//! Pods on several nodes reach each other, and every node has exactly its routes.

use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::reachability::Matrix;
use lab::routes;

/// How long routes may take to arrive everywhere.
const CONVERGED_WITHIN: Duration = Duration::from_secs(10);

/// Thirty pods on three nodes.
pub(crate) fn thirty_pods(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    reach(dir, Plan { control_plane, nodes: 3, families: Families::V4, fabric: Fabric::Bridge }, 30)
}

/// Six pods with two addresses each.
pub(crate) fn dual_stack(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    reach(
        dir,
        Plan { control_plane, nodes: 2, families: Families::Dual, fabric: Fabric::Bridge },
        6,
    )
}

fn reach(dir: &Path, plan: Plan, pods: usize) -> Result<(), Error> {
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", pods)?;
    Matrix::probe(&cluster, CONVERGED_WITHIN)?.require_full()?;
    eventually("routes as modelled", CONVERGED_WITHIN, || routes::require_as_modelled(&cluster))
}
