//! Floating addresses: further addresses that lead to a pod, translated on the pod's node.
//!
//! Whoever may annotate pods names them, so that they lead nobody's packets astray: a floating
//! address lies in a pool, and is no node's, no pod's, and of one pod of this node only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use model::endpoint::WorkloadEndpoint;

use crate::Problem;

/// Where a floating address leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Destination<'a> {
    /// The pod.
    pub endpoint: &'a WorkloadEndpoint,
    /// The pod's own address.
    pub addr: IpAddr,
}

/// What an address is to the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It lies in a pool, and is nobody's.
    Free,
    /// It lies in no pool.
    Outside,
    /// It is a node's or a pod's own.
    Taken,
}

/// Returns where this node's floating addresses lead, and those that are not followed.
///
/// `local` are the endpoints of this node in the order of their names: of two that want the same
/// address the first has it.
pub fn destinations<'a>(
    local: impl Iterator<Item = &'a WorkloadEndpoint>,
    standing: impl Fn(IpAddr) -> Standing,
) -> (BTreeMap<IpAddr, Destination<'a>>, Vec<Problem>) {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for endpoint in local {
        for floating in &endpoint.floating {
            let mut refuse = |reason: &str| {
                let object = format!("pod {}", endpoint.pod);
                let message = format!("floating address {} {reason}", floating.addr);
                problems.push(Problem { object, message });
            };
            if let Some(vrf) = &endpoint.vrf {
                refuse(&format!(
                    "is of a pod in VRF {vrf}, whom nobody outside can name: leave it out"
                ));
                continue;
            }
            match standing(floating.addr) {
                Standing::Free => {}
                Standing::Outside => {
                    refuse("lies in no pool, and leads nowhere: make an IPPool for it");
                    continue;
                }
                Standing::Taken => {
                    refuse("is a pod's or a node's own, and leads there: choose another");
                    continue;
                }
            }
            match found.entry(floating.addr) {
                Entry::Vacant(place) => {
                    place.insert(Destination { endpoint, addr: floating.to });
                }
                Entry::Occupied(_) => {
                    refuse("belongs to another pod of this node already: choose another");
                }
            }
        }
    }
    (found, problems)
}
