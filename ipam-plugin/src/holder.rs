//! Who holds an address: handle ids, and what is noted with the address.

use std::collections::BTreeMap;

use model::id::{HandleId, NamespacedName, NodeName};
use model::time::WallTime;

/// A container of a network, perhaps of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The network's name.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// The pod, if the runtime told us.
    pub pod: Option<NamespacedName>,
}

impl Holder {
    /// Returns the handle that the container's addresses are held by.
    #[must_use]
    pub fn handle(&self) -> HandleId {
        HandleId(format!("{}.{}", self.network, self.container_id))
    }

    /// Returns the handle that old releases of Calico used for pods.
    #[must_use]
    pub fn legacy_handle(&self) -> Option<HandleId> {
        let pod = self.pod.as_ref()?;
        Some(HandleId(format!("{}.{}", pod.namespace, pod.name)))
    }

    /// Returns what is noted with the address.
    #[must_use]
    pub fn attributes(&self, node: &NodeName, now: WallTime) -> BTreeMap<String, String> {
        let mut attributes = BTreeMap::from([
            ("node".to_owned(), node.to_string()),
            ("timestamp".to_owned(), api::go_time(now)),
        ]);
        if let Some(pod) = &self.pod {
            attributes.insert("namespace".to_owned(), pod.namespace.clone());
            attributes.insert("pod".to_owned(), pod.name.clone());
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        let pod = NamespacedName { namespace: "shop".to_owned(), name: "cart-1".to_owned() };
        Holder {
            network: "k8s-pod-network".to_owned(),
            container_id: "3F2a".to_owned(),
            pod: Some(pod),
        }
    }

    #[test]
    fn handles_are_named_after_network_and_container() {
        assert_eq!(holder().handle().0, "k8s-pod-network.3F2a");
        assert_eq!(holder().handle().object_name(), "k8s-pod-network.3f2a");
        assert_eq!(holder().legacy_handle().unwrap().0, "shop.cart-1");
        let alone = Holder { pod: None, ..holder() };
        assert_eq!(alone.legacy_handle(), None);
    }

    #[test]
    fn an_address_is_noted_with_its_pod_node_and_time() {
        let node = "node-1".parse().unwrap();
        let attributes = holder().attributes(&node, WallTime(0));
        let told: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            told,
            [
                "namespace=shop",
                "node=node-1",
                "pod=cart-1",
                "timestamp=1970-01-01 00:00:00 +0000 UTC"
            ]
        );
    }
}
