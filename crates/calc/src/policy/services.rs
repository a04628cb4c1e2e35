//! Who answers for Services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::desired::policy::SetMember;
use model::id::NamespacedName;
use model::service::EndpointSlice;

use super::question::{self, Question};

/// The slices of every Service.
#[derive(Debug, Default)]
pub(super) struct Services {
    slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    by_service: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Services whose endpoints have changed.
    changed: BTreeSet<NamespacedName>,
}

impl Services {
    /// Replaces a slice.
    pub(super) fn apply(&mut self, id: NamespacedName, slice: Option<Arc<EndpointSlice>>) {
        let service =
            |slice: &Option<Arc<EndpointSlice>>| slice.as_deref().and_then(question::service_of);
        let after = service(&slice);
        let old = match slice {
            Some(slice) => self.slices.insert(id.clone(), slice),
            None => self.slices.remove(&id),
        };
        if let Some(before) = service(&old) {
            if let Some(ids) = self.by_service.get_mut(&before) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_service.remove(&before);
                }
            }
            self.changed.insert(before);
        }
        if let Some(after) = after {
            self.by_service.entry(after.clone()).or_default().insert(id);
            self.changed.insert(after);
        }
    }

    /// Returns how much is kept of anything.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<usize> {
        vec![self.slices.len(), self.by_service.len(), self.changed.len()]
    }

    /// Returns the Services whose endpoints have changed since the last time.
    pub(super) fn take_changed(&mut self) -> BTreeSet<NamespacedName> {
        std::mem::take(&mut self.changed)
    }

    /// Returns the members of the set that answers a question about a Service.
    pub(super) fn members(&self, question: &Question) -> BTreeSet<SetMember> {
        let ids = question.service().and_then(|service| self.by_service.get(service));
        let slices = ids.into_iter().flatten().filter_map(|id| self.slices.get(id));
        slices.flat_map(|slice| question::members_of_slice(question, slice)).collect()
    }
}
