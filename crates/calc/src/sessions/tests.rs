//! Facts about which sessions a node has.

use model::peer::NextHopMode;

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
    BgpPeer {
        name: name.to_owned(),
        nodes,
        remote,
        uses_node_addr: true,
        next_hop: NextHopMode::Auto,
        keepalive: None,
        max_restart_time: None,
        filters: Vec::new(),
    }
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
