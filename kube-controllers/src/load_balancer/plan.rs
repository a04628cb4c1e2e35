//! Which Services get addresses from us, and what is to be done for one: decided, not done.

use std::net::IpAddr;

use ipam::PoolReference;
use model::block::Block;
use model::id::HandleId;
use model::net::{Cidr, Family};
use model::pool::{IpPool, Use};
use model::service::BalancerRequest;

/// The class of Services that want an address from us.
const CLASS: &str = "calico";

/// One address that a handle holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Holding {
    pub(super) handle: HandleId,
    pub(super) addr: IpAddr,
    pub(super) block: Cidr,
    pub(super) sequence_number: Option<u64>,
}

/// One address that a Service lacks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Missing {
    pub(super) family: Family,
    /// The very address that it asks for.
    pub(super) addr: Option<IpAddr>,
    /// An address that it had and would have again, if it is free.
    pub(super) former: Option<IpAddr>,
    /// The pools that it asks for; none are all.
    pub(super) pools: Vec<PoolReference>,
}

/// What is to be done for one Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Decision {
    /// What it holds and may keep.
    pub(super) kept: Vec<IpAddr>,
    /// What it holds and does not want any more.
    pub(super) given_back: Vec<Holding>,
    /// What it lacks.
    pub(super) missing: Vec<Missing>,
}

/// Does the Service get its addresses from us?
///
/// A class decides. Without one, all Services do or those that ask for something particular; but
/// none without a pool for them, so that a cluster with another load balancer is left in peace.
pub(super) fn is_ours(request: &BalancerRequest, assigns_to_all: bool, pools: &[IpPool]) -> bool {
    let is_chosen = match request.class.as_deref() {
        Some(class) => class == CLASS,
        None if request.is_particular() => true,
        None => {
            assigns_to_all && pools.iter().any(|pool| pool.allowed_uses.allow(Use::LoadBalancer))
        }
    };
    request.is_balanced && is_chosen
}

/// Decides what to do for a Service of ours which holds `held`.
pub(super) fn decide(request: &BalancerRequest, held: &[Holding], pools: &[IpPool]) -> Decision {
    let mut decision = Decision::default();
    for holding in in_order(held, &request.published) {
        let family = Family::of(holding.addr);
        let is_second = decision.kept.iter().any(|addr| Family::of(*addr) == family);
        if is_second || !fits(request, holding.addr, pools) {
            decision.given_back.push(holding.clone());
        } else {
            decision.kept.push(holding.addr);
        }
    }
    for family in &request.families {
        if decision.kept.iter().any(|addr| Family::of(*addr) == *family) {
            continue;
        }
        let of_family = |addr: &&IpAddr| Family::of(**addr) == *family;
        let former = request.published.iter().filter(of_family);
        let references = request.pools.get(family).into_iter().flatten();
        decision.missing.push(Missing {
            family: *family,
            addr: request.addrs.iter().find(of_family).copied(),
            former: former.copied().find(|addr| fits(request, *addr, pools)),
            pools: references.map(|text| PoolReference::parse(text)).collect(),
        });
    }
    decision
}

/// Returns addresses in the order of the Service's families.
pub(super) fn published(request: &BalancerRequest, addrs: &[IpAddr]) -> Vec<IpAddr> {
    let families = request.families.iter();
    families
        .flat_map(|family| addrs.iter().filter(|addr| Family::of(**addr) == *family).copied())
        .collect()
}

/// Returns what the handles of Services hold in `block`.
pub(super) fn holdings(block: &Block) -> impl Iterator<Item = Holding> {
    let ordinals = (0_u32..).zip(&block.allocations).map(|(ordinal, _)| ordinal);
    ordinals.filter_map(|ordinal| {
        let holder = ipam::slots::holder(block, ordinal)?;
        let handle = holder.handle.clone().filter(|handle| handle.0.starts_with("lb-"))?;
        Some(Holding {
            handle,
            addr: ipam::slots::address(block, ordinal)?,
            block: block.cidr,
            sequence_number: block.allocated_at.get(&ordinal).copied(),
        })
    })
}

/// Puts what is known to the world first: of two addresses that one is kept.
fn in_order<'a>(held: &'a [Holding], published: &[IpAddr]) -> Vec<&'a Holding> {
    let mut held: Vec<&Holding> = held.iter().collect();
    held.sort_by_key(|holding| (!published.contains(&holding.addr), holding.addr));
    held
}

/// May the Service have this address? One that it has and that nothing speaks against stays, also
/// if its pool is no longer for new ones.
fn fits(request: &BalancerRequest, addr: IpAddr, pools: &[IpPool]) -> bool {
    let family = Family::of(addr);
    if !request.families.contains(&family) {
        return false;
    }
    if let Some(wanted) = request.addrs.iter().find(|wanted| Family::of(**wanted) == family) {
        return *wanted == addr;
    }
    let Some(wanted) = request.pools.get(&family) else { return true };
    let references: Vec<PoolReference> =
        wanted.iter().map(|text| PoolReference::parse(text)).collect();
    let is_wanted = |pool: &IpPool| references.iter().any(|one| one.names(pool));
    pools.iter().any(|pool| is_wanted(pool) && pool.cidr.contains(addr))
}

#[cfg(test)]
mod tests;
