//! Which BGP sessions this node has: the mesh and the configured peers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::desired::BgpSession;
use model::net::{Asn, Family};
use model::node::Node;
use model::peer::{BgpPeer, PeerNodes, PeerRemote};

use crate::{Cluster, Problem};

/// Returns the sessions in the order of their names.
///
/// Two that lead to the same address and port are one: the mesh's comes before
/// a global peer's, and a global peer's before one for some nodes.
pub(crate) fn of(cluster: &Cluster, problems: &mut Vec<Problem>) -> Vec<BgpSession> {
    let Some(node) = cluster.node() else { return Vec::new() };
    let mut by_remote: BTreeMap<(IpAddr, u16), BgpSession> = BTreeMap::new();
    let configured = configured(cluster, node, problems);
    for session in mesh(cluster, node).into_iter().chain(configured) {
        by_remote.entry((session.peer_addr, session.peer_port)).or_insert(session);
    }
    let mut sessions: Vec<_> = by_remote.into_values().collect();
    sessions.sort_by(|a, b| a.name.cmp(&b.name));
    sessions
}

/// Returns a session with every other node, unless the mesh is off.
///
/// Route reflectors stand outside the mesh: nodes reach them as configured peers.
fn mesh(cluster: &Cluster, node: &Node) -> Vec<BgpSession> {
    if !cluster.bgp.is_mesh_enabled || node.route_reflector_cluster_id.is_some() {
        return Vec::new();
    }
    let is_in_mesh =
        |other: &&Node| other.name != node.name && other.route_reflector_cluster_id.is_none();
    let restart_time =
        cluster.bgp.mesh_max_restart_time.unwrap_or(BgpSession::DEFAULT_RESTART_TIME);
    cluster
        .nodes
        .values()
        .filter(is_in_mesh)
        .flat_map(|other| to_node(cluster, node, other, "Mesh"))
        .map(|session| BgpSession { restart_time, ..session })
        .collect()
}

/// Returns the sessions that BGPPeer objects ask for, global ones first.
fn configured(cluster: &Cluster, node: &Node, problems: &mut Vec<Problem>) -> Vec<BgpSession> {
    let is_global = |peer: &&BgpPeer| peer.nodes == PeerNodes::All;
    let global = cluster.peers.values().filter(is_global);
    let specific = cluster.peers.values().filter(|peer| !is_global(peer));
    let mut sessions = Vec::new();
    for peer in global.chain(specific) {
        let kind = if is_global(&peer) { "Global" } else { "Node" };
        let found = match &peer.remote {
            PeerRemote::Router { addr, port, asn } if is_for(peer, node) => {
                to_router(cluster, node, peer, (*addr, *port, *asn), problems).into_iter().collect()
            }
            PeerRemote::Router { .. } => Vec::new(),
            PeerRemote::Nodes(selector) => {
                // What makes that node our peer makes us its peer ("reverse peering"),
                // or one side would refuse the other's connection.
                let is_peer = |other: &&Node| {
                    let is_forward = is_for(peer, node) && selector.matches(&other.labels);
                    let is_reverse = is_for(peer, other) && selector.matches(&node.labels);
                    other.name != node.name && (is_forward || is_reverse)
                };
                let others = cluster.nodes.values().filter(is_peer);
                others.flat_map(|other| to_node(cluster, node, other, kind)).collect::<Vec<_>>()
            }
        };
        sessions.extend(found.into_iter().map(|session| adjusted(session, peer)));
    }
    sessions
}

/// Is `peer` one for `node`?
fn is_for(peer: &BgpPeer, node: &Node) -> bool {
    match &peer.nodes {
        PeerNodes::All => true,
        PeerNodes::Named(name) => *name == node.name,
        PeerNodes::Selected(selector) => selector.matches(&node.labels),
    }
}

/// Returns `session` with what `peer` says of timers and next hops.
fn adjusted(session: BgpSession, peer: &BgpPeer) -> BgpSession {
    BgpSession {
        local_addr: session.local_addr.filter(|_| peer.uses_node_addr),
        restart_time: peer.max_restart_time.unwrap_or(BgpSession::DEFAULT_RESTART_TIME),
        keepalive: peer.keepalive,
        next_hop: peer.next_hop,
        ..session
    }
}

/// Returns the sessions with another node: one per family that both have.
fn to_node(cluster: &Cluster, node: &Node, other: &Node, kind: &str) -> Vec<BgpSession> {
    Family::ALL
        .into_iter()
        .filter_map(|family| {
            let local = node.addr(family)?.addr();
            let peer = other.addr(family)?.addr();
            Some(BgpSession {
                peer_port: cluster.bgp.listen_port,
                local_addr: Some(local),
                // A peer of some nodes may not know us yet, so both sides connect.
                is_passive: kind != "Node" && waits_for(local, peer),
                ..BgpSession::new(
                    session_name(kind, peer, cluster.bgp.listen_port, cluster),
                    peer,
                    asn_of(cluster, node),
                    asn_of(cluster, other),
                )
            })
        })
        .collect()
}

/// Returns the session with a router outside the cluster, or with a node named by its address.
fn to_router(
    cluster: &Cluster,
    node: &Node,
    peer: &BgpPeer,
    (addr, port, asn): (IpAddr, u16, Asn),
    problems: &mut Vec<Problem>,
) -> Option<BgpSession> {
    let mut refuse = |message: String| {
        problems.push(Problem { object: format!("BGPPeer {}", peer.name), message });
        None
    };
    let family = Family::of(addr);
    let Some(local) = node.addr(family) else {
        return refuse(format!(
            "peerIP {addr} is {family}, but node {} has no {family} address; \
             give the node one or restrict the peer with nodeSelector",
            node.name
        ));
    };
    if local.addr() == addr {
        // A global peer that is one of the nodes is meant for all the others.
        return match peer.nodes {
            PeerNodes::All => None,
            PeerNodes::Named(_) | PeerNodes::Selected(_) => {
                refuse(format!("peerIP {addr} is the address of node {} itself", node.name))
            }
        };
    }
    let kind = if peer.nodes == PeerNodes::All { "Global" } else { "Node" };
    let is_node = cluster
        .nodes
        .values()
        .any(|other| other.addr(family).is_some_and(|other| other.addr() == addr));
    Some(BgpSession {
        peer_port: port,
        local_addr: Some(local.addr()),
        is_passive: kind == "Global" && is_node && waits_for(local.addr(), addr),
        ..BgpSession::new(session_name(kind, addr, port, cluster), addr, asn_of(cluster, node), asn)
    })
}

/// Does the side with address `local` wait for `peer` to connect?
///
/// The texts are compared, not the numbers, because that is what the other
/// implementation in a mixed mesh does: 10.0.0.10 comes before 10.0.0.9.
fn waits_for(local: IpAddr, peer: IpAddr) -> bool {
    peer.to_string() > local.to_string()
}

fn asn_of(cluster: &Cluster, node: &Node) -> Asn {
    node.asn.unwrap_or(cluster.bgp.asn)
}

/// Returns the name of a session in BIRD's alphabet: `Mesh_10_0_0_2`, `Global_fd00__1_port_1179`.
fn session_name(kind: &str, addr: IpAddr, port: u16, cluster: &Cluster) -> String {
    let addr = addr.to_string().replace(['.', ':'], "_");
    if port == cluster.bgp.listen_port {
        format!("{kind}_{addr}")
    } else {
        format!("{kind}_{addr}_port_{port}")
    }
}

#[cfg(test)]
mod tests;
