//! What to change in the kernel so that a device is as it should be.
//!
//! A new device is complete before its rule leads packets to it, and the rule goes before it does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ::kernel::netlink::{Link, MarkMatch, RouteChange, RouteEntry, Rule, Target};
use ::kernel::wireguard::{Device, PeerChange, PeerSpec, changes};
use model::desired::{RouteKey, RouteProtocol, WireguardDevice, WireguardRoute};
use model::net::{Cidr, Family, IfIndex, InterfaceAddr, Mtu};
use model::wireguard::PublicKey;

use super::{OfFamily, Place};

/// What the kernel has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Actual {
    /// The link, if it is there and a WireGuard device.
    pub(super) link: Option<Link>,
    /// What WireGuard says of it.
    pub(super) device: Device,
    /// Its addresses of the family, but link-local ones.
    pub(super) addrs: Vec<InterfaceAddr>,
    /// The routes of the table that are ours.
    pub(super) routes: BTreeMap<Cidr, RouteEntry>,
    /// The rules that are ours.
    pub(super) rules: Vec<Rule>,
}

/// A change of the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Make the device.
    AddLink(Mtu),
    /// Set the MTU.
    SetMtu(IfIndex, Mtu),
    /// Give it a new private key.
    MakeKey,
    /// Set the mark of packets that carry others.
    SetMark(u32),
    /// Set the UDP port.
    SetPort(u16),
    /// Change peers.
    Peers(Vec<PeerChange>),
    /// Give it an address.
    AddAddr(IfIndex, InterfaceAddr),
    /// Take an address from it.
    DeleteAddr(IfIndex, InterfaceAddr),
    /// Set it up.
    SetUp(IfIndex),
    /// Change routes.
    Routes(Vec<RouteChange>),
    /// Add a rule.
    AddRule(Rule),
    /// Delete a rule.
    DeleteRule(Rule),
    /// Delete the device.
    DeleteLink,
    /// Look again before going on: the device is new.
    Look,
}

/// Where peers were last told to be: WireGuard follows those that move by itself.
pub(super) type Told = BTreeMap<PublicKey, SocketAddr>;

/// Returns the changes in order; none if all is as it should be.
pub(super) fn steps(wanted: &OfFamily, actual: &Actual, told: &Told) -> Vec<Step> {
    let Some(device) = &wanted.device else { return removal(wanted, actual) };
    let Some(link) = &actual.link else { return vec![Step::AddLink(device.mtu), Step::Look] };
    let mut steps = Vec::new();
    if link.mtu != device.mtu {
        steps.push(Step::SetMtu(link.index, device.mtu));
    }
    if actual.device.mark != device.mark {
        steps.push(Step::SetMark(device.mark));
    }
    if actual.device.listen_port != device.port {
        steps.push(Step::SetPort(device.port));
    }
    if actual.device.public_key.is_none() {
        steps.push(Step::MakeKey);
    }
    steps.extend(addrs(device, actual, link.index));
    if !link.is_up {
        // Routes are lost with the link's state: they are seen again when it is up.
        steps.extend([Step::SetUp(link.index), Step::Look]);
        return steps;
    }
    // What leads to a peer comes after the peer, and goes before him.
    let is_gone = |change: &PeerChange| matches!(change, PeerChange::Remove(key) if actual.device.peers.contains_key(key));
    let (gone, come): (Vec<_>, Vec<_>) =
        peers(device, &actual.device, told).into_iter().partition(is_gone);
    let routes = routes(device, actual, link.index);
    steps.extend((!come.is_empty()).then_some(Step::Peers(come)));
    steps.extend((!routes.is_empty()).then_some(Step::Routes(routes)));
    steps.extend((!gone.is_empty()).then_some(Step::Peers(gone)));
    steps.extend(rules(&wanted.place, device.family, actual));
    steps
}

fn removal(wanted: &OfFamily, actual: &Actual) -> Vec<Step> {
    let mut steps: Vec<Step> = actual.rules.iter().copied().map(Step::DeleteRule).collect();
    // A table without a rule does nothing: it may be somebody else's, unless a device is there.
    if actual.link.is_some() || !steps.is_empty() {
        let routes: Vec<_> = actual.routes.values().cloned().map(RouteChange::Delete).collect();
        if !routes.is_empty() {
            steps.push(Step::Routes(routes));
        }
    }
    if actual.link.is_some() && wanted.device.is_none() {
        steps.push(Step::DeleteLink);
    }
    steps
}

fn addrs(device: &WireguardDevice, actual: &Actual, link: IfIndex) -> Vec<Step> {
    let bits = device.family.bits();
    let wanted = device.addr.and_then(|addr| InterfaceAddr::new(addr, bits).ok());
    let others = actual.addrs.iter().filter(|addr| Some(**addr) != wanted);
    let added = wanted.filter(|addr| !actual.addrs.contains(addr));
    let added = added.map(|addr| Step::AddAddr(link, addr));
    added.into_iter().chain(others.map(|addr| Step::DeleteAddr(link, *addr))).collect()
}

fn peers(device: &WireguardDevice, actual: &Device, told: &Told) -> Vec<PeerChange> {
    let specs = device.peers.iter().map(|(key, peer)| {
        let spec = PeerSpec {
            peer_addr: peer.peer_addr,
            keepalive: peer.keepalive,
            allowed: peer.allowed.clone(),
        };
        (*key, spec)
    });
    let is_moved = |key: &PublicKey, spec: &PeerSpec| told.get(key) != Some(&spec.peer_addr);
    changes(&specs.collect(), &actual.peers, is_moved)
}

fn routes(device: &WireguardDevice, actual: &Actual, link: IfIndex) -> Vec<RouteChange> {
    let entry = |(dst, route): (&Cidr, &WireguardRoute)| RouteEntry {
        dst: *dst,
        target: match route {
            WireguardRoute::Encrypted => Target::Link(link),
            WireguardRoute::Throw => Target::Throw,
            WireguardRoute::Blackhole => Target::Blackhole,
        },
        protocol: RouteProtocol::CALICO,
        table: device.table,
        metric: RouteKey::from(*dst).metric,
    };
    let wanted = device.routes.iter().map(entry);
    let upserts = wanted.filter(|route| actual.routes.get(&route.dst) != Some(route));
    let gone = actual.routes.iter().filter(|(dst, _)| !device.routes.contains_key(*dst));
    let deletes = gone.map(|(_, route)| RouteChange::Delete(route.clone()));
    upserts.map(RouteChange::Upsert).chain(deletes).collect()
}

fn rules(place: &Place, family: Family, actual: &Actual) -> Vec<Step> {
    let wanted = rule(place, family);
    let is_it = |rule: &&Rule| Rule { protocol: wanted.protocol, ..**rule } == wanted;
    let mut steps = Vec::new();
    if !actual.rules.iter().any(|rule| is_it(&rule)) {
        steps.push(Step::AddRule(wanted));
    }
    let others = actual.rules.iter().filter(|rule| !is_it(rule));
    steps.extend(others.copied().map(Step::DeleteRule));
    steps
}

/// Returns the rule that leads to the table.
pub(super) fn rule(place: &Place, family: Family) -> Rule {
    let mark = MarkMatch { value: place.mark, mask: place.mark, is_inverted: true };
    Rule {
        family,
        priority: place.rule_priority,
        table: place.table,
        mark: Some(mark),
        protocol: RouteProtocol::CALICO,
    }
}

/// Is a rule ours: at our place, and by our mark or to our table?
pub(super) fn is_ours(place: &Place, found: &Rule) -> bool {
    let mark = rule(place, found.family).mark;
    found.priority == place.rule_priority && (found.mark == mark || found.table == place.table)
}

#[cfg(test)]
mod tests;
