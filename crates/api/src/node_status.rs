//! `CalicoNodeStatus`: how a node is, for those who want to know.

use std::time::Duration;

use model::cluster::{NodeStatusRequest as Model, StatusClass};

use crate::invalid::{Fault, parse, within, word};
use crate::object::kind;
use crate::wire::wire;
use crate::{Invalid, Object};

/// How a node is.
pub type CalicoNodeStatus = Object<CalicoNodeStatusSpec>;

wire! {
    /// The spec of a [`CalicoNodeStatus`].
    pub struct CalicoNodeStatusSpec {
        /// The node.
        node: Option<String> = "node",
        /// What of it: `Agent`, `BGP`, `Routes`.
        classes: Option<Vec<String>> = "classes",
        /// How often it is written, in seconds: 0, for never, to 86400.
        update_period_seconds: Option<i64> = "updatePeriodSeconds",
    }

    /// The status of a [`CalicoNodeStatus`], which the node writes.
    pub struct CalicoNodeStatusStatus {
        /// When it was written (RFC 3339).
        last_updated: Option<String> = "lastUpdated",
        /// How the BGP speaker is.
        agent: Option<AgentStatus> = "agent",
        /// How its sessions are.
        bgp: Option<BgpStatus> = "bgp",
        /// The routes that it knows.
        routes: Option<RoutesStatus> = "routes",
    }

    /// How the BGP speaker is.
    pub struct AgentStatus {
        /// For IPv4.
        bird_v4: Option<SpeakerStatus> = "birdV4",
        /// For IPv6.
        bird_v6: Option<SpeakerStatus> = "birdV6",
    }

    /// How the BGP speaker of a family is.
    pub struct SpeakerStatus {
        /// `Ready` or `NotReady`.
        state: Option<String> = "state",
        /// Its version.
        version: Option<String> = "version",
        /// Its BGP identifier.
        router_id: Option<String> = "routerID",
        /// When it started.
        last_boot_time: Option<String> = "lastBootTime",
        /// When it was told its configuration.
        last_reconfiguration_time: Option<String> = "lastReconfigurationTime",
    }

    /// How a speaker's sessions are.
    pub struct BgpStatus {
        /// IPv4 sessions that are established.
        number_established_v4: i64 = "numberEstablishedV4",
        /// IPv4 sessions that are not.
        number_not_established_v4: i64 = "numberNotEstablishedV4",
        /// IPv6 sessions that are established.
        number_established_v6: i64 = "numberEstablishedV6",
        /// IPv6 sessions that are not.
        number_not_established_v6: i64 = "numberNotEstablishedV6",
        /// The IPv4 sessions.
        peers_v4: Option<Vec<PeerStatus>> = "peersV4",
        /// The IPv6 sessions.
        peers_v6: Option<Vec<PeerStatus>> = "peersV6",
    }

    /// How a session is.
    pub struct PeerStatus {
        /// The peer.
        peer_ip: Option<String> = "peerIP",
        /// What it is: `NodeMesh`, `NodePeer` or `GlobalPeer`.
        kind: Option<String> = "type",
        /// The state (RFC 4271 §8.2.2).
        state: Option<String> = "state",
        /// Since when.
        since: Option<String> = "since",
    }

    /// The routes that a speaker knows.
    pub struct RoutesStatus {
        /// IPv4.
        routes_v4: Option<Vec<RouteStatus>> = "routesV4",
        /// IPv6.
        routes_v6: Option<Vec<RouteStatus>> = "routesV6",
    }

    /// A route that a speaker knows.
    pub struct RouteStatus {
        /// `FIB` or `RIB`.
        kind: Option<String> = "type",
        /// The destination.
        destination: Option<String> = "destination",
        /// The next hop.
        gateway: Option<String> = "gateway",
        /// The interface.
        interface: Option<String> = "interface",
        /// Who said so.
        learned_from: Option<LearnedFromStatus> = "learnedFrom",
    }

    /// Who said that there is a route.
    pub struct LearnedFromStatus {
        /// `NodeMesh`, `Kernel`, `Static` or another.
        source_type: Option<String> = "sourceType",
        /// The peer, if it was one.
        peer_ip: Option<String> = "peerIP",
    }
}

kind! {
    CalicoNodeStatusSpec: "CalicoNodeStatus" "caliconodestatuses" cluster
    status CalicoNodeStatusStatus
}

impl CalicoNodeStatus {
    /// Returns the status that a node has written, if it has and it can be read.
    #[must_use]
    pub fn status(&self) -> Option<CalicoNodeStatusStatus> {
        self.unknown.get("status").and_then(|json| serde_json::from_value(json.clone()).ok())
    }
}

/// The most seconds between two updates.
const MAX_PERIOD: u32 = 86_400;

impl TryFrom<&CalicoNodeStatus> for Model {
    type Error = Invalid;

    fn try_from(object: &CalicoNodeStatus) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let classes = [
            ("Agent", StatusClass::Agent),
            ("BGP", StatusClass::Bgp),
            ("Routes", StatusClass::Routes),
        ];
        let read = || {
            let node = spec.node.as_deref().unwrap_or_default();
            if node.is_empty() {
                return Err(Fault::new("node", "", "is missing: say which node's status it is"));
            }
            let seconds =
                within("updatePeriodSeconds", spec.update_period_seconds, 0..=MAX_PERIOD)?;
            let period = seconds.filter(|seconds| *seconds != 0);
            let wanted = spec.classes.iter().flatten();
            let wanted =
                wanted.map(|name| word("classes", Some(name), &classes, StatusClass::Agent));
            Ok(Self {
                name: object.name().to_owned(),
                node: parse("node", node)?,
                classes: wanted.collect::<Result<_, _>>()?,
                period: period.map(|seconds| Duration::from_secs(seconds.into())),
            })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}
