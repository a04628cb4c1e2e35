//! The sessions that BGPPeer objects ask for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use model::bgp_filter::{BgpFilter, FilterRule};
use model::desired::{BgpSession, Filters, Reflection};
use model::net::{Asn, Family, IfName};
use model::node::Node;
use model::peer::{BgpConfiguration, BgpPeer, PeerNodes, PeerRemote};

use super::{Wanted, asn_of, is_for, session_name, to_node, waits_for};
use crate::secrets::Lookup;
use crate::{Cluster, Problem};

/// Returns the sessions that BGPPeer objects ask for, global ones first.
pub(super) fn configured<'a>(
    cluster: &'a Cluster,
    node: &Node,
    problems: &mut Vec<Problem>,
) -> Vec<Wanted<'a>> {
    let is_global = |peer: &&BgpPeer| peer.nodes == PeerNodes::All;
    let global = cluster.peers.values().filter(is_global);
    let specific = cluster.peers.values().filter(|peer| !is_global(peer));
    let mut all = Vec::new();
    for peer in global.chain(specific) {
        let mut refuse = |message: String| {
            problems.push(Problem { object: format!("BGPPeer {}", peer.name), message });
        };
        match found(cluster, node, peer) {
            Ok(found) => {
                for session in found {
                    match adjusted(cluster, node, session, peer) {
                        Ok(session) => {
                            all.extend(session.map(|session| Wanted { session, peer: Some(peer) }));
                        }
                        Err(message) => refuse(message),
                    }
                }
            }
            Err(message) => refuse(message),
        }
    }
    problems.dedup();
    all
}

/// Returns the sessions that follow from who the peer is, or what is wrong with that.
fn found(cluster: &Cluster, node: &Node, peer: &BgpPeer) -> Result<Vec<BgpSession>, String> {
    match &peer.remote {
        PeerRemote::Router { addr, port, asn } if is_for(peer, node) => {
            let session = to_router(cluster, node, peer, (*addr, *port, *asn))?;
            Ok(session.into_iter().collect())
        }
        PeerRemote::Workloads { asn, .. } if is_for(peer, node) => {
            to_workloads(cluster, node, peer, *asn)
        }
        PeerRemote::Interface { name, asn } if is_for(peer, node) => {
            Ok(vec![on_interface(cluster, node, peer, (name, *asn))])
        }
        PeerRemote::Router { .. } | PeerRemote::Interface { .. } | PeerRemote::Workloads { .. } => {
            Ok(Vec::new())
        }
        PeerRemote::Nodes(selector) => {
            let kind = if peer.nodes == PeerNodes::All { "Global" } else { "Node" };
            // What makes that node our peer makes us its peer ("reverse peering"),
            // or one side would refuse the other's connection.
            let is_peer = |other: &&Node| {
                let is_forward = is_for(peer, node) && selector.matches(&other.labels);
                let is_reverse =
                    peer.is_reversed && is_for(peer, other) && selector.matches(&node.labels);
                other.name != node.name && (is_forward || is_reverse)
            };
            let others = cluster.nodes.values().filter(is_peer);
            Ok(others.flat_map(|other| to_node(cluster, node, other, kind)).collect())
        }
    }
}

/// Returns `session` with all that `peer` says, `None` while its password is not known yet.
fn adjusted(
    cluster: &Cluster,
    node: &Node,
    session: BgpSession,
    peer: &BgpPeer,
) -> Result<Option<BgpSession>, String> {
    let password = match cluster.password(peer.password.as_ref()) {
        Lookup::Found(password) => password,
        Lookup::Pending => return Ok(None),
        Lookup::Missing(message) => return Err(format!("password: {message}")),
    };
    let (import, export) = filters(cluster, peer)?;
    let options = &peer.options;
    let session = BgpSession {
        object: Some(peer.name.clone()),
        local_addr: session.local_addr.filter(|_| peer.uses_node_addr),
        local_asn: peer.local_asn.unwrap_or(session.local_asn),
        restart_time: peer.max_restart_time.unwrap_or(session.restart_time),
        keepalive: peer.keepalive,
        next_hop: peer.next_hop,
        allowed_own_asns: peer.allowed_own_asns,
        ttl_security: peer.ttl_security,
        password,
        import,
        export,
        families: options.families.clone().unwrap_or(session.families),
        max_prefixes: options.max_prefixes,
        role: options.role,
        allows_extended_messages: options.allows_extended_messages,
        requires_policy: options.requires_policy,
        add_path: options.add_path,
        bfd: options.bfd,
        ..session
    };
    if session.role.is_some() && session.is_internal() {
        return Err(format!(
            "annotation bgp.projectcalico.org/role is for peers of another AS, but {} is in ours \
             (AS {}); remove the annotation",
            session.name, session.local_asn
        ));
    }
    let reflection = reflection(cluster, node, &session);
    Ok(Some(BgpSession { reflection, ..session }))
}

/// Returns how we reflect to an internal peer; one of our own cluster is no client (RFC 4456 §7).
fn reflection(cluster: &Cluster, node: &Node, session: &BgpSession) -> Option<Reflection> {
    let own = node.route_reflector_cluster_id.filter(|_| session.is_internal())?;
    let family = Family::of(session.peer_addr);
    let at = |node: &&Node| node.addr(family).is_some_and(|at| at.addr() == session.peer_addr);
    let peers: Option<Ipv4Addr> =
        cluster.nodes.values().find(at).and_then(|other| other.route_reflector_cluster_id);
    Some(Reflection { cluster_id: own.to_bits(), is_client: peers != Some(own) })
}

/// Returns the import and export rules of a peer's filters, one after the other.
///
/// A filter that is not there might be meant to keep routes back, so there is no session without.
fn filters(cluster: &Cluster, peer: &BgpPeer) -> Result<(Filters, Filters), String> {
    if peer.filters.is_empty() {
        return Ok((Filters::default(), Filters::default()));
    }
    let named = peer.filters.iter().map(|name| {
        cluster.filters.get(name).ok_or_else(|| {
            format!(
                "filter {name} is not there or is refused, so there is no session; \
                 create BGPFilter {name}, or take it out of spec.filters"
            )
        })
    });
    let named: Vec<&BgpFilter> = named.collect::<Result<_, _>>()?;
    let joined = |rules: fn(&BgpFilter) -> &Vec<FilterRule>| -> Option<Arc<[FilterRule]>> {
        Some(named.iter().flat_map(|filter| rules(filter)).cloned().collect())
    };
    Ok((
        Filters { v4: joined(|each| &each.import_v4), v6: joined(|each| &each.import_v6) },
        Filters { v4: joined(|each| &each.export_v4), v6: joined(|each| &each.export_v6) },
    ))
}

/// Returns the session with a router outside the cluster, or with a node named by its address.
fn to_router(
    cluster: &Cluster,
    node: &Node,
    peer: &BgpPeer,
    (addr, port, asn): (IpAddr, u16, Asn),
) -> Result<Option<BgpSession>, String> {
    let family = Family::of(addr);
    let Some(local) = node.addr(family) else {
        return Err(format!(
            "peerIP {addr} is {family}, but node {} has no {family} address; \
             give the node one or restrict the peer with nodeSelector",
            node.name
        ));
    };
    if local.addr() == addr {
        // A global peer that is one of the nodes is meant for all the others.
        return match peer.nodes {
            PeerNodes::All => Ok(None),
            PeerNodes::Named(_) | PeerNodes::Selected(_) => {
                Err(format!("peerIP {addr} is the address of node {} itself", node.name))
            }
        };
    }
    if peer.reachable_by == Some(local.addr()) {
        return Err(format!(
            "reachableBy {} is the address of node {} itself, which leads nowhere; \
             name the router that leads to {addr}",
            local.addr(),
            node.name
        ));
    }
    let kind = if peer.nodes == PeerNodes::All { "Global" } else { "Node" };
    let is_node = cluster
        .nodes
        .values()
        .any(|other| other.addr(family).is_some_and(|other| other.addr() == addr));
    Ok(Some(BgpSession {
        peer_port: port,
        local_addr: Some(local.addr()),
        is_passive: kind == "Global" && is_node && waits_for(local.addr(), addr),
        ..BgpSession::new(session_name(kind, addr, port, cluster), addr, asn_of(cluster, node), asn)
    }))
}

/// Returns the session with whoever is on an interface, whose address will be seen there.
///
/// Such links have no addresses but those that they give themselves, so both families go over
/// IPv6 (RFC 8950).
fn on_interface(
    cluster: &Cluster,
    node: &Node,
    peer: &BgpPeer,
    (name, asn): (&IfName, Asn),
) -> BgpSession {
    let kind = if peer.nodes == PeerNodes::All { "Global" } else { "Node" };
    let nobody = Ipv6Addr::UNSPECIFIED.into();
    BgpSession {
        interface: Some(name.clone()),
        families: Family::ALL.into(),
        ..BgpSession::new(format!("{kind}_{name}"), nobody, asn_of(cluster, node), asn)
    }
}

/// Returns the sessions with workloads of this node, which all connect to us.
fn to_workloads(
    cluster: &Cluster,
    node: &Node,
    peer: &BgpPeer,
    asn: Asn,
) -> Result<Vec<BgpSession>, String> {
    let PeerRemote::Workloads { selector, .. } = &peer.remote else { return Ok(Vec::new()) };
    let spoken: Vec<Family> =
        cluster.bgp.workload_peering_addrs.iter().map(|addr| Family::of(*addr)).collect();
    if spoken.is_empty() {
        return Err("localWorkloadSelector needs an address that workloads connect to; \
                    set localWorkloadPeeringIPV4 or localWorkloadPeeringIPV6 in \
                    BGPConfiguration default"
            .to_owned());
    }
    let workloads = cluster.endpoints.values().filter(|each| selector.matches(&each.labels));
    let addrs = workloads.flat_map(|workload| &workload.addrs).copied();
    let session = |addr: IpAddr| BgpSession {
        is_passive: true,
        ..BgpSession::new(
            session_name("Local_Workload", addr, cluster.bgp.listen_port, cluster),
            addr,
            asn_of(cluster, node),
            asn,
        )
    };
    let spoken = addrs.filter(|addr| spoken.contains(&Family::of(*addr)));
    Ok(spoken
        .map(|addr| BgpSession { peer_port: BgpConfiguration::DEFAULT_PORT, ..session(addr) })
        .collect())
}
