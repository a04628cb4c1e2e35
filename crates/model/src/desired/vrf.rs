//! VRFs, as a node should have them (ADR 9).

use std::collections::{BTreeMap, BTreeSet};

use super::{Route, TunnelDevice, TunnelEntry, TunnelEntryKey};
use crate::net::{Cidr, IfName};
use crate::vrf::{VrfId, VrfName};

/// What a node should have of all VRFs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VrfDevices {
    /// The VRFs that the node has.
    pub by_name: BTreeMap<VrfName, VrfDevice>,
    /// Those of local pods that nobody knows to be wanted: what there is of them stays.
    pub kept: BTreeSet<VrfName>,
    /// What the main table has of those that exchange routes with everybody else.
    pub main_routes: BTreeMap<Cidr, Route>,
}

/// A VRF of a node: its device, what is under that, and its table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VrfDevice {
    /// Its number.
    pub id: VrfId,
    /// The links of its local pods.
    pub links: BTreeSet<IfName>,
    /// Its tunnels to other nodes.
    pub tunnels: BTreeMap<IfName, TunnelDevice>,
    /// Their neighbours and far ends.
    pub entries: BTreeMap<TunnelEntryKey, TunnelEntry>,
    /// The routes of its table, but for the last one, by which what has no other goes nowhere.
    pub routes: BTreeMap<Cidr, Route>,
}
