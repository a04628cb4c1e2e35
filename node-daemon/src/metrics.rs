//! Numbers about this node, under Calico's names where Calico has one.

use std::collections::BTreeSet;
use std::time::Duration;

use bgp::{PeerStatus, State};
use calc::Problem;
use telemetry::metrics::{Gauge, Gauges, Registry, Summary};
use tokio::sync::watch;

use crate::bgp::Snapshot;
use crate::felix::policy;
use crate::felix::run::Status;

/// Keeps the numbers about routes, until they are no longer looked after.
pub(crate) async fn of_felix(registry: Registry, mut status: watch::Receiver<Status>) {
    let numbers = Felix::new(&registry);
    let mut applies = 0;
    while status.changed().await.is_ok() {
        let status = status.borrow_and_update().clone();
        if status.applies != applies {
            applies = status.applies;
            numbers.apply_time.observe(status.last_apply.as_secs_f64());
        }
        numbers.set(&status);
    }
}

struct Felix {
    local_endpoints: Gauge,
    hosts: Gauge,
    resync_state: Gauge,
    failures: telemetry::metrics::Counter,
    resyncs: telemetry::metrics::Counter,
    routes: Gauge,
    failing: Gauge,
    apply_time: Summary,
}

impl Felix {
    fn new(registry: &Registry) -> Self {
        Self {
            local_endpoints: registry
                .gauge("felix_active_local_endpoints", "Number of active endpoints on this host"),
            hosts: registry.gauge("felix_cluster_num_hosts", "Number of nodes in the cluster"),
            resync_state: registry.gauge(
                "felix_resync_state",
                "State of the datastore connection: 1 waiting, 2 resyncing, 3 in sync",
            ),
            failures: registry.counter(
                "felix_int_dataplane_failures",
                "Changes that the kernel refused and that were retried",
            ),
            resyncs: registry.counter("felix_resyncs_started", "How often the kernel was listed"),
            routes: registry
                .gauge("felix_route_table_num_routes", "Routes in the kernel that are ours"),
            failing: registry
                .gauge("felix_route_table_num_failing_routes", "Routes that the kernel refuses"),
            apply_time: registry.summary(
                "felix_int_dataplane_apply_time_seconds",
                "Time that it took to change the kernel",
            ),
        }
    }

    fn set(&self, status: &Status) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.local_endpoints.set(number(status.local_endpoints));
        self.hosts.set(number(status.nodes));
        self.resync_state.set(if status.is_in_sync { 3 } else { 2 });
        self.routes.set(number(status.routes));
        self.failing.set(number(status.failing_routes));
        let grown = |total: u64, counter: &telemetry::metrics::Counter| {
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        grown(status.failures, &self.failures);
        grown(status.resyncs, &self.resyncs);
    }
}

/// Keeps the numbers about policy, until it is no longer looked after.
pub(crate) async fn of_policy(
    registry: Registry,
    mut status: watch::Receiver<policy::run::Status>,
) {
    let gauge = |name, help| registry.gauge(name, help);
    let policies = gauge("felix_cluster_num_policies", "Number of policies in the cluster");
    let faulty = gauge(
        "felix_cluster_num_faulty_policies",
        "Number of policies that could not be read as a whole, and deny instead",
    );
    let local = gauge("felix_active_local_policies", "Number of policies in force on this host");
    let selectors =
        gauge("felix_active_local_selectors", "Number of selectors that this host follows");
    let sets = gauge("felix_nft_sets", "Number of sets of addresses");
    let calls = registry.counter("felix_nft_calls", "Transactions given to the kernel");
    let errors = registry.counter("felix_nft_errors", "Transactions that failed");
    let interferences =
        registry.counter("felix_nft_interferences", "How often somebody else changed our tables");
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    while status.changed().await.is_ok() {
        let status = status.borrow_and_update().clone();
        policies.set(number(status.policies));
        faulty.set(number(status.faulty_policies));
        local.set(number(status.local_policies));
        selectors.set(number(status.selectors));
        sets.set(number(status.sets));
        for (total, counter) in [
            (status.applies, &calls),
            (status.failures, &errors),
            (status.interferences, &interferences),
        ] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}

/// How often times are shown anew though nothing else changes.
const CLOCK: Duration = Duration::from_secs(10);
/// The longest text of an error in a label, in characters.
const MAX_ERROR: usize = 120;

/// Says what a number is for one peer.
type Number = fn(&Snapshot, &PeerStatus) -> u64;

/// The numbers of a peer, one family of each.
struct PeerNumbers {
    gauges: Vec<(Gauges, Number)>,
    messages: Gauges,
    errors: Gauges,
}

impl PeerNumbers {
    fn new(registry: &Registry) -> Self {
        let gauge = |name, help, of: Number| {
            (registry.gauges(&format!("calico_bgp_peer_{name}"), help), of)
        };
        Self {
            gauges: vec![
                gauge("up", "Whether the session is established", |_, peer| {
                    u64::from(peer.state == State::Established)
                }),
                gauge(
                    "state",
                    "State of the session: 0 Idle, 1 Active, 2 Connect, 3 OpenSent, \
                     4 OpenConfirm, 5 Established",
                    |_, peer| state_number(peer.state),
                ),
                gauge(
                    "state_seconds",
                    "Seconds since the session is in its state",
                    |snapshot, peer| snapshot.time_in_state(peer).as_secs(),
                ),
                gauge(
                    "establishments",
                    "How often the session has become established",
                    |_, peer| peer.establishments,
                ),
                gauge("received_routes", "Destinations of the peer that are taken", |_, peer| {
                    whole(peer.received)
                }),
                gauge("advertised_routes", "Destinations that the peer was told", |_, peer| {
                    whole(peer.advertised)
                }),
                gauge("announced", "Routes that the peer has announced", |_, peer| {
                    peer.routes.announced
                }),
                gauge("rejected", "Announced routes that were not taken", |_, peer| {
                    peer.routes.rejected
                }),
                gauge("withdrawn", "Routes that the peer has withdrawn", |_, peer| {
                    peer.routes.withdrawn
                }),
            ],
            messages: registry.gauges("calico_bgp_peer_messages", "Messages by their type and way"),
            errors: registry.gauges(
                "calico_bgp_peer_last_error_seconds",
                "Seconds since the last session or attempt ended, and why it did",
            ),
        }
    }

    fn set(&self, snapshot: &Snapshot) {
        for family in self.gauges.iter().map(|(gauges, _)| gauges) {
            family.clear();
        }
        self.messages.clear();
        self.errors.clear();
        for peer in &snapshot.status.peers {
            self.set_peer(snapshot, peer);
        }
    }

    fn set_peer(&self, snapshot: &Snapshot, peer: &PeerStatus) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let labels = || vec![("peer", peer.name.clone())];
        for (gauges, of) in &self.gauges {
            gauges.get_or_create(&labels()).set(number(of(snapshot, peer)));
        }
        for (way, counts) in [("sent", &peer.sent), ("received", &peer.heard)] {
            for (kind, count) in counts.by_type() {
                let mut labels = labels();
                labels.push(("type", kind.to_owned()));
                labels.push(("way", way.to_owned()));
                self.messages.get_or_create(&labels).set(number(count));
            }
        }
        if let (Some(error), Some(at)) = (&peer.last_error, peer.last_error_at) {
            let mut labels = labels();
            labels.push(("error", error.chars().take(MAX_ERROR).collect()));
            self.errors.get_or_create(&labels).set(number(snapshot.since(at).as_secs()));
        }
    }
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

const fn state_number(state: State) -> u64 {
    match state {
        State::Idle => 0,
        State::Active => 1,
        State::Connect => 2,
        State::OpenSent => 3,
        State::OpenConfirm => 4,
        State::Established => 5,
    }
}

/// Keeps the number of refused objects, until nobody tells of them any more.
pub(crate) async fn of_problems(registry: Registry, mut problems: watch::Receiver<Vec<Problem>>) {
    let refused = registry.gauge(
        "calico_bgp_refused_objects",
        "BGPPeers, BGPFilters and BGPConfigurations that cannot be followed as a whole",
    );
    loop {
        let objects: BTreeSet<String> = {
            let problems = problems.borrow_and_update();
            let of_bgp = problems.iter().filter(|problem| problem.object.starts_with("BGP"));
            of_bgp.map(|problem| problem.object.clone()).collect()
        };
        refused.set(i64::try_from(objects.len()).unwrap_or(i64::MAX));
        if problems.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps the numbers about BGP, until the speaker ends.
pub(crate) async fn of_bgp(registry: Registry, mut status: watch::Receiver<Snapshot>) {
    let numbers = PeerNumbers::new(&registry);
    loop {
        numbers.set(&status.borrow_and_update().clone());
        let changed = tokio::time::timeout(CLOCK, status.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}
