//! Facts about which addresses of Services a node announces.

use std::sync::Arc;

use model::net::Family;
use model::node::{Node, TunnelAddrs};
use model::service::{EndpointSlice, ServiceEndpoint};

use super::*;

fn web() -> NamespacedName {
    NamespacedName { namespace: "shop".to_owned(), name: "web".to_owned() }
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new("a".parse().unwrap());
    let node = Node {
        name: "a".parse().unwrap(),
        labels: model::Labels::new(),
        ipv4: Some("10.0.0.1/24".parse().unwrap()),
        ipv6: None,
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: TunnelAddrs::default(),
        pod_cidrs: Vec::new(),
    };
    cluster.nodes.insert(node.name.clone(), node);
    let services = &mut cluster.bgp.services;
    services.cluster = vec!["10.96.0.0/12".parse().unwrap()];
    services.external = vec!["198.51.100.0/24".parse().unwrap(), "203.0.113.9/32".parse().unwrap()];
    services.load_balancer = vec!["192.0.2.0/24".parse().unwrap()];
    cluster
}

fn service(is_external_traffic_local: bool) -> Service {
    Service {
        id: web(),
        kind: ServiceKind::LoadBalancer,
        cluster_addrs: vec!["10.96.0.10".parse().unwrap()],
        external_addrs: vec!["198.51.100.7".parse().unwrap(), "203.0.113.9".parse().unwrap()],
        load_balancer_addrs: vec!["192.0.2.80".parse().unwrap(), "192.168.9.9".parse().unwrap()],
        is_external_traffic_local,
        load_balancer_class: None,
        ports: Vec::new(),
    }
}

fn slice(node: &str, is_ready: bool) -> EndpointSlice {
    let id = web();
    let endpoint = ServiceEndpoint {
        addrs: vec!["10.244.0.5".parse().unwrap()],
        node: Some(node.parse().unwrap()),
        is_ready,
        is_terminating: false,
    };
    EndpointSlice {
        service: Some(id.name.clone()),
        id,
        endpoints: vec![endpoint],
        ports: Vec::new(),
    }
}

fn with(service: Service, slice: EndpointSlice) -> Cluster {
    let mut cluster = cluster();
    cluster.services.insert(service.id.clone(), Arc::new(service));
    cluster.endpoint_slices.insert(slice.id.clone(), Arc::new(slice));
    cluster
}

fn words(cluster: &Cluster) -> Vec<String> {
    announced(cluster).iter().map(ToString::to_string).collect()
}

const WHOLE: [&str; 3] = ["10.96.0.0/12", "192.0.2.0/24", "198.51.100.0/24"];

#[test]
fn ranges_are_announced_whole_and_single_addresses_while_a_service_has_them() {
    assert_eq!(words(&cluster()), WHOLE);
    let cluster = with(service(false), slice("b", false));
    assert_eq!(words(&cluster), [&WHOLE[..], &["203.0.113.9/32"]].concat());
}

#[test]
fn local_traffic_is_drawn_only_to_nodes_with_a_ready_endpoint() {
    for elsewhere in [slice("b", true), slice("a", false)] {
        assert_eq!(words(&with(service(true), elsewhere)), WHOLE);
    }
    let mut here = words(&with(service(true), slice("a", true)));
    here.retain(|cidr| cidr.ends_with("/32"));
    assert_eq!(here, ["10.96.0.10/32", "192.0.2.80/32", "198.51.100.7/32", "203.0.113.9/32"]);
}

#[test]
fn an_endpoint_of_the_other_family_does_not_count() {
    let mut slice = slice("a", true);
    slice.endpoints[0].addrs = vec!["fd00::5".parse().unwrap()];
    assert_eq!(Family::of(slice.endpoints[0].addrs[0]), Family::V6);
    assert_eq!(words(&with(service(true), slice)), WHOLE);
}

#[test]
fn without_aggregation_each_address_of_a_living_service_is_announced() {
    let alive = |is_ready| {
        let mut cluster = with(service(false), slice("b", is_ready));
        cluster.bgp.services.is_aggregated = false;
        words(&cluster)
    };
    assert_eq!(alive(true), ["10.96.0.0/12", "192.0.2.80/32", "198.51.100.0/24", "203.0.113.9/32"]);
    assert_eq!(alive(false), ["10.96.0.0/12", "198.51.100.0/24", "203.0.113.9/32"]);
}

#[test]
fn an_excluded_node_announces_nothing_but_still_refuses_to_learn() {
    let mut cluster = with(service(true), slice("a", true));
    let node = cluster.nodes.get_mut(&cluster.this_node).unwrap();
    node.labels.insert(EXCLUDED.to_owned(), "true".to_owned());
    assert_eq!(words(&cluster), Vec::<String>::new());
    assert_eq!(ranges(&cluster).len(), 4);
}
