//! Host endpoints for all nodes, so that policy can select machines by the labels of nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{HostEndpoint, HostEndpointSpec, kubernetes};
use datastore::{Client, Error as StoreError, Filter};
use k8s_openapi::api::core::v1 as core;
use model::Labels;
use model::cluster::{HostEndpointTemplate, HostEndpoints};
use model::node::Node;
use tracing::{info, warn};

/// Who made the endpoint.
const CREATED_BY: (&str, &str) = ("projectcalico.org/created-by", "calico-kube-controllers");
/// The profile without which a machine would be cut off by its first endpoint.
const PROFILE: &str = "projectcalico-default-allow";

/// What to do with one endpoint.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    Create(HostEndpoint),
    Update(HostEndpoint),
    Delete(HostEndpoint),
}

/// Brings the endpoints into line with the nodes; without anything wanted, those that were made are
/// taken away.
///
/// # Errors
///
/// What the datastore fails with, if it is not about one endpoint.
pub(crate) async fn reconcile(
    client: &Client,
    wanted: Option<&HostEndpoints>,
) -> Result<(), StoreError> {
    for template in wanted.iter().flat_map(|wanted| &wanted.templates) {
        if let Some(pattern) = &template.pattern {
            warn!(
                template = %template.name, pattern,
                "makes no host endpoints: nodes do not tell the names of their interfaces; use \
                 interfaceCIDRs instead of interfacePattern"
            );
        }
    }
    let nodes: Vec<core::Node> = client.list(&Filter::default()).await?;
    let actual: Vec<HostEndpoint> = client.list(&Filter::default()).await?;
    for action in plan(&nodes, actual, wanted) {
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
fn plan(
    nodes: &[core::Node],
    actual: Vec<HostEndpoint>,
    wanted: Option<&HostEndpoints>,
) -> Vec<Action> {
    let readable = || nodes.iter().filter_map(|object| kubernetes::node(object).ok());
    let of_nodes = wanted.into_iter().flat_map(|wanted| {
        readable().flat_map(|node| endpoints(&node, wanted)).collect::<Vec<_>>()
    });
    let mut desired: BTreeMap<String, HostEndpoint> =
        of_nodes.map(|endpoint| (endpoint.name().to_owned(), endpoint)).collect();
    let mut actions = Vec::new();
    for mut found in actual {
        let labels = found.metadata.labels.as_ref();
        let is_ours =
            labels.and_then(|all| all.get(CREATED_BY.0)).is_some_and(|by| by == CREATED_BY.1);
        match desired.remove(found.name()) {
            Some(_) if !is_ours => {}
            Some(desired) => {
                let noted = desired.metadata.annotations.iter().flatten();
                let of_found = found.metadata.annotations.clone().unwrap_or_default();
                let is_same = found.metadata.labels == desired.metadata.labels
                    && noted.clone().all(|(key, value)| of_found.get(key) == Some(value))
                    && found.spec.node == desired.spec.node
                    && found.spec.interface_name == desired.spec.interface_name
                    && found.spec.expected_ips == desired.spec.expected_ips
                    && found.spec.profiles == desired.spec.profiles;
                if !is_same {
                    let noted = noted.map(|(key, value)| (key.clone(), value.clone()));
                    let all: BTreeMap<_, _> = of_found.into_iter().chain(noted).collect();
                    found.metadata.annotations = (!all.is_empty()).then_some(all);
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

/// Returns a node's endpoints.
fn endpoints(node: &Node, wanted: &HostEndpoints) -> Vec<HostEndpoint> {
    let own = [node.ipv4, node.ipv6].into_iter().flatten().map(|addr| addr.addr());
    let addrs: Vec<IpAddr> = own.chain(node.tunnel_addrs.iter()).collect();
    let default = wanted.has_default.then(|| {
        let name = format!("{}-auto-hep", node.name);
        endpoint(node, name, (Some("*"), &addrs), &Labels::new())
    });
    let of_template = |template: &HostEndpointTemplate| {
        let is_in = |addr: &&IpAddr| {
            template.networks.is_empty() || template.networks.iter().any(|net| net.contains(**addr))
        };
        let addrs: Vec<IpAddr> = addrs.iter().filter(is_in).copied().collect();
        if template.pattern.is_some() || addrs.is_empty() || !template.nodes.matches(&node.labels) {
            return None;
        }
        // Without networks it is for all interfaces, and otherwise for those with the addresses.
        let interface = template.networks.is_empty().then_some("*");
        let name = format!("{}-{}-auto-hep", node.name, template.name);
        let mut endpoint = endpoint(node, name, (interface, &addrs), &template.labels);
        let annotations = template.annotations.clone();
        endpoint.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        Some(endpoint)
    };
    default.into_iter().chain(wanted.templates.iter().filter_map(of_template)).collect()
}

fn endpoint(
    node: &Node,
    name: String,
    (interface, addrs): (Option<&str>, &[IpAddr]),
    more: &Labels,
) -> HostEndpoint {
    let spec = HostEndpointSpec {
        node: Some(node.name.to_string()),
        interface_name: interface.map(str::to_owned),
        expected_ips: Some(addrs.iter().map(ToString::to_string).collect()),
        profiles: Some(vec![PROFILE.to_owned()]),
        ..HostEndpointSpec::default()
    };
    let mut endpoint = HostEndpoint::named(name, spec);
    let mut labels = node.labels.clone();
    labels.extend(more.clone());
    labels.insert(CREATED_BY.0.to_owned(), CREATED_BY.1.to_owned());
    endpoint.metadata.labels = Some(labels);
    endpoint
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> HostEndpoints {
        HostEndpoints { has_default: true, templates: Vec::new() }
    }

    fn node(name: &str, zone: &str) -> core::Node {
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

    fn made(nodes: &[core::Node]) -> Vec<HostEndpoint> {
        let made = plan(nodes, Vec::new(), Some(&wanted())).into_iter();
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
        assert_eq!(plan(&nodes, made(&nodes), Some(&wanted())), []);
    }

    #[test]
    fn labels_of_the_node_follow_to_the_endpoint() {
        let plan = plan(&[node("a", "east")], made(&[node("a", "west")]), Some(&wanted()));
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
        let with_node = plan(&nodes, actual(), None);
        assert!(
            matches!(with_node.as_slice(), [Action::Delete(one)] if one.name() == "c-auto-hep")
        );
        assert_eq!(plan(&[], actual(), Some(&wanted())), []);
    }

    #[test]
    fn templates_make_endpoints_of_some_nodes_addresses() {
        let template = HostEndpointTemplate {
            name: "storage".to_owned(),
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            pattern: None,
            nodes: "zone == 'west'".parse().unwrap(),
            labels: [("zone".to_owned(), "own".to_owned())].into(),
            annotations: [("who".to_owned(), "me".to_owned())].into(),
        };
        let wanted = HostEndpoints { has_default: false, templates: vec![template] };
        let nodes = [node("a", "west"), node("b", "east")];
        let actions = plan(&nodes, made(&nodes), Some(&wanted));
        let names: Vec<(bool, &str)> = actions
            .iter()
            .map(|action| match action {
                Action::Create(one) => (true, one.name()),
                Action::Update(one) | Action::Delete(one) => (false, one.name()),
            })
            .collect();
        let (gone, new) =
            ([(false, "a-auto-hep"), (false, "b-auto-hep")], (true, "a-storage-auto-hep"));
        assert_eq!(names, [gone[0], gone[1], new]);
        let Some(Action::Create(endpoint)) = actions.last() else { panic!("{actions:?}") };
        assert_eq!(endpoint.spec.interface_name, None);
        assert_eq!(endpoint.spec.expected_ips, Some(vec!["192.0.2.1".to_owned()]));
        assert_eq!(endpoint.metadata.labels.as_ref().unwrap()["zone"], "own");
        assert_eq!(endpoint.metadata.annotations.as_ref().unwrap()["who"], "me");
        assert_eq!(plan(&nodes, vec![endpoint.clone()], Some(&wanted)), []);
    }
}
