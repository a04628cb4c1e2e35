//! Addresses for one container: all that it wants, or none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::{
    Assigned, Assignment, Candidates, Failure, PoolReference, Release, Request, Scene, Selectors,
    View, pools_for, pools_holding, seed_of,
};
use model::id::{HandleId, NodeName};
use model::net::{Cidr, Family};
use model::pool::{IpPool, Use};
use model::time::WallTime;
use model::vrf::VrfName;
use tracing::{info, warn};

use crate::surroundings::{self, Surroundings};
use crate::{Age, Driver, Error};

/// What one container wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The node.
    pub node: NodeName,
    /// The namespace, whose labels pools may select by.
    pub namespace: Option<String>,
    /// The VRF whose addresses it gets; `None` is nobody's.
    pub vrf: Option<VrfName>,
    /// What the addresses are held by.
    pub handle: HandleId,
    /// What is noted with each.
    pub owner: BTreeMap<String, String>,
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

/// Assigns all that `order` wants, or nothing.
///
/// # Errors
///
/// See [`Error`]. What was assigned before the failure has been released.
pub async fn assign(driver: &mut Driver, order: &Order) -> Result<Vec<Assigned>, Error> {
    driver.enter_vrf(order.vrf.clone());
    let client = driver.client().clone();
    let read = read(driver, order, Age::Recent);
    let (ready, read) = futures::join!(surroundings::check_ready(&client), read);
    ready?;
    assign_amid(driver, order, read?).await
}

/// Does what [`assign()`] does, for whoever knows that the cluster is ready and has read what it
/// rests on, a moment ago and by the same driver.
///
/// # Errors
///
/// As [`assign()`].
pub(crate) async fn assign_amid(
    driver: &mut Driver,
    order: &Order,
    (around, view): (Surroundings, View),
) -> Result<Vec<Assigned>, Error> {
    let error = match Box::pin(assign_all(driver, order, &around, view)).await {
        Err(error) if rests_on_pools(&error) => error,
        result => return result,
    };
    let (current, view) = read(driver, order, Age::Current).await?;
    if current == around {
        return Err(error);
    }
    info!(%error, "trying again: what this rests on has just changed");
    Box::pin(assign_all(driver, order, &current, view)).await
}

async fn read(driver: &mut Driver, order: &Order, age: Age) -> Result<(Surroundings, View), Error> {
    Box::pin(Surroundings::read(driver, &order.node, order.namespace.as_deref(), age)).await
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
    order: &Order,
    around: &Surroundings,
    mut view: View,
) -> Result<Vec<Assigned>, Error> {
    let now = crate::now();
    let mut addrs = Vec::new();
    for wanted in &order.wanted {
        match assign_one(driver, order, around, (wanted, now), view).await {
            Ok((assigned, after)) => {
                let handle = &order.handle;
                info!(%handle, addr = %assigned.addr, block = %assigned.block, "assigned");
                addrs.push(assigned);
                view = after;
            }
            Err(error) => {
                if !addrs.is_empty() {
                    give_back(driver, order, around, now).await;
                }
                return Err(error);
            }
        }
    }
    Ok(addrs)
}

async fn assign_one(
    driver: &mut Driver,
    order: &Order,
    around: &Surroundings,
    (wanted, now): (&Wanted, WallTime),
    view: View,
) -> Result<(Assigned, View), Error> {
    let pools = pools(order, around, wanted)?;
    // Which block has room is known when the others on this host are done, not before.
    driver.enter_early(wanted.family()).await?;
    let outcome = Box::pin(take(driver, order, around, (wanted, now, pools), view)).await;
    driver.leave();
    outcome
}

async fn take(
    driver: &mut Driver,
    order: &Order,
    around: &Surroundings,
    (wanted, now, pools): (&Wanted, WallTime, Vec<IpPool>),
    view: View,
) -> Result<(Assigned, View), Error> {
    let last = driver.last_block(wanted.family());
    let is_new = last.is_some_and(|last| !around.newest_first.contains(&last));
    let (newest_first, view) = if is_new {
        let (claims, others) = surroundings::claims(driver, &order.node, Age::Current).await?;
        (claims, view.with_claims_of(others))
    } else {
        (around.newest_first.clone(), view)
    };
    let scene = Scene {
        config: around.config,
        reserved: around.reserved.clone(),
        pools,
        selected: selected(order, around, wanted.family()),
        newest_first: sorted(last, newest_first),
        now,
    };
    let request = Request {
        node: order.node.clone(),
        handle: order.handle.clone(),
        owner: order.owner.clone(),
        family: wanted.family(),
        addr: match wanted {
            Wanted::Any(..) => None,
            Wanted::This(addr) => Some(*addr),
        },
        max_blocks: None,
        seed: seed_of(&order.node),
    };
    let mut machine = Assignment::new(request, scene, view);
    let assigned = driver.run(&mut machine).await?;
    if let Wanted::Any(..) = wanted {
        driver.note_block(assigned.block);
    }
    Ok((assigned, machine.into_view()))
}

/// Returns the blocks to look into, in this order: the last that had room, then the newest.
fn sorted(last: Option<Cidr>, newest_first: Vec<Cidr>) -> Vec<Cidr> {
    let is_ours = last.is_some_and(|last| newest_first.contains(&last));
    let others = newest_first.into_iter().filter(|cidr| Some(*cidr) != last);
    last.filter(|_| is_ours).into_iter().chain(others).collect()
}

fn pools(order: &Order, around: &Surroundings, wanted: &Wanted) -> Result<Vec<IpPool>, Failure> {
    match wanted {
        Wanted::This(addr) => pools_holding(&around.pools, *addr, &candidates(order, around, &[])),
        Wanted::Any(family, requested) => {
            pools_for(&around.pools, *family, &candidates(order, around, requested))
        }
    }
}

/// Returns the ranges of the pools whose blocks this node may keep.
fn selected(order: &Order, around: &Surroundings, family: Family) -> Vec<Cidr> {
    let keeps = |pool: &&IpPool| {
        pool.family() == family
            && !pool.is_disabled
            && pool.node_selector.matches(&around.node_labels)
    };
    let ranges = around.pools.iter().filter(keeps).map(|pool| pool.cidr);
    let requested = order.wanted.iter().flat_map(|wanted| match wanted {
        Wanted::Any(_, requested) => requested.as_slice(),
        Wanted::This(_) => &[],
    });
    let requested = requested.filter_map(|reference| {
        around.pools.iter().find(|pool| reference.names(pool)).map(|pool| pool.cidr)
    });
    ranges.chain(requested).collect()
}

fn candidates<'a>(
    order: &'a Order,
    around: &'a Surroundings,
    requested: &'a [PoolReference],
) -> Candidates<'a> {
    Candidates {
        requested,
        node: &order.node,
        node_labels: &around.node_labels,
        namespace_labels: around.namespace_labels.as_ref(),
        intended: Use::Workload,
        selectors: order.selectors,
    }
}

/// Releases what a failed request got so far.
async fn give_back(driver: &mut Driver, order: &Order, around: &Surroundings, now: WallTime) {
    let handle = order.handle.clone();
    let mut machine = Release::new(handle.clone(), &around.config, now);
    match driver.run(&mut machine).await {
        Ok(released) => info!(%handle, addrs = ?released.addrs, "released after a failure"),
        Err(error) => warn!(%handle, %error, "cannot release after a failure; DEL will"),
    }
}
