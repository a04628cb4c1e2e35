//! Who answers for Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::desired::policy::SetMember;
use model::id::NamespacedName;
use model::service::EndpointSlice;
use model::vrf::Zone;

use super::question::{self, Question};
use super::zones::Homes;

/// The slices of every Service.
#[derive(Debug, Default)]
pub(super) struct Services {
    slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    by_service: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Services whose endpoints have changed.
    changed: BTreeSet<NamespacedName>,
    homes: Homes,
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
        vec![self.slices.len(), self.by_service.len(), self.changed.len(), self.homes.kept()]
    }

    /// Returns the Services whose endpoints have changed since the last time.
    pub(super) fn take_changed(&mut self) -> BTreeSet<NamespacedName> {
        std::mem::take(&mut self.changed)
    }

    /// Takes note of a pod of a VRF, by its namespace.
    pub(super) fn arrive(&mut self, (namespace, zone): (&str, Zone), addrs: &[IpAddr]) {
        for addr in addrs {
            self.homes.add(namespace, *addr, zone);
        }
        self.change_namespace(namespace);
    }

    /// Takes note that it is gone.
    pub(super) fn leave(&mut self, (namespace, zone): (&str, Zone), addrs: &[IpAddr]) {
        for addr in addrs {
            self.homes.remove(namespace, *addr, zone);
        }
        self.change_namespace(namespace);
    }

    fn change_namespace(&mut self, namespace: &str) {
        let first = NamespacedName { namespace: namespace.to_owned(), name: String::new() };
        let all = self.by_service.range(first..).map(|(service, _)| service);
        self.changed.extend(all.take_while(|service| service.namespace == namespace).cloned());
    }

    /// Returns the members of the set that answers a question about a Service for endpoints of
    /// `zone`.
    pub(super) fn members(&self, question: &Question, zone: Zone) -> BTreeSet<SetMember> {
        let ids = question.service().and_then(|service| self.by_service.get(service));
        let slices = ids.into_iter().flatten().filter_map(|id| self.slices.get(id));
        let members = |slice: &Arc<EndpointSlice>| {
            let namespace = &slice.id.namespace;
            question::members_of_slice(question, slice, |addr| {
                self.homes.means(namespace, addr, zone)
            })
        };
        slices.flat_map(members).collect()
    }
}
