//! Sets that selectors, Services and named ports stand for.

use std::collections::BTreeSet;

use model::desired::policy::{PolicyState, SetId, SetKind, SetMember};
use model::net::{Cidr, Family};
use model::ruleset::{Element, ElementKind};

use crate::cover::disjoint;
use crate::fragment::Part;
use crate::name;

/// Which sets share one of the kernel's: those whose digest does not start with
/// this many zero bits. A power of two of sets more is one bit more, so that most
/// changes of their number move none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sharing {
    bits: u32,
}

impl Sharing {
    /// Makes at most about `limit` of the sets have one to themselves.
    pub(crate) fn of(ids: impl Iterator<Item = SetId>, limit: usize) -> Self {
        let count = ids.filter(|id| !id.kind().has_ports()).count();
        let bits = (0..usize::BITS).find(|bits| count >> bits <= limit);
        Self { bits: bits.unwrap_or(usize::BITS) }
    }

    /// Do any share?
    pub(crate) const fn is_used(self) -> bool {
        self.bits > 0
    }

    /// Returns the number of a set that shares; `None` if it has one to itself.
    pub(crate) fn number(self, id: SetId) -> Option<u128> {
        let is_shared = !id.kind().has_ports() && id.number().leading_zeros() < self.bits;
        is_shared.then(|| id.number())
    }

    /// Returns the kernel's set for the addresses of `id`.
    pub(crate) fn name(self, id: SetId, family: Family) -> String {
        match self.number(id) {
            Some(_) => name::shared(id.kind(), family),
            None => name::addrs(id, family),
        }
    }

    /// Returns the element of that set that `member` is, if it is one there.
    pub(crate) fn element(self, id: SetId, member: SetMember, family: Family) -> Option<Element> {
        match (one(member, family)?, self.number(id)) {
            (Element::Addr(addr), Some(number)) => Some(Element::Member(number, addr)),
            (element, _) => Some(element),
        }
    }
}

/// Adds a set: addresses are found by hashing, networks in a tree beside them.
pub(crate) fn add(part: &mut Part<'_>, sharing: Sharing, id: SetId, members: &BTreeSet<SetMember>) {
    let family = part.family;
    let kind = if id.kind().has_ports() { ElementKind::AddrPort } else { ElementKind::Addr };
    let elements = members.iter().filter_map(|member| sharing.element(id, *member, family));
    let name = sharing.name(id, family);
    if sharing.number(id).is_some() {
        for element in elements {
            part.element(name.clone(), element);
        }
    } else {
        part.set(name, kind, elements);
    }
    let nets = cover(members, family);
    if !nets.is_empty() {
        part.set(name::nets(id, family), ElementKind::Net, nets);
    }
}

/// Adds the sets that many share.
pub(crate) fn add_shared(part: &mut Part<'_>) {
    for kind in [SetKind::Selected, SetKind::ServiceAddrs] {
        part.set(name::shared(kind, part.family), ElementKind::Member, []);
    }
}

/// Returns the element that `member` is in the hashed set of `family`, if it is one there.
fn one(member: SetMember, family: Family) -> Option<Element> {
    match member {
        SetMember::Net(net) if net.is_host() && net.family() == family => {
            Some(Element::Addr(net.addr()))
        }
        SetMember::Port(addr, protocol, port) if Family::of(addr) == family => {
            Some(Element::AddrPort(addr, protocol, port))
        }
        SetMember::Net(_) | SetMember::Port(..) => None,
    }
}

/// Returns the networks of `family` that are no single addresses.
fn cover(members: &BTreeSet<SetMember>, family: Family) -> BTreeSet<Element> {
    let nets = members.iter().filter_map(|member| net(*member, family));
    disjoint(nets).into_iter().map(Element::Net).collect()
}

/// Has the set networks of `family`, so that rules look it up twice?
pub(crate) fn has_nets(state: &PolicyState, id: SetId, family: Family) -> bool {
    let members = state.sets.get(&id);
    members.is_some_and(|members| members.iter().any(|member| net(*member, family).is_some()))
}

/// Returns the network that `member` is in the tree of `family`, if it is one there.
pub(crate) fn net(member: SetMember, family: Family) -> Option<Cidr> {
    match member {
        SetMember::Net(net) if !net.is_host() && net.family() == family => Some(net),
        SetMember::Net(_) | SetMember::Port(..) => None,
    }
}
