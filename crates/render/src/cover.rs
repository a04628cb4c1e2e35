//! Networks that do not overlap.

use model::net::Cidr;

/// Returns networks that hold the same addresses, none of them inside another:
/// the kernel refuses sets of networks that overlap.
#[must_use]
pub fn disjoint(nets: impl IntoIterator<Item = Cidr>) -> Vec<Cidr> {
    let mut sorted: Vec<Cidr> = nets.into_iter().collect();
    // By address, wider ones first: what covers a network comes before it.
    sorted.sort_by_key(|net| (net.family(), net.addr(), net.prefix_len()));
    let mut kept: Vec<Cidr> = Vec::with_capacity(sorted.len());
    for net in sorted {
        if !kept.last().is_some_and(|last| last.covers(&net)) {
            kept.push(net);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_the_same_addresses_once(
            nets in prop::collection::vec((0_u32..64, 24_u8..=32), 0..30),
        ) {
            let addr = |bits: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 | bits));
            let nets: Vec<Cidr> = nets
                .into_iter()
                .map(|(bits, len)| Cidr::containing(addr(bits), len).unwrap())
                .collect();
            let kept = disjoint(nets.clone());
            for bits in 0..512 {
                let is_in = nets.iter().any(|net| net.contains(addr(bits)));
                let times = kept.iter().filter(|net| net.contains(addr(bits))).count();
                prop_assert_eq!(times, usize::from(is_in));
            }
        }
    }
}
