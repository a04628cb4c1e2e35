//! The routes that Calico's BIRD has left: which of them go.
//!
//! Ours carry another protocol (ADR 3). Where both are there, that of BIRD is not needed any more;
//! where ours is not there, that of BIRD is perhaps all that a pod has, and stays as long as
//! somebody claims the block that it leads to.

use std::collections::BTreeSet;

use kernel::Netlink;
use kernel::netlink::{Error, RouteEntry, RouteFilter};
use model::desired::RouteProtocol;
use model::net::Cidr;

/// What BIRD marks its routes with (rtnetlink(7), `RTPROT_BIRD`).
pub const BIRD: RouteProtocol = RouteProtocol(12);

/// What the cluster says of addresses of pods.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The ranges of all pools.
    pub pools: Vec<Cidr>,
    /// The blocks that nodes claim.
    pub blocks: BTreeSet<Cidr>,
}

/// Returns the routes of BIRD that go. `routes` are those of both protocols.
///
/// A BIRD of the administrator's own may have routes on the same machine: only what leads into a
/// pool, or where ours lead, can be of Calico's. The latter must go wherever they lead: the kernel
/// may prefer them by their metric, and nobody withdraws them any more.
#[must_use]
pub fn stale(routes: &[RouteEntry], claims: &Claims) -> Vec<RouteEntry> {
    let is_ours = |route: &&RouteEntry| route.protocol == RouteProtocol::CALICO;
    let ours: BTreeSet<Cidr> = routes.iter().filter(is_ours).map(|route| route.dst).collect();
    let is_stale = |route: &&RouteEntry| {
        let is_in_pool = claims.pools.iter().any(|pool| pool.covers(&route.dst));
        let is_claimed = claims.blocks.iter().any(|block| block.covers(&route.dst));
        route.protocol == BIRD && (ours.contains(&route.dst) || (is_in_pool && !is_claimed))
    };
    routes.iter().filter(is_stale).cloned().collect()
}

/// Are there routes of BIRD at all?
///
/// # Errors
///
/// [`Error`] if the kernel cannot be asked.
pub async fn are_left(netlink: &Netlink) -> Result<bool, Error> {
    let routes = netlink.routes(&RouteFilter::of_protocols([BIRD])).await?;
    Ok(!routes.is_empty())
}

/// Looks for such routes.
///
/// # Errors
///
/// [`Error`] if the kernel cannot be asked.
pub async fn look(netlink: &Netlink, claims: &Claims) -> Result<Vec<RouteEntry>, Error> {
    let filter = RouteFilter::of_protocols([BIRD, RouteProtocol::CALICO]);
    Ok(stale(&netlink.routes(&filter).await?, claims))
}

#[cfg(test)]
mod tests {
    use kernel::netlink::Target;

    use super::*;

    #[test]
    fn only_what_is_superfluous_goes() {
        let route = |dst: &str, protocol| {
            RouteEntry::new(dst.parse().unwrap(), Target::Blackhole, RouteProtocol(protocol))
        };
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let claims = Claims {
            pools: vec![cidr("10.244.0.0/16")],
            blocks: [cidr("10.244.1.0/26"), cidr("10.244.2.0/26")].into(),
        };
        let routes = [
            route("10.244.1.0/26", 12),
            route("10.244.1.0/26", 80),
            // Ours is not there: perhaps the peer is away for a moment.
            route("10.244.2.0/26", 12),
            route("10.244.2.5/32", 12),
            // Nobody claims it any more.
            route("10.244.3.0/26", 12),
            // Outside of pools, from a router that both had as a peer.
            route("0.0.0.0/0", 12),
            route("0.0.0.0/0", 80),
            // The administrator's BIRD.
            route("192.0.2.0/24", 12),
            route("10.0.0.0/8", 12),
        ];
        let gone: Vec<_> = stale(&routes, &claims).iter().map(|route| route.dst).collect();
        assert_eq!(gone, ["10.244.1.0/26", "10.244.3.0/26", "0.0.0.0/0"].map(cidr));
        // Of nobody's claims only what ours lead to is told.
        let gone: Vec<_> =
            stale(&routes, &Claims::default()).iter().map(|route| route.dst).collect();
        assert_eq!(gone, ["10.244.1.0/26", "0.0.0.0/0"].map(cidr));
    }
}
