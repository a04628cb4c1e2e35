//! VRFs: what they should be, what the main table has of them, and whether that is news.

use std::collections::BTreeSet;

use calc::{Cluster, Problem};
use model::desired::{Route, RouteTarget, VrfDevices};
use model::net::{Cidr, IfName};

use crate::felix::vrf::Wanted;

/// What the engine knows of VRFs.
#[derive(Debug, Default)]
pub(super) struct Vrfs {
    devices: VrfDevices,
    problems: Vec<Problem>,
    /// Is own Node known, so that what is calculated means something?
    is_known: bool,
    /// The VRFs' tunnels that are up.
    tunnels: BTreeSet<IfName>,
    told: Option<Wanted>,
}

impl Vrfs {
    /// Calculates anew what should be.
    ///
    /// Without our own Node nothing is known of what should be, and what there is stays.
    pub(super) fn recalculate(&mut self, cluster: &Cluster) {
        if cluster.nodes.contains_key(&cluster.this_node) {
            (self.devices, self.problems) = cluster.vrfs();
            self.is_known = true;
        }
    }

    /// Takes the VRFs' tunnels that are up.
    pub(super) fn listed(&mut self, tunnels: BTreeSet<IfName>) {
        self.tunnels = tunnels;
    }

    /// Returns the routes of the main table that lead out of tunnels, and are ready to be used, and
    /// those that lead elsewhere.
    pub(super) fn main_routes(&self) -> impl Iterator<Item = (&Cidr, &Route)> {
        self.devices.main_routes.iter().filter(|(_, route)| match &route.target {
            RouteTarget::Tunnel(device, _) => self.tunnels.contains(device),
            RouteTarget::Link(_) | RouteTarget::Blackhole | RouteTarget::Via(_) => true,
        })
    }

    /// Returns what should be, if nobody has been told yet.
    pub(super) fn news(&mut self, cluster: &Cluster) -> Option<Wanted> {
        if !self.is_known {
            return None;
        }
        let wanted = Wanted {
            devices: self.devices.clone(),
            device_route_protocol: cluster.device_route_protocol,
        };
        (self.told.as_ref() != Some(&wanted)).then(|| {
            self.told = Some(wanted.clone());
            wanted
        })
    }

    /// Returns what of the datastore could not be followed.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }
}
