//! The node's BGP Identifier (RFC 6286 §2.1: four octets, not zero, unique in the AS).

use std::net::{IpAddr, Ipv4Addr};

use config::value::RouterId;
use model::node::Node;
use sha2::{Digest as _, Sha256};

/// Returns the BGP Identifier that `setting` asks for; a node without an IPv4 address
/// gets a hash of its name.
pub(crate) fn of(setting: RouterId, node: &Node) -> Ipv4Addr {
    match (setting, node.ipv4.map(|addr| addr.addr())) {
        (RouterId::Given(id), _) => id,
        (RouterId::NodeAddr, Some(IpAddr::V4(addr))) => addr,
        (RouterId::NodeAddr | RouterId::Hash, _) => hash(node.name.as_str()),
    }
}

/// Returns four octets that look like a unicast address, from the name alone.
fn hash(name: &str) -> Ipv4Addr {
    let [first, second, third, fourth, ..] = <[u8; 32]>::from(Sha256::digest(name));
    // Multicast and reserved numbers confuse some routers, and 0.x looks unset.
    let first = if first > 223 { first & 0xdf } else { first.max(1) };
    Ipv4Addr::new(first, second, third, fourth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_unicast_numbers_that_differ() {
        let ids: std::collections::BTreeSet<Ipv4Addr> =
            (0..1000).map(|number| hash(&format!("node-{number}"))).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| (1..=223).contains(&id.octets()[0])));
        assert_eq!(hash("node-1"), hash("node-1"));
    }
}
