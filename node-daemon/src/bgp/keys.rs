//! Which keys a listening socket needs so that peers with passwords may connect (RFC 2385).
//!
//! The kernel holds the keys of a socket in memory that a sysctl bounds
//! (`net.core.optmem_max`): at its usual size 150 of them, and meshes are larger. So peers
//! that share a password, with nobody else between their addresses, share one key.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::desired::{BgpSession, Password};
use model::net::{Cidr, Family, zone};

/// The password of the connections that come from each range; of two ranges that cover an
/// address the longer one counts, as in the kernel.
pub(super) type Keys = BTreeMap<Cidr, Password>;

/// Returns the keys for `sessions`.
pub(super) fn of(sessions: &[BgpSession]) -> Keys {
    let mut by_addr: BTreeMap<IpAddr, Option<&Password>> = BTreeMap::new();
    for session in sessions {
        // The kernel compares link-local addresses without their link.
        let addr = zone::split(session.peer_addr).0;
        by_addr.entry(addr).or_insert(session.password.as_ref());
    }
    let mut keys = Keys::new();
    for family in Family::ALL {
        let of_family = by_addr.iter().filter(|(addr, _)| Family::of(**addr) == family);
        let peers: Vec<_> = of_family.map(|(addr, password)| (*addr, *password)).collect();
        cover(&peers, &mut keys);
    }
    keys
}

/// Adds the keys of `peers`, which are sorted: one for all of them if they have one password,
/// else those of each half of the smallest range that holds them.
fn cover(peers: &[(IpAddr, Option<&Password>)], keys: &mut Keys) {
    let (Some((first, password)), Some((last, _))) = (peers.first(), peers.last()) else { return };
    let Some(range) = common(*first, *last) else { return };
    if peers.iter().all(|(_, other)| other == password) {
        if let Some(password) = password {
            keys.insert(range, (*password).clone());
        }
        return;
    }
    // The first address lies in the lower half of the smallest common range, the last does not.
    let lower = Cidr::containing(*first, range.prefix_len().saturating_add(1));
    let is_lower = |addr: IpAddr| lower.as_ref().is_ok_and(|half| half.contains(addr));
    let middle = peers.partition_point(|(addr, _)| is_lower(*addr));
    let (lower, upper) = peers.split_at(middle);
    cover(lower, keys);
    cover(upper, keys);
}

/// Returns the smallest range with both addresses.
fn common(a: IpAddr, b: IpAddr) -> Option<Cidr> {
    let bits = Family::of(a).bits();
    let ranges = (0..=bits).rev().filter_map(|len| Cidr::containing(a, len).ok());
    ranges.into_iter().find(|range| range.contains(b))
}

#[cfg(test)]
mod tests {
    use model::net::Asn;
    use proptest::prelude::*;

    use super::*;

    fn session(addr: IpAddr, password: Option<&str>) -> BgpSession {
        BgpSession {
            password: password.and_then(|text| Password::new(text.as_bytes())),
            ..BgpSession::new("peer".to_owned(), addr, Asn(1), Asn(1))
        }
    }

    fn words(peers: &[(&str, Option<&str>)]) -> Vec<String> {
        let sessions: Vec<_> =
            peers.iter().map(|(addr, key)| session(addr.parse().unwrap(), *key)).collect();
        let keys = of(&sessions);
        let text = |(range, key): (&Cidr, &Password)| {
            format!("{range} {}", String::from_utf8_lossy(key.expose()))
        };
        keys.iter().map(text).collect()
    }

    #[test]
    fn peers_with_one_password_share_one_key() {
        let one = Some("mesh");
        assert_eq!(
            words(&[("10.0.0.1", one), ("10.0.0.9", one), ("fd00::1", one), ("fd00::2", one)]),
            ["10.0.0.0/28 mesh", "fd00::/126 mesh"]
        );
        assert_eq!(words(&[("10.0.0.1", one)]), ["10.0.0.1/32 mesh"]);
    }

    #[test]
    fn a_peer_without_password_is_left_out() {
        let one = Some("mesh");
        assert_eq!(
            words(&[("10.0.0.1", one), ("10.0.0.2", None), ("10.0.0.3", one)]),
            ["10.0.0.1/32 mesh", "10.0.0.3/32 mesh"]
        );
        assert_eq!(words(&[("10.0.0.1", None)]), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn every_peer_has_its_own_key_and_the_others_none(
            peers in proptest::collection::btree_map(0_u8.., 0_usize..3, 0..40)
        ) {
            let passwords = [None, Some("a"), Some("b")];
            let addr = |number: u8| IpAddr::from([10, 0, 0, number]);
            let sessions: Vec<_> = peers
                .iter()
                .map(|(number, which)| session(addr(*number), passwords[*which]))
                .collect();
            let keys = of(&sessions);
            for session in &sessions {
                let covering = keys.iter().filter(|(range, _)| range.contains(session.peer_addr));
                let longest = covering.max_by_key(|(range, _)| range.prefix_len());
                prop_assert_eq!(longest.map(|(_, key)| key), session.password.as_ref());
            }
        }
    }
}
