//! `IPAMHandle`: the blocks in which one holder has addresses.

use std::collections::BTreeMap;

use model::block::Handle;
use model::id::HandleId;
use model::vrf::VrfName;

use super::{labelled, plain_handle};
use crate::object::kind;
use crate::wire::wire;
use crate::{Invalid, Object};

/// The blocks in which one holder has addresses.
pub type IpamHandle = Object<IpamHandleSpec>;

wire! {
    /// The spec of an [`IpamHandle`].
    pub struct IpamHandleSpec {
        /// The handle's id; the object's name is its lower case.
        handle_id: String = "handleID",
        /// Addresses held per block.
        block: BTreeMap<String, i64> = "block",
        /// Is a deletion under way?
        deleted: Option<bool> = "deleted",
    }
}

kind! { IpamHandleSpec: "IPAMHandle" "ipamhandles" cluster }

impl IpamHandle {
    /// Makes the object of a new handle that is in no VRF.
    #[must_use]
    pub fn from_model(handle: &Handle) -> Self {
        Self::of_vrf(None, handle)
    }

    /// Makes the object of a new handle. Its name says nothing of the VRF: a container is in one
    /// alone, and whoever releases its addresses knows no more than the container.
    #[must_use]
    pub fn of_vrf(vrf: Option<&VrfName>, handle: &Handle) -> Self {
        let mut object = Self::named(handle.id.object_name(), IpamHandleSpec::default());
        object.set(handle);
        labelled(object, vrf)
    }

    /// Puts `handle` into this object; what this version does not know stays.
    pub fn set(&mut self, handle: &Handle) {
        let was_deleted = self.spec.deleted;
        self.spec = IpamHandleSpec {
            handle_id: if plain_handle(&self.spec.handle_id) == handle.id.0 {
                std::mem::take(&mut self.spec.handle_id)
            } else {
                handle.id.0.clone()
            },
            block: handle
                .blocks
                .iter()
                .map(|(cidr, count)| (cidr.to_string(), i64::from(*count)))
                .collect(),
            deleted: (handle.is_deleted || was_deleted.is_some()).then_some(handle.is_deleted),
            unknown: std::mem::take(&mut self.spec.unknown),
        };
    }
}

impl TryFrom<&IpamHandle> for Handle {
    type Error = Invalid;

    fn try_from(object: &IpamHandle) -> Result<Self, Invalid> {
        let spec = &object.spec;
        if spec.handle_id.is_empty() {
            return Err(object.invalid(
                "spec.handleID",
                "",
                "is missing: say the id that the name is the lower case of",
            ));
        }
        let mut blocks = BTreeMap::new();
        for (text, count) in &spec.block {
            let cidr = text.parse();
            let cidr = cidr.map_err(|error| object.invalid("spec.block", text, error))?;
            let number = u32::try_from(*count).map_err(|_| {
                object.invalid("spec.block", count, "is no number of addresses: use 0 or more")
            })?;
            if number > 0 {
                blocks.insert(cidr, number);
            }
        }
        let id = HandleId(plain_handle(&spec.handle_id).to_owned());
        Ok(Self { id, blocks, is_deleted: spec.deleted.unwrap_or_default() })
    }
}
