//! `IPAMBlock`, `BlockAffinity` and `IPAMHandle`: who holds which address.
//!
//! These are written by several programs at once, so each is read into the
//! model, changed there, and put back into the very object that was read: its
//! resource version makes the write a compare-and-swap, and what this version
//! does not know stays in it.

use std::collections::BTreeMap;

use k8s_openapi::ClusterResourceScope;
use model::block::{Affinity, AffinityState, Attributes, Block, Handle, Owner};
use model::id::HandleId;
use model::net::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Invalid, Kind, Object, names, time};

/// A slice of a pool with the state of each of its addresses.
pub type IpamBlock = Object<IpamBlockSpec>;

/// The spec of an [`IpamBlock`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpamBlockSpec {
    /// The range.
    pub cidr: String,
    /// `host:<node>` or `virtual:<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// When the affinity was claimed (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// Per address the index of its holder in `attributes`.
    pub allocations: Vec<Option<i64>>,
    /// The free ordinals, first to be used first.
    pub unallocated: Vec<i64>,
    /// The distinct holders.
    pub attributes: Vec<AllocationAttribute>,
    /// Counts writes; beyond 2^53, so never a float.
    #[serde(skip_serializing_if = "is_zero")]
    pub sequence_number: u64,
    /// Per allocated ordinal, the sequence number of its allocation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Is a deletion under way?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// Required by the schema, and of no meaning.
    pub strict_affinity: bool,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A holder of addresses in a block.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct AllocationAttribute {
    /// The holder's handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// Facts about the holder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary: Option<BTreeMap<String, String>>,
    /// The same of the holder-to-be during a live migration.
    #[serde(rename = "alternateOwnerAttrs", skip_serializing_if = "Option::is_none")]
    pub alternate_owner: Option<BTreeMap<String, String>>,
    /// When the address was given back (RFC 3339).
    #[serde(rename = "releasedAt", skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for IpamBlockSpec {
    const KIND: &'static str = "IPAMBlock";
    const PLURAL: &'static str = "ipamblocks";
    type Scope = ClusterResourceScope;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl IpamBlock {
    /// Makes the object of a new block.
    #[must_use]
    pub fn from_model(block: &Block) -> Self {
        let mut object = Self::named(names::block_name(block.cidr), IpamBlockSpec::default());
        object.set(block);
        object
    }

    /// Puts `block` into this object; what this version does not know stays.
    pub fn set(&mut self, block: &Block) {
        let old = std::mem::take(&mut self.spec);
        let attributes = block.attributes.iter().map(|new| attribute(new, &old.attributes));
        let ordinals = block.allocated_at.iter();
        self.spec = IpamBlockSpec {
            cidr: block.cidr.to_string(),
            affinity: block.affinity.as_ref().map(ToString::to_string),
            affinity_claim_time: block.claimed_at.map(time::to_text),
            allocations: block
                .allocations
                .iter()
                .map(|index| index.and_then(|index| i64::try_from(index).ok()))
                .collect(),
            unallocated: block.unallocated.iter().copied().map(i64::from).collect(),
            attributes: attributes.collect(),
            sequence_number: block.sequence_number,
            sequence_number_for_allocation: ordinals
                .map(|(ordinal, number)| (ordinal.to_string(), *number))
                .collect(),
            deleted: (block.is_deleted || old.deleted.is_some()).then_some(block.is_deleted),
            strict_affinity: false,
            unknown: old.unknown,
        };
    }
}

/// Returns the wire form of a holder, with what was unknown of the same holder before.
fn attribute(new: &Attributes, old: &[AllocationAttribute]) -> AllocationAttribute {
    let some = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    let mut wire = AllocationAttribute {
        handle_id: new.handle.as_ref().map(|id| id.0.clone()),
        secondary: some(&new.owner),
        alternate_owner: some(&new.alternate_owner),
        released_at: new.released_at.map(time::to_text),
        unknown: Map::new(),
    };
    let is_same = |old: &&AllocationAttribute| {
        old.handle_id.as_deref().map(plain_handle) == wire.handle_id.as_deref()
            && old.secondary.clone().unwrap_or_default() == new.owner
    };
    if let Some(old) = old.iter().find(is_same) {
        wire.unknown.clone_from(&old.unknown);
    }
    wire
}

/// Returns a handle's id without the debris that very old versions left behind `\r`.
fn plain_handle(id: &str) -> &str {
    id.split_once('\r').map_or(id, |(plain, _)| plain)
}

impl TryFrom<&IpamBlock> for Block {
    type Error = Invalid;

    fn try_from(object: &IpamBlock) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let wrong = |field: &str, value: &dyn ToString, problem: &dyn ToString| {
            object.invalid(field, value.to_string(), problem.to_string())
        };
        let cidr: Cidr =
            spec.cidr.parse().map_err(|error| wrong("spec.cidr", &spec.cidr, &error))?;
        let allocations = allocations(object, cidr)?;
        let unallocated = unallocated(object, &allocations)?;
        let claimed_at = match &spec.affinity_claim_time {
            Some(text) => Some(
                time::from_text(text)
                    .ok_or_else(|| wrong("spec.affinityClaimTime", text, &time::EXPECTED))?,
            ),
            None => None,
        };
        let affinity = match spec.affinity.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Some(owner(object, "spec.affinity", text)?),
            None => None,
        };
        Ok(Self {
            cidr,
            affinity,
            claimed_at,
            allocations,
            unallocated,
            attributes: attributes(object)?,
            sequence_number: spec.sequence_number,
            allocated_at: allocated_at(object, cidr)?,
            is_deleted: spec.deleted.unwrap_or_default(),
        })
    }
}

fn owner<S: Kind>(object: &Object<S>, field: &str, text: &str) -> Result<Owner, Invalid> {
    let wrong = |problem: &dyn ToString| object.invalid(field, text, problem.to_string());
    match text.split_once(':') {
        Some(("host", node)) => Ok(Owner::Host(node.parse().map_err(|error| wrong(&error))?)),
        Some(("virtual", name)) if !name.is_empty() => Ok(Owner::Virtual(name.to_owned())),
        _ => Err(wrong(&"use host:NODE or virtual:NAME")),
    }
}

/// Reads the slots: one for each address, each free or with a holder that is there.
fn allocations(object: &IpamBlock, cidr: Cidr) -> Result<Vec<Option<usize>>, Invalid> {
    let spec = &object.spec;
    let size = spec.allocations.len();
    if u128::try_from(size) != Ok(cidr.size()) {
        let problem = format!("{cidr} has {} addresses; one slot each is needed", cidr.size());
        return Err(object.invalid("spec.allocations", format!("{size} slots"), problem));
    }
    let read = |index: &Option<i64>| match index {
        None => Ok(None),
        Some(number) => {
            let index = usize::try_from(*number).ok().filter(|n| *n < spec.attributes.len());
            let problem = format!("there are {} attributes", spec.attributes.len());
            index.map(Some).ok_or_else(|| object.invalid("spec.allocations", number, problem))
        }
    };
    spec.allocations.iter().map(read).collect()
}

/// Reads the queue of free ordinals, each of which must be a free slot, once.
fn unallocated(object: &IpamBlock, slots: &[Option<usize>]) -> Result<Vec<u32>, Invalid> {
    let mut seen = std::collections::BTreeSet::new();
    let mut free = Vec::with_capacity(object.spec.unallocated.len());
    for number in &object.spec.unallocated {
        let wrong = |problem: &str| object.invalid("spec.unallocated", number, problem);
        let ordinal = u32::try_from(*number).map_err(|_| wrong("not an ordinal of the block"))?;
        let slot = usize::try_from(ordinal).ok().and_then(|index| slots.get(index));
        match slot {
            None => return Err(wrong("not an ordinal of the block")),
            Some(Some(_)) => return Err(wrong("the address is allocated")),
            Some(None) if !seen.insert(ordinal) => return Err(wrong("listed twice")),
            Some(None) => free.push(ordinal),
        }
    }
    Ok(free)
}

fn attributes(object: &IpamBlock) -> Result<Vec<Attributes>, Invalid> {
    let read = |wire: &AllocationAttribute| {
        let released_at = match &wire.released_at {
            Some(text) => Some(time::from_text(text).ok_or_else(|| {
                object.invalid("spec.attributes.releasedAt", text, time::EXPECTED)
            })?),
            None => None,
        };
        Ok(Attributes {
            handle: wire.handle_id.as_deref().map(|id| HandleId(plain_handle(id).to_owned())),
            owner: wire.secondary.clone().unwrap_or_default(),
            alternate_owner: wire.alternate_owner.clone().unwrap_or_default(),
            released_at,
        })
    };
    object.spec.attributes.iter().map(read).collect()
}

fn allocated_at(object: &IpamBlock, cidr: Cidr) -> Result<BTreeMap<u32, u64>, Invalid> {
    let field = "spec.sequenceNumberForAllocation";
    let read = |(ordinal, number): (&String, &u64)| {
        let parsed: Option<u32> = ordinal.parse().ok();
        let inside = parsed.filter(|ordinal| u128::from(*ordinal) < cidr.size());
        let ordinal =
            inside.ok_or_else(|| object.invalid(field, ordinal, "not an ordinal of the block"))?;
        Ok((ordinal, *number))
    };
    object.spec.sequence_number_for_allocation.iter().map(read).collect()
}

/// A claim on a block.
pub type BlockAffinity = Object<BlockAffinitySpec>;

/// The spec of a [`BlockAffinity`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockAffinitySpec {
    /// `pending`, `confirmed` or `pendingDeletion`.
    pub state: String,
    /// The node's name, or that of the virtual owner.
    pub node: String,
    /// `host` or `virtual`; empty is `host`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The block.
    pub cidr: String,
    /// `"true"` or `"false"`: text, not a boolean.
    pub deleted: String,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for BlockAffinitySpec {
    const KIND: &'static str = "BlockAffinity";
    const PLURAL: &'static str = "blockaffinities";
    type Scope = ClusterResourceScope;
}

impl BlockAffinity {
    /// Makes the object of a new claim, with the labels by which it is found.
    #[must_use]
    pub fn from_model(affinity: &Affinity) -> Self {
        let name = names::affinity_name(owner_name(&affinity.owner), affinity.cidr);
        let mut object = Self::named(name, BlockAffinitySpec::default());
        object.set(affinity);
        object
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
                let problem = "use pending, confirmed or pendingDeletion";
                return Err(object.invalid("spec.state", other, problem));
            }
        };
        let owner = match spec.kind.as_deref().unwrap_or_default() {
            "" | "host" => owner(object, "spec.node", &format!("host:{}", spec.node))?,
            "virtual" => Owner::Virtual(spec.node.clone()),
            other => return Err(object.invalid("spec.type", other, "use host or virtual")),
        };
        let cidr = spec.cidr.parse();
        let cidr = cidr.map_err(|error| object.invalid("spec.cidr", &spec.cidr, error))?;
        Ok(Self { owner, cidr, state, is_deleted: spec.deleted == "true" })
    }
}

/// The blocks in which one holder has addresses.
pub type IpamHandle = Object<IpamHandleSpec>;

/// The spec of an [`IpamHandle`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpamHandleSpec {
    /// The handle's id; the object's name is its lower case.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Addresses held per block.
    pub block: BTreeMap<String, i64>,
    /// Is a deletion under way?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for IpamHandleSpec {
    const KIND: &'static str = "IPAMHandle";
    const PLURAL: &'static str = "ipamhandles";
    type Scope = ClusterResourceScope;
}

impl IpamHandle {
    /// Makes the object of a new handle.
    #[must_use]
    pub fn from_model(handle: &Handle) -> Self {
        let mut object = Self::named(handle.id.object_name(), IpamHandleSpec::default());
        object.set(handle);
        object
    }

    /// Puts `handle` into this object; what this version does not know stays.
    pub fn set(&mut self, handle: &Handle) {
        let was_deleted = self.spec.deleted;
        self.spec = IpamHandleSpec {
            handle_id: handle.id.0.clone(),
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
            return Err(object.invalid("spec.handleID", "", "must not be empty"));
        }
        let mut blocks = BTreeMap::new();
        for (text, count) in &spec.block {
            let cidr = text.parse();
            let cidr = cidr.map_err(|error| object.invalid("spec.block", text, error))?;
            let number = u32::try_from(*count)
                .map_err(|_| object.invalid("spec.block", count, "must not be negative"))?;
            if number > 0 {
                blocks.insert(cidr, number);
            }
        }
        let id = HandleId(plain_handle(&spec.handle_id).to_owned());
        Ok(Self { id, blocks, is_deleted: spec.deleted.unwrap_or_default() })
    }
}
