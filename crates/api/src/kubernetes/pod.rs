//! Pod: a workload endpoint, once it has an address.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use model::endpoint::{Controls, Floating, NamedPort, WorkloadEndpoint};
use model::id::NamespacedName;
use model::net::{Cidr, Family, InterfaceAddr};
use model::vrf::VrfName;

use super::{annotation, invalid};
use crate::{Invalid, annotations, names, qos};

/// Reads a pod's attachment to the network.
///
/// Returns `None` for what has none: pods of the host's network, pods that no
/// node runs yet, pods without an address, and pods that have ended or given
/// their address back.
///
/// # Errors
///
/// [`Invalid`] for an address or a node name that cannot be read.
pub fn workload_endpoint(
    object: &Pod,
    interface_prefix: &str,
) -> Result<Option<WorkloadEndpoint>, Invalid> {
    let metadata = &object.metadata;
    let Some(spec) = &object.spec else { return Ok(None) };
    let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) else {
        return Ok(None);
    };
    if spec.host_network.unwrap_or_default() || has_ended(object) {
        return Ok(None);
    }
    let addrs = pod_addrs(object)?;
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let Some(if_name) = names::host_veth_name(&namespace, &name, interface_prefix) else {
        return Ok(None);
    };
    if addrs.is_empty() {
        return Ok(None);
    }
    let account = spec.service_account_name.clone().filter(|name| !name.is_empty());
    Ok(Some(WorkloadEndpoint {
        node: node
            .parse()
            .map_err(|error| invalid("Pod", metadata, ("spec.nodeName", node), error))?,
        if_name,
        addrs,
        mac: annotation(metadata, annotations::HW_ADDR).and_then(|text| text.parse().ok()),
        allowed_sources: allowed_sources(object).unwrap_or_default(),
        controls: controls(object).0,
        floating: floating(object).unwrap_or_default(),
        container_id: annotation(metadata, annotations::CONTAINER_ID).map(str::to_owned),
        labels: labels(object, &namespace, account.as_deref()),
        profiles: std::iter::once(format!("kns.{namespace}"))
            .chain(account.map(|account| format!("ksa.{namespace}.{account}")))
            .collect(),
        ports: ports(object),
        vrf: vrf(object)?,
        pod: NamespacedName { namespace, name },
    }))
}

/// Returns the VRF that a pod is in, which the plugin has written with its address.
///
/// # Errors
///
/// [`Invalid`] for what cannot name a VRF: whoever is in an unknown VRF is in none.
pub fn vrf(object: &Pod) -> Result<Option<VrfName>, Invalid> {
    let metadata = &object.metadata;
    let Some(text) = annotation(metadata, annotations::VRF_NAME) else { return Ok(None) };
    let name = text.parse();
    let field = ("annotation vrf.projectcalico.org/name", text);
    name.map(Some).map_err(|error| invalid("Pod", metadata, field, error))
}

/// Has the pod ended, or given its address back while it ends?
#[must_use]
pub fn has_ended(object: &Pod) -> bool {
    let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
    let given_back = || {
        let annotations = object.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(annotations::POD_IP)).is_some_and(String::is_empty)
    };
    matches!(phase, Some("Failed" | "Succeeded"))
        || (object.metadata.deletion_timestamp.is_some() && given_back())
}

/// Returns the networks that a pod may send from beside its own addresses.
///
/// [`workload_endpoint`] takes a list that cannot be read for an empty one.
///
/// # Errors
///
/// [`Invalid`] for a list that cannot be read.
pub fn allowed_sources(object: &Pod) -> Result<Vec<Cidr>, Invalid> {
    let metadata = &object.metadata;
    let name = annotations::ALLOWED_SOURCE_PREFIXES;
    let Some(text) = annotation(metadata, name) else { return Ok(Vec::new()) };
    let wrong = |problem: &dyn ToString| {
        let problem = format!("{}; use a list such as [\"10.0.0.0/24\"]", problem.to_string());
        invalid("Pod", metadata, ("annotation allowedSourcePrefixes", text), problem)
    };
    let list: Vec<String> = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    // As in Calico the networks may be written with host bits, and single addresses without length.
    let read = |text: &String| {
        let host = || text.parse().map(Cidr::host);
        let net = text.parse().map(|addr: InterfaceAddr| addr.network());
        net.or_else(|error| host().map_err(|_| wrong(&error)))
    };
    list.iter().map(read).collect()
}

/// Returns how many packets and connections a pod may have, and what is wrong with what it says
/// of that, which counts as absent.
#[must_use]
pub fn controls(object: &Pod) -> (Controls, Vec<String>) {
    object.metadata.annotations.as_ref().map(qos::controls).unwrap_or_default()
}

/// Returns the further addresses that lead to a pod, each with the pod's own of that family; those
/// of a family that the pod has no address of lead nowhere.
///
/// [`workload_endpoint`] takes a list that cannot be read for an empty one.
///
/// # Errors
///
/// [`Invalid`] for a list that cannot be read.
pub fn floating(object: &Pod) -> Result<Vec<Floating>, Invalid> {
    let metadata = &object.metadata;
    let Some(text) = annotation(metadata, annotations::FLOATING_IPS) else { return Ok(Vec::new()) };
    let wrong = |problem: &dyn ToString| {
        let problem = format!("{}; use a list such as [\"192.0.2.7\"]", problem.to_string());
        invalid("Pod", metadata, ("annotation floatingIPs", text), problem)
    };
    let list: Vec<String> = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let wanted = list.iter().map(|text| text.parse().map_err(|error| wrong(&error)));
    let wanted: Vec<IpAddr> = wanted.collect::<Result<_, _>>()?;
    let own = pod_addrs(object)?;
    let lead = |addr: IpAddr| {
        let to = own.iter().find(|own| Family::of(**own) == Family::of(addr));
        to.map(|to| Floating { addr, to: *to })
    };
    Ok(wanted.into_iter().filter_map(lead).collect())
}

/// Returns a pod's addresses, from the first of these that names any: the
/// status, which the kubelet writes, then the annotations, which the CNI plugin
/// writes and which are there earlier, then that of Amazon's plugin.
///
/// # Errors
///
/// [`Invalid`] for an address that cannot be read.
pub fn pod_addrs(object: &Pod) -> Result<Vec<IpAddr>, Invalid> {
    let metadata = &object.metadata;
    let status = object.status.as_ref();
    let many = status.and_then(|status| status.pod_ips.as_ref());
    let many: Vec<&str> = many.into_iter().flatten().map(|ip| ip.ip.as_str()).collect();
    let one = status.and_then(|status| status.pod_ip.as_deref());
    let annotated = annotation(metadata, annotations::POD_IPS)
        .or_else(|| annotation(metadata, annotations::POD_IP))
        .map(|text| text.split(',').collect::<Vec<_>>());
    let amazon = annotation(metadata, annotations::AMAZON_POD_IPS).map(|text| vec![text]);
    let sources = [
        ("status.podIPs", many),
        ("status.podIP", one.into_iter().filter(|ip| !ip.is_empty()).collect()),
        ("annotation podIPs", annotated.unwrap_or_default()),
        ("annotation pod-ips", amazon.unwrap_or_default()),
    ];
    let found = sources.into_iter().find(|(_, texts)| !texts.is_empty());
    let Some((field, texts)) = found else { return Ok(Vec::new()) };
    let read = |text: &str| {
        let text = text.trim();
        let addr = text.parse().or_else(|_| text.parse().map(|addr: InterfaceAddr| addr.addr()));
        addr.map_err(|error| invalid("Pod", metadata, (field, text), error))
    };
    texts.into_iter().filter(|text| !text.trim().is_empty()).map(read).collect()
}

/// Returns the pod's labels and those that policies find it by; users cannot forge the latter.
fn labels(object: &Pod, namespace: &str, account: Option<&str>) -> model::Labels {
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    labels.insert("projectcalico.org/namespace".to_owned(), namespace.to_owned());
    labels.insert("projectcalico.org/orchestrator".to_owned(), "k8s".to_owned());
    let key = "projectcalico.org/serviceaccount";
    // Kubernetes allows longer names for accounts than for the values of labels.
    match account.filter(|account| account.len() < 63) {
        Some(account) => labels.insert(key.to_owned(), account.to_owned()),
        None => labels.remove(key),
    };
    labels
}

fn ports(object: &Pod) -> Vec<NamedPort> {
    let containers = object.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => 6,
                "UDP" => 17,
                "SCTP" => 132,
                _ => return None,
            };
            let name = port.name.clone()?;
            Some(NamedPort { name, protocol, port: port.container_port.try_into().ok()? })
        })
        .collect()
}
