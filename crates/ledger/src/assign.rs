//! ADD: addresses for one container.

use std::net::IpAddr;

use ipam::{
    Assigned, Assignment, Candidates, Failure, PoolReference, Release, Request, Scene, Selectors,
    View, pools_for, pools_holding, seed_of,
};
use ledger::{Age, Driver};
use model::id::NodeName;
use model::net::{Cidr, Family, InterfaceAddr};
use model::pool::{IpPool, Use};
use model::time::WallTime;
use tracing::{info, warn};

use crate::Error;
use crate::holder::Holder;
use crate::scene::{self, Surroundings};

/// What one container wants.
#[derive(Clone, Debug, PartialEq)]
pub struct AddRequest {
    /// The node.
    pub node: NodeName,
    /// The container.
    pub holder: Holder,
    /// Its addresses, one each.
    pub wanted: Vec<Wanted>,
    /// Whether selectors count for pools and addresses that are asked for.
    pub selectors: Selectors,
}

/// One address that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// Any of this family, from these pools if any are named.
    Any(Family, Vec<PoolReference>),
    /// This one.
    This(IpAddr),
}

impl Wanted {
    const fn family(&self) -> Family {
        match self {
            Self::Any(family, _) => *family,
            Self::This(addr) => Family::of(*addr),
        }
    }
}

/// Assigns all that `request` wants, or nothing.
///
/// The result has the prefix length of the block, or of the address itself if
/// it was asked for by name; the caller narrows the former.
///
/// # Errors
///
/// See [`Error`]. What was assigned before the failure has been released.
pub async fn add(driver: &mut Driver, request: &AddRequest) -> Result<Vec<InterfaceAddr>, Error> {
    let (around, view) = read(driver, request, Age::Recent).await?;
    let error = match Box::pin(assign_all(driver, request, &around, view)).await {
        Err(error) if rests_on_pools(&error) => error,
        result => return result,
    };
    let (current, view) = read(driver, request, Age::Current).await?;
    if current == around {
        return Err(error);
    }
    info!(%error, "trying again: what this rests on has just changed");
    Box::pin(assign_all(driver, request, &current, view)).await
}

async fn read(
    driver: &mut Driver,
    request: &AddRequest,
    age: Age,
) -> Result<(Surroundings, View), Error> {
    let namespace = request.holder.pod.as_ref().map(|pod| pod.namespace.as_str());
    Box::pin(Surroundings::read(driver, &request.node, namespace, age)).await
}

/// Might the answer be another one if a pool, or a label, were newer than what was read?
const fn rests_on_pools(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused(
            Failure::NoPool { .. }
                | Failure::UnknownPool { .. }
                | Failure::UnusablePool { .. }
                | Failure::OutsidePools { .. }
                | Failure::Exhausted { .. }
        )
    )
}

async fn assign_all(
    driver: &mut Driver,
    request: &AddRequest,
    around: &Surroundings,
    mut view: View,
) -> Result<Vec<InterfaceAddr>, Error> {
    let now = ledger::now();
    let mut addrs = Vec::new();
    for wanted in &request.wanted {
        match assign(driver, request, around, (wanted, now), view).await {
            Ok((assigned, after)) => {
                info!(addr = %assigned.addr, block = %assigned.block, "assigned");
                addrs.push(result_of(wanted, assigned)?);
                view = after;
            }
            Err(error) => {
                if !addrs.is_empty() {
                    give_back(driver, request, around, now).await;
                }
                return Err(error);
            }
        }
    }
    Ok(addrs)
}

async fn assign(
    driver: &mut Driver,
    request: &AddRequest,
    around: &Surroundings,
    (wanted, now): (&Wanted, WallTime),
    view: View,
) -> Result<(Assigned, View), Error> {
    let pools = pools(request, around, wanted)?;
    // Which block has room is known when the others on this host are done, not before.
    driver.enter_early().await;
    let outcome = Box::pin(take(driver, request, around, (wanted, now, pools), view)).await;
    driver.leave();
    outcome
}

async fn take(
    driver: &mut Driver,
    request: &AddRequest,
    around: &Surroundings,
    (wanted, now, pools): (&Wanted, WallTime, Vec<IpPool>),
    view: View,
) -> Result<(Assigned, View), Error> {
    let last = driver.lock().last_block(wanted.family());
    let is_new = last.is_some_and(|last| !around.newest_first.contains(&last));
    let (newest_first, view) = if is_new {
        let (claims, others) = scene::claims(driver, &request.node, Age::Current).await?;
        (claims, view.with_claims_of(others))
    } else {
        (around.newest_first.clone(), view)
    };
    let scene = Scene {
        config: around.config,
        reserved: around.reserved.clone(),
        pools,
        selected: selected(request, around, wanted.family()),
        newest_first: order(last, newest_first),
        now,
    };
    let order = Request {
        node: request.node.clone(),
        handle: request.holder.handle(),
        owner: request.holder.attributes(&request.node, now),
        family: wanted.family(),
        addr: match wanted {
            Wanted::Any(..) => None,
            Wanted::This(addr) => Some(*addr),
        },
        max_blocks: None,
        seed: seed_of(&request.node),
    };
    let mut machine = Assignment::new(order, scene, view);
    let assigned = driver.run(&mut machine).await?;
    if let Wanted::Any(..) = wanted {
        driver.lock().note_block(assigned.block);
    }
    Ok((assigned, machine.into_view()))
}

/// Returns the blocks to look into, in this order: the last that had room, then the newest.
fn order(last: Option<Cidr>, newest_first: Vec<Cidr>) -> Vec<Cidr> {
    let is_ours = last.is_some_and(|last| newest_first.contains(&last));
    let others = newest_first.into_iter().filter(|cidr| Some(*cidr) != last);
    last.filter(|_| is_ours).into_iter().chain(others).collect()
}

fn pools(
    request: &AddRequest,
    around: &Surroundings,
    wanted: &Wanted,
) -> Result<Vec<IpPool>, Failure> {
    match wanted {
        Wanted::This(addr) => {
            pools_holding(&around.pools, *addr, &candidates(request, around, &[]))
        }
        Wanted::Any(family, requested) => {
            pools_for(&around.pools, *family, &candidates(request, around, requested))
        }
    }
}

/// Returns the ranges of the pools whose blocks this node may keep.
fn selected(request: &AddRequest, around: &Surroundings, family: Family) -> Vec<Cidr> {
    let keeps = |pool: &&IpPool| {
        pool.family() == family
            && !pool.is_disabled
            && pool.node_selector.matches(&around.node_labels)
    };
    let ranges = around.pools.iter().filter(keeps).map(|pool| pool.cidr);
    let requested = request.wanted.iter().flat_map(|wanted| match wanted {
        Wanted::Any(_, requested) => requested.as_slice(),
        Wanted::This(_) => &[],
    });
    let requested = requested.filter_map(|reference| {
        around.pools.iter().find(|pool| reference.names(pool)).map(|pool| pool.cidr)
    });
    ranges.chain(requested).collect()
}

fn candidates<'a>(
    request: &'a AddRequest,
    around: &'a Surroundings,
    requested: &'a [PoolReference],
) -> Candidates<'a> {
    Candidates {
        requested,
        node: &request.node,
        node_labels: &around.node_labels,
        namespace_labels: around.namespace_labels.as_ref(),
        intended: Use::Workload,
        selectors: request.selectors,
    }
}

fn result_of(wanted: &Wanted, assigned: Assigned) -> Result<InterfaceAddr, Error> {
    let len = match wanted {
        Wanted::Any(..) => assigned.block.prefix_len(),
        Wanted::This(addr) => Family::of(*addr).bits(),
    };
    InterfaceAddr::new(assigned.addr, len).map_err(|error| Error::InvalidRequest(error.to_string()))
}

/// Releases what a failed request got so far.
async fn give_back(
    driver: &mut Driver,
    request: &AddRequest,
    around: &Surroundings,
    now: WallTime,
) {
    let handle = request.holder.handle();
    let mut machine = Release::new(handle.clone(), &around.config, now);
    match driver.run(&mut machine).await {
        Ok(released) => info!(%handle, addrs = ?released.addrs, "released after a failure"),
        Err(error) => warn!(%handle, %error, "cannot release after a failure; DEL will"),
    }
}
