//! The cluster that policy is calculated for: pods, namespaces and policies as people write them.

use http::Method;
use lab::rest::Request;
use serde_json::{Value, json};

use crate::cni::world::NODE;

/// How many pods a namespace has.
pub(super) const PODS_PER_NAMESPACE: usize = 100;
/// How many kinds of pods a namespace has.
const APPS: usize = 20;
/// How many networks one set has.
pub(super) const NETS_PER_SET: usize = 1000;

/// Returns the creation of a namespace.
pub(super) fn namespace(number: usize) -> Request {
    let team = format!("team-{}", number % APPS);
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": format!("ns-{number}"), "labels": {"team": team, "zone": "a"}},
    });
    Request::json(Method::POST, "/api/v1/namespaces", &object)
}

/// Returns the creation of a pod that has an address; one of `every` is on the node that is measured.
pub(super) fn pod(number: usize, every: usize) -> Request {
    let node = if number.is_multiple_of(every) {
        NODE.to_owned()
    } else {
        format!("far-{}", number % 999)
    };
    let app = format!("a{}", number % APPS);
    let addr = std::net::Ipv4Addr::from(
        0x0ac8_0000_u32.wrapping_add(u32::try_from(number).unwrap_or_default()),
    );
    let namespace = format!("ns-{}", number / PODS_PER_NAMESPACE);
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(number), "namespace": namespace,
            "labels": {
                "app": app, "app.kubernetes.io/name": app, "version": "v1",
                "pod-template-hash": format!("{:08x}", number.wrapping_mul(2_654_435_761)),
            },
            "annotations": {"cni.projectcalico.org/podIP": format!("{addr}/32")},
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "none", "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            ]}],
        },
        "status": {"phase": "Running", "podIP": addr, "podIPs": [{"ip": addr}]},
    });
    Request::json(Method::POST, format!("/api/v1/namespaces/{namespace}/pods"), &object)
}

/// Returns the name of a pod.
pub(super) fn pod_name(number: usize) -> String {
    format!("application-{number}")
}

/// Returns the creation of a policy for pods of one kind, in one of `namespaces` namespaces.
pub(super) fn policy(number: usize, namespaces: usize) -> Request {
    let namespace = home(number, namespaces);
    let name = policy_name(number);
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": policy_spec(number, namespaces, 80),
    });
    Request::json(Method::POST, policies(&namespace), &object)
}

/// Returns the change of a policy to another port.
pub(super) fn policy_port(number: usize, namespaces: usize, port: u16) -> Request {
    let namespace = home(number, namespaces);
    let path = format!("{}/{}", policies(&namespace), policy_name(number));
    Request::merge(path, &json!({"spec": policy_spec(number, namespaces, port)}))
}

/// Returns the change of a pod to another kind, which puts it into sets and takes it out of others.
pub(super) fn pod_app(number: usize, app: usize) -> Request {
    let namespace = number / PODS_PER_NAMESPACE;
    let app = format!("a{app}");
    let path = format!("/api/v1/namespaces/ns-{namespace}/pods/{}", pod_name(number));
    Request::merge(path, &json!({"metadata": {"labels": {"app": app}}}))
}

/// Returns the namespace of a policy.
fn home(number: usize, namespaces: usize) -> String {
    format!("ns-{}", number.checked_rem(namespaces).unwrap_or_default())
}

fn policies(namespace: &str) -> String {
    format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
}

fn policy_name(number: usize) -> String {
    format!("policy-{number}")
}

fn policy_spec(number: usize, namespaces: usize, port: u16) -> Value {
    let turn = number.checked_div(namespaces).unwrap_or_default();
    let (app, peer) = (turn % APPS, (turn / APPS) % APPS);
    let pods = |app: usize| json!({"matchLabels": {"app": format!("a{app}")}});
    let team = json!({"matchLabels": {"team": format!("team-{}", number % APPS)}});
    json!({
        "podSelector": pods(app),
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": pods(peer)}], "ports": [{"protocol": "TCP", "port": port}]},
            {"from": [{"namespaceSelector": team, "podSelector": pods(peer)}],
             "ports": [{"protocol": "TCP", "port": "http"}]},
            {"from": [{"ipBlock": {"cidr": format!("192.0.{}.0/24", number % 256)}}]},
        ],
    })
}

/// Returns the number of a policy for pods that the measured node has, and of a pod on another
/// node that the policy would let in if it were of kind 0, which it is not.
///
/// `every` and `policies` are what the cluster was made with.
pub(super) fn watched(pods: usize, every: usize, policies: usize) -> Option<(usize, usize)> {
    let namespaces = pods / PODS_PER_NAMESPACE;
    let is_far = |pod: &usize| !pod.is_multiple_of(every) && !pod.is_multiple_of(APPS);
    (0..pods).step_by(every).find_map(|local| {
        let namespace = local / PODS_PER_NAMESPACE;
        let policy = (local % APPS).checked_mul(namespaces)?.checked_add(namespace)?;
        let first = namespace.checked_mul(PODS_PER_NAMESPACE)?;
        let far = (first..first.checked_add(PODS_PER_NAMESPACE)?).find(is_far)?;
        (policy < policies).then_some((policy, far))
    })
}

/// Returns the creation of a set of networks that are somebody else's, a thousand of them.
pub(super) fn network_set(number: usize) -> Request {
    let net = |index: usize| {
        let offset = number.wrapping_mul(NETS_PER_SET).wrapping_add(index).wrapping_mul(2);
        let bits = 0x6440_0000_u32.wrapping_add(u32::try_from(offset).unwrap_or_default());
        format!("{}/32", std::net::Ipv4Addr::from(bits))
    };
    let nets: Vec<String> = (0..NETS_PER_SET).map(net).collect();
    let object = json!({
        "apiVersion": api::API_VERSION, "kind": "GlobalNetworkSet",
        "metadata": {"name": format!("friends-{number}"), "labels": {"set": "friends"}},
        "spec": {"nets": nets},
    });
    Request::json(Method::POST, calico("globalnetworksets"), &object)
}

/// Returns the creation of a policy for the pods that talk: a large set is looked at first, in
/// vain.
pub(super) fn talkers() -> Request {
    let object = json!({
        "apiVersion": api::API_VERSION, "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.talkers"},
        "spec": {
            "tier": "default", "order": 10, "selector": "app == 'bench'", "types": ["Ingress", "Egress"],
            "ingress": [
                {"action": "Allow", "source": {"selector": "set == 'friends'"}},
                {"action": "Allow", "source": {"selector": "app == 'bench'"}},
            ],
            "egress": [{"action": "Allow", "destination": {"selector": "app == 'bench'"}}],
        },
    });
    Request::json(Method::POST, calico("globalnetworkpolicies"), &object)
}

fn calico(plural: &str) -> String {
    format!("/apis/{}/{plural}", api::API_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watched_policy_selects_a_local_pod_and_its_peers_are_known() {
        let (policy, far) = watched(30_000, 299, 3_000).unwrap();
        let namespace = policy % 300;
        assert_eq!(far / PODS_PER_NAMESPACE, namespace);
        assert!(far % 299 != 0 && far % APPS != 0);
        let local = (0..30_000).step_by(299).find(|pod| pod / PODS_PER_NAMESPACE == namespace);
        let spec = policy_spec(policy, 300, 80);
        let selected = &spec["podSelector"]["matchLabels"]["app"];
        assert_eq!(*selected, format!("a{}", local.unwrap() % APPS));
        let peers = &spec["ingress"][0]["from"][0]["podSelector"]["matchLabels"]["app"];
        assert_eq!(*peers, "a0");
    }
}
