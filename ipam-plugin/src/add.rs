//! ADD: addresses for one container.

use cni_service::Service;
use ipam::{Assigned, Selectors};
use ledger::{Ahead, Driver, Order, Wanted};
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
    let assigned = Box::pin(ledger::assign(driver, &request.order())).await?;
    request.results(assigned)
}

/// Does what [`add()`] does, upon what was read ahead for such a request.
///
/// # Errors
///
/// As [`add()`].
pub async fn add_upon(ahead: Ahead, request: &AddRequest) -> Result<Vec<InterfaceAddr>, Error> {
    let assigned = Box::pin(ahead.assign(&request.order())).await?;
    request.results(assigned)
}

/// Has calico-node do what [`add()`] does; `None` if it does not.
///
/// # Errors
///
/// [`Error::TooSlow`] if it is busy with it: nobody else may do it then.
pub async fn add_by(
    service: &Service,
    request: &AddRequest,
) -> Result<Option<Vec<InterfaceAddr>>, Error> {
    let assigned = service.assign(&request.order()).await;
    let assigned = assigned.map_err(|busy| Error::TooSlow(busy.to_string()))?;
    assigned.map(|assigned| request.results(assigned)).transpose()
}

impl AddRequest {
    fn namespace(&self) -> Option<String> {
        self.holder.pod.as_ref().map(|pod| pod.namespace.clone())
    }

    pub(crate) fn order(&self) -> Order {
        Order {
            node: self.node.clone(),
            namespace: self.namespace(),
            vrf: self.vrf.clone(),
            handle: self.holder.handle(),
            owner: self.holder.attributes(&self.node, ledger::now()),
            wanted: self.wanted.clone(),
            selectors: self.selectors,
        }
    }

    fn results(&self, assigned: Vec<Assigned>) -> Result<Vec<InterfaceAddr>, Error> {
        self.wanted.iter().zip(assigned).map(|(wanted, got)| result_of(wanted, got)).collect()
    }
}

fn result_of(wanted: &Wanted, assigned: Assigned) -> Result<InterfaceAddr, Error> {
    let len = match wanted {
        Wanted::Any(..) => assigned.block.prefix_len(),
        Wanted::This(addr) => Family::of(*addr).bits(),
    };
    InterfaceAddr::new(assigned.addr, len).map_err(|error| Error::InvalidRequest(error.to_string()))
}
