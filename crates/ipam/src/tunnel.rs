//! The address of a node's tunnel: kept while it may be, given back when it is not wanted.
//!
//! Two things must agree: what address management holds for the tunnel, and what the node's
//! annotation tells the other nodes. [`step`] is the next thing to do to get there, from any state;
//! the other nodes never hear of an address that is not held.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::desired::TunnelAddrDemand;

/// The next thing to do about a tunnel's address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TunnelStep {
    /// Nothing.
    Settled,
    /// Have the node's annotation say this.
    Annotate(Option<IpAddr>),
    /// Give back all that is held.
    Release,
    /// Have one assigned.
    Assign,
}

/// Returns the next thing to do for an address that is `demanded`, or not, while the node's
/// annotation says `annotated` and the tunnel's handle holds `held`.
#[must_use]
pub fn step(
    demanded: Option<&TunnelAddrDemand>,
    annotated: Option<IpAddr>,
    held: &BTreeSet<IpAddr>,
) -> TunnelStep {
    let may_stay = |addr: &&IpAddr| {
        demanded.is_some_and(|demand| demand.kept.iter().any(|range| range.contains(**addr)))
    };
    let good: BTreeSet<IpAddr> = held.iter().filter(may_stay).copied().collect();
    if annotated.is_some_and(|addr| good.contains(&addr)) {
        return TunnelStep::Settled;
    }
    if let Some(addr) = good.first() {
        return TunnelStep::Annotate(Some(*addr));
    }
    // Others must not send to an address that is about to be somebody else's.
    if annotated.is_some() {
        return TunnelStep::Annotate(None);
    }
    if !held.is_empty() {
        return TunnelStep::Release;
    }
    match demanded {
        Some(demand) if !demand.assigned.is_empty() => TunnelStep::Assign,
        Some(_) | None => TunnelStep::Settled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn demand(kept: &[&str], assigned: &[&str]) -> TunnelAddrDemand {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        TunnelAddrDemand { kept: ranges(kept), assigned: ranges(assigned) }
    }

    #[test]
    fn an_address_that_may_stay_stays() {
        let low = demand(&["10.0.0.0/25"], &["10.0.0.0/25"]);
        let disabled = demand(&["10.0.0.0/25"], &[]);
        for demand in [&low, &disabled] {
            let held = BTreeSet::from([addr(1)]);
            assert_eq!(step(Some(demand), Some(addr(1)), &held), TunnelStep::Settled);
            assert_eq!(step(Some(demand), None, &held), TunnelStep::Annotate(Some(addr(1))));
            let wrong = step(Some(demand), Some(addr(2)), &held);
            assert_eq!(wrong, TunnelStep::Annotate(Some(addr(1))));
        }
    }

    /// From every state it is a few steps to one that agrees with what is wanted, and on the way
    /// the annotation never names an address that is not held.
    #[test]
    fn every_state_leads_to_what_is_wanted() {
        let demands = [
            None,
            Some(demand(&["10.0.0.0/25"], &["10.0.0.0/25"])),
            Some(demand(&["10.0.0.0/25"], &[])),
        ];
        let addrs = [None, Some(addr(1)), Some(addr(2)), Some(addr(200))];
        let held = |first: Option<IpAddr>, second: Option<IpAddr>| {
            first.into_iter().chain(second).collect::<BTreeSet<IpAddr>>()
        };
        for demanded in &demands {
            for annotated in addrs {
                for (first, second) in addrs.iter().flat_map(|one| addrs.map(|two| (*one, two))) {
                    let end = play(demanded.as_ref(), annotated, held(first, second));
                    let (annotated, held) = end;
                    let is_low = |addr: &IpAddr| *addr < self::addr(128);
                    match demanded {
                        None => assert_eq!((annotated, held), (None, BTreeSet::new())),
                        Some(demand) if demand.assigned.is_empty() => {
                            let is_right = annotated.is_none_or(|addr| held.contains(&addr));
                            assert!(is_right && annotated.is_some() == held.iter().any(is_low));
                        }
                        Some(_) => {
                            let addr = annotated.unwrap();
                            assert!(is_low(&addr) && held.contains(&addr));
                        }
                    }
                }
            }
        }
    }

    fn play(
        demanded: Option<&TunnelAddrDemand>,
        mut annotated: Option<IpAddr>,
        mut held: BTreeSet<IpAddr>,
    ) -> (Option<IpAddr>, BTreeSet<IpAddr>) {
        for _ in 0..5 {
            match step(demanded, annotated, &held) {
                TunnelStep::Settled => return (annotated, held),
                TunnelStep::Annotate(addr) => {
                    assert!(addr.is_none_or(|addr| held.contains(&addr)));
                    annotated = addr;
                }
                TunnelStep::Release => {
                    assert_eq!(annotated, None, "nobody sends to it any more");
                    held.clear();
                }
                TunnelStep::Assign => {
                    held.insert(addr(7));
                }
            }
        }
        panic!("no end: {demanded:?} {annotated:?} {held:?}");
    }
}
