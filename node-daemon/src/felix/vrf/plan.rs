//! What to change in the kernel so that VRFs are as they should be.
//!
//! A VRF's table ends with a route to nowhere before anything is put under the device: so no
//! packet of a tenant is ever looked up in the main table. A device whose pods nobody knows
//! any more stays as it is until the last of their links is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ::kernel::netlink::Link;
use ::kernel::route_table::Change as RouteChange;
use ::kernel::tunnels::{self, EntryChange};
use model::desired::{Route, RouteTarget, TunnelDevice, VrfDevice};
use model::net::{Cidr, Family, IfIndex, IfName};
use model::time::Timestamp;
use model::vrf::{VrfId, VrfName};

use super::{ALIAS, Wanted};
use crate::felix::engine::ADD_GRACE;

/// What the kernel has.
#[derive(Clone, Debug, Default)]
pub(super) struct Actual {
    /// All links.
    pub(super) links: BTreeMap<IfName, Link>,
    /// Those of workloads among them.
    pub(super) workloads: BTreeSet<IfName>,
    /// VRFs' tunnels, and their entries.
    pub(super) tunnels: tunnels::State,
    /// The routes of VRFs' tables that are ours.
    pub(super) tables: BTreeMap<u32, Table>,
    /// The families that the kernel has.
    pub(super) families: Vec<Family>,
}

/// What a table has of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Table {
    /// Routes.
    pub(super) routes: BTreeMap<Cidr, Route>,
    /// The families that have their last route, to nowhere.
    pub(super) guarded: BTreeSet<Family>,
}

/// A change of the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Make a VRF's device, with this table.
    AddVrf(IfName, u32),
    /// Mark a device as ours.
    Mark(IfName, IfIndex),
    /// Set a device up.
    SetUp(IfName, IfIndex),
    /// Have what a table has no route for go nowhere.
    Guard(u32, Family),
    /// End that.
    Unguard(u32, Family),
    /// Make a tunnel what it should be.
    Tunnel(IfName, TunnelDevice),
    /// Put a link under a VRF's device.
    Enslave(IfName, IfIndex, IfIndex),
    /// Change a tunnel's entries.
    Entries(Vec<EntryChange>),
    /// Change routes of a table.
    Routes(u32, Vec<RouteChange>),
    /// Delete a device.
    Delete(IfName),
    /// Look again before going on: links have changed.
    Look,
}

/// What is in the way of a VRF.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// A link of somebody else.
    Taken(IfName),
    /// Pods, while the VRF's number has changed.
    Occupied(VrfName, u32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(link) => write!(
                f,
                "link {link} is there and not calico-node's: delete it, or give the VRF another \
                 name or number"
            ),
            Self::Occupied(vrf, table) => write!(
                f,
                "pods of this node are in VRF {vrf} with the number {table}: a VRF's number can \
                 change when its last pod has gone. Say {table} in its pools until then"
            ),
        }
    }
}

/// Since when workloads' routes are there without a workload: the CNI plugin writes a route before
/// its pod's address is in the datastore.
#[derive(Clone, Debug, Default)]
pub(super) struct Grace(BTreeMap<(u32, Cidr), Timestamp>);

impl Grace {
    /// Returns when the first of them may go.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.0.values().map(|since| *since + ADD_GRACE).min()
    }

    /// Takes note of a table's routes whose workloads nobody knows; returns those that may go.
    fn expired(&mut self, table: u32, unknown: &BTreeSet<Cidr>, now: Timestamp) -> BTreeSet<Cidr> {
        self.0.retain(|(of, dst), _| *of != table || unknown.contains(dst));
        for dst in unknown {
            self.0.entry((table, *dst)).or_insert(now);
        }
        let since = |dst: &Cidr| self.0.get(&(table, *dst));
        let is_old = |dst: &&Cidr| since(dst).is_some_and(|at| at.until(now) >= ADD_GRACE);
        unknown.iter().filter(is_old).copied().collect()
    }
}

/// Returns the changes of one VRF in order; none if all is as it should be.
///
/// # Errors
///
/// What is in the way; nothing of the VRF is changed then.
pub(super) fn steps(
    (name, device): (&VrfName, &VrfDevice),
    actual: &Actual,
    (grace, now): (&mut Grace, Timestamp),
) -> Result<Vec<Step>, Fault> {
    let table = device.id.table();
    // A VRF's name always fits a device's.
    let Some(if_name) = name.device() else { return Ok(Vec::new()) };
    let Some(link) = actual.links.get(&if_name) else {
        return Ok(vec![Step::AddVrf(if_name, table), Step::Look]);
    };
    let is_ours = is_ours(link);
    // One that was made just before a crash has no mark yet, and does nothing.
    let is_fresh = link.alias.is_none() && !link.is_up && actual.under(link).next().is_none();
    if link.vrf_table.is_none() || !(is_ours || (is_fresh && link.vrf_table == Some(table))) {
        return Err(Fault::Taken(if_name));
    }
    if let Some(old) = link.vrf_table.filter(|old| *old != table) {
        if actual.has_pods(link) {
            return Err(Fault::Occupied(name.clone(), old));
        }
        return Ok(removal(link, actual));
    }
    for tunnel in device.tunnels.keys() {
        let is_other = |link: &Link| link.vxlan.map(|vxlan| vxlan.vni) != Some(device.id.vni());
        if actual.links.get(tunnel).is_some_and(is_other) {
            return Err(Fault::Taken(tunnel.clone()));
        }
    }
    let mut steps = Vec::new();
    steps.extend((!is_ours).then(|| Step::Mark(if_name.clone(), link.index)));
    let guarded = actual.tables.get(&table).map(|table| &table.guarded);
    let is_open = |family: &&Family| !guarded.is_some_and(|guarded| guarded.contains(family));
    steps.extend(actual.families.iter().filter(is_open).map(|family| Step::Guard(table, *family)));
    if !link.is_up {
        // What is put under a device that is down is reached by nobody, and routes are not taken.
        steps.extend([Step::SetUp(if_name, link.index), Step::Look]);
        return Ok(steps);
    }
    let mut is_changed = false;
    for (tunnel, spec) in &device.tunnels {
        if actual.tunnels.devices.get(tunnel) != Some(spec) {
            steps.push(Step::Tunnel(tunnel.clone(), *spec));
            is_changed = true;
        }
    }
    for below in device.links.iter().chain(device.tunnels.keys()) {
        let found = actual.links.get(below);
        if let Some(found) = found.filter(|found| found.master != Some(link.index)) {
            steps.push(Step::Enslave(below.clone(), found.index, link.index));
            is_changed = true;
        }
    }
    if is_changed {
        // Links lose routes and neighbours on the way.
        steps.push(Step::Look);
        return Ok(steps);
    }
    let (come, gone) = entries(device, actual);
    steps.extend((!come.is_empty()).then_some(Step::Entries(come)));
    let routes = routes(device, actual, (grace, now));
    steps.extend((!routes.is_empty()).then_some(Step::Routes(table, routes)));
    steps.extend((!gone.is_empty()).then_some(Step::Entries(gone)));
    Ok(steps)
}

/// Returns what removes VRFs and tunnels of ours that nobody wants.
pub(super) fn leftovers(wanted: &Wanted, actual: &Actual) -> Vec<Step> {
    let devices = &wanted.devices;
    let is_wanted =
        |name: &VrfName| devices.by_name.contains_key(name) || devices.kept.contains(name);
    let mut steps = Vec::new();
    let mut staying = BTreeSet::new();
    for (if_name, link) in &actual.links {
        let Some(name) = VrfName::of_device(if_name).filter(|_| is_ours(link)) else { continue };
        if !is_wanted(&name) && !actual.has_pods(link) {
            steps.extend(removal(link, actual));
        } else if devices.by_name.get(&name).map(|device| device.id.table()) != link.vrf_table {
            // Nobody knows it, or its number has changed, which is not for here.
            staying.insert(link.index);
        }
    }
    let is_of = |tunnel: &IfName| {
        devices.by_name.values().any(|device| device.tunnels.contains_key(tunnel))
    };
    for (tunnel, link) in actual.links.iter().filter(|(name, link)| is_tunnel(name, link)) {
        let stays = link.master.is_some_and(|master| staying.contains(&master));
        let delete = Step::Delete(tunnel.clone());
        if !is_of(tunnel) && !stays && !steps.contains(&delete) {
            steps.push(delete);
        }
    }
    steps
}

/// Is a link a VRF's device of ours?
pub(crate) fn is_ours(link: &Link) -> bool {
    link.vrf_table.is_some() && link.alias.as_deref() == Some(ALIAS)
}

/// Is a link a VRF's tunnel: are both its name and its network the number of one?
pub(crate) fn is_tunnel(name: &IfName, link: &Link) -> bool {
    let vni = link.vxlan.map(|vxlan| vxlan.vni);
    VrfId::of_tunnel(name).is_some_and(|(id, _)| vni == Some(id.vni()))
}

/// Returns what removes a VRF without pods: first what leads to it.
fn removal(link: &Link, actual: &Actual) -> Vec<Step> {
    let below = actual.under(link).filter(|(name, link)| is_tunnel(name, link));
    let mut steps: Vec<Step> = below.map(|(name, _)| Step::Delete(name.clone())).collect();
    if let Some((number, table)) =
        link.vrf_table.and_then(|number| actual.tables.get_key_value(&number))
    {
        let deletes = table
            .routes
            .iter()
            .map(|(dst, route)| RouteChange::Delete((*dst).into(), route.clone()));
        let deletes: Vec<_> = deletes.collect();
        steps.extend((!deletes.is_empty()).then_some(Step::Routes(*number, deletes)));
        steps.extend(table.guarded.iter().map(|family| Step::Unguard(*number, *family)));
    }
    steps.extend([Step::Delete(link.name.clone()), Step::Look]);
    steps
}

/// Returns the entries to write, and those to delete.
fn entries(device: &VrfDevice, actual: &Actual) -> (Vec<EntryChange>, Vec<EntryChange>) {
    let there = &actual.tunnels.entries;
    let come = device.entries.iter().filter(|(key, entry)| {
        device.tunnels.contains_key(key.device()) && there.get(*key) != Some(*entry)
    });
    let gone = there.iter().filter(|(key, _)| {
        device.tunnels.contains_key(key.device()) && !device.entries.contains_key(*key)
    });
    let upsert = |(key, entry): (&_, &_)| EntryChange::Upsert(Clone::clone(key), *entry);
    let delete = |(key, entry): (&_, &_)| EntryChange::Delete(Clone::clone(key), *entry);
    (come.map(upsert).collect(), gone.map(delete).collect())
}

fn routes(
    device: &VrfDevice,
    actual: &Actual,
    (grace, now): (&mut Grace, Timestamp),
) -> Vec<RouteChange> {
    let is_up = |name: &IfName| actual.links.get(name).is_some_and(|link| link.is_up);
    let is_ready = |route: &Route| match &route.target {
        RouteTarget::Link(name) | RouteTarget::Tunnel(name, _) => is_up(name),
        RouteTarget::Blackhole | RouteTarget::Via(_) => true,
    };
    let desired: BTreeMap<&Cidr, &Route> =
        device.routes.iter().filter(|(_, route)| is_ready(route)).collect();
    let none = Table::default();
    let table = device.id.table();
    let there = &actual.tables.get(&table).unwrap_or(&none).routes;
    let is_unwanted = |dst: &Cidr| !desired.contains_key(dst);
    let is_workloads = |route: &Route| matches!(&route.target, RouteTarget::Link(name) if actual.workloads.contains(name));
    let unknown = there.iter().filter(|(dst, route)| is_unwanted(dst) && is_workloads(route));
    let unknown: BTreeSet<Cidr> = unknown.map(|(dst, _)| *dst).collect();
    let expired = grace.expired(table, &unknown, now);
    let gone = there
        .iter()
        .filter(|(dst, _)| is_unwanted(dst) && (!unknown.contains(*dst) || expired.contains(*dst)));
    let deletes = gone.map(|(dst, route)| RouteChange::Delete((*dst).into(), route.clone()));
    let new = desired.iter().filter(|(dst, route)| there.get(**dst) != Some(**route));
    let upserts = new.map(|(dst, route)| RouteChange::Upsert((**dst).into(), (*route).clone()));
    deletes.chain(upserts).collect()
}

impl Actual {
    /// Returns the links under a VRF's device.
    fn under(&self, vrf: &Link) -> impl Iterator<Item = (&IfName, &Link)> {
        self.links.iter().filter(move |(_, link)| link.master == Some(vrf.index))
    }

    /// Are workloads under a VRF's device?
    fn has_pods(&self, vrf: &Link) -> bool {
        self.under(vrf).any(|(name, _)| self.workloads.contains(name))
    }
}

#[cfg(test)]
mod tests;
