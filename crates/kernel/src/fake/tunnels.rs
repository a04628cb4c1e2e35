//! Tunnels in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::desired::{TunnelDevice, TunnelDeviceKind, TunnelEntry, TunnelEntryKey};
use model::net::{Family, IfName};

use crate::netlink::Error;
use crate::tunnels::{self, EntryChange, State};

/// Tunnels in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tunnels {
    state: Arc<Mutex<State>>,
}

impl Tunnels {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere is no reason to hide what is there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl tunnels::Tunnels for Tunnels {
    async fn list(&self, names: &[IfName]) -> Result<State, Error> {
        let state = self.state();
        let is_asked = |name: &IfName| names.contains(name);
        let devices = state.devices.iter().filter(|(name, _)| is_asked(name));
        let entries = state.entries.iter().filter(|(key, _)| is_asked(key.device()));
        Ok(State {
            devices: devices.map(|(name, device)| (name.clone(), *device)).collect(),
            entries: entries.map(|(key, entry)| (key.clone(), *entry)).collect(),
        })
    }

    async fn upsert(&self, name: &IfName, device: &TunnelDevice) -> Result<(), Error> {
        let mut state = self.state();
        let old = state.devices.get(name).copied();
        let is_kept = old.is_some_and(|old| is_changeable(&old, device));
        // With a device's last address the kernel forgets its neighbours.
        let is_bare = device.addr.is_none() && old.is_some_and(|old| old.addr.is_some());
        let is_neighbour = |key: &TunnelEntryKey| matches!(key, TunnelEntryKey::Neighbour(..));
        state
            .entries
            .retain(|key, _| key.device() != name || (is_kept && !(is_bare && is_neighbour(key))));
        state.devices.insert(name.clone(), *device);
        Ok(())
    }

    async fn delete(&self, name: &IfName) -> Result<(), Error> {
        let mut state = self.state();
        state.devices.remove(name);
        state.entries.retain(|key, _| key.device() != name);
        Ok(())
    }

    async fn apply(&self, changes: &[EntryChange]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut state = self.state();
        let State { devices, entries } = &mut *state;
        Ok(changes.iter().map(|change| apply(devices, entries, change)).collect())
    }
}

/// Can the kernel change what differs? Not the network, nor the family that packets travel by.
fn is_changeable(old: &TunnelDevice, new: &TunnelDevice) -> bool {
    match (old.kind, new.kind) {
        (TunnelDeviceKind::Ipip, TunnelDeviceKind::Ipip) => true,
        (TunnelDeviceKind::Vxlan(old), TunnelDeviceKind::Vxlan(new)) => {
            old.vni == new.vni
                && old.port == new.port
                && Family::of(old.local) == Family::of(new.local)
        }
        (TunnelDeviceKind::Ipip | TunnelDeviceKind::Vxlan(_), _) => false,
    }
}

fn apply(
    devices: &BTreeMap<IfName, TunnelDevice>,
    entries: &mut BTreeMap<TunnelEntryKey, TunnelEntry>,
    change: &EntryChange,
) -> Result<(), Error> {
    match change {
        EntryChange::Upsert(key, _) if !devices.contains_key(key.device()) => {
            Err(Error::NoSuchLink { if_name: key.device().clone() })
        }
        EntryChange::Upsert(key, entry) => {
            entries.insert(key.clone(), *entry);
            Ok(())
        }
        EntryChange::Delete(key, _) => {
            entries.remove(key);
            Ok(())
        }
    }
}
