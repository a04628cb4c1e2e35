//! `IPAMBlock`: a slice of a pool.

use std::collections::BTreeMap;

use model::block::{Attributes, Block, Owner};
use model::id::HandleId;
use model::net::Cidr;
use model::time::WallTime;
use model::vrf::VrfName;
use serde_json::Map;

use super::{labelled, plain_handle};
use crate::object::kind;
use crate::wire::wire;
use crate::{Invalid, Object, names, time};

/// A slice of a pool with the state of each of its addresses.
pub type IpamBlock = Object<IpamBlockSpec>;

wire! {
    /// The spec of an [`IpamBlock`].
    pub struct IpamBlockSpec {
        /// The range.
        cidr: String = "cidr",
        /// `host:<node>` or `virtual:<name>`.
        affinity: Option<String> = "affinity",
        /// When the affinity was claimed (RFC 3339).
        affinity_claim_time: Option<String> = "affinityClaimTime",
        /// Per address the index of its holder in `attributes`.
        allocations: Vec<Option<i64>> = "allocations",
        /// The free ordinals, first to be used first.
        unallocated: Vec<i64> = "unallocated",
        /// The distinct holders.
        attributes: Vec<AllocationAttribute> = "attributes",
        /// Counts writes; beyond 2^53, so never a float.
        sequence_number: Option<u64> = "sequenceNumber",
        /// Per allocated ordinal, the sequence number of its allocation.
        sequence_number_for_allocation: Option<BTreeMap<String, u64>> = "sequenceNumberForAllocation",
        /// Is a deletion under way?
        deleted: Option<bool> = "deleted",
        /// Required by the schema, and of no meaning.
        strict_affinity: bool = "strictAffinity",
    }
}

wire! {
    /// A holder of addresses in a block.
    pub struct AllocationAttribute {
        /// The holder's handle.
        handle_id: Option<String> = "handle_id",
        /// Facts about the holder.
        secondary: Option<BTreeMap<String, String>> = "secondary",
        /// The same of the holder-to-be during a live migration.
        alternate_owner: Option<BTreeMap<String, String>> = "alternateOwnerAttrs",
        /// When the address was given back (RFC 3339).
        released_at: Option<String> = "releasedAt",
    }
}

kind! { IpamBlockSpec: "IPAMBlock" "ipamblocks" cluster }

impl IpamBlock {
    /// Makes the object of a new block that is in no VRF.
    #[must_use]
    pub fn from_model(block: &Block) -> Self {
        Self::of_vrf(None, block)
    }

    /// Makes the object of a new block.
    #[must_use]
    pub fn of_vrf(vrf: Option<&VrfName>, block: &Block) -> Self {
        let mut object = Self::named(names::block_name(vrf, block.cidr), IpamBlockSpec::default());
        object.set(block);
        labelled(object, vrf)
    }

    /// Puts `block` into this object; what this version does not know stays.
    pub fn set(&mut self, block: &Block) {
        let old = std::mem::take(&mut self.spec);
        let ordinals = block.allocated_at.iter();
        self.spec = IpamBlockSpec {
            cidr: block.cidr.to_string(),
            affinity: block.affinity.as_ref().map(ToString::to_string),
            affinity_claim_time: block
                .claimed_at
                .map(|time| claim_time(time, old.affinity_claim_time)),
            allocations: block
                .allocations
                .iter()
                .map(|index| index.and_then(|index| i64::try_from(index).ok()))
                .collect(),
            unallocated: block.unallocated.iter().copied().map(i64::from).collect(),
            attributes: attributes_to_wire(&block.attributes, old.attributes),
            sequence_number: Some(block.sequence_number),
            sequence_number_for_allocation: Some(
                ordinals.map(|(ordinal, number)| (ordinal.to_string(), *number)).collect(),
            ),
            deleted: (block.is_deleted || old.deleted.is_some()).then_some(block.is_deleted),
            strict_affinity: false,
            unknown: old.unknown,
        };
    }
}

/// Returns a time's text, the one that was there if it means the same.
fn claim_time(time: WallTime, old: Option<String>) -> String {
    let is_same = |text: &String| time::from_text(text) == Some(time);
    old.filter(is_same).unwrap_or_else(|| time::to_text(time))
}

/// Returns the wire form of holders; one that was there before stays as it was written,
/// so that what this version does not know of it survives.
fn attributes_to_wire(
    new: &[Attributes],
    old: Vec<AllocationAttribute>,
) -> Vec<AllocationAttribute> {
    let mut old: Vec<_> =
        old.into_iter().filter_map(|wire| Some((holder(&wire).ok()?, wire))).collect();
    let mut take = |is_it: &dyn Fn(&Attributes) -> bool| {
        let index = old.iter().position(|(model, _)| is_it(model));
        index.map(|index| old.swap_remove(index).1)
    };
    let written = new.iter().map(|new| match take(&|old| old == new) {
        Some(unchanged) => unchanged,
        // The same holder may have lost or gained something; his other fields are still his.
        None => match take(&|old| is_same_holder(old, new)) {
            Some(changed) => AllocationAttribute { unknown: changed.unknown, ..attribute(new) },
            None => attribute(new),
        },
    });
    written.collect()
}

fn is_same_holder(one: &Attributes, other: &Attributes) -> bool {
    one.handle.is_some() && one.handle == other.handle && one.owner == other.owner
}

/// Returns the wire form of a new holder.
fn attribute(new: &Attributes) -> AllocationAttribute {
    let some = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    AllocationAttribute {
        handle_id: new.handle.as_ref().map(|id| id.0.clone()),
        secondary: some(&new.owner),
        alternate_owner: some(&new.alternate_owner),
        released_at: new.released_at.map(time::to_text),
        unknown: Map::new(),
    }
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
            sequence_number: spec.sequence_number.unwrap_or_default(),
            allocated_at: allocated_at(object, cidr)?,
            is_deleted: spec.deleted.unwrap_or_default(),
        })
    }
}

/// Reads the slots: one for each address, each free or with a holder that is there.
fn allocations(object: &IpamBlock, cidr: Cidr) -> Result<Vec<Option<usize>>, Invalid> {
    let spec = &object.spec;
    let size = spec.allocations.len();
    if u128::try_from(size) != Ok(cidr.size()) {
        let problem = format!(
            "is not one for each of the {} addresses of {cidr}: restore the block, or delete it",
            cidr.size()
        );
        return Err(object.invalid("spec.allocations", format!("{size} slots"), problem));
    }
    let read = |index: &Option<i64>| match index {
        None => Ok(None),
        Some(number) => {
            let index = usize::try_from(*number).ok().filter(|n| *n < spec.attributes.len());
            let problem = format!(
                "points beyond the {} attributes: restore the block, or delete it",
                spec.attributes.len()
            );
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
        let ordinal = u32::try_from(*number)
            .map_err(|_| wrong("is no ordinal of the block: leave it out"))?;
        let slot = usize::try_from(ordinal).ok().and_then(|index| slots.get(index));
        match slot {
            None => return Err(wrong("is no ordinal of the block: leave it out")),
            Some(Some(_)) => return Err(wrong("is allocated: leave it out")),
            Some(None) if !seen.insert(ordinal) => {
                return Err(wrong("is listed twice: list it once"));
            }
            Some(None) => free.push(ordinal),
        }
    }
    Ok(free)
}

fn attributes(object: &IpamBlock) -> Result<Vec<Attributes>, Invalid> {
    let read = |(index, wire): (usize, &AllocationAttribute)| {
        holder(wire).map_err(|text| {
            let field = format!("spec.attributes[{index}].releasedAt");
            object.invalid(&field, text, time::EXPECTED)
        })
    };
    object.spec.attributes.iter().enumerate().map(read).collect()
}

/// Reads a holder; the error is the text that is no time.
fn holder(wire: &AllocationAttribute) -> Result<Attributes, &str> {
    let released_at = wire.released_at.as_deref();
    let released_at = released_at.map(|text| time::from_text(text).ok_or(text)).transpose()?;
    Ok(Attributes {
        handle: wire.handle_id.as_deref().map(|id| HandleId(plain_handle(id).to_owned())),
        owner: wire.secondary.clone().unwrap_or_default(),
        alternate_owner: wire.alternate_owner.clone().unwrap_or_default(),
        released_at,
    })
}

fn allocated_at(object: &IpamBlock, cidr: Cidr) -> Result<BTreeMap<u32, u64>, Invalid> {
    let field = "spec.sequenceNumberForAllocation";
    let read = |(ordinal, number): (&String, &u64)| {
        let parsed: Option<u32> = ordinal.parse().ok();
        let inside = parsed.filter(|ordinal| u128::from(*ordinal) < cidr.size());
        let ordinal = inside.ok_or_else(|| {
            object.invalid(field, ordinal, "is no ordinal of the block: leave it out")
        })?;
        Ok((ordinal, *number))
    };
    object.spec.sequence_number_for_allocation.iter().flatten().map(read).collect()
}

/// Reads who a block belongs to.
fn owner(object: &IpamBlock, field: &str, text: &str) -> Result<Owner, Invalid> {
    let wrong = |problem: &dyn ToString| object.invalid(field, text, problem.to_string());
    match text.split_once(':') {
        Some(("host", node)) => Ok(Owner::Host(node.parse().map_err(|error| wrong(&error))?)),
        Some(("virtual", name)) if !name.is_empty() => Ok(Owner::Virtual(name.to_owned())),
        _ => Err(wrong(&"is no owner: use host:NODE or virtual:NAME")),
    }
}
