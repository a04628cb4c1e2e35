//! `BlockAffinity`: a claim on a block.

use model::block::{Affinity, AffinityState, Owner};
use model::vrf::VrfName;

use super::labelled;
use crate::object::kind;
use crate::wire::wire;
use crate::{Invalid, Object, names};

/// A claim on a block.
pub type BlockAffinity = Object<BlockAffinitySpec>;

wire! {
    /// The spec of a [`BlockAffinity`].
    pub struct BlockAffinitySpec {
        /// `pending`, `confirmed` or `pendingDeletion`.
        state: String = "state",
        /// The node's name, or that of the virtual owner.
        node: String = "node",
        /// `host` or `virtual`; empty is `host`.
        kind: Option<String> = "type",
        /// The block.
        cidr: String = "cidr",
        /// `"true"` or `"false"`: text, not a boolean.
        deleted: String = "deleted",
    }
}

kind! { BlockAffinitySpec: "BlockAffinity" "blockaffinities" cluster }

impl BlockAffinity {
    /// Makes the object of a new claim that is in no VRF, with the labels by which it is found.
    #[must_use]
    pub fn from_model(affinity: &Affinity) -> Self {
        Self::of_vrf(None, affinity)
    }

    /// Makes the object of a new claim, with the labels by which it is found.
    #[must_use]
    pub fn of_vrf(vrf: Option<&VrfName>, affinity: &Affinity) -> Self {
        let name = names::affinity_name(vrf, owner_name(&affinity.owner), affinity.cidr);
        let mut object = Self::named(name, BlockAffinitySpec::default());
        object.set(affinity);
        labelled(object, vrf)
    }

    /// Puts `affinity` into this object; what this version does not know stays.
    pub fn set(&mut self, affinity: &Affinity) {
        let state = match affinity.state {
            AffinityState::Pending => "pending",
            AffinityState::Confirmed => "confirmed",
            AffinityState::PendingDeletion => "pendingDeletion",
        };
        let kind = match affinity.owner {
            Owner::Host(_) => "host",
            Owner::Virtual(_) => "virtual",
        };
        let labels = names::affinity_labels(&affinity.owner, affinity.cidr);
        self.metadata.labels.get_or_insert_default().extend(labels);
        self.spec = BlockAffinitySpec {
            state: state.to_owned(),
            node: owner_name(&affinity.owner).to_owned(),
            kind: Some(kind.to_owned()),
            cidr: affinity.cidr.to_string(),
            deleted: affinity.is_deleted.to_string(),
            unknown: std::mem::take(&mut self.spec.unknown),
        };
    }
}

fn owner_name(owner: &Owner) -> &str {
    match owner {
        Owner::Host(node) => node.as_str(),
        Owner::Virtual(name) => name,
    }
}

impl TryFrom<&BlockAffinity> for Affinity {
    type Error = Invalid;

    fn try_from(object: &BlockAffinity) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let state = match spec.state.as_str() {
            "pending" => AffinityState::Pending,
            "confirmed" => AffinityState::Confirmed,
            "pendingDeletion" => AffinityState::PendingDeletion,
            other => {
                let problem = "is no state: use pending, confirmed or pendingDeletion";
                return Err(object.invalid("spec.state", other, problem));
            }
        };
        if spec.node.is_empty() {
            return Err(object.invalid("spec.node", "", "is missing: say whose block it is"));
        }
        let owner = match spec.kind.as_deref().unwrap_or_default() {
            "" | "host" => {
                let node = spec.node.parse();
                Owner::Host(node.map_err(|error| object.invalid("spec.node", &spec.node, error))?)
            }
            "virtual" => Owner::Virtual(spec.node.clone()),
            other => {
                return Err(object.invalid("spec.type", other, "is no type: use host or virtual"));
            }
        };
        let cidr = spec.cidr.parse();
        let cidr = cidr.map_err(|error| object.invalid("spec.cidr", &spec.cidr, error))?;
        let is_deleted = match spec.deleted.as_str() {
            "" | "false" => false,
            "true" => true,
            other => {
                let problem = "is no answer: use \"true\" or \"false\", as text";
                return Err(object.invalid("spec.deleted", other, problem));
            }
        };
        Ok(Self { owner, cidr, state, is_deleted })
    }
}
