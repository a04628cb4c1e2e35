//! `IPAMBlock`, `BlockAffinity` and `IPAMHandle`: who holds which address.
//!
//! These are written by several programs at once, so each is read into the
//! model, changed there, and put back into the very object that was read: its
//! resource version makes the write a compare-and-swap, and what this version
//! does not know stays in it.

use model::vrf::VrfName;

use crate::annotations::VRF_NAME;
use crate::{Invalid, Kind, Object};

mod affinity;
mod block;
mod handle;

pub use affinity::{BlockAffinity, BlockAffinitySpec};
pub use block::{AllocationAttribute, IpamBlock, IpamBlockSpec};
pub use handle::{IpamHandle, IpamHandleSpec};

/// Returns the VRF that a block, an affinity or a handle is of, by its label (ADR 9).
///
/// # Errors
///
/// [`Invalid`] for what cannot name a VRF: the object counts as absent, not as everybody's.
pub fn vrf_of<S: Kind>(object: &Object<S>) -> Result<Option<VrfName>, Invalid> {
    let labels = object.metadata.labels.as_ref();
    let Some(text) = labels.and_then(|labels| labels.get(VRF_NAME)) else { return Ok(None) };
    let name = text.parse().map(Some);
    name.map_err(|error| object.invalid(&format!("metadata.labels.{VRF_NAME}"), text, error))
}

/// Has the object say which VRF it is of.
fn labelled<S: Kind>(mut object: Object<S>, vrf: Option<&VrfName>) -> Object<S> {
    if let Some(vrf) = vrf {
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert(VRF_NAME.to_owned(), vrf.to_string());
    }
    object
}

/// Returns a handle's id without the debris that very old versions left behind `\r`.
fn plain_handle(id: &str) -> &str {
    id.split_once('\r').map_or(id, |(plain, _)| plain)
}
