//! VRFs: from what a node should have to the kernel (ADR 9).
//!
//! ```text
//!  calc ─► Wanted ─┐
//!                  ├─► plan (pure) ─► Step ─► kernel: devices, tunnels, tables
//!  kernel ─► Actual┘
//! ```
//!
//! A VRF's device is ours if it has our alias, so that an administrator's own `vrf-blue` is
//! never touched. Its tunnels are known by name and network identifier, which both are the VRF's
//! number; its routes by their protocol, in a table that only it has.

mod actual;
mod plan;
pub(crate) mod run;

pub(crate) use plan::{is_ours, is_tunnel};

use model::desired::{RouteProtocol, VrfDevices};

/// By what a VRF's device is known for ours.
pub(crate) const ALIAS: &str = "calico";

/// What this node should have of VRFs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    /// Devices, tunnels and routes.
    pub(crate) devices: VrfDevices,
    /// What local workloads' routes carry.
    pub(crate) device_route_protocol: RouteProtocol,
}

impl Wanted {
    /// Is nothing wanted?
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.by_name.is_empty() && self.devices.kept.is_empty()
    }
}
