//! Who holds an address: handle ids, and what is noted with the address.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
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
            ("timestamp".to_owned(), go_time(now)),
        ]);
        if let Some(pod) = &self.pod {
            attributes.insert("namespace".to_owned(), pod.namespace.clone());
            attributes.insert("pod".to_owned(), pod.name.clone());
        }
        attributes
    }
}

/// Returns the time.
#[must_use]
pub fn now() -> WallTime {
    WallTime(Timestamp::now().as_nanosecond())
}

/// Writes a time as Go's `time.Time.String` does in UTC, which is what other tools parse.
///
/// The fraction has no trailing zeros and is absent if it is zero.
fn go_time(time: WallTime) -> String {
    let time = Timestamp::from_nanosecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH);
    let utc = time.to_zoned(TimeZone::UTC);
    let fraction = format!("{:09}", utc.subsec_nanosecond());
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction} +0000 UTC", utc.strftime("%Y-%m-%d %H:%M:%S"))
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
    fn times_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (1_782_300_755_123_456_789, "2026-06-24 11:32:35.123456789 +0000 UTC"),
            (1_782_300_755_120_000_000, "2026-06-24 11:32:35.12 +0000 UTC"),
            (1_782_300_755_000_000_001, "2026-06-24 11:32:35.000000001 +0000 UTC"),
            (1_782_300_755_000_000_000, "2026-06-24 11:32:35 +0000 UTC"),
            (0, "1970-01-01 00:00:00 +0000 UTC"),
        ] {
            assert_eq!(go_time(WallTime(nanos)), text);
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
