//! From the peers that a device has to those that it should have, without a gap.
//!
//! An address that stays a peer's is its all the time, and one that moves from a peer to another
//! is always either's: packets of running connections must not meet a moment in which nobody may
//! receive them. The kernel takes an address from a peer only by giving it to another, or by
//! clearing all of the peer's first, which would be such a moment. So addresses that
//! nobody has any more are given to a peer that does not exist otherwise, and that is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::net::Cidr;

use super::{Peer, PeerChange, PeerSpec, PublicKey};

/// Whom addresses are given to that nobody has any more; no machine has this key's secret.
const NOBODY: PublicKey = PublicKey(*b"calico: addresses without a peer");

/// What is for an instant the time after which a peer that takes over from another is sent
/// something: the other side has a new key, and may have packets waiting for a session.
const KNOCK: Duration = Duration::from_secs(1);

/// Returns what to change, in order, so that a device with peers `actual` has peers `desired`.
///
/// A peer that was heard at another address than we say stays there: WireGuard follows those
/// that move, and `is_moved` tells for which one what we say is news.
#[must_use]
pub fn changes(
    desired: &BTreeMap<PublicKey, PeerSpec>,
    actual: &BTreeMap<PublicKey, Peer>,
    is_moved: impl Fn(&PublicKey, &PeerSpec) -> bool,
) -> Vec<PeerChange> {
    let mut changes = Vec::new();
    for (key, spec) in desired {
        let there = actual.get(key);
        let known = there.and_then(|peer| peer.peer_addr);
        let is_new_addr = known.is_none() || is_moved(key, spec);
        let peer_addr = Some(spec.peer_addr).filter(|addr| is_new_addr && known != Some(*addr));
        let keepalive = there.map(|peer| peer.keepalive);
        let keepalive = (keepalive != Some(spec.keepalive)).then_some(spec.keepalive);
        let has = |cidr: &&Cidr| there.is_some_and(|peer| peer.allowed.contains(cidr));
        let allow: BTreeSet<Cidr> =
            spec.allowed.iter().filter(|cidr| !has(cidr)).copied().collect();
        if there.is_none() || peer_addr.is_some() || keepalive.is_some() || !allow.is_empty() {
            let has_any = |peer: &Peer| !peer.allowed.is_disjoint(&allow);
            let is_heir = there.is_none() && actual.values().any(has_any);
            let update =
                |keepalive, allow| PeerChange::Update { key: *key, peer_addr, keepalive, allow };
            // What begins a session at once: to be sent something now and then, even if only for
            // a moment.
            if is_heir && spec.keepalive.is_zero() {
                changes.push(update(Some(KNOCK), allow));
                changes.push(PeerChange::Update {
                    key: *key,
                    peer_addr: None,
                    keepalive,
                    allow: BTreeSet::new(),
                });
            } else {
                changes.push(update(keepalive, allow));
            }
        }
    }
    let wanted: BTreeSet<Cidr> =
        desired.values().flat_map(|spec| spec.allowed.iter().copied()).collect();
    let kept = actual.iter().filter(|(key, _)| desired.contains_key(*key));
    let lost = kept.flat_map(|(_, peer)| peer.allowed.difference(&wanted).copied());
    let lost: BTreeSet<Cidr> = lost.collect();
    if !lost.is_empty() {
        let (peer_addr, keepalive) = (None, None);
        changes.push(PeerChange::Update { key: NOBODY, peer_addr, keepalive, allow: lost });
        changes.push(PeerChange::Remove(NOBODY));
    }
    let gone = actual.keys().filter(|key| !desired.contains_key(*key));
    changes.extend(gone.copied().map(PeerChange::Remove));
    changes
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;

    use super::*;

    type Peers = BTreeMap<PublicKey, Peer>;

    /// Does what the kernel would; `watch` sees every state that packets could meet.
    fn apply(peers: &mut Peers, changes: &[PeerChange], mut watch: impl FnMut(&Peers)) {
        for change in changes {
            match change {
                PeerChange::Remove(key) => {
                    peers.remove(key);
                }
                PeerChange::Update { key, peer_addr, keepalive, allow } => {
                    let peer = peers.entry(*key).or_default();
                    peer.peer_addr = peer_addr.or(peer.peer_addr);
                    peer.keepalive = keepalive.unwrap_or(peer.keepalive);
                    for cidr in allow {
                        for peer in peers.values_mut() {
                            peer.allowed.remove(cidr);
                        }
                        peers.get_mut(key).unwrap().allowed.insert(*cidr);
                        watch(peers);
                    }
                }
            }
            watch(peers);
        }
    }

    fn cidr(number: u8) -> Cidr {
        format!("10.244.{number}.0/26").parse().unwrap()
    }

    fn addr(number: u8) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, number), 51_820).into()
    }

    /// Peers by number, each with an address and the blocks that are its; no block is two peers'.
    fn layout() -> impl Strategy<Value = BTreeMap<PublicKey, (u8, u8, BTreeSet<Cidr>)>> {
        let owners = proptest::collection::vec(0_u8..6, 8);
        let facts = proptest::collection::btree_map(0_u8..5, (0_u8..4, 0_u8..2), 0..5);
        (owners, facts).prop_map(|(owners, facts)| {
            let blocks = |of: u8| {
                let mine = owners.iter().zip(0_u8..).filter(move |(owner, _)| **owner == of);
                mine.map(|(_, block)| cidr(block)).collect()
            };
            let peers = facts.into_iter();
            peers
                .map(|(key, (at, alive))| (PublicKey([key; 32]), (at, alive, blocks(key))))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn peers_become_what_they_should_be_without_a_gap(before in layout(), after in layout()) {
            let peer = |(at, alive, allowed): &(u8, u8, BTreeSet<Cidr>)| Peer {
                peer_addr: Some(addr(*at)),
                keepalive: Duration::from_secs((*alive).into()),
                allowed: allowed.clone(),
                ..Peer::default()
            };
            let spec = |(at, alive, allowed): &(u8, u8, BTreeSet<Cidr>)| PeerSpec {
                peer_addr: addr(*at),
                keepalive: Duration::from_secs((*alive).into()),
                allowed: allowed.clone(),
            };
            let mut peers: Peers = before.iter().map(|(key, all)| (*key, peer(all))).collect();
            let desired = after.iter().map(|(key, all)| (*key, spec(all))).collect();
            let of = |all: &BTreeMap<PublicKey, (u8, u8, BTreeSet<Cidr>)>| -> BTreeSet<Cidr> {
                all.values().flat_map(|(.., allowed)| allowed.clone()).collect()
            };
            let lasting: BTreeSet<Cidr> = of(&before).intersection(&of(&after)).copied().collect();
            let plan = changes(&desired, &peers, |_, _| true);
            let mut gaps = 0;
            apply(&mut peers, &plan, |peers| {
                let held: BTreeSet<Cidr> =
                    peers.values().flat_map(|peer| peer.allowed.clone()).collect();
                gaps += usize::from(!held.is_superset(&lasting));
            });
            prop_assert_eq!(gaps, 0);
            let wanted: Peers = after.iter().map(|(key, all)| (*key, peer(all))).collect();
            prop_assert_eq!(&peers, &wanted);
            prop_assert!(changes(&desired, &peers, |_, _| true).is_empty());
        }
    }

    #[test]
    fn a_peer_that_moved_by_itself_is_followed() {
        let key = PublicKey([1; 32]);
        let spec =
            PeerSpec { peer_addr: addr(1), keepalive: Duration::ZERO, allowed: [cidr(0)].into() };
        let there = Peer { peer_addr: Some(addr(9)), allowed: [cidr(0)].into(), ..Peer::default() };
        let (desired, actual) = ([(key, spec)].into(), [(key, there)].into());
        assert!(changes(&desired, &actual, |_, _| false).is_empty());
        assert_eq!(changes(&desired, &actual, |_, _| true).len(), 1);
    }
}
