//! The pools that a cluster without any gets.

use api::{Invalid, IpPool, IpPoolSpec};
use config::felix::FelixConfig;
use config::startup::StartupConfig;
use config::value::{EncapsulationMode, PoolSource, Setting};
use model::net::{Cidr, Family};

use super::host::Host;

/// The names that Calico gives its default pools.
const NAMES: [&str; 2] = ["default-ipv4-ippool", "default-ipv6-ippool"];

/// All that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    /// The environment.
    pub(crate) startup: &'a StartupConfig,
    /// Felix's settings, for whether IPv6 is supported.
    pub(crate) felix: &'a FelixConfig,
    /// The pools that there are.
    pub(crate) existing: &'a [IpPool],
    /// kubeadm's `podSubnet`.
    pub(crate) kubeadm: &'a [Cidr],
    /// The machine.
    pub(crate) host: &'a Host,
    /// Does this node have an IPv6 address?
    pub(crate) has_ipv6: bool,
    /// Random bytes for an IPv6 range of our own (RFC 4193 §3.2.2).
    pub(crate) random: [u8; 5],
}

/// Pools to create, and what people should know about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PoolPlan {
    /// The pools.
    pub(crate) creates: Vec<IpPool>,
    /// Warnings.
    pub(crate) warnings: Vec<String>,
}

/// Decides which pools to create.
///
/// # Errors
///
/// [`Invalid`] if the environment asks for a pool that cannot be.
pub(crate) fn plan(situation: &Situation<'_>) -> Result<PoolPlan, Invalid> {
    let mut plan = PoolPlan::default();
    let startup = situation.startup;
    if startup.ipv4_pool.no_default_pools {
        let is_asked = matches!(startup.ipv4_pool.cidr, Some(PoolSource::Given(_)))
            || matches!(startup.ipv6_pool.cidr, Some(PoolSource::Given(_)));
        if is_asked {
            plan.warnings.push(
                "NO_DEFAULT_POOLS wins over CALICO_IPV4POOL_CIDR and CALICO_IPV6POOL_CIDR: no pool \
                 is created; unset one of them"
                    .to_owned(),
            );
        }
        return Ok(plan);
    }
    let wanted = [(Family::V4, ipv4_cidr(situation)), (Family::V6, ipv6_cidr(situation))];
    for (family, cidr) in wanted {
        let Some(cidr) = cidr.filter(|_| !has_pool(situation.existing, family)) else { continue };
        check_family(family, cidr)?;
        let pool = match family {
            Family::V4 => ipv4_pool(startup, cidr),
            Family::V6 => ipv6_pool(startup, cidr),
        };
        model::pool::IpPool::try_from(&pool)?;
        plan.creates.push(pool);
    }
    Ok(plan)
}

/// A pool that cannot be read counts: its owner will correct it.
fn has_pool(existing: &[IpPool], family: Family) -> bool {
    existing.iter().any(|pool| pool.spec.cidr.contains(':') == (family == Family::V6))
}

/// Checks that the range is of the family that the variable is for.
fn check_family(family: Family, cidr: Cidr) -> Result<(), Invalid> {
    let (field, other) = match family {
        Family::V4 => ("CALICO_IPV4POOL_CIDR", "CALICO_IPV6POOL_CIDR"),
        Family::V6 => ("CALICO_IPV6POOL_CIDR", "CALICO_IPV4POOL_CIDR"),
    };
    if cidr.family() == family {
        return Ok(());
    }
    Err(Invalid {
        object: "environment".to_owned(),
        field: field.to_owned(),
        value: cidr.to_string(),
        problem: format!("is no {family} range; use {other}"),
    })
}

fn ipv4_cidr(situation: &Situation<'_>) -> Option<Cidr> {
    match situation.startup.ipv4_pool.cidr {
        Some(PoolSource::None) => None,
        Some(PoolSource::Given(cidr)) => Some(cidr),
        None => of_family(situation.kubeadm, Family::V4).or_else(|| unused_ipv4(situation.host)),
    }
}

/// An IPv6 pool is of use only to nodes with an IPv6 address, unless somebody names its range.
fn ipv6_cidr(situation: &Situation<'_>) -> Option<Cidr> {
    match situation.startup.ipv6_pool.cidr {
        Some(PoolSource::None) => None,
        Some(PoolSource::Given(cidr)) => Some(cidr),
        None if !situation.has_ipv6 || !situation.felix.interfaces.ipv6_support => None,
        None => of_family(situation.kubeadm, Family::V6).or_else(|| {
            let mut prefix = [0; 16];
            prefix
                .iter_mut()
                .zip([0xfd].into_iter().chain(situation.random))
                .for_each(|(byte, random)| *byte = random);
            Cidr::containing(prefix.into(), 48).ok()
        }),
    }
}

fn of_family(cidrs: &[Cidr], family: Family) -> Option<Cidr> {
    cidrs.iter().copied().find(|cidr| cidr.family() == family)
}

/// Returns 192.168.0.0/16, or the first other private /16 that the host has no route into
/// (RFC 1918 §3).
fn unused_ipv4(host: &Host) -> Option<Cidr> {
    let twelve = (16..=31).map(|second| [172, second, 0, 0]);
    let eight = (0..=255).map(|second| [10, second, 0, 0]);
    let candidates = std::iter::once([192, 168, 0, 0]).chain(twelve).chain(eight);
    let mut ranges = candidates.filter_map(|first| Cidr::containing(first.into(), 16).ok());
    ranges.find(|range| !host.networks().any(|network| network.overlaps(range)))
}

fn ipv4_pool(startup: &StartupConfig, cidr: Cidr) -> IpPool {
    let settings = &startup.ipv4_pool;
    let without_wish = match settings.vxlan {
        EncapsulationMode::Never => EncapsulationMode::Always,
        EncapsulationMode::Always | EncapsulationMode::CrossSubnet => EncapsulationMode::Never,
    };
    let spec = IpPoolSpec {
        block_size: Some(settings.block_size.get().into()),
        ipip_mode: Some(settings.ipip.unwrap_or(without_wish).show()),
        vxlan_mode: Some(settings.vxlan.show()),
        nat_outgoing: Some(settings.nat_outgoing),
        node_selector: Some(settings.node_selector.to_string()),
        disable_bgp_export: settings.no_bgp_export.then_some(true),
        ..base(cidr)
    };
    IpPool::named(NAMES[0], spec)
}

fn ipv6_pool(startup: &StartupConfig, cidr: Cidr) -> IpPool {
    let settings = &startup.ipv6_pool;
    let spec = IpPoolSpec {
        block_size: Some(settings.block_size.get().into()),
        ipip_mode: Some(EncapsulationMode::Never.show()),
        vxlan_mode: Some(settings.vxlan.show()),
        nat_outgoing: Some(settings.nat_outgoing),
        node_selector: Some(settings.node_selector.to_string()),
        disable_bgp_export: settings.no_bgp_export.then_some(true),
        ..base(cidr)
    };
    IpPool::named(NAMES[1], spec)
}

fn base(cidr: Cidr) -> IpPoolSpec {
    IpPoolSpec {
        cidr: cidr.to_string(),
        allowed_uses: Some(vec!["Workload".to_owned(), "Tunnel".to_owned()]),
        assignment_mode: Some("Automatic".to_owned()),
        ..IpPoolSpec::default()
    }
}

#[cfg(test)]
mod tests;
