//! Felix without IO: events in, effects out.
//!
//! [`Engine::handle`] only takes note; [`Engine::flush`] compares what should
//! be with what is and returns what to do, so a burst of events costs one
//! comparison. Nothing comes out before every kind of object is in sync: a
//! half-known cluster would tear down routes that are right.
//!
//! Three rules decide which routes may go:
//!
//! * A learned route of an earlier life stays until BGP has converged, since
//!   the peers are only now telling us of it again.
//! * A route on a workload's interface whose workload we do not know stays for
//!   [`ADD_GRACE`]: the CNI plugin makes the route before the pod's address is
//!   in the datastore.
//! * Everything else that is ours and not wanted goes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use calc::{Change, Cluster, Desired, Problem};
use model::desired::{Route, RouteProtocol, RouteTarget};
use model::id::NodeName;
use model::net::Cidr;
use model::time::Timestamp;
use reconcile::Plan;

use super::event::{Effect, Event, KernelState, Kind, RouteChanges};
use super::retry::Retries;

/// How long a workload's route may be there without its workload.
///
/// The CNI plugin has 90 s for its IPAM part; after that the pod's address is
/// in the datastore or the plugin has undone its work.
pub(crate) const ADD_GRACE: Duration = Duration::from_secs(120);

/// Decides what this node's kernel and BGP speaker should hold.
#[derive(Debug)]
pub(crate) struct Engine {
    cluster: Cluster,
    unsynced: BTreeSet<Kind>,
    kernel: Option<KernelState>,
    learned: BTreeMap<Cidr, BTreeSet<IpAddr>>,
    has_bgp_converged: bool,
    /// What was last calculated, and the problems found; `None` until in sync.
    calculated: Option<(Desired, Vec<Problem>)>,
    is_store_changed: bool,
    unknown_since: BTreeMap<Cidr, Timestamp>,
    retries: Retries,
}

impl Engine {
    /// Starts with nothing known.
    pub(crate) fn new(this_node: NodeName) -> Self {
        Self {
            cluster: Cluster::new(this_node),
            unsynced: Kind::ALL.into(),
            kernel: None,
            learned: BTreeMap::new(),
            has_bgp_converged: false,
            calculated: None,
            is_store_changed: false,
            unknown_since: BTreeMap::new(),
            retries: Retries::default(),
        }
    }

    /// Takes note of `event`.
    pub(crate) fn handle(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Store(change) => self.store(change),
            Event::Synced(kind) => self.is_store_changed |= self.unsynced.remove(&kind),
            Event::DeviceRouteProtocol(protocol) => {
                self.is_store_changed |= self.cluster.device_route_protocol != protocol;
                self.cluster.device_route_protocol = protocol;
            }
            Event::Kernel(state) => self.kernel = Some(*state),
            Event::Learned(changes) => self.learn(changes),
            Event::BgpConverged => self.has_bgp_converged = true,
            Event::Applied(results) => self.note_applied(&results, now),
        }
    }

    /// Returns what to do now; empty if all is as it should be.
    ///
    /// Routes that it returns are taken for done until the caller reports each
    /// with [`Event::Applied`].
    pub(crate) fn flush(&mut self, now: Timestamp) -> Vec<Effect> {
        if !self.unsynced.is_empty() {
            return Vec::new();
        }
        let mut effects = self.recalculate();
        if self.kernel.is_none() {
            effects.push(Effect::ListKernel);
            return effects;
        }
        if let Some(changes) = self.route_changes(now).filter(|changes| !changes.is_empty()) {
            self.assume_done(&changes);
            // Routes come first: peers must not send packets that would find none.
            effects.insert(0, Effect::Routes(changes));
        }
        effects
    }

    /// Returns when [`Engine::flush`] has something to do although nothing happens until then.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let grace = self.unknown_since.values().map(|since| *since + ADD_GRACE).min();
        [grace, self.retries.next_due()].into_iter().flatten().min()
    }

    /// Is every kind of object in sync?
    pub(crate) fn is_in_sync(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Returns the kinds of objects that are not in sync yet.
    pub(crate) fn unsynced(&self) -> impl Iterator<Item = Kind> {
        self.unsynced.iter().copied()
    }

    /// Returns the number of routes that could not be written and will be tried again.
    pub(crate) fn failing_routes(&self) -> usize {
        self.retries.len()
    }

    /// Returns what is known of the datastore.
    pub(crate) const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn store(&mut self, change: Change) {
        self.is_store_changed = true;
        self.cluster.apply(change);
    }

    fn learn(&mut self, changes: Vec<(Cidr, BTreeSet<IpAddr>)>) {
        for (dst, next_hops) in changes {
            if next_hops.is_empty() {
                self.learned.remove(&dst);
            } else {
                self.learned.insert(dst, next_hops);
            }
        }
    }

    /// Takes note of how changes went. After a failure nobody knows what the kernel holds.
    fn note_applied(&mut self, results: &[(Cidr, Result<(), String>)], now: Timestamp) {
        for (dst, result) in results {
            self.retries.note(*dst, result.is_ok(), now);
        }
        if results.iter().any(|(_, result)| result.is_err()) {
            self.kernel = None;
        }
    }

    /// Calculates anew if the datastore changed, and returns what that changes for BGP.
    ///
    /// Advertisements come before sessions, so that a new session's first
    /// updates are complete and its End-of-RIB tells the truth.
    fn recalculate(&mut self) -> Vec<Effect> {
        if !std::mem::take(&mut self.is_store_changed) {
            return Vec::new();
        }
        let (desired, problems) = self.cluster.desired();
        let before = self.calculated.as_ref();
        let mut effects = Vec::new();
        if before.is_none_or(|(old, _)| old.advertisements != desired.advertisements) {
            effects.push(Effect::Advertise(desired.advertisements.clone()));
        }
        if before.is_none_or(|(old, _)| old.sessions != desired.sessions) {
            effects.push(Effect::Sessions(desired.sessions.clone()));
        }
        if before.map_or(!problems.is_empty(), |(_, old)| *old != problems) {
            effects.push(Effect::Problems(problems.clone()));
        }
        self.calculated = Some((desired, problems));
        effects
    }

    /// Returns the changes that take the kernel's routes to what they should be.
    fn route_changes(&mut self, now: Timestamp) -> Option<RouteChanges> {
        let kernel = self.kernel.take()?;
        let changes = self.changes_from(&kernel, now);
        self.kernel = Some(kernel);
        changes
    }

    fn changes_from(&mut self, kernel: &KernelState, now: Timestamp) -> Option<RouteChanges> {
        let desired = self.desired_routes(kernel)?;
        let plan = Plan::between(&desired, &kernel.routes);
        self.note_unknown(&plan, kernel, now);
        self.retries.keep_only(|dst| desired.get(dst) != kernel.routes.get(dst));
        let deletes = plan
            .deletes
            .into_iter()
            .filter_map(|dst| kernel.routes.get(&dst).map(|route| (dst, route.clone())))
            .filter(|(dst, route)| self.may_go(*dst, route, now))
            .collect();
        let upserts =
            plan.upserts.into_iter().filter(|(dst, _)| self.retries.is_due(*dst, now)).collect();
        Some(RouteChanges { deletes, upserts })
    }

    /// Returns the routes that should be there; `None` until something has been calculated.
    ///
    /// A workload's route waits for its interface. A learned route never
    /// replaces one of our own to the same destination, and one whose next
    /// hops are all unreachable is left out until one of them is.
    fn desired_routes(&self, kernel: &KernelState) -> Option<BTreeMap<Cidr, Route>> {
        let (desired, _) = self.calculated.as_ref()?;
        let learned = self.learned.iter().filter_map(|(dst, next_hops)| {
            let gateways = kernel.underlay.gateways(next_hops);
            let target = RouteTarget::Via(gateways);
            let is_reachable = !matches!(&target, RouteTarget::Via(all) if all.is_empty());
            is_reachable.then_some((*dst, Route { target, protocol: RouteProtocol::CALICO }))
        });
        let is_ready = |route: &Route| match &route.target {
            RouteTarget::Link(if_name) => kernel.workload_links.contains(if_name),
            RouteTarget::Blackhole | RouteTarget::Via(_) => true,
        };
        let own = desired.routes.iter().filter(|(_, route)| is_ready(route));
        Some(learned.chain(own.map(|(dst, route)| (*dst, route.clone()))).collect())
    }

    /// Notes since when workloads' routes are there without a workload.
    fn note_unknown(&mut self, plan: &Plan<Cidr, Route>, kernel: &KernelState, now: Timestamp) {
        let is_workload = |dst: &&Cidr| {
            let route = kernel.routes.get(*dst);
            route.is_some_and(|route| matches!(route.target, RouteTarget::Link(_)))
        };
        let unknown: BTreeSet<Cidr> = plan.deletes.iter().filter(is_workload).copied().collect();
        self.unknown_since.retain(|dst, _| unknown.contains(dst));
        for dst in unknown {
            self.unknown_since.entry(dst).or_insert(now);
        }
    }

    /// May this unwanted route of ours go now?
    fn may_go(&self, dst: Cidr, route: &Route, now: Timestamp) -> bool {
        let is_allowed = match route.target {
            RouteTarget::Link(_) => {
                self.unknown_since.get(&dst).is_some_and(|since| since.until(now) >= ADD_GRACE)
            }
            RouteTarget::Via(_) => self.has_bgp_converged,
            RouteTarget::Blackhole => true,
        };
        is_allowed && self.retries.is_due(dst, now)
    }

    /// Takes `changes` for done, until the kernel is listed again.
    fn assume_done(&mut self, changes: &RouteChanges) {
        let Some(kernel) = &mut self.kernel else { return };
        for (dst, _) in &changes.deletes {
            kernel.routes.remove(dst);
        }
        kernel.routes.extend(changes.upserts.iter().cloned());
    }
}

#[cfg(test)]
mod tests;
