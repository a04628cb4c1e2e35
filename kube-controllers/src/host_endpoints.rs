//! Host endpoints for all nodes, so that policy can select machines by the labels of nodes.

use std::collections::BTreeMap;

use api::{HostEndpoint, HostEndpointSpec, kubernetes};
use datastore::{Client, Error as StoreError, Filter};
use k8s_openapi::api::core::v1::Node;
use tracing::{info, warn};

/// Who made the endpoint.
const CREATED_BY: (&str, &str) = ("projectcalico.org/created-by", "calico-kube-controllers");
/// The profile without which a machine would be cut off by its first endpoint.
const PROFILE: &str = "projectcalico-default-allow";

/// Whether nodes get endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Creation {
    /// Every node has one.
    Enabled,
    /// Those that were made are taken away.
    Disabled,
}

/// What to do with one endpoint.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    Create(HostEndpoint),
    Update(HostEndpoint),
    Delete(HostEndpoint),
}

/// Brings the endpoints into line with the nodes.
///
/// # Errors
///
/// What the datastore fails with, if it is not about one endpoint.
pub(crate) async fn reconcile(client: &Client, creation: Creation) -> Result<(), StoreError> {
    let nodes: Vec<Node> = client.list(&Filter::default()).await?;
    let actual: Vec<HostEndpoint> = client.list(&Filter::default()).await?;
    for action in plan(&nodes, actual, creation) {
        let (verb, name, result) = match &action {
            Action::Create(one) => ("made", one.name(), client.create(one).await.map(drop)),
            Action::Update(one) => ("changed", one.name(), client.update(one).await.map(drop)),
            Action::Delete(one) => ("deleted", one.name(), client.delete(one).await),
        };
        match result {
            Ok(()) => info!(name, "{verb} a host endpoint"),
            Err(error) if error.is_contention() => warn!(%error, "will try again"),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Decides what to do; endpoints that somebody else made are left alone, and without any node
/// nothing is deleted.
fn plan(nodes: &[Node], actual: Vec<HostEndpoint>, creation: Creation) -> Vec<Action> {
    let mut desired: BTreeMap<String, HostEndpoint> = match creation {
        Creation::Enabled => nodes.iter().filter_map(endpoint).collect(),
        Creation::Disabled => BTreeMap::new(),
    };
    let mut actions = Vec::new();
    for mut found in actual {
        let labels = found.metadata.labels.as_ref();
        let is_ours =
            labels.and_then(|all| all.get(CREATED_BY.0)).is_some_and(|by| by == CREATED_BY.1);
        match desired.remove(found.name()) {
            Some(_) if !is_ours => {}
            Some(desired) => {
                let is_same = found.metadata.labels == desired.metadata.labels
                    && found.spec.node == desired.spec.node
                    && found.spec.interface_name == desired.spec.interface_name
                    && found.spec.expected_ips == desired.spec.expected_ips
                    && found.spec.profiles == desired.spec.profiles;
                if !is_same {
                    found.metadata.labels = desired.metadata.labels;
                    found.spec = HostEndpointSpec { ports: found.spec.ports, ..desired.spec };
                    actions.push(Action::Update(found));
                }
            }
            None if is_ours && !nodes.is_empty() => actions.push(Action::Delete(found)),
            None => {}
        }
    }
    actions.extend(desired.into_values().map(Action::Create));
    actions
}

/// Returns a node's endpoint with its name; `None` for a node that cannot be read.
fn endpoint(object: &Node) -> Option<(String, HostEndpoint)> {
    let node = kubernetes::node(object).ok()?;
    let name = format!("{}-auto-hep", node.name);
    let own = [node.ipv4, node.ipv6].into_iter().flatten().map(|addr| addr.addr());
    let addrs = own.chain(node.tunnel_addrs.iter()).map(|addr| addr.to_string());
    let spec = HostEndpointSpec {
        node: Some(node.name.to_string()),
        interface_name: Some("*".to_owned()),
        expected_ips: Some(addrs.collect()),
        profiles: Some(vec![PROFILE.to_owned()]),
        ..HostEndpointSpec::default()
    };
    let mut endpoint = HostEndpoint::named(name.clone(), spec);
    let mut labels = node.labels;
    labels.insert(CREATED_BY.0.to_owned(), CREATED_BY.1.to_owned());
    endpoint.metadata.labels = Some(labels);
    Some((name, endpoint))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str) -> Node {
        serde_json::from_value(json!({"metadata": {
            "name": name,
            "labels": {"zone": zone},
            "annotations": {
                "projectcalico.org/IPv4Address": "192.0.2.1/24",
                "projectcalico.org/IPv4IPIPTunnelAddr": "10.0.0.1",
            },
        }}))
        .unwrap()
    }

    fn made(nodes: &[Node]) -> Vec<HostEndpoint> {
        let made = plan(nodes, Vec::new(), Creation::Enabled).into_iter();
        made.map(|action| match action {
            Action::Create(endpoint) => endpoint,
            Action::Update(_) | Action::Delete(_) => panic!("{action:?}"),
        })
        .collect()
    }

    #[test]
    fn every_node_gets_an_endpoint_with_its_labels_and_addresses() {
        let endpoint = made(&[node("a", "west")]).remove(0);
        assert_eq!(endpoint.name(), "a-auto-hep");
        let addrs = ["192.0.2.1".to_owned(), "10.0.0.1".to_owned()];
        assert_eq!(endpoint.spec.expected_ips.as_deref(), Some(addrs.as_slice()));
        assert_eq!(endpoint.metadata.labels.unwrap().get("zone").unwrap(), "west");
    }

    #[test]
    fn nothing_is_written_when_all_is_as_it_should_be() {
        let nodes = [node("a", "west")];
        assert_eq!(plan(&nodes, made(&nodes), Creation::Enabled), []);
    }

    #[test]
    fn labels_of_the_node_follow_to_the_endpoint() {
        let plan = plan(&[node("a", "east")], made(&[node("a", "west")]), Creation::Enabled);
        let [Action::Update(endpoint)] = plan.as_slice() else { panic!("{plan:?}") };
        let labels = endpoint.metadata.labels.as_ref().unwrap();
        assert_eq!(labels.get("zone").unwrap(), "east");
    }

    #[test]
    fn only_our_own_are_deleted_and_none_when_no_node_is_listed() {
        let nodes = [node("a", "west")];
        let mut foreign = made(&[node("b", "west")]).remove(0);
        foreign.metadata.labels = None;
        let actual = || [made(&[node("c", "west")]), vec![foreign.clone()]].concat();
        let with_node = plan(&nodes, actual(), Creation::Disabled);
        assert!(
            matches!(with_node.as_slice(), [Action::Delete(one)] if one.name() == "c-auto-hep")
        );
        assert_eq!(plan(&[], actual(), Creation::Enabled), []);
    }
}
