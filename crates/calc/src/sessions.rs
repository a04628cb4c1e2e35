//! Which BGP sessions this node has: the mesh, the configured peers, and its workloads.

mod peer;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use model::desired::BgpSession;
use model::endpoint::WorkloadEndpoint;
use model::net::{Asn, Family, IfName};
use model::node::Node;
use model::peer::{BgpPeer, BindMode, PeerNodes, PeerRemote};
use selector::Selector;

use crate::secrets::Lookup;
use crate::{Cluster, Problem};

/// A session, and the object that asks for it.
struct Wanted<'a> {
    session: BgpSession,
    /// `None` is the mesh.
    peer: Option<&'a BgpPeer>,
}

/// Returns the sessions in the order of their names.
///
/// Two that lead to the same address and port are one: the mesh's comes before
/// a global peer's, and a global peer's before one for some nodes.
pub(crate) fn of(cluster: &Cluster, problems: &mut Vec<Problem>) -> Vec<BgpSession> {
    let Some(node) = cluster.node() else { return Vec::new() };
    let mut by_remote: BTreeMap<_, Wanted<'_>> = BTreeMap::new();
    let wanted = mesh(cluster, node, problems).into_iter();
    for wanted in wanted.chain(peer::configured(cluster, node, problems)) {
        let BgpSession { interface, peer_addr, peer_port, .. } = &wanted.session;
        match by_remote.entry((interface.clone(), *peer_addr, *peer_port)) {
            Entry::Vacant(entry) => {
                entry.insert(wanted);
            }
            Entry::Occupied(first) => problems.extend(collision(first.get(), &wanted)),
        }
    }
    let mut sessions: Vec<_> = by_remote.into_values().map(|wanted| wanted.session).collect();
    sessions.sort_by(|a, b| a.name.cmp(&b.name));
    sessions
}

/// Returns what is wrong with a second session to the same address and port.
///
/// A node may well be met twice, in the mesh and as a selected peer: nothing is lost then.
fn collision(first: &Wanted<'_>, second: &Wanted<'_>) -> Option<Problem> {
    let (winner, loser) = (first.peer?, second.peer?);
    let nameless = |wanted: &Wanted<'_>| BgpSession {
        name: String::new(),
        object: None,
        ..wanted.session.clone()
    };
    let is_same = nameless(first) == nameless(second);
    (!is_same && winner.name != loser.name).then(|| Problem {
        object: format!("BGPPeer {}", loser.name),
        message: format!(
            "{} is already that of BGPPeer {}, which is used; delete one of the two, \
             or restrict them to different nodes",
            remote_of(&second.session),
            winner.name
        ),
    })
}

fn remote_of(session: &BgpSession) -> String {
    match &session.interface {
        Some(name) => format!("the peer on interface {name}"),
        None => format!("peer {} port {}", session.peer_addr, session.peer_port),
    }
}

/// Returns where this node listens: an address of each family that it has.
pub(crate) fn listen(cluster: &Cluster) -> BTreeSet<SocketAddr> {
    let Some(node) = cluster.node() else { return BTreeSet::new() };
    let own = cluster.node_bgp.get(&node.name).and_then(|own| own.bind);
    let bind = own.unwrap_or(cluster.bgp.bind);
    let families = Family::ALL.into_iter().filter_map(|family| node.addr(family));
    let listen = families.map(|addr| match (bind, addr.addr()) {
        (BindMode::NodeAddr, addr) => addr,
        (BindMode::All, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (BindMode::All, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    });
    let has_workloads = !workload_peers(cluster, node).is_empty() && bind == BindMode::NodeAddr;
    let for_workloads = cluster.bgp.workload_peering_addrs.iter().filter(move |_| has_workloads);
    // A peer on an interface calls a link-local address, which no object names.
    let has_nameless = cluster
        .peers
        .values()
        .any(|peer| matches!(peer.remote, PeerRemote::Interface { .. }) && is_for(peer, node));
    let for_nameless = has_nameless && bind == BindMode::All;
    let any: Option<IpAddr> = for_nameless.then_some(Ipv6Addr::UNSPECIFIED.into());
    let listen = listen.chain(any).chain(for_workloads.copied());
    listen.map(|addr| SocketAddr::new(addr, listen_port(cluster, node))).collect()
}

/// Returns the interfaces of workloads that peer with this node, each with what it must have for
/// that: an address of each family that its workload has, too.
pub(crate) fn peering_addrs(cluster: &Cluster) -> BTreeSet<(IfName, IpAddr)> {
    let Some(node) = cluster.node() else { return BTreeSet::new() };
    let selectors = workload_peers(cluster, node);
    let is_peer = |workload: &&Arc<WorkloadEndpoint>| {
        selectors.iter().any(|selector| selector.matches(&workload.labels))
    };
    let on_its_interface = |workload: &Arc<WorkloadEndpoint>| {
        let families: BTreeSet<Family> =
            workload.addrs.iter().map(|addr| Family::of(*addr)).collect();
        let addrs = cluster.bgp.workload_peering_addrs.iter().copied();
        let addrs = addrs.filter(move |addr| families.contains(&Family::of(*addr)));
        let name = workload.if_name.clone();
        addrs.map(move |addr| (name.clone(), addr))
    };
    cluster.endpoints.values().filter(is_peer).flat_map(on_its_interface).collect()
}

/// Returns which workloads peer with this node.
fn workload_peers<'a>(cluster: &'a Cluster, node: &Node) -> Vec<&'a Selector> {
    let selector = |peer: &'a BgpPeer| match &peer.remote {
        PeerRemote::Workloads { selector, .. } => is_for(peer, node).then_some(selector),
        PeerRemote::Router { .. } | PeerRemote::Interface { .. } | PeerRemote::Nodes(_) => None,
    };
    cluster.peers.values().filter_map(selector).collect()
}

/// Returns a session with every other node, unless the mesh is off.
///
/// Route reflectors stand outside the mesh: nodes reach them as configured peers.
fn mesh<'a>(cluster: &Cluster, node: &Node, problems: &mut Vec<Problem>) -> Vec<Wanted<'a>> {
    if !cluster.bgp.is_mesh_enabled || node.route_reflector_cluster_id.is_some() {
        return Vec::new();
    }
    let password = match cluster.password(cluster.bgp.mesh_password.as_ref()) {
        Lookup::Found(password) => password,
        Lookup::Pending => return Vec::new(),
        Lookup::Missing(message) => {
            let object = "BGPConfiguration default".to_owned();
            problems.push(Problem { object, message: format!("nodeMeshPassword: {message}") });
            return Vec::new();
        }
    };
    let is_in_mesh =
        |other: &&Node| other.name != node.name && other.route_reflector_cluster_id.is_none();
    let default = BgpSession::DEFAULT_RESTART_TIME;
    let restart_time = cluster.bgp.mesh_max_restart_time.unwrap_or(default);
    let others = cluster.nodes.values().filter(is_in_mesh);
    others
        .flat_map(|other| to_node(cluster, node, other, "Mesh"))
        .map(|session| BgpSession { restart_time, password: password.clone(), ..session })
        .map(|session| Wanted { session, peer: None })
        .collect()
}

/// Returns the sessions with another node: one per family that both have.
fn to_node(cluster: &Cluster, node: &Node, other: &Node, kind: &str) -> Vec<BgpSession> {
    let port = listen_port(cluster, other);
    let session = |family| {
        let local = node.addr(family)?.addr();
        let peer = other.addr(family)?.addr();
        Some(BgpSession {
            peer_port: port,
            local_addr: Some(local),
            // A peer of some nodes may not know us yet, so both sides connect.
            is_passive: kind != "Node" && waits_for(local, peer),
            ..BgpSession::new(
                session_name(kind, peer, port, cluster),
                peer,
                asn_of(cluster, node),
                asn_of(cluster, other),
            )
        })
    };
    Family::ALL.into_iter().filter_map(session).collect()
}

/// Is `peer` one for `node`?
pub(crate) fn is_for(peer: &BgpPeer, node: &Node) -> bool {
    match &peer.nodes {
        PeerNodes::All => true,
        PeerNodes::Named(name) => *name == node.name,
        PeerNodes::Selected(selector) => selector.matches(&node.labels),
    }
}

/// Does the side with address `local` wait for `peer` to connect?
///
/// The texts are compared, not the numbers, because that is what the other
/// implementation in a mixed mesh does: 10.0.0.10 comes before 10.0.0.9.
fn waits_for(local: IpAddr, peer: IpAddr) -> bool {
    peer.to_string() > local.to_string()
}

pub(crate) fn asn_of(cluster: &Cluster, node: &Node) -> Asn {
    node.asn.unwrap_or(cluster.bgp.asn)
}

/// Returns the port that `node` listens on.
fn listen_port(cluster: &Cluster, node: &Node) -> u16 {
    let own = cluster.node_bgp.get(&node.name).and_then(|own| own.listen_port);
    own.unwrap_or(cluster.bgp.listen_port)
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
