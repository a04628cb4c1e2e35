//! Facts about which sessions a node has.

use std::collections::BTreeMap;

use model::bgp_filter::BgpFilter;
use model::desired::{Password, Reflection, Role};
use model::endpoint::WorkloadEndpoint;
use model::id::NamespacedName;
use model::peer::{PeerRemote, SecretKey};

use super::*;

fn node(name: &str, addr: &str) -> Node {
    Node {
        name: name.parse().unwrap(),
        labels: [("name".to_owned(), name.to_owned())].into(),
        ipv4: Some(addr.parse().unwrap()),
        ipv6: None,
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: model::node::TunnelAddrs::default(),
        pod_cidrs: Vec::new(),
    }
}

/// Nodes a to c at 10.0.0.1, 10.0.0.9 and 10.0.0.10, seen from `this_node`.
fn cluster(this_node: &str) -> Cluster {
    let mut cluster = Cluster::new(this_node.parse().unwrap());
    for (name, addr) in [("a", "10.0.0.1/24"), ("b", "10.0.0.9/24"), ("c", "10.0.0.10/24")] {
        cluster.nodes.insert(name.parse().unwrap(), node(name, addr));
    }
    cluster
}

fn peer(name: &str, nodes: PeerNodes, remote: PeerRemote) -> BgpPeer {
    BgpPeer::new(name.to_owned(), nodes, remote)
}

fn router(addr: &str, port: u16, asn: u32) -> PeerRemote {
    PeerRemote::Router { addr: addr.parse().unwrap(), port, asn: Asn(asn) }
}

/// The sessions in words: name, our AS → the peer's AS, and whether we wait.
fn sessions(cluster: &Cluster) -> Vec<String> {
    of(cluster, &mut Vec::new())
        .into_iter()
        .map(|session| {
            let waits = if session.is_passive { " waits" } else { "" };
            format!("{} {}→{}{waits}", session.name, session.local_asn, session.peer_asn)
        })
        .collect()
}

#[test]
fn every_node_peers_with_every_other_and_one_side_waits() {
    assert_eq!(
        sessions(&cluster("a")),
        ["Mesh_10_0_0_10 64512→64512 waits", "Mesh_10_0_0_9 64512→64512 waits"]
    );
    assert_eq!(
        sessions(&cluster("b")),
        ["Mesh_10_0_0_1 64512→64512", "Mesh_10_0_0_10 64512→64512"],
        "10.0.0.9 is the greatest text, so b connects"
    );
}

#[test]
fn a_node_without_an_address_takes_no_part() {
    let mut cluster = cluster("a");
    cluster.nodes.get_mut(&"b".parse().unwrap()).unwrap().ipv4 = None;
    assert_eq!(sessions(&cluster), ["Mesh_10_0_0_10 64512→64512 waits"]);
}

#[test]
fn each_family_has_its_own_session() {
    let mut cluster = cluster("a");
    for (name, addr) in [("a", "fd00::1/64"), ("b", "fd00::9/64")] {
        let node = cluster.nodes.get_mut(&name.parse().unwrap()).unwrap();
        node.ipv6 = Some(addr.parse().unwrap());
    }
    assert!(sessions(&cluster).contains(&"Mesh_fd00__9 64512→64512 waits".to_owned()));
}

#[test]
fn route_reflectors_stand_outside_the_mesh() {
    let mut cluster = cluster("a");
    let id = Some("244.0.0.1".parse().unwrap());
    cluster.nodes.get_mut(&"c".parse().unwrap()).unwrap().route_reflector_cluster_id = id;
    assert_eq!(sessions(&cluster), ["Mesh_10_0_0_9 64512→64512 waits"]);
    cluster.this_node = "c".parse().unwrap();
    assert_eq!(sessions(&cluster), Vec::<String>::new());
}

#[test]
fn a_nodes_own_as_is_used_on_both_sides() {
    let mut cluster = cluster("a");
    cluster.nodes.get_mut(&"b".parse().unwrap()).unwrap().asn = Some(Asn(65_001));
    cluster.bgp.asn = Asn(65_000);
    assert_eq!(
        sessions(&cluster),
        ["Mesh_10_0_0_10 65000→65000 waits", "Mesh_10_0_0_9 65000→65001 waits"]
    );
}

#[test]
fn without_the_mesh_only_configured_peers_remain() {
    let mut cluster = cluster("a");
    cluster.bgp.is_mesh_enabled = false;
    let peers = [
        peer("global", PeerNodes::All, router("192.0.2.1", 179, 65_001)),
        peer("for-a", PeerNodes::Named("a".parse().unwrap()), router("192.0.2.2", 1179, 65_002)),
        peer("for-b", PeerNodes::Named("b".parse().unwrap()), router("192.0.2.3", 179, 65_003)),
        peer(
            "by-label",
            PeerNodes::Selected("name == 'a'".parse().unwrap()),
            PeerRemote::Nodes("name == 'c'".parse().unwrap()),
        ),
    ];
    cluster.peers = peers.into_iter().map(|peer| (peer.name.clone(), peer)).collect();
    assert_eq!(
        sessions(&cluster),
        [
            "Global_192_0_2_1 64512→65001",
            "Node_10_0_0_10 64512→64512",
            "Node_192_0_2_2_port_1179 64512→65002",
        ]
    );
}

#[test]
fn a_selected_node_peers_back() {
    let mut cluster = cluster("c");
    cluster.bgp.is_mesh_enabled = false;
    let selected = PeerNodes::Selected("name == 'a'".parse().unwrap());
    let remote = PeerRemote::Nodes("name == 'c'".parse().unwrap());
    cluster.peers.insert("by-label".to_owned(), peer("by-label", selected, remote));
    assert_eq!(sessions(&cluster), ["Node_10_0_0_1 64512→64512"]);
}

#[test]
fn a_global_peer_hides_a_nodes_peer_at_the_same_address() {
    let mut cluster = cluster("a");
    cluster.bgp.is_mesh_enabled = false;
    let own = PeerNodes::Named("a".parse().unwrap());
    let peers = [
        peer("a-own", own, router("192.0.2.1", 179, 65_009)),
        peer("z-global", PeerNodes::All, router("192.0.2.1", 179, 65_001)),
    ];
    cluster.peers = peers.into_iter().map(|peer| (peer.name.clone(), peer)).collect();
    assert_eq!(sessions(&cluster), ["Global_192_0_2_1 64512→65001"]);
}

#[test]
fn wrong_peers_are_named_and_stop_nobody_else() {
    let mut cluster = cluster("a");
    cluster.bgp.is_mesh_enabled = false;
    let own = PeerNodes::Named("a".parse().unwrap());
    let peers = [
        peer("itself", own.clone(), router("10.0.0.1", 179, 64_512)),
        peer("six", own, router("fd00::1", 179, 65_001)),
        peer("right", PeerNodes::All, router("192.0.2.1", 179, 65_001)),
    ];
    cluster.peers = peers.into_iter().map(|peer| (peer.name.clone(), peer)).collect();
    let mut problems = Vec::new();
    assert_eq!(of(&cluster, &mut problems).len(), 1);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "BGPPeer itself: peerIP 10.0.0.1 is the address of node a itself",
            "BGPPeer six: peerIP fd00::1 is IPv6, but node a has no IPv6 address; \
             give the node one or restrict the peer with nodeSelector",
        ]
    );
}

fn only(cluster: &mut Cluster, peer: BgpPeer) -> Result<BgpSession, String> {
    cluster.bgp.is_mesh_enabled = false;
    cluster.peers = [(peer.name.clone(), peer)].into();
    let mut problems = Vec::new();
    let session = of(cluster, &mut problems).pop();
    session.ok_or_else(|| problems.iter().map(ToString::to_string).collect())
}

fn tor() -> BgpPeer {
    peer("tor", PeerNodes::All, router("192.0.2.1", 179, 65_001))
}

#[test]
fn there_is_no_session_without_its_password() {
    let mut cluster = cluster("a");
    let place = SecretKey { secret: "bgp".to_owned(), key: "tor".to_owned() };
    let peer = BgpPeer { password: Some(place), ..tor() };
    let refused = |cluster: &mut Cluster| only(cluster, peer.clone()).unwrap_err();
    assert_eq!(refused(&mut cluster), "", "the Secret has not been told of yet");
    assert!(!cluster.are_secrets_known());
    cluster.secrets.insert("bgp".to_owned(), None);
    let missing = "BGPPeer tor: password: key tor of Secret bgp is not there, so there is no \
                   session; create it in the namespace of calico-node and let calico-node read it";
    assert_eq!(refused(&mut cluster), missing);
    cluster.secrets.insert("bgp".to_owned(), Some(BTreeMap::from([("tor".to_owned(), None)])));
    assert!(refused(&mut cluster).contains("is empty or longer than 80 bytes"));
    let password = Password::new(b"secret");
    let values = BTreeMap::from([("tor".to_owned(), password.clone())]);
    cluster.secrets.insert("bgp".to_owned(), Some(values));
    assert_eq!(only(&mut cluster, peer).unwrap().password, password);
}

#[test]
fn there_is_no_session_without_its_filters() {
    let mut cluster = cluster("a");
    let peer = BgpPeer { filters: vec!["mine".to_owned()], ..tor() };
    let refused = only(&mut cluster, peer.clone()).unwrap_err();
    assert!(refused.starts_with("BGPPeer tor: filter mine is not there"), "{refused}");
    let filter = BgpFilter {
        name: "mine".to_owned(),
        export_v4: Vec::new(),
        import_v4: Vec::new(),
        export_v6: Vec::new(),
        import_v6: Vec::new(),
    };
    cluster.filters.insert("mine".to_owned(), filter);
    let session = only(&mut cluster, peer).unwrap();
    assert_eq!(session.import.of(Family::V4), Some(&[][..]));
}

#[test]
fn a_reflector_reflects_to_peers_of_its_as_that_are_not_of_its_cluster() {
    let id: Ipv4Addr = "244.0.0.1".parse().unwrap();
    let mut cluster = cluster("a");
    let name = |name: &str| name.parse().unwrap();
    cluster.nodes.get_mut(&name("a")).unwrap().route_reflector_cluster_id = Some(id);
    cluster.nodes.get_mut(&name("b")).unwrap().route_reflector_cluster_id = Some(id);
    cluster.bgp.is_mesh_enabled = false;
    let all = peer("rr", PeerNodes::All, PeerRemote::Nodes("all()".parse().unwrap()));
    cluster.peers.insert("rr".to_owned(), all);
    let found: Vec<_> = of(&cluster, &mut Vec::new())
        .into_iter()
        .map(|session| (session.name, session.reflection.map(|each| each.is_client)))
        .collect();
    assert_eq!(
        found,
        [("Global_10_0_0_10".to_owned(), Some(true)), ("Global_10_0_0_9".to_owned(), Some(false))]
    );
    assert_eq!(only(&mut cluster, tor()).unwrap().reflection, None, "another AS");
    let inner = peer("inner", PeerNodes::All, router("192.0.2.1", 179, 64_512));
    let expected = Reflection { cluster_id: id.to_bits(), is_client: true };
    assert_eq!(only(&mut cluster, inner).unwrap().reflection, Some(expected));
}

#[test]
fn reverse_peering_can_be_left_to_people() {
    let mut cluster = cluster("c");
    let selected = PeerNodes::Selected("name == 'a'".parse().unwrap());
    let remote = PeerRemote::Nodes("name == 'c'".parse().unwrap());
    let peer = BgpPeer { is_reversed: false, ..peer("by-label", selected, remote) };
    assert_eq!(only(&mut cluster, peer.clone()).unwrap_err(), "");
    cluster.this_node = "a".parse().unwrap();
    assert_eq!(only(&mut cluster, peer).unwrap().name, "Node_10_0_0_10");
}

#[test]
fn a_nodes_own_port_is_used_by_its_peers() {
    let mut cluster = cluster("a");
    let own = model::peer::BgpNodeConfiguration { listen_port: Some(1790), ..Default::default() };
    cluster.node_bgp.insert("b".parse().unwrap(), own);
    assert_eq!(
        sessions(&cluster),
        ["Mesh_10_0_0_10 64512→64512 waits", "Mesh_10_0_0_9_port_1790 64512→64512 waits"]
    );
    assert_eq!(listen(&cluster), BTreeSet::from(["0.0.0.0:179".parse().unwrap()]));
    cluster.this_node = "b".parse().unwrap();
    cluster.bgp.bind = BindMode::NodeAddr;
    assert_eq!(listen(&cluster), BTreeSet::from(["10.0.0.9:1790".parse().unwrap()]));
}

#[test]
fn two_peers_at_one_address_are_told_apart_and_reported() {
    let mut cluster = cluster("a");
    cluster.bgp.is_mesh_enabled = false;
    let other = peer("z", PeerNodes::All, router("192.0.2.1", 179, 65_002));
    cluster.peers = [("tor".to_owned(), tor()), ("z".to_owned(), other)].into();
    let mut problems = Vec::new();
    assert_eq!(of(&cluster, &mut problems).len(), 1);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["BGPPeer z: peer 192.0.2.1 port 179 is already that of BGPPeer tor, which is used; \
          delete one of the two, or restrict them to different nodes"]
    );
}

#[test]
fn a_role_within_the_as_is_refused() {
    let mut cluster = cluster("a");
    let mut peer = peer("inner", PeerNodes::All, router("192.0.2.1", 179, 64_512));
    peer.options.role = Some(Role::Customer);
    let refused = only(&mut cluster, peer.clone()).unwrap_err();
    assert!(refused.contains("bgp.projectcalico.org/role is for peers of another AS"), "{refused}");
    peer.local_asn = Some(Asn(65_000));
    assert_eq!(only(&mut cluster, peer).unwrap().local_asn, Asn(65_000));
}

#[test]
fn workloads_connect_to_their_node() {
    let mut cluster = cluster("a");
    let remote =
        PeerRemote::Workloads { selector: "app == 'router'".parse().unwrap(), asn: Asn(65_009) };
    let peer = peer("pods", PeerNodes::All, remote);
    let refused = only(&mut cluster, peer.clone()).unwrap_err();
    assert!(refused.contains("set localWorkloadPeeringIPV4"), "{refused}");
    cluster.bgp.workload_peering_addrs = vec!["169.254.1.2".parse().unwrap()];
    let name = NamespacedName { namespace: "default".to_owned(), name: "router".to_owned() };
    let addrs = vec!["10.244.0.5".parse().unwrap()];
    let pod = WorkloadEndpoint {
        labels: [("app".to_owned(), "router".to_owned())].into(),
        ..WorkloadEndpoint::new(name, "a".parse().unwrap(), "cali1".parse().unwrap(), addrs)
    };
    cluster.endpoints.insert(pod.pod.clone(), pod.into());
    let session = only(&mut cluster, peer).unwrap();
    assert_eq!(session.name, "Local_Workload_10_244_0_5");
    assert!(session.is_passive && session.local_addr.is_none());
    assert_eq!((session.local_asn, session.peer_asn), (Asn(64_512), Asn(65_009)));
    let on_interface = ("cali1".parse().unwrap(), "169.254.1.2".parse().unwrap());
    assert_eq!(peering_addrs(&cluster), [on_interface].into());
    // Where only named addresses are listened on, that is one of them.
    cluster.bgp.bind = BindMode::NodeAddr;
    assert!(listen(&cluster).contains(&"169.254.1.2:179".parse().unwrap()));
    // A workload cannot call an address of a family that it does not speak.
    cluster.bgp.workload_peering_addrs = vec!["fd00::179".parse().unwrap()];
    assert_eq!(peering_addrs(&cluster), BTreeSet::new());
}

#[test]
fn whoever_is_on_an_interface_may_be_a_peer() {
    let mut cluster = cluster("a");
    let on = |name: &str| PeerRemote::Interface { name: name.parse().unwrap(), asn: Asn(65_001) };
    let mut eth1 = peer("left", PeerNodes::All, on("eth1"));
    let session = only(&mut cluster, eth1.clone()).unwrap();
    assert_eq!((session.name.as_str(), session.is_passive), ("Global_eth1", false));
    assert_eq!(session.families, Family::ALL.into());
    assert_eq!(session.interface, "eth1".parse().ok());
    cluster.peers.insert("right".to_owned(), peer("right", PeerNodes::All, on("eth2")));
    // Two interfaces are two peers, and their calls come to addresses that no object names.
    assert_eq!(of(&cluster, &mut Vec::new()).iter().filter(|s| s.interface.is_some()).count(), 2);
    let any: SocketAddr = "[::]:179".parse().unwrap();
    assert!(listen(&cluster).contains(&any));
    cluster.bgp.bind = BindMode::NodeAddr;
    assert!(!listen(&cluster).contains(&any));
    let interval = std::time::Duration::from_secs(1);
    eth1.options.bfd = Some(model::desired::BfdSettings { interval, multiplier: 3 });
    assert!(only(&mut cluster, eth1).unwrap().bfd.is_some());
}
