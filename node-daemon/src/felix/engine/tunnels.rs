//! Tunnels: what they should be, what they are, and what to do in which order.
//!
//! A device comes before its entries, these before routes that lead through it; they go the other
//! way round. A device that nobody wants any more stays for [`LINGER`], since other nodes, which
//! hear of the change a moment later, still send by it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use calc::overlay::Learned;
use calc::{Cluster, Overlay, Problem};
use kernel::tunnels;
use model::desired::{
    Checksums, Route, RouteProtocol, RouteTarget, TunnelDevice, TunnelEntry, TunnelEntryKey,
};
use model::net::{Cidr, IfName, Mtu};
use model::pool::IpPool;
use model::time::Timestamp;
use reconcile::{Backoff, Change, Table};

use crate::felix::event::{
    DeviceApplied, DeviceChange, Effect, EntryApplied, EntryChange, TunnelNeeds,
};

/// How long a device stays that nobody wants.
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// What the engine knows of tunnels.
#[derive(Debug)]
pub(super) struct Tunnels {
    overlay: Overlay,
    problems: Vec<Problem>,
    devices: Table<IfName, TunnelDevice>,
    entries: Table<TunnelEntryKey, TunnelEntry>,
    unwanted_since: BTreeMap<IfName, Timestamp>,
    corrupting: BTreeSet<IfName>,
    told_needs: Option<TunnelNeeds>,
    told_mtu: Option<Mtu>,
}

/// What to do about tunnels: this before routes, that after them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) before: Vec<Effect>,
    pub(super) after: Vec<Effect>,
}

impl Tunnels {
    pub(super) fn new() -> Self {
        Self {
            overlay: Overlay::default(),
            problems: Vec::new(),
            devices: Table::new(Backoff::KERNEL),
            entries: Table::new(Backoff::KERNEL),
            unwanted_since: BTreeMap::new(),
            corrupting: BTreeSet::new(),
            told_needs: None,
            told_mtu: None,
        }
    }

    /// Calculates anew what should be.
    pub(super) fn recalculate(&mut self, cluster: &Cluster) {
        (self.overlay, self.problems) = cluster.overlay();
    }

    /// Takes note that checksums which are left to what carries this device's packets are spoiled.
    pub(super) fn corrupting(&mut self, device: IfName) {
        self.corrupting.insert(device);
    }

    /// Returns what of the datastore could not be followed.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Takes what the kernel holds; `next` is when to list it again.
    pub(super) fn listed(&mut self, state: tunnels::State, next: Timestamp) {
        self.devices.listed(state.devices, next);
        self.entries.listed(state.entries, next);
    }

    /// Must the kernel be listed first?
    pub(super) fn needs_list(&self, now: Timestamp) -> bool {
        self.devices.needs_list(now) || self.entries.needs_list(now)
    }

    /// Returns when there may be something to do although nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let linger = self.unwanted_since.values().map(|since| *since + LINGER).min();
        [linger, self.devices.next_deadline(), self.entries.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns the changes of devices that must be made, and seen, before anything else.
    ///
    /// `checksums` is what administrators say about them; if they say nothing, they stay as they
    /// were found, unless they are spoiled on the way.
    pub(super) fn devices_first(
        &mut self,
        now: Timestamp,
        checksums: Option<Checksums>,
    ) -> Option<Effect> {
        let mut wanted = self.with_lingering(now);
        if checksums.is_none() {
            for (name, device) in &mut wanted {
                let found = self.devices.actual().and_then(|devices| devices.get(name));
                let found = found.and_then(TunnelDevice::checksums).unwrap_or_default();
                let is_corrupting = self.corrupting.contains(name);
                device.set_checksums(if is_corrupting { Checksums::Filled } else { found });
            }
        }
        self.devices.want_all(wanted);
        let changes: Vec<DeviceChange> = self.devices.due(now);
        let upserts: Vec<_> = changes.into_iter().filter(is_upsert).collect();
        (!upserts.is_empty()).then_some(Effect::Devices(upserts))
    }

    /// Returns what else to do.
    pub(super) fn plan(&mut self, now: Timestamp, cluster: &Cluster) -> Plan {
        let mut plan = Plan::default();
        let entries = self.overlay.entries.iter();
        let entries = entries.filter(|(key, _)| self.is_there(key.device()));
        let entries = entries.map(|(key, entry)| (key.clone(), *entry)).collect();
        self.entries.want_all(entries);
        let (upserts, deletes): (Vec<EntryChange>, Vec<EntryChange>) =
            self.entries.due(now).into_iter().partition(is_upsert);
        plan.before.extend((!upserts.is_empty()).then_some(Effect::Entries(upserts)));
        plan.after.extend((!deletes.is_empty()).then_some(Effect::Entries(deletes)));
        let deletes: Vec<_> =
            self.devices.due(now).into_iter().filter(|change| !is_upsert(change)).collect();
        plan.after.extend((!deletes.is_empty()).then_some(Effect::Devices(deletes)));
        plan.after.extend(self.needs(cluster).map(Effect::TunnelAddrs));
        plan.after.extend(self.pod_mtu(cluster).map(Effect::PodMtu));
        plan
    }

    /// Returns the routes that are ready to be used.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&Cidr, &Route)> {
        self.overlay.routes.iter().filter(|(_, route)| match &route.target {
            RouteTarget::Tunnel(device, _) | RouteTarget::Link(device) => self.is_there(device),
            RouteTarget::Blackhole | RouteTarget::Via(_) => true,
        })
    }

    /// Returns the route that follows from one that BGP has learned; `gateways` finds those of
    /// next hops.
    pub(super) fn learned(
        &self,
        dst: &Cidr,
        next_hops: &BTreeSet<IpAddr>,
        gateways: impl FnOnce(&BTreeSet<IpAddr>) -> BTreeSet<IpAddr>,
    ) -> Option<Route> {
        let target = match self.overlay.learned(dst, next_hops) {
            Learned::Refused => return None,
            Learned::Tunnel(device, gateway) => {
                self.is_there(&device).then_some(RouteTarget::Tunnel(device, gateway))?
            }
            Learned::Plain => {
                let gateways = gateways(next_hops);
                (!gateways.is_empty()).then_some(RouteTarget::Via(gateways))?
            }
        };
        Some(Route { target, protocol: RouteProtocol::CALICO })
    }

    /// Takes note of how changes went. What became of a device's entries is unknown then.
    pub(super) fn note_devices(&mut self, results: Vec<DeviceApplied>, now: Timestamp) {
        for (change, result) in results {
            if result.is_ok() {
                self.devices.succeeded(change);
            } else {
                self.devices.failed(change.key().clone(), now);
            }
        }
        self.devices.lose();
        self.entries.lose();
    }

    /// Takes note of how changes went.
    pub(super) fn note_entries(&mut self, results: Vec<EntryApplied>, now: Timestamp) {
        let mut is_lost = false;
        for (change, result) in results {
            if result.is_ok() {
                self.entries.succeeded(change);
            } else {
                self.entries.failed(change.key().clone(), now);
                is_lost = true;
            }
        }
        if is_lost {
            self.entries.lose();
        }
    }

    /// Returns how many devices and entries could not be written and will be tried again.
    pub(super) fn failing(&self) -> usize {
        self.devices.failing().count().saturating_add(self.entries.failing().count())
    }

    /// Is the device there, and up?
    fn is_there(&self, device: &IfName) -> bool {
        let actual = self.devices.actual().and_then(|devices| devices.get(device));
        actual.is_some_and(|device| device.mtu != tunnels::STALE)
    }

    /// Returns the devices that are wanted, and those that are there and were wanted a moment ago.
    fn with_lingering(&mut self, now: Timestamp) -> BTreeMap<IfName, TunnelDevice> {
        let mut wanted = self.overlay.devices.clone();
        let actual = self.devices.actual().into_iter().flatten();
        let unwanted: BTreeMap<IfName, TunnelDevice> = actual
            .filter(|(name, _)| !wanted.contains_key(*name))
            .map(|(name, device)| (name.clone(), *device))
            .collect();
        self.unwanted_since.retain(|name, _| unwanted.contains_key(name));
        for (name, device) in unwanted {
            let since = *self.unwanted_since.entry(name.clone()).or_insert(now);
            if since.until(now) < LINGER {
                wanted.insert(name, device);
            }
        }
        wanted
    }

    fn needs(&mut self, cluster: &Cluster) -> Option<TunnelNeeds> {
        let node = cluster.nodes.get(&cluster.this_node)?;
        let demands = self.overlay.addr_demands.clone();
        let needs = TunnelNeeds { demands, annotated: node.tunnel_addrs };
        (self.told_needs.as_ref() != Some(&needs)).then(|| {
            self.told_needs = Some(needs.clone());
            needs
        })
    }

    fn pod_mtu(&mut self, cluster: &Cluster) -> Option<Mtu> {
        let pools: Vec<&IpPool> = cluster.all_pools().collect();
        let mtu = cluster.tunnels.pod_mtu(&pools);
        (self.told_mtu != Some(mtu)).then(|| {
            self.told_mtu = Some(mtu);
            mtu
        })
    }
}

const fn is_upsert<K, V>(change: &Change<K, V>) -> bool {
    matches!(change, Change::Upsert(..))
}

#[cfg(test)]
mod tests {
    use model::desired::{TunnelDeviceKind, Vxlan};
    use model::net::MacAddr;

    use super::*;

    fn device(checksums: Checksums) -> TunnelDevice {
        let (local, mac) = (IpAddr::from([192, 0, 2, 1]), MacAddr([0x66, 0, 0, 0, 0, 1]));
        let vxlan = Vxlan { vni: 4096, port: 4789, local, mac, checksums };
        TunnelDevice { kind: TunnelDeviceKind::Vxlan(vxlan), mtu: Mtu(1450), addr: None }
    }

    /// Returns who is to fill in checksums, if that is to be changed.
    fn changed(
        tunnels: &mut Tunnels,
        found: Checksums,
        said: Option<Checksums>,
    ) -> Option<Checksums> {
        let name: IfName = TunnelDevice::VXLAN_V4.parse().unwrap();
        // As `calc` has it: what is said, or else the default.
        tunnels.overlay.devices.insert(name.clone(), device(said.unwrap_or_default()));
        let devices = [(name, device(found))].into();
        let state = tunnels::State { devices, ..tunnels::State::default() };
        tunnels.listed(state, Timestamp::ZERO + LINGER);
        let effect = tunnels.devices_first(Timestamp::ZERO, said)?;
        let Effect::Devices(changes) = effect else { panic!("{effect:?}") };
        let [Change::Upsert(_, device)] = changes.as_slice() else { panic!("{changes:?}") };
        device.checksums()
    }

    #[test]
    fn checksums_stay_as_found_unless_they_are_spoiled_or_somebody_says() {
        use Checksums::{Filled, Offloaded};
        let mut tunnels = Tunnels::new();
        for found in [Offloaded, Filled] {
            assert_eq!(changed(&mut tunnels, found, None), None);
            assert_eq!(changed(&mut tunnels, found, Some(found)), None);
        }
        assert_eq!(changed(&mut tunnels, Offloaded, Some(Filled)), Some(Filled));
        assert_eq!(changed(&mut tunnels, Filled, Some(Offloaded)), Some(Offloaded));
        tunnels.corrupting(TunnelDevice::VXLAN_V6.parse().unwrap());
        assert_eq!(changed(&mut tunnels, Offloaded, None), None, "the other device is spoiled");
        tunnels.corrupting(TunnelDevice::VXLAN_V4.parse().unwrap());
        assert_eq!(changed(&mut tunnels, Offloaded, None), Some(Filled));
        assert_eq!(changed(&mut tunnels, Filled, None), None);
        assert_eq!(changed(&mut tunnels, Offloaded, Some(Offloaded)), None);
    }
}
