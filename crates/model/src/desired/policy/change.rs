//! One difference between two states of policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{HostInterface, HostPolicy, PolicyRules, SetId, SetMember, WorkloadPolicy};
use crate::net::IfName;
use crate::policy::PolicyId;

/// One difference between two [`PolicyState`](super::PolicyState)s; `None` is gone.
///
/// A list of them comes in an order that never names what is not there: sets,
/// policies and profiles, endpoints; then what goes, the other way round. Only rules that an
/// endpoint of another zone stops looking at may name sets of that zone that are never there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PolicyChange {
    /// A workload's new state.
    Workload(IfName, Option<WorkloadPolicy>),
    /// A host endpoint's new state.
    Host(HostInterface, Option<Arc<HostPolicy>>),
    /// A policy's new rules.
    Policy(PolicyId, Option<Arc<PolicyRules>>),
    /// A profile's new rules.
    Profile(String, Option<Arc<PolicyRules>>),
    /// A set that was not there.
    SetAdded {
        /// Which set.
        id: SetId,
        /// All its members.
        members: BTreeSet<SetMember>,
    },
    /// Changed members of a set that was there.
    SetMembers {
        /// Which set.
        id: SetId,
        /// Members that were not in it.
        add: BTreeSet<SetMember>,
        /// Members that were in it; none of them is also added.
        remove: BTreeSet<SetMember>,
    },
    /// A set that no rule names any more.
    SetRemoved(SetId),
}
