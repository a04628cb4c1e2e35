//! Objects that networks of several hosts share: pools that we made, and profiles.
//!
//! Each notes the nodes that have a network of it, so that the last one removes it.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::id::NodeName;

/// The label of what we made.
const MADE_BY: (&str, &str) = ("projectcalico.org/created-by", "calico-docker");
/// The annotation with the nodes that have a network of it, by commas.
const NODES: &str = "libnetwork.projectcalico.org/nodes";

/// Notes that we made the object.
pub(crate) fn mark(metadata: &mut ObjectMeta) {
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(MADE_BY.0.to_owned(), MADE_BY.1.to_owned());
}

/// Returns the label selector of what we made.
pub(crate) fn selector() -> String {
    format!("{}={}", MADE_BY.0, MADE_BY.1)
}

/// What a node's use of an object asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Writing the object, whose annotation has changed.
    Write,
    /// Deleting it: nobody uses it.
    Delete,
}

/// Notes whether `node` uses the object, and returns what that asks for.
pub(crate) fn note_use(metadata: &mut ObjectMeta, node: &NodeName, is_used: bool) -> Change {
    let annotations = metadata.annotations.get_or_insert_default();
    let text = annotations.get(NODES).cloned().unwrap_or_default();
    let mut nodes: BTreeSet<&str> = text.split(',').filter(|name| !name.is_empty()).collect();
    let is_changed =
        if is_used { nodes.insert(node.as_str()) } else { nodes.remove(node.as_str()) };
    if !is_used && nodes.is_empty() {
        return Change::Delete;
    }
    if !is_changed {
        return Change::None;
    }
    let nodes: Vec<&str> = nodes.into_iter().collect();
    annotations.insert(NODES.to_owned(), nodes.join(","));
    Change::Write
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_node_removes_what_it_used() {
        let nodes: [NodeName; 2] = ["node-1", "node-2"].map(|name| name.parse().unwrap());
        let mut metadata = ObjectMeta::default();
        mark(&mut metadata);
        let labels: Vec<String> =
            metadata.labels.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, [selector()]);
        assert_eq!(note_use(&mut metadata, &nodes[0], true), Change::Write);
        assert_eq!(note_use(&mut metadata, &nodes[0], true), Change::None);
        assert_eq!(note_use(&mut metadata, &nodes[1], true), Change::Write);
        assert_eq!(note_use(&mut metadata, &nodes[0], false), Change::Write);
        assert_eq!(note_use(&mut metadata, &nodes[0], false), Change::None);
        assert_eq!(note_use(&mut metadata, &nodes[1], false), Change::Delete);
    }
}
