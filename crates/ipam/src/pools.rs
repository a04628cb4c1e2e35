//! Which pools an address may come from.

use std::fmt;
use std::net::IpAddr;

use model::Labels;
use model::id::NodeName;
use model::net::{Cidr, Family};
use model::pool::{AssignmentMode, IpPool, Use};

use crate::Failure;

/// A pool as a user names it: by the object's name or by its range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PoolReference {
    /// The name.
    Name(String),
    /// The range.
    Range(Cidr),
}

impl PoolReference {
    /// Reads a reference: what parses as a CIDR is a range.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Range)
    }

    /// Is it `pool` that is meant?
    #[must_use]
    pub fn names(&self, pool: &IpPool) -> bool {
        match self {
            Self::Name(name) => pool.name == *name,
            Self::Range(cidr) => pool.cidr == *cidr,
        }
    }
}

impl fmt::Display for PoolReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Range(cidr) => cidr.fmt(f),
        }
    }
}

/// What decides which pools may be used.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// The pools the request names, in its order; empty if it names none.
    pub requested: &'a [PoolReference],
    /// The node.
    pub node: &'a NodeName,
    /// The node's labels.
    pub node_labels: &'a Labels,
    /// The labels of the workload's namespace; `None` if it has no namespace.
    pub namespace_labels: Option<&'a Labels>,
    /// What the address is for.
    pub intended: Use,
    /// Whether selectors count for what is asked for by name.
    pub selectors: Selectors,
}

/// Whether a pool's selectors count when the pool, or an address of it, is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Selectors {
    /// As in Calico: who asks for a pool gets it.
    OfRequestedIgnored,
    /// A pool is only for the nodes and namespaces that it selects.
    Honoured,
}

/// Returns the pools to assign from, in the order to try them.
///
/// Requested pools are taken in the order of the request, those of
/// [`Selectors::Honoured`] only if they select the node and the namespace;
/// otherwise all that do, by name.
///
/// # Errors
///
/// [`Failure::UnknownPool`] and [`Failure::UnusablePool`] for a request that
/// cannot be met, [`Failure::NoPool`] if nothing is left.
pub fn pools_for(
    pools: &[IpPool],
    family: Family,
    wanted: &Candidates<'_>,
) -> Result<Vec<IpPool>, Failure> {
    let mut of_family: Vec<&IpPool> = pools.iter().filter(|one| one.family() == family).collect();
    of_family.sort_by(|a, b| a.name.cmp(&b.name));
    let chosen: Vec<IpPool> = if wanted.requested.is_empty() {
        let is_selected = |pool: &&IpPool| obstacle(pool, wanted).is_none();
        of_family.iter().copied().filter(is_selected).cloned().collect()
    } else {
        let find = |reference: &PoolReference| requested(&of_family, reference, wanted);
        wanted.requested.iter().map(find).collect::<Result<_, _>>()?
    };
    if chosen.is_empty() {
        let refused = of_family.iter().filter_map(|pool| {
            obstacle(pool, wanted).map(|why| format!("{} {}: {why}", pool.name, pool.cidr))
        });
        let refused = refused.collect();
        return Err(Failure::NoPool { family, node: wanted.node.clone(), refused });
    }
    Ok(chosen)
}

/// Returns the pools from which the very address `addr` may be taken.
///
/// # Errors
///
/// [`Failure::UnusablePool`] if the address lies in a pool whose selectors count and forbid it.
pub fn pools_holding(
    pools: &[IpPool],
    addr: IpAddr,
    wanted: &Candidates<'_>,
) -> Result<Vec<IpPool>, Failure> {
    let fits = |pool: &&IpPool| {
        !pool.is_disabled && pool.allowed_uses.allow(wanted.intended) && pool.cidr.contains(addr)
    };
    let usable = |pool: &IpPool| match forbidden(pool, wanted) {
        Some(reason) => Err(unusable(pool, reason)),
        None => Ok(pool.clone()),
    };
    pools.iter().filter(fits).map(usable).collect()
}

fn requested(
    pools: &[&IpPool],
    reference: &PoolReference,
    wanted: &Candidates<'_>,
) -> Result<IpPool, Failure> {
    let Some(pool) = pools.iter().find(|pool| reference.names(pool)) else {
        let known = pools.iter().map(|pool| format!("{} {}", pool.name, pool.cidr)).collect();
        return Err(Failure::UnknownPool { reference: reference.to_string(), known });
    };
    let reason = if pool.is_disabled {
        "is disabled: set spec.disabled to false"
    } else if !pool.allowed_uses.allow(wanted.intended) {
        "is not for this use: add it to spec.allowedUses"
    } else if let Some(reason) = forbidden(pool, wanted) {
        reason
    } else {
        return Ok((*pool).clone());
    };
    Err(unusable(pool, reason))
}

/// Returns which selector of a pool that is asked for forbids its use, if they count.
fn forbidden(pool: &IpPool, wanted: &Candidates<'_>) -> Option<&'static str> {
    if wanted.selectors == Selectors::OfRequestedIgnored {
        return None;
    }
    if !pool.node_selector.matches(wanted.node_labels) {
        return Some("does not select this node: change its nodeSelector");
    }
    let selector = pool.namespace_selector.as_ref()?;
    let is_selected = wanted.namespace_labels.is_some_and(|labels| selector.matches(labels));
    (!is_selected).then_some("does not select the namespace: change its namespaceSelector")
}

fn unusable(pool: &IpPool, reason: &'static str) -> Failure {
    Failure::UnusablePool { pool: pool.name.clone(), cidr: pool.cidr, reason }
}

/// Returns why the pool is not used unasked, or `None` if it is.
fn obstacle(pool: &IpPool, wanted: &Candidates<'_>) -> Option<&'static str> {
    if pool.is_disabled {
        return Some("disabled");
    }
    if !pool.allowed_uses.allow(wanted.intended) {
        return Some("allowedUses lacks this use");
    }
    if pool.assignment == AssignmentMode::Manual {
        return Some("assignmentMode is Manual");
    }
    if !pool.node_selector.matches(wanted.node_labels) {
        return Some("nodeSelector does not match the node");
    }
    match (&pool.namespace_selector, wanted.namespace_labels) {
        (Some(selector), Some(labels)) if !selector.matches(labels) => {
            Some("namespaceSelector does not match the namespace")
        }
        (Some(_), None) => Some("namespaceSelector is set and the workload has no namespace"),
        (Some(_) | None, _) => None,
    }
}

#[cfg(test)]
mod tests;
