//! What the Kubernetes Node says about its network.

use datastore::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

/// Whether the node's network works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Availability {
    /// Pods may be scheduled.
    Up,
    /// The daemon is about to end.
    Down,
}

/// Writes the condition `NetworkUnavailable` of the Kubernetes Node `name`, unless it says so.
///
/// # Errors
///
/// [`datastore::Error`] if the Node cannot be read or its status cannot be patched.
pub async fn announce(
    client: &Client,
    name: &str,
    availability: Availability,
) -> Result<(), datastore::Error> {
    let node: Option<Node> = client.get(name).await?;
    if node.is_some_and(|node| says(&node, availability)) {
        return Ok(());
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    client.patch_status::<Node>(None, name, &condition(availability, &now)).await?;
    Ok(())
}

fn words(availability: Availability) -> [&'static str; 3] {
    match availability {
        Availability::Up => ["False", "CalicoIsUp", "Calico is running on this node"],
        Availability::Down => ["True", "CalicoIsDown", "Calico is shutting down on this node"],
    }
}

fn says(node: &Node, availability: Availability) -> bool {
    let [status, reason, _] = words(availability);
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut network = conditions.filter(|condition| condition.type_ == "NetworkUnavailable");
    network.any(|found| found.status == status && found.reason.as_deref() == Some(reason))
}

/// Returns the patch; conditions are merged by their type.
fn condition(availability: Availability, now: &str) -> Value {
    let [status, reason, message] = words(availability);
    json!({ "status": { "conditions": [{
        "type": "NetworkUnavailable",
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_once() {
        for availability in [Availability::Up, Availability::Down] {
            let patch = condition(availability, "2026-01-02T03:04:05Z");
            let node: Node = serde_json::from_value(patch).unwrap();
            assert!(says(&node, availability));
            assert!(!says(&Node::default(), availability));
        }
        let up = condition(Availability::Up, "2026-01-02T03:04:05Z");
        assert!(!says(&serde_json::from_value(up).unwrap(), Availability::Down));
    }
}
