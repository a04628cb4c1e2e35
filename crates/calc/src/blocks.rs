//! Which node's blocks an address lies in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::block::{Affinity, AffinityState, Owner};
use model::id::NodeName;
use model::net::{Cidr, Family};

/// The blocks that belong to nodes beyond doubt, by their range.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Blocks {
    /// More than one owner is an error of the datastore; the first by name counts.
    owners: BTreeMap<Cidr, BTreeSet<NodeName>>,
    /// How many blocks have each length of prefix.
    lens: BTreeMap<(Family, u8), usize>,
}

impl Blocks {
    /// Takes note that a claim has changed.
    pub(crate) fn replace(&mut self, old: Option<&Affinity>, new: Option<&Affinity>) {
        if let Some((cidr, node)) = old.and_then(confirmed) {
            self.remove(cidr, node);
        }
        if let Some((cidr, node)) = new.and_then(confirmed) {
            self.insert(cidr, node);
        }
    }

    /// Returns all blocks with their owners, in the order of their ranges.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cidr, &NodeName)> {
        self.owners.iter().filter_map(|(cidr, nodes)| Some((*cidr, nodes.first()?)))
    }

    /// Returns the owner of the smallest block that `addr` lies in.
    pub(crate) fn owner_of(&self, addr: IpAddr) -> Option<&NodeName> {
        let family = Family::of(addr);
        let lens = self.lens.range((family, 0)..=(family, family.bits())).rev();
        lens.filter_map(|((_, len), _)| self.owners.get(&Cidr::containing(addr, *len).ok()?))
            .find_map(BTreeSet::first)
    }

    fn insert(&mut self, cidr: Cidr, node: &NodeName) {
        let owners = self.owners.entry(cidr).or_default();
        if owners.is_empty() {
            let count = self.lens.entry((cidr.family(), cidr.prefix_len())).or_default();
            *count = count.saturating_add(1);
        }
        owners.insert(node.clone());
    }

    fn remove(&mut self, cidr: Cidr, node: &NodeName) {
        let Some(owners) = self.owners.get_mut(&cidr) else { return };
        owners.remove(node);
        if !owners.is_empty() {
            return;
        }
        self.owners.remove(&cidr);
        let key = (cidr.family(), cidr.prefix_len());
        if let Some(count) = self.lens.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.lens.remove(&key);
            }
        }
    }
}

/// Returns those of a node's blocks among these claims that are its own beyond doubt.
pub(crate) fn blocks_of<'a, 'b>(
    affinities: impl Iterator<Item = &'a Affinity> + 'b,
    node: &'b NodeName,
) -> impl Iterator<Item = Cidr> + 'b
where
    'a: 'b,
{
    let sure = affinities.filter_map(confirmed);
    sure.filter_map(move |(cidr, owner)| (owner == node).then_some(cidr))
}

/// Returns a node's block if the claim is beyond doubt: a pending one may turn out to be another's.
fn confirmed(affinity: &Affinity) -> Option<(Cidr, &NodeName)> {
    let is_sure = affinity.state == AffinityState::Confirmed && !affinity.is_deleted;
    match &affinity.owner {
        Owner::Host(node) if is_sure => Some((affinity.cidr, node)),
        Owner::Host(_) | Owner::Virtual(_) => None,
    }
}
