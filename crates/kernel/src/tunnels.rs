//! Tunnel devices with their addresses, neighbours and far ends, in `model`'s words.
//!
//! [`KernelTunnels`] is the kernel's own, [`crate::fake::Tunnels`] a working one in memory; both
//! pass the tests in `tests/tunnels.rs`.
//!
//! A device that is there already is kept, whoever made it, and changed only where it differs: so
//! one of Calico's goes on carrying packets. It is made anew only if the kernel cannot change what
//! differs. That of the module for IP in IP is never deleted, only switched off.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};

use model::desired::{
    Checksums, TunnelDevice, TunnelDeviceKind, TunnelEntry, TunnelEntryKey, Vxlan,
};
use model::net::{Family, IfIndex, IfName, InterfaceAddr, MacAddr, Mtu};

use crate::netlink::{
    AddrScope, Error, Forward, Link, LinkAddr, NeighbourChange, Netlink, VxlanLink,
};

/// The tunnels of a network namespace.
pub trait Tunnels {
    /// Lists the devices called so, and their entries.
    fn list(&self, names: &[IfName]) -> impl Future<Output = Result<State, Error>> + Send;

    /// Makes a device what it should be.
    fn upsert(
        &self,
        name: &IfName,
        device: &TunnelDevice,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes a device, or switches that of the kernel's module off; it may be gone already.
    fn delete(&self, name: &IfName) -> impl Future<Output = Result<(), Error>> + Send;

    /// Changes entries of devices in their order; returns what came of each.
    ///
    /// The outer error means that it is unknown what was done: list again.
    fn apply(
        &self,
        changes: &[EntryChange],
    ) -> impl Future<Output = Result<Vec<Result<(), Error>>, Error>> + Send;
}

/// What there is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// Devices; one that needs a look for what is not named here (it is down, it learns, it has
    /// more addresses) has [`STALE`] as its MTU.
    pub devices: BTreeMap<IfName, TunnelDevice>,
    /// Their entries.
    pub entries: BTreeMap<TunnelEntryKey, TunnelEntry>,
}

/// The MTU of a device that is not as any of ours should be.
pub const STALE: Mtu = Mtu(0);

/// A change of one entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntryChange {
    /// Write the entry in place of any other of that key.
    Upsert(TunnelEntryKey, TunnelEntry),
    /// Delete the entry, which is this now; it may be gone already.
    Delete(TunnelEntryKey, TunnelEntry),
}

/// The tunnels in the namespace of a [`Netlink`].
#[derive(Clone, Debug)]
pub struct KernelTunnels {
    netlink: Netlink,
}

/// What there is under a device's name.
enum Found {
    /// The device of the module for IP in IP.
    Ipip(Link),
    /// A VXLAN device.
    Vxlan(Link, VxlanLink),
}

impl KernelTunnels {
    /// Makes the view.
    #[must_use]
    pub const fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    /// Returns the device, if there is one; anybody's of another kind is an error.
    async fn find(&self, name: &IfName) -> Result<Option<Found>, Error> {
        let Some(link) = self.netlink.link(name).await? else { return Ok(None) };
        match found(link) {
            Some(found) => Ok(Some(found)),
            None => Err(Error::Malformed {
                table: "tunnels",
                problem: format!("{name} is no tunnel: give it another name, or delete it"),
            }),
        }
    }

    /// Makes sure that there is a VXLAN device, made by these parameters.
    async fn ensure_vxlan(&self, name: &IfName, vxlan: &Vxlan, mtu: Mtu) -> Result<Link, Error> {
        if let Some(Found::Vxlan(link, actual)) = self.find(name).await? {
            let is_same_family =
                actual.local.is_none_or(|local| Family::of(local) == Family::of(vxlan.local));
            if actual.vni == vxlan.vni && actual.port == vxlan.port && is_same_family {
                let is_same = actual.local == Some(vxlan.local) && !actual.learns;
                if is_same || self.netlink.change_vxlan(name, vxlan.local).await.is_ok() {
                    if link.mac != Some(vxlan.mac) {
                        self.netlink.set_link_mac(link.index, vxlan.mac).await?;
                    }
                    return Ok(link);
                }
            }
            self.netlink.delete_link(name).await?;
        }
        self.netlink.add_vxlan(name, vxlan, mtu).await?;
        self.netlink.require_link(name).await
    }

    async fn ensure_ipip(&self, name: &IfName) -> Result<Link, Error> {
        if self.find(name).await?.is_none() {
            self.netlink.load_ipip(name).await?;
        }
        self.netlink.require_link(name).await
    }

    /// Gives the device its only address.
    async fn set_addr(&self, link: IfIndex, addr: Option<IpAddr>) -> Result<(), Error> {
        let own = addr.and_then(|addr| InterfaceAddr::new(addr, Family::of(addr).bits()).ok());
        let found = self.netlink.addrs_of(link).await?;
        let found: Vec<InterfaceAddr> = found.into_iter().filter_map(own_addr).collect();
        // The new one first: while a device has none, the kernel forgets routes by its old one.
        if let Some(own) = own.filter(|own| !found.contains(own)) {
            self.netlink.add_addr(link, own).await?;
        }
        for old in found.into_iter().filter(|old| Some(*old) != own) {
            self.netlink.delete_addr(link, old).await?;
        }
        Ok(())
    }

    async fn add_entries(
        &self,
        link: IfIndex,
        name: &IfName,
        state: &mut State,
    ) -> Result<(), Error> {
        for found in self.netlink.neighbours_of(link).await? {
            if found.is_permanent && !found.addr.is_multicast() {
                let key = TunnelEntryKey::Neighbour(name.clone(), found.addr);
                state.entries.insert(key, TunnelEntry::Mac(found.mac));
            }
        }
        for found in self.netlink.forwards_of(link).await? {
            let key = TunnelEntryKey::Forward(name.clone(), found.mac);
            state.entries.insert(key, TunnelEntry::Node(found.to));
        }
        Ok(())
    }
}

impl Tunnels for KernelTunnels {
    async fn list(&self, names: &[IfName]) -> Result<State, Error> {
        let mut state = State::default();
        for name in names {
            let link = self.netlink.link(name).await?;
            let Some(found) = link.and_then(found) else { continue };
            let link = found.link().clone();
            let addrs = self.netlink.addrs_of(link.index).await?;
            let addrs: Vec<InterfaceAddr> = addrs.into_iter().filter_map(own_addr).collect();
            // Every namespace has the module's device, whether anybody wants it or not.
            if matches!(found, Found::Ipip(_)) && !link.is_up && addrs.is_empty() {
                continue;
            }
            let is_vxlan = matches!(found, Found::Vxlan(..));
            let checksums =
                if is_vxlan { self.netlink.checksums(name).await? } else { Checksums::Offloaded };
            state.devices.insert(name.clone(), described(&found, &addrs, checksums));
            if is_vxlan {
                self.add_entries(link.index, name, &mut state).await?;
            }
        }
        Ok(state)
    }

    async fn upsert(&self, name: &IfName, device: &TunnelDevice) -> Result<(), Error> {
        let link = match &device.kind {
            TunnelDeviceKind::Ipip => self.ensure_ipip(name).await?,
            TunnelDeviceKind::Vxlan(vxlan) => {
                let link = self.ensure_vxlan(name, vxlan, device.mtu).await?;
                if self.netlink.checksums(name).await? != vxlan.checksums {
                    self.netlink.set_checksums(name, vxlan.checksums).await?;
                }
                link
            }
        };
        if link.mtu != device.mtu {
            self.netlink.set_link_mtu(link.index, device.mtu).await?;
        }
        self.set_addr(link.index, device.addr).await?;
        if !link.is_up {
            self.netlink.set_link_up(link.index).await?;
        }
        Ok(())
    }

    async fn delete(&self, name: &IfName) -> Result<(), Error> {
        match self.find(name).await? {
            None => Ok(()),
            Some(Found::Vxlan(..)) => self.netlink.delete_link(name).await.map(drop),
            Some(Found::Ipip(link)) => {
                self.set_addr(link.index, None).await?;
                self.netlink.set_link_down(link.index).await
            }
        }
    }

    async fn apply(&self, changes: &[EntryChange]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut indexes = BTreeMap::new();
        for change in changes {
            let name = change.key().device();
            if !indexes.contains_key(name) {
                let index = self.netlink.link(name).await?.map(|link| link.index);
                indexes.insert(name.clone(), index);
            }
        }
        let (mut outcomes, mut places, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for (place, change) in changes.iter().enumerate() {
            let name = change.key().device();
            match (indexes.get(name).copied().flatten(), change) {
                (Some(index), change) => {
                    sent.push(request(index, change));
                    places.push(place);
                    outcomes.push(Ok(()));
                }
                // A device takes its entries along.
                (None, EntryChange::Delete(..)) => outcomes.push(Ok(())),
                (None, EntryChange::Upsert(..)) => {
                    outcomes.push(Err(Error::NoSuchLink { if_name: name.clone() }));
                }
            }
        }
        for (result, place) in self.netlink.apply_neighbours(&sent).await?.into_iter().zip(places) {
            if let (Some(outcome), Some(change)) = (outcomes.get_mut(place), changes.get(place)) {
                *outcome = result.map_err(|error| error.about(change.key().to_string()));
            }
        }
        Ok(outcomes)
    }
}

impl Found {
    const fn link(&self) -> &Link {
        match self {
            Self::Ipip(link) | Self::Vxlan(link, _) => link,
        }
    }
}

fn found(link: Link) -> Option<Found> {
    match (link.vxlan, link.kind.as_deref()) {
        (Some(vxlan), _) => Some(Found::Vxlan(link, vxlan)),
        (None, Some("ipip")) => Some(Found::Ipip(link)),
        (None, _) => None,
    }
}

/// Returns an address that somebody gave to the device: IPv6 makes link-local ones by itself.
fn own_addr(found: LinkAddr) -> Option<InterfaceAddr> {
    let is_automatic =
        found.scope == AddrScope::Link && Family::of(found.addr.addr()) == Family::V6;
    (!is_automatic).then_some(found.addr)
}

fn described(found: &Found, addrs: &[InterfaceAddr], checksums: Checksums) -> TunnelDevice {
    let link = found.link();
    let (kind, learns) = match found {
        Found::Ipip(_) => (TunnelDeviceKind::Ipip, false),
        Found::Vxlan(link, vxlan) => {
            let nobody = IpAddr::from(Ipv4Addr::UNSPECIFIED);
            let (vni, port, local) = (vxlan.vni, vxlan.port, vxlan.local.unwrap_or(nobody));
            let mac = link.mac.unwrap_or(MacAddr([0; 6]));
            (TunnelDeviceKind::Vxlan(Vxlan { vni, port, local, mac, checksums }), vxlan.learns)
        }
    };
    let is_odd = addrs.len() > 1
        || addrs.iter().any(|addr| addr.prefix_len() != Family::of(addr.addr()).bits());
    let is_stale = is_odd || learns || !link.is_up;
    let addr = addrs.first().map(InterfaceAddr::addr);
    TunnelDevice { kind, mtu: if is_stale { STALE } else { link.mtu }, addr }
}

fn request(index: IfIndex, change: &EntryChange) -> NeighbourChange {
    let forward = |mac: MacAddr, entry: TunnelEntry| match entry {
        TunnelEntry::Node(to) => Forward { link: index, mac, to },
        TunnelEntry::Mac(_) => Forward { link: index, mac, to: Ipv4Addr::UNSPECIFIED.into() },
    };
    match change {
        EntryChange::Upsert(TunnelEntryKey::Neighbour(_, addr), TunnelEntry::Mac(mac)) => {
            NeighbourChange::Upsert(index, *addr, *mac)
        }
        EntryChange::Upsert(TunnelEntryKey::Neighbour(_, addr), TunnelEntry::Node(_))
        | EntryChange::Delete(TunnelEntryKey::Neighbour(_, addr), _) => {
            NeighbourChange::Delete(index, *addr)
        }
        EntryChange::Upsert(TunnelEntryKey::Forward(_, mac), entry) => {
            NeighbourChange::UpsertForward(forward(*mac, *entry))
        }
        EntryChange::Delete(TunnelEntryKey::Forward(_, mac), entry) => {
            NeighbourChange::DeleteForward(forward(*mac, *entry))
        }
    }
}

impl EntryChange {
    /// Returns what the entry is about.
    #[must_use]
    pub const fn key(&self) -> &TunnelEntryKey {
        match self {
            Self::Upsert(key, _) | Self::Delete(key, _) => key,
        }
    }
}
