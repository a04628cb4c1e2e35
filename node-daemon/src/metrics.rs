//! Numbers about this node, under Calico's names where Calico has one.

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

/// Keeps the numbers about BGP, until the speaker ends.
pub(crate) async fn of_bgp(registry: Registry, mut status: watch::Receiver<Snapshot>) {
    let up = registry.gauges("calico_bgp_peer_up", "Whether the session is established");
    let received =
        registry.gauges("calico_bgp_peer_received_routes", "Destinations that the peer told");
    let advertised =
        registry.gauges("calico_bgp_peer_advertised_routes", "Destinations that the peer was told");
    loop {
        {
            let snapshot = status.borrow_and_update();
            let families = [&up, &received, &advertised];
            families.into_iter().for_each(Gauges::clear);
            for peer in &snapshot.status.peers {
                let labels = vec![("peer", peer.name.clone())];
                let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
                let is_up = peer.state == bgp::State::Established;
                up.get_or_create(&labels).set(i64::from(is_up));
                received.get_or_create(&labels).set(number(peer.received));
                advertised.get_or_create(&labels).set(number(peer.advertised));
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
