//! Sets that selectors, Services and named ports stand for.

use std::collections::BTreeSet;

use model::desired::policy::{PolicyState, SetId, SetMember};
use model::net::{Cidr, Family};
use model::ruleset::{Element, ElementKind};

use crate::cover::disjoint;
use crate::fragment::Part;
use crate::name;

/// Adds a set: addresses are found by hashing, networks in a tree beside them.
pub(crate) fn add(part: &mut Part<'_>, id: SetId, members: &BTreeSet<SetMember>) {
    let family = part.family;
    let kind = if id.kind().has_ports() { ElementKind::AddrPort } else { ElementKind::Addr };
    part.set(
        name::addrs(id, family),
        kind,
        members.iter().filter_map(|member| one(*member, family)),
    );
    let nets = cover(members, family);
    if !nets.is_empty() {
        part.set(name::nets(id, family), ElementKind::Net, nets);
    }
}

/// Returns the element that `member` is in the hashed set of `family`, if it is one there.
pub(crate) fn one(member: SetMember, family: Family) -> Option<Element> {
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
pub(crate) fn cover(members: &BTreeSet<SetMember>, family: Family) -> BTreeSet<Element> {
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
