//! Kubernetes' objects become values of the model as Calico has them.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

use api::kubernetes;
use model::policy::Profile;
use serde::de::DeserializeOwned;

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}

fn pod(spec: &str, more: &str) -> k8s_openapi::api::core::v1::Pod {
    yaml(&format!(
        "metadata:\n  name: web-1\n  namespace: shop\n{more}\nspec:\n  containers: []\n{spec}\n"
    ))
}

fn addrs(spec: &str, more: &str) -> String {
    match kubernetes::workload_endpoint(&pod(spec, more), "cali").unwrap() {
        Some(wep) => wep.addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        None => "none".to_owned(),
    }
}

#[test]
fn pods_may_ask_for_other_sources_and_a_fixed_ethernet_address() {
    let wep = |annotation: &str| {
        let more = format!("  annotations: {{cni.projectcalico.org/{annotation}}}");
        let pod = pod("  nodeName: node-1\nstatus: {podIP: 10.244.0.5}", &more);
        let fault = kubernetes::allowed_sources(&pod).err().map(|fault| fault.to_string());
        (kubernetes::workload_endpoint(&pod, "cali").unwrap().unwrap(), fault)
    };
    let list = r#"["10.9.1.0/16", "192.0.2.7", "fd00::/64"]"#;
    let (found, fault) = wep(&format!("allowedSourcePrefixes: '{list}'"));
    let nets: Vec<String> = found.allowed_sources.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.9.0.0/16", "192.0.2.7/32", "fd00::/64"]);
    assert_eq!(fault, None);
    for wrong in ["10.9.0.0/16", r#"["10.9.0.0/33"]"#, r#"["10.9.0.0/16", "x"]"#] {
        let (found, fault) = wep(&format!("allowedSourcePrefixes: '{wrong}'"));
        assert_eq!(found.allowed_sources, [], "{wrong}");
        let fault = fault.unwrap();
        assert!(fault.contains("shop/web-1") && fault.contains("use a list such as"), "{fault}");
    }
    let (found, _) = wep("hwAddr: '02:00:00:00:00:01'");
    assert_eq!(found.mac.unwrap().to_string(), "02:00:00:00:00:01");
}

#[test]
fn a_running_pod_is_a_workload_endpoint() {
    let object: k8s_openapi::api::core::v1::Pod = yaml(
        "
metadata:
  name: nginx
  namespace: default
  labels: {app: web, projectcalico.org/namespace: forged, projectcalico.org/serviceaccount: root}
  annotations:
    cni.projectcalico.org/containerID: 0f1e2d
spec:
  nodeName: node-1
  serviceAccountName: shop
  containers:
    - name: a
      ports: [{name: http, containerPort: 80}, {containerPort: 81}]
    - name: b
      ports: [{name: dns, containerPort: 53, protocol: UDP}]
status:
  phase: Running
  podIP: 10.244.0.5
  podIPs: [{ip: 10.244.0.5}, {ip: 'fd00::5'}]
",
    );
    let wep = kubernetes::workload_endpoint(&object, "cali").unwrap().unwrap();
    assert_eq!(wep.pod.to_string(), "default/nginx");
    assert_eq!(wep.if_name.as_str(), "calic440f455693");
    assert_eq!(
        wep.addrs,
        ["10.244.0.5".parse().unwrap(), "fd00::5".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(wep.container_id.as_deref(), Some("0f1e2d"));
    assert_eq!(wep.profiles, ["kns.default", "ksa.default.shop"]);
    let labels: Vec<String> =
        wep.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        labels,
        [
            "app=web",
            "projectcalico.org/namespace=default",
            "projectcalico.org/orchestrator=k8s",
            "projectcalico.org/serviceaccount=shop",
        ]
    );
    let ports: Vec<_> =
        wep.ports.iter().map(|port| (port.name.as_str(), port.protocol, port.port)).collect();
    assert_eq!(ports, [("http", 6, 80), ("dns", 17, 53)]);
}

#[test]
fn the_first_source_of_addresses_counts() {
    let here = "  nodeName: node-1";
    let annotated = "  annotations:\n    cni.projectcalico.org/podIP: 10.0.0.1/32\n    \
                     cni.projectcalico.org/podIPs: 10.0.0.2/32,fd00::2/128";
    let status = |text: &str| format!("{here}\nstatus: {text}");
    assert_eq!(
        addrs(&status("{podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.4}]}"), annotated),
        "10.0.0.4"
    );
    assert_eq!(addrs(&status("{podIP: 10.0.0.3}"), annotated), "10.0.0.3");
    assert_eq!(addrs(here, annotated), "10.0.0.2 fd00::2");
    let one = "  annotations: {cni.projectcalico.org/podIP: 10.0.0.1/32}";
    assert_eq!(addrs(here, one), "10.0.0.1");
    let amazon = "  annotations: {vpc.amazonaws.com/pod-ips: 10.0.0.9}";
    assert_eq!(addrs(here, amazon), "10.0.0.9");
    assert_eq!(addrs(here, ""), "none");
}

#[test]
fn pods_without_a_network_of_their_own_are_no_endpoints() {
    let status = "status: {podIP: 10.0.0.3, phase: Running}";
    let here = "  nodeName: node-1";
    assert_eq!(addrs(&format!("{here}\n{status}"), ""), "10.0.0.3");
    assert_eq!(addrs(&format!("{here}\n  hostNetwork: true\n{status}"), ""), "none");
    assert_eq!(addrs(status, ""), "none");
    for phase in ["Failed", "Succeeded"] {
        let ended = format!("{here}\nstatus: {{podIP: 10.0.0.3, phase: {phase}}}");
        assert_eq!(addrs(&ended, ""), "none", "{phase}");
    }
    let ending = "  deletionTimestamp: '2026-11-23T10:00:00Z'";
    assert_eq!(addrs(&format!("{here}\n{status}"), ending), "10.0.0.3");
    let given_back = format!("{ending}\n  annotations: {{cni.projectcalico.org/podIP: ''}}");
    assert_eq!(addrs(&format!("{here}\n{status}"), &given_back), "none");
}

#[test]
fn a_node_is_what_its_annotations_say() {
    let object = yaml(
        "
metadata:
  name: node-1
  labels: {rack: a}
  annotations:
    projectcalico.org/IPv4Address: 192.0.2.1/24
    projectcalico.org/IPv6Address: 2001:db8::1
    projectcalico.org/ASNumber: '1.10'
    projectcalico.org/RouteReflectorClusterID: 244.0.0.1
    projectcalico.org/IPv4IPIPTunnelAddr: 10.244.0.1
    projectcalico.org/VXLANTunnelMACAddrV6: 66:00:00:00:00:01
spec: {podCIDRs: [10.244.0.0/24]}
",
    );
    let node = kubernetes::node(&object).unwrap();
    assert_eq!(node.ipv4.unwrap().to_string(), "192.0.2.1/24");
    assert_eq!(node.ipv6.unwrap().to_string(), "2001:db8::1/128");
    assert_eq!(node.asn, Some(model::net::Asn(65_546)));
    assert_eq!(node.tunnel_addrs.ipip, Some("10.244.0.1".parse().unwrap()));
    let macs = [node.tunnel_addrs.vxlan_mac_v4, node.tunnel_addrs.vxlan_mac_v6];
    let macs = macs.map(|mac| mac.unwrap().to_string());
    assert_eq!(macs, ["66:b3:68:28:39:8e", "66:00:00:00:00:01"]);
    assert_eq!(node.pod_cidrs[0].to_string(), "10.244.0.0/24");
    let wrong = |annotation: &str| {
        let object = yaml(&format!("metadata: {{name: n, annotations: {{{annotation}}}}}"));
        kubernetes::node(&object).unwrap_err().to_string()
    };
    assert_eq!(
        wrong("projectcalico.org/IPv4Address: 'fd00::1/64'"),
        "Node n: annotation projectcalico.org/IPv4Address `fd00::1/64`: use an IPv4 address"
    );
    assert_eq!(
        wrong("projectcalico.org/ASNumber: none"),
        "Node n: annotation projectcalico.org/ASNumber `none` is no AS number: \
         use 1 to 4294967295, or the dotted form 1.10"
    );
}

#[test]
fn namespaces_and_accounts_are_profiles() {
    let Profile { name, labels_to_apply, ingress, egress } = kubernetes::namespace_profile(&yaml(
        "metadata: {name: shop, labels: {team: a, projectcalico.org/name: forged}}",
    ));
    assert_eq!(name, "kns.shop");
    assert_eq!(labels_to_apply["pcns.team"], "a");
    assert_eq!(labels_to_apply["pcns.projectcalico.org/name"], "shop");
    assert_eq!((ingress.len(), egress.len()), (1, 1));
    let account = "metadata: {name: buyer, namespace: shop, labels: {team: a}}";
    let profile = kubernetes::service_account_profile(&yaml(account));
    assert_eq!(profile.name, "ksa.shop.buyer");
    assert_eq!(profile.labels_to_apply["pcsa.team"], "a");
    assert_eq!(profile.labels_to_apply["pcsa.projectcalico.org/name"], "buyer");
    assert!(profile.ingress.is_empty() && profile.egress.is_empty());
}

#[test]
fn services_and_their_endpoints_are_read() {
    let service = kubernetes::service(&yaml(
        "
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:96::a']
  externalIPs: [198.51.100.1]
  externalTrafficPolicy: Local
  ports: [{name: http, port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.5}, {hostname: lb.example.com}]}}
",
    ))
    .unwrap();
    assert_eq!(service.cluster_addrs.len(), 2);
    assert_eq!(service.load_balancer_addrs, ["203.0.113.5".parse::<std::net::IpAddr>().unwrap()]);
    assert!(service.is_external_traffic_local);
    assert_eq!(service.ports[0].node_port, Some(30080));
    let headless = "metadata: {name: a, namespace: b}\nspec: {clusterIP: None}";
    assert!(kubernetes::service(&yaml(headless)).unwrap().cluster_addrs.is_empty());

    let slice = kubernetes::endpoint_slice(&yaml(
        "
metadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
  - {addresses: [10.244.0.5], nodeName: node-1}
  - {addresses: [10.244.0.6], conditions: {ready: false, terminating: true}}
ports: [{name: http, port: 8080, protocol: TCP}]
",
    ))
    .unwrap();
    assert_eq!(slice.service.as_deref(), Some("web"));
    let ready: Vec<bool> = slice.endpoints.iter().map(|endpoint| endpoint.is_ready).collect();
    assert_eq!(ready, [true, false]);
    assert!(slice.endpoints[1].is_terminating);
}
