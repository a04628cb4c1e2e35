//! ADD: addresses for one container.

use ipam::{Assigned, Selectors};
use ledger::{Driver, Order, Wanted};
use model::id::NodeName;
use model::net::{Family, InterfaceAddr};
use model::vrf::VrfName;

use crate::Error;
use crate::holder::Holder;

/// What one container wants.
#[derive(Clone, Debug, PartialEq)]
pub struct AddRequest {
    /// The node.
    pub node: NodeName,
    /// The container.
    pub holder: Holder,
    /// The VRF that it is in; `None` is none.
    pub vrf: Option<VrfName>,
    /// Its addresses, one each.
    pub wanted: Vec<Wanted>,
    /// Whether selectors count for pools and addresses that are asked for.
    pub selectors: Selectors,
}

/// Assigns all that `request` wants, or nothing.
///
/// The result has the prefix length of the block, or of the address itself if
/// it was asked for by name; the caller narrows the former.
///
/// # Errors
///
/// See [`Error`]. What was assigned before the failure has been released.
pub async fn add(driver: &mut Driver, request: &AddRequest) -> Result<Vec<InterfaceAddr>, Error> {
    let AddRequest { node, holder, vrf, wanted, selectors } = request;
    let order = Order {
        node: node.clone(),
        namespace: holder.pod.as_ref().map(|pod| pod.namespace.clone()),
        vrf: vrf.clone(),
        handle: holder.handle(),
        owner: holder.attributes(node, ledger::now()),
        wanted: wanted.clone(),
        selectors: *selectors,
    };
    let assigned = Box::pin(ledger::assign(driver, &order)).await?;
    wanted.iter().zip(assigned).map(|(wanted, assigned)| result_of(wanted, assigned)).collect()
}

fn result_of(wanted: &Wanted, assigned: Assigned) -> Result<InterfaceAddr, Error> {
    let len = match wanted {
        Wanted::Any(..) => assigned.block.prefix_len(),
        Wanted::This(addr) => Family::of(*addr).bits(),
    };
    InterfaceAddr::new(assigned.addr, len).map_err(|error| Error::InvalidRequest(error.to_string()))
}
