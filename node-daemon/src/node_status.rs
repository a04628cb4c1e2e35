//! `CalicoNodeStatus`: the node answers those who want to know how it is.
//!
//! Whoever makes an object that names this node gets its status written there, as often as the
//! object asks for; the words are those that Calico takes from BIRD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use api::{
    AgentStatus, BgpStatus, CalicoNodeStatus, CalicoNodeStatusStatus, LearnedFromStatus,
    PeerStatus, RouteStatus, RoutesStatus, SpeakerStatus,
};
use bgp::State;
use datastore::{Change, Client, Filter, Mirror};
use futures::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use model::cluster::{NodeStatusRequest, StatusClass};
use model::id::NodeName;
use model::net::{Cidr, Family, zone};
use serde_json::{Value, json};

use crate::bgp::{Routes, Snapshot, View};

/// How many routes of a family are written: the server takes an object of 1.5 MB.
const MOST_ROUTES: usize = 2000;
/// How long to do nothing when there is nothing to do.
const FAR: Duration = Duration::from_secs(3600);
/// What speaks here, as BIRD's tools show it.
const VERSION: &str = concat!("calico-node ", env!("CARGO_PKG_VERSION"));

/// What is known of the node at one moment.
struct Seen<'a> {
    /// `None` if the node speaks no BGP.
    speaker: Option<(&'a Snapshot, Ipv4Addr)>,
    routes: &'a [(Cidr, BTreeSet<IpAddr>)],
    /// Prefixes that this node originates.
    families: &'a BTreeSet<Family>,
    now: Timestamp,
}

/// Answers requests for as long as the daemon runs.
///
/// `families` are those that the node has an address of.
pub(crate) async fn answer(
    client: Client,
    node: NodeName,
    view: Option<View>,
    families: BTreeSet<Family>,
) {
    let stream = client.watch::<CalicoNodeStatus>(&Filter::default());
    let mut stream = std::pin::pin!(stream);
    let mut mirror = Mirror::default();
    let mut requests = Requests::default();
    loop {
        let wake = requests.due().or_else(|| Instant::now().checked_add(FAR));
        let wake = wake.unwrap_or_else(Instant::now);
        tokio::select! {
            changes = next(&mut stream, &mut mirror) => match changes {
                Some(changes) => for change in changes { requests.take(change, &node) },
                None => return,
            },
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        for request in requests.take_due(Instant::now()) {
            let routes = match &view {
                Some(view) if request.classes.contains(&StatusClass::Routes) => view.routes().await,
                Some(_) | None => Routes::new(),
            };
            let snapshot =
                view.as_ref().map(|view| (view.status.borrow().clone(), view.identifier));
            let seen = Seen {
                speaker: snapshot.as_ref().map(|(snapshot, id)| (snapshot, *id)),
                routes: &routes,
                families: &families,
                now: Timestamp::now(),
            };
            let patch = patch(&status(&request.classes, &seen));
            let written = client.patch_status::<CalicoNodeStatus>(None, &request.name, &patch);
            if let Err(error) = written.await {
                tracing::warn!(%error, "CalicoNodeStatus not written; will be retried in its turn");
            }
        }
    }
}

/// Returns the patch that also takes away what is no longer asked for.
fn patch(status: &CalicoNodeStatusStatus) -> Value {
    json!({"status": {
        "lastUpdated": status.last_updated,
        "agent": status.agent,
        "bgp": status.bgp,
        "routes": status.routes,
    }})
}

async fn next(
    stream: &mut (impl Stream<Item = datastore::WatchEvent<CalicoNodeStatus>> + Unpin),
    mirror: &mut Mirror<CalicoNodeStatus>,
) -> Option<Vec<Change<CalicoNodeStatus>>> {
    stream.next().await.map(|event| {
        if let datastore::WatchEvent::Failed(error) = &event {
            // A cluster of older definitions, where nobody can ask.
            if matches!(error, datastore::Error::UnknownKind { .. }) {
                tracing::debug!(%error, "nobody can ask how this node is");
            } else {
                tracing::warn!(%error, "watch of CalicoNodeStatus failed and will be retried");
            }
        }
        mirror.apply(event)
    })
}

/// The requests for this node, and when each is due.
#[derive(Debug, Default)]
struct Requests(BTreeMap<String, (NodeStatusRequest, Instant)>);

impl Requests {
    /// Our own writes come back as changes; only another spec makes a request new.
    fn take(&mut self, change: Change<CalicoNodeStatus>, node: &NodeName) {
        match change {
            Change::Upsert(key, object) => match NodeStatusRequest::try_from(&object) {
                Ok(request) if request.node == *node && request.period.is_some() => {
                    if self.0.get(&key.name).is_none_or(|(known, _)| *known != request) {
                        self.0.insert(key.name, (request, Instant::now()));
                    }
                }
                Ok(_) => drop(self.0.remove(&key.name)),
                Err(error) => {
                    tracing::warn!(%error, "object ignored");
                    self.0.remove(&key.name);
                }
            },
            Change::Unreadable(key, _) | Change::Delete(key) => drop(self.0.remove(&key.name)),
            Change::Synced => {}
        }
    }

    fn due(&self) -> Option<Instant> {
        self.0.values().map(|(_, due)| *due).min()
    }

    /// Returns what is due, which is then due again after its period.
    fn take_due(&mut self, now: Instant) -> Vec<NodeStatusRequest> {
        let mut taken = Vec::new();
        for (request, due) in self.0.values_mut().filter(|(_, due)| *due <= now) {
            if let Some(next) = request.period.and_then(|period| now.checked_add(period)) {
                *due = next;
            }
            taken.push(request.clone());
        }
        taken
    }
}

/// Returns the status with the `classes` that are asked for.
fn status(classes: &[StatusClass], seen: &Seen<'_>) -> CalicoNodeStatusStatus {
    let is_asked = |class| classes.contains(&class);
    CalicoNodeStatusStatus {
        last_updated: Some(seen.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        agent: is_asked(StatusClass::Agent).then(|| agent(seen)),
        bgp: is_asked(StatusClass::Bgp).then(|| sessions(seen)),
        routes: is_asked(StatusClass::Routes).then(|| routes(seen)),
        ..CalicoNodeStatusStatus::default()
    }
}

fn agent(seen: &Seen<'_>) -> AgentStatus {
    let of = |family| {
        let started = |(snapshot, identifier): (&Snapshot, Ipv4Addr)| {
            let started = time(ago(seen.now, snapshot.age()));
            SpeakerStatus {
                state: Some("Ready".to_owned()),
                version: Some(VERSION.to_owned()),
                router_id: Some(identifier.to_string()),
                last_boot_time: Some(started.clone()),
                last_reconfiguration_time: Some(started),
                ..SpeakerStatus::default()
            }
        };
        let speaker = seen.speaker.filter(|_| seen.families.contains(&family));
        let absent =
            || SpeakerStatus { state: Some("NotReady".to_owned()), ..SpeakerStatus::default() };
        Some(speaker.map_or_else(absent, started))
    };
    AgentStatus { bird_v4: of(Family::V4), bird_v6: of(Family::V6), ..AgentStatus::default() }
}

fn sessions(seen: &Seen<'_>) -> BgpStatus {
    let all = seen.speaker.map(|(snapshot, _)| snapshot);
    let of = |family| {
        let peers = all.into_iter().flat_map(move |snapshot| {
            let peers = snapshot.status.peers.iter().map(move |peer| (snapshot, peer));
            peers.filter(move |(_, peer)| Family::of(peer.peer_addr) == family)
        });
        let up = peers.clone().filter(|(_, peer)| peer.state == State::Established).count();
        let row = |(snapshot, peer): (&Snapshot, &bgp::PeerStatus)| PeerStatus {
            peer_ip: Some(zone::to_text(peer.peer_addr)),
            kind: Some(kind(peer).to_owned()),
            state: Some(format!("{:?}", peer.state)),
            since: Some(time(ago(seen.now, snapshot.time_in_state(peer)))),
            ..PeerStatus::default()
        };
        let rows: Vec<PeerStatus> = peers.map(row).collect();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        (number(up), number(rows.len().saturating_sub(up)), Some(rows))
    };
    let (v4, v6) = (of(Family::V4), of(Family::V6));
    BgpStatus {
        number_established_v4: v4.0,
        number_not_established_v4: v4.1,
        peers_v4: v4.2,
        number_established_v6: v6.0,
        number_not_established_v6: v6.1,
        peers_v6: v6.2,
        ..BgpStatus::default()
    }
}

/// Returns what Calico calls such a peer, which stands in the name of its session.
fn kind(peer: &bgp::PeerStatus) -> &'static str {
    if peer.object.is_none() {
        "NodeMesh"
    } else if peer.name.starts_with("Global_") {
        "GlobalPeer"
    } else {
        "NodePeer"
    }
}

fn routes(seen: &Seen<'_>) -> RoutesStatus {
    let of = |family| {
        let routes = seen.routes.iter().filter(move |(cidr, _)| cidr.family() == family);
        let rows = routes.flat_map(|(cidr, gateways)| gateways.iter().map(move |at| (cidr, at)));
        Some(rows.take(MOST_ROUTES).map(|(cidr, gateway)| route(seen, *cidr, *gateway)).collect())
    };
    RoutesStatus { routes_v4: of(Family::V4), routes_v6: of(Family::V6), ..RoutesStatus::default() }
}

fn route(seen: &Seen<'_>, cidr: Cidr, gateway: IpAddr) -> RouteStatus {
    let peers = seen.speaker.iter().flat_map(|(snapshot, _)| &snapshot.status.peers);
    let peer = peers.clone().find(|peer| peer.peer_addr == gateway);
    let source = match peer {
        Some(peer) if peer.object.is_none() => "NodeMesh",
        Some(_) | None => "BGPPeer",
    };
    RouteStatus {
        kind: Some("FIB".to_owned()),
        destination: Some(cidr.to_string()),
        gateway: Some(zone::to_text(gateway)),
        learned_from: Some(LearnedFromStatus {
            source_type: Some(source.to_owned()),
            peer_ip: peer.map(|peer| zone::to_text(peer.peer_addr)),
            ..LearnedFromStatus::default()
        }),
        ..RouteStatus::default()
    }
}

/// Returns a time as BIRD writes it.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn ago(now: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::ZERO);
    now.checked_sub(time).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bird_socket::tests::snapshot;

    fn seen<'a>(
        snapshot: &'a Snapshot,
        routes: &'a [(Cidr, BTreeSet<IpAddr>)],
        families: &'a BTreeSet<Family>,
    ) -> Seen<'a> {
        Seen {
            speaker: Some((snapshot, [192, 0, 2, 1].into())),
            routes,
            families,
            now: "2026-11-23T20:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn only_what_is_asked_for_is_written() {
        let (snapshot, families) = (snapshot(), BTreeSet::from([Family::V4]));
        let written = |classes: &[StatusClass]| -> Value {
            serde_json::to_value(status(classes, &seen(&snapshot, &[], &families))).unwrap()
        };
        assert_eq!(written(&[]), json!({"lastUpdated": "2026-11-23T20:00:00Z"}));
        let nothing = patch(&status(&[], &seen(&snapshot, &[], &families)));
        assert_eq!(nothing.pointer("/status/bgp"), Some(&Value::Null));
        let agent = written(&[StatusClass::Agent]);
        assert_eq!(agent.pointer("/agent/birdV4/state"), Some(&json!("Ready")));
        assert_eq!(agent.pointer("/agent/birdV4/routerID"), Some(&json!("192.0.2.1")));
        assert_eq!(agent.pointer("/agent/birdV6"), Some(&json!({"state": "NotReady"})));
    }

    #[test]
    fn sessions_are_counted_by_family() {
        let (snapshot, families) = (snapshot(), BTreeSet::from([Family::V4]));
        let status = status(&[StatusClass::Bgp], &seen(&snapshot, &[], &families));
        let status = serde_json::to_value(status).unwrap();
        let number = |name: &str| status.pointer(&format!("/bgp/number{name}")).cloned();
        assert_eq!(number("EstablishedV4"), Some(json!(1)));
        assert_eq!(number("NotEstablishedV4"), Some(json!(1)));
        assert_eq!(number("EstablishedV6"), Some(json!(1)));
        let first = status.pointer("/bgp/peersV4/0").unwrap();
        assert_eq!(first.get("peerIP"), Some(&json!("10.0.0.2")));
        assert_eq!(first.get("type"), Some(&json!("NodeMesh")));
        assert_eq!(first.get("state"), Some(&json!("Established")));
        let second = status.pointer("/bgp/peersV4/1/type");
        assert_eq!(second, Some(&json!("GlobalPeer")));
    }

    #[test]
    fn routes_name_who_told_them() {
        let gateways = ["10.0.0.2", "10.0.0.7"].map(|text| text.parse().unwrap());
        let routes = [("10.244.1.0/26".parse().unwrap(), BTreeSet::from(gateways))];
        let (snapshot, families) = (snapshot(), BTreeSet::from([Family::V4]));
        let status = status(&[StatusClass::Routes], &seen(&snapshot, &routes, &families));
        let status = serde_json::to_value(status).unwrap();
        assert_eq!(
            status.pointer("/routes/routesV4"),
            Some(&json!([
                {"type": "FIB", "destination": "10.244.1.0/26", "gateway": "10.0.0.2",
                 "learnedFrom": {"sourceType": "NodeMesh", "peerIP": "10.0.0.2"}},
                {"type": "FIB", "destination": "10.244.1.0/26", "gateway": "10.0.0.7",
                 "learnedFrom": {"sourceType": "BGPPeer"}},
            ]))
        );
    }

    #[test]
    fn a_request_is_due_at_once_and_then_in_its_period() {
        let object = |seconds: i64| -> CalicoNodeStatus {
            serde_json::from_value(json!({
                "apiVersion": "crd.projectcalico.org/v1", "kind": "CalicoNodeStatus",
                "metadata": {"name": "ask"},
                "spec": {"node": "node-1", "classes": ["BGP"], "updatePeriodSeconds": seconds},
            }))
            .unwrap()
        };
        let key = || datastore::ObjectKey { namespace: None, name: "ask".to_owned() };
        let node = "node-1".parse().unwrap();
        let mut requests = Requests::default();
        requests.take(Change::Upsert(key(), object(10)), &node);
        let now = Instant::now();
        assert_eq!(requests.take_due(now).len(), 1);
        requests.take(Change::Upsert(key(), object(10)), &node);
        assert_eq!(requests.take_due(now + Duration::from_secs(9)).len(), 0);
        assert_eq!(requests.take_due(now + Duration::from_secs(10)).len(), 1);
        requests.take(Change::Upsert(key(), object(0)), &node);
        assert_eq!(requests.due(), None);
        requests.take(Change::Upsert(key(), object(10)), &"node-2".parse().unwrap());
        assert_eq!(requests.due(), None);
    }
}
