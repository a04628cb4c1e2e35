//! Felix without IO: events in, effects out.
//!
//! [`Engine::handle`] only takes note; [`Engine::flush`] compares what should
//! be with what is and returns what to do, so a burst of events costs one
//! comparison. Nothing comes out before every kind of object is in sync: a
//! half-known cluster would tear down routes that are right.
//!
//! Four rules decide which routes may go:
//!
//! * A learned route of an earlier life stays until BGP has converged, since
//!   the peers are only now telling us of it again.
//! * A route on a workload's interface whose workload we do not know stays for
//!   [`ADD_GRACE`]: the CNI plugin makes the route before the pod's address is
//!   in the datastore.
//! * A route of another metric than it should have stays until one of the right metric is there, for
//!   to the kernel these are two routes.
//! * Everything else that is ours and not wanted goes at once.

mod peering;
mod tunnels;
mod vrf;
mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ::bgp::rib::Gateways;
use calc::next_hop::UnderlayTable;
use calc::tunnels::ETHERNET;
use calc::{Affected, Change, Cluster, Desired, Problem};
use model::bgp_filter::BgpFilter;
use model::desired::{Route, RouteKey, RouteTarget, TunnelDevice};
use model::id::NodeName;
use model::net::{Cidr, IfName};
use model::peer::RoutePriority;
use model::time::Timestamp;
use reconcile::{Backoff, Table};

use super::event::{Applied, Demand, Effect, Event, KernelState, Kind, RouteChange, RouteSettings};
use peering::Peering;
use tunnels::Tunnels;
use vrf::Vrfs;
use wireguard::Wireguard;

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
    refresh_interval: Duration,
    routes: Table<RouteKey, Route>,
    /// The metric of what BGP does not teach us.
    priority: RoutePriority,
    /// When routes may go because others have come.
    successors_at: Option<Timestamp>,
    underlay: UnderlayTable,
    ways: BTreeMap<Cidr, IfName>,
    /// What the speaker was told of them.
    told_ways: BTreeMap<Cidr, IfName>,
    workload_links: BTreeSet<IfName>,
    learned: BTreeMap<Cidr, Gateways>,
    has_bgp_converged: bool,
    /// What was last calculated, and the problems found; `None` until in sync.
    calculated: Option<(Desired, Vec<Problem>)>,
    /// What has to be calculated again.
    affected: Affected,
    tunnels: Tunnels,
    peering: Peering,
    wireguard: Wireguard,
    vrfs: Vrfs,
    /// What was last asked for.
    demand: Demand,
    /// Have all Services been seen since they were asked for?
    are_services_synced: bool,
    /// Have all other nodes' claims on blocks been seen since they were asked for?
    are_blocks_synced: bool,
    /// Since when workloads' routes are there without a workload.
    unknown_since: BTreeMap<RouteKey, Timestamp>,
}

impl Engine {
    /// Starts with nothing known; the kernel is listed every `refresh_interval` at least.
    pub(crate) fn new(this_node: NodeName, refresh_interval: Duration) -> Self {
        Self {
            cluster: Cluster::new(this_node),
            unsynced: Kind::ROUTES.into(),
            refresh_interval,
            routes: Table::new(Backoff::KERNEL),
            priority: RoutePriority::NORMAL,
            successors_at: None,
            underlay: UnderlayTable::default(),
            ways: BTreeMap::new(),
            told_ways: BTreeMap::new(),
            workload_links: BTreeSet::new(),
            learned: BTreeMap::new(),
            has_bgp_converged: false,
            calculated: None,
            affected: Affected::default(),
            tunnels: Tunnels::new(),
            peering: Peering::new(),
            wireguard: Wireguard::default(),
            vrfs: Vrfs::default(),
            demand: Demand::default(),
            are_services_synced: false,
            are_blocks_synced: false,
            unknown_since: BTreeMap::new(),
        }
    }

    /// Takes note of `event`.
    pub(crate) fn handle(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Store(change) => self.store(change),
            Event::Synced(Kind::Services) => {
                self.are_services_synced = true;
                self.affected.desired = true;
            }
            Event::Synced(Kind::OtherAffinities) => {
                self.are_blocks_synced = self.demand.has_all_blocks;
                self.affected.overlay = true;
                self.affected.vrfs = true;
            }
            Event::Synced(kind) => {
                if self.unsynced.remove(&kind) {
                    self.affected = Affected::ALL;
                }
            }
            Event::Settings(settings) => self.settings(*settings),
            Event::Kernel(state) => self.take_kernel(*state, now),
            Event::Learned(changes) => self.learn(changes),
            Event::BgpConverged => self.has_bgp_converged = true,
            Event::Corrupting(device) => self.tunnels.corrupting(device),
            Event::Applied(results) => self.note_applied(results, now),
            Event::DevicesApplied(results) => self.tunnels.note_devices(results, now),
            Event::EntriesApplied(results) => self.tunnels.note_entries(results, now),
            Event::PeeringAddrsApplied(results) => self.peering.note_applied(results, now),
        }
    }

    /// Returns what to do now; empty if all is as it should be.
    ///
    /// The caller does it and reports routes with [`Event::Applied`] before it asks again.
    pub(crate) fn flush(&mut self, now: Timestamp) -> Vec<Effect> {
        if !self.unsynced.is_empty() {
            return Vec::new();
        }
        self.successors_at = None;
        let mut effects = self.demand();
        if self.calculated.is_none() && !self.is_demand_met() {
            return effects;
        }
        effects.extend(self.recalculate());
        effects.extend(self.ways());
        if self.routes.needs_list(now) || self.tunnels.needs_list(now) {
            effects.push(Effect::ListKernel);
            return effects;
        }
        if let Some(devices) = self.tunnels.devices_first(now, self.cluster.tunnels.checksums) {
            effects.push(devices);
            return effects;
        }
        let plan = self.tunnels.plan(now, &self.cluster);
        let desired = self.desired_routes();
        let wanted = self.with_kept(desired, now);
        let vrfs = self.vrfs.news(&self.cluster).map(Effect::Vrfs);
        self.routes.want_all(wanted);
        let mut changes = self.routes.due(now);
        changes.sort_by_key(order);
        let routes = (!changes.is_empty()).then_some(Effect::Routes(changes));
        let peering = self.peering_addrs(now);
        // Routes come first: peers must not send packets that would find none.
        let before = plan.before.into_iter().chain(routes);
        before.chain(vrfs).chain(plan.after).chain(peering).chain(effects).collect()
    }

    fn peering_addrs(&mut self, now: Timestamp) -> Option<Effect> {
        let (desired, _) = self.calculated.as_ref()?;
        let changes = self.peering.due(&desired.peering_addrs, &self.workload_links, now);
        (!changes.is_empty()).then_some(Effect::PeeringAddrs(changes))
    }

    /// Returns when [`Engine::flush`] has something to do although nothing happens until then.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let grace = self.unknown_since.values().map(|since| *since + ADD_GRACE).min();
        let tables = [
            self.routes.next_deadline(),
            self.tunnels.next_deadline(),
            self.peering.next_deadline(),
        ];
        tables.into_iter().chain([grace, self.successors_at]).flatten().min()
    }

    /// Is every kind of object in sync?
    pub(crate) fn is_in_sync(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Returns the kinds of objects that are not in sync yet.
    pub(crate) fn unsynced(&self) -> impl Iterator<Item = Kind> {
        self.unsynced.iter().copied()
    }

    /// Returns the number of routes and parts of tunnels that could not be written and will be tried again.
    pub(crate) fn failing_routes(&self) -> usize {
        let others = self.tunnels.failing().saturating_add(self.peering.failing());
        self.routes.failing().count().saturating_add(others)
    }

    /// Returns what is known of the datastore.
    pub(crate) const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Endpoints of Services come and go all the time; mostly nobody announces any.
    fn store(&mut self, change: Change) {
        let is_about_services = matches!(change, Change::Service(..) | Change::EndpointSlice(..));
        let affected = self.cluster.apply(change);
        if !is_about_services || self.demand.has_services {
            self.affected |= affected;
        }
    }

    fn settings(&mut self, new: RouteSettings) {
        self.priority = new.priority;
        if self.wireguard.places(new.wireguard_places) || self.cluster.wireguard != new.wireguard {
            self.cluster.wireguard = new.wireguard;
            self.affected.overlay = true;
            self.affected.vrfs = true;
        }
        if self.cluster.device_route_protocol != new.device_route_protocol {
            self.cluster.device_route_protocol = new.device_route_protocol;
            self.affected.desired = true;
            self.affected.vrfs = true;
        }
        if self.cluster.table_ranges != new.table_ranges {
            self.cluster.table_ranges = new.table_ranges;
            self.affected.vrfs = true;
            self.affected.desired = true;
        }
        if self.cluster.has_floating != new.has_floating {
            self.cluster.has_floating = new.has_floating;
            self.affected.desired = true;
        }
        let host_mtu = self.cluster.tunnels.host_mtu;
        let tunnels = calc::TunnelSettings { host_mtu, ..new.tunnels };
        if self.cluster.tunnels != tunnels {
            self.cluster.tunnels = tunnels;
            self.affected.overlay = true;
            self.affected.vrfs = true;
        }
    }

    /// Returns what must be watched from now on, if that has changed.
    fn demand(&mut self) -> Vec<Effect> {
        let demand = Demand {
            secrets: self.cluster.wanted_secrets(),
            has_services: self.cluster.bgp.services.ranges().next().is_some(),
            has_all_blocks: self.cluster.needs_all_blocks(),
        };
        if demand == self.demand {
            return Vec::new();
        }
        self.cluster.secrets.retain(|name, _| demand.secrets.contains(name));
        if !demand.has_services {
            self.cluster.services.clear();
            self.are_services_synced = false;
        }
        if !demand.has_all_blocks {
            self.cluster.forget_other_blocks();
            self.are_blocks_synced = false;
        }
        self.demand = demand.clone();
        vec![Effect::Demand(demand)]
    }

    /// Is all known that was asked for?
    fn is_demand_met(&self) -> bool {
        let are_services_known = !self.demand.has_services || self.are_services_synced;
        self.cluster.are_secrets_known() && are_services_known && self.are_blocks_known()
    }

    fn are_blocks_known(&self) -> bool {
        !self.demand.has_all_blocks || self.are_blocks_synced
    }

    fn learn(&mut self, changes: Vec<(Cidr, Gateways)>) {
        for (dst, gateways) in changes {
            if gateways.addrs.is_empty() {
                self.learned.remove(&dst);
            } else {
                self.learned.insert(dst, gateways);
            }
        }
    }

    fn take_kernel(&mut self, state: KernelState, now: Timestamp) {
        self.underlay = state.underlay;
        self.ways = state.ways;
        self.workload_links = state.workload_links;
        let next = now + self.refresh_interval;
        self.routes.listed(state.routes, next);
        self.tunnels.listed(state.tunnels, next);
        self.vrfs.listed(state.vrf_tunnels);
        self.peering.listed(state.workload_link_addrs, next);
        let host_mtu = state.host_mtu.unwrap_or(ETHERNET);
        if self.cluster.tunnels.host_mtu != host_mtu {
            self.cluster.tunnels.host_mtu = host_mtu;
            self.affected.overlay = true;
            self.affected.vrfs = true;
        }
    }

    /// Takes note of how changes went. After a failure nobody knows what the kernel holds.
    fn note_applied(&mut self, results: Vec<Applied>, now: Timestamp) {
        let mut is_lost = false;
        for (change, result) in results {
            if result.is_ok() {
                let key = *change.key();
                self.routes.succeeded(change);
                if self.are_others_to(key) {
                    self.successors_at = Some(now);
                }
            } else {
                self.routes.failed(*change.key(), now);
                is_lost = true;
            }
        }
        if is_lost {
            self.routes.lose();
        }
    }

    /// Are there routes to the same destination with another metric?
    fn are_others_to(&self, key: RouteKey) -> bool {
        let all = self.routes.actual().map(|actual| actual.range(RouteKey::all_to(key.dst)));
        all.into_iter().flatten().any(|(other, _)| *other != key)
    }

    /// Calculates anew if the datastore changed, and returns what that changes for BGP.
    ///
    /// Advertisements come before sessions, so that a new session's first
    /// updates are complete and its End-of-RIB tells the truth.
    fn recalculate(&mut self) -> Vec<Effect> {
        let told = self.problems();
        if (self.affected.overlay || self.affected.desired) && self.are_blocks_known() {
            self.wireguard.recalculate(&self.cluster);
        }
        // Other nodes' blocks are known as a whole, or what is known of tunnels stays.
        if self.affected.overlay && self.are_blocks_known() {
            self.affected.overlay = false;
            self.tunnels.recalculate(&self.cluster);
        }
        if self.affected.vrfs && self.are_blocks_known() {
            self.affected.vrfs = false;
            self.vrfs.recalculate(&self.cluster);
        }
        let mut effects = self.recalculate_own();
        effects.extend(self.wireguard.news().map(Effect::Wireguard));
        let problems = self.problems();
        effects.extend((problems != told).then_some(Effect::Problems(problems)));
        effects
    }

    /// Returns what the speaker must know of interfaces, if that has changed: nothing, unless a
    /// filter asks for them.
    fn ways(&mut self) -> Option<Effect> {
        let asks = |filter: &BgpFilter| {
            let BgpFilter { export_v4, import_v4, export_v6, import_v6, .. } = filter;
            let mut all = [export_v4, import_v4, export_v6, import_v6].into_iter().flatten();
            all.any(|rule| rule.interface.is_some())
        };
        let is_asked = self.cluster.filters.values().any(asks);
        let none = BTreeMap::new();
        let ways = if is_asked { &self.ways } else { &none };
        if *ways == self.told_ways {
            return None;
        }
        self.told_ways.clone_from(ways);
        Some(Effect::Ways(self.told_ways.clone()))
    }

    fn problems(&self) -> Vec<Problem> {
        let own = self.calculated.as_ref().map(|(_, problems)| problems.clone());
        let all = own.unwrap_or_default().into_iter();
        let of_tunnels = self.tunnels.problems().iter().chain(self.wireguard.problems());
        all.chain(of_tunnels.chain(self.vrfs.problems()).cloned()).collect()
    }

    fn recalculate_own(&mut self) -> Vec<Effect> {
        if !std::mem::take(&mut self.affected.desired) {
            return Vec::new();
        }
        let (desired, problems) = self.cluster.desired();
        let before = self.calculated.as_ref();
        let mut effects = Vec::new();
        if before.is_none_or(|(old, _)| old.advertisements != desired.advertisements) {
            effects.push(Effect::Advertise(desired.advertisements.clone()));
        }
        if before.is_none_or(|(old, _)| old.listen != desired.listen) {
            effects.push(Effect::Listen(desired.listen.clone()));
        }
        if before.is_none_or(|(old, _)| old.sessions != desired.sessions) {
            effects.push(Effect::Sessions(desired.sessions.clone()));
        }
        self.calculated = Some((desired, problems));
        effects
    }

    /// Returns the routes that should be there.
    ///
    /// A workload's route waits for its interface. A learned route never
    /// replaces one of our own to the same destination, but for a workload that moves
    /// away; and one whose next hops are all unreachable is left out until one of them is.
    fn desired_routes(&self) -> BTreeMap<RouteKey, Route> {
        let desired = self.calculated.as_ref().map(|(desired, _)| desired);
        let is_refused = |dst: &Cidr| {
            desired.is_some_and(|desired| desired.not_learned.iter().any(|range| range.covers(dst)))
        };
        let is_ready = |route: &Route| match &route.target {
            RouteTarget::Link(if_name) => self.workload_links.contains(if_name),
            RouteTarget::Blackhole | RouteTarget::Via(_) | RouteTarget::Tunnel(..) => true,
        };
        let is_reachable = |route: &Route| match &route.target {
            RouteTarget::Via(gateways) => !self.underlay.gateways(gateways).is_empty(),
            RouteTarget::Link(_) | RouteTarget::Blackhole | RouteTarget::Tunnel(..) => true,
        };
        let others = self.tunnels.routes().filter(|(_, route)| is_reachable(route));
        let own = desired.into_iter().flat_map(|desired| &desired.routes);
        let own = own.filter(|(_, route)| is_ready(route));
        let of_vrfs = self.vrfs.main_routes().filter(|(_, route)| is_ready(route));
        let known: BTreeMap<&Cidr, &Route> = others.chain(of_vrfs).chain(own).collect();
        let learned = self.learned.iter().filter(|(dst, _)| !is_refused(dst));
        let learned = learned.filter_map(|(dst, to)| {
            let key = RouteKey { dst: *dst, metric: to.metric };
            // Who moves is at another node: no pod here gets another one's packets by saying so.
            let is_here = |hop: &IpAddr| {
                let route = known.get(&Cidr::host(*hop));
                route.is_some_and(|route| matches!(route.target, RouteTarget::Link(_)))
            };
            if let Some(route) = known.get(dst)
                && (!self.moves_away(key, route) || to.addrs.iter().any(is_here))
            {
                return None;
            }
            Some((key, self.tunnels.learned(dst, &to.addrs, |hops| self.gateways(hops))?))
        });
        let known = known.iter().map(|(dst, route)| (self.own_key(**dst), (*route).clone()));
        learned.chain(known).collect()
    }

    /// Returns the key of a route that BGP does not teach us.
    fn own_key(&self, dst: Cidr) -> RouteKey {
        RouteKey { dst, metric: self.priority.of(dst.family()) }
    }

    /// Says a learned route that a workload of ours moves to another node? It is preferred to
    /// ordinary routes then (the elevated priority of Calico), and to the workload's own here.
    fn moves_away(&self, learned: RouteKey, own: &Route) -> bool {
        let RouteKey { dst, metric } = learned;
        let ordinary = self.cluster.bgp.normal_priority.of(dst.family());
        let is_preferred = metric < ordinary && metric < self.own_key(dst).metric;
        let is_workloads =
            matches!(&own.target, RouteTarget::Link(name) if self.workload_links.contains(name));
        is_preferred && is_workloads && dst == Cidr::host(dst.addr())
    }

    /// Returns the gateways of `next_hops`; those that we route ourselves lead where our route does,
    /// and our workloads are gateways themselves.
    fn gateways(&self, next_hops: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let own = self.calculated.as_ref().map(|(desired, _)| &desired.routes);
        let (mut gateways, mut hops) = (BTreeSet::new(), BTreeSet::new());
        for hop in next_hops {
            match own.and_then(|own| own.get(&Cidr::host(*hop))).map(|route| &route.target) {
                Some(RouteTarget::Via(others)) => hops.extend(others),
                Some(RouteTarget::Link(name)) if self.workload_links.contains(name) => {
                    gateways.insert(*hop);
                }
                Some(RouteTarget::Link(_) | RouteTarget::Blackhole | RouteTarget::Tunnel(..))
                | None => {
                    hops.insert(*hop);
                }
            }
        }
        gateways.extend(self.underlay.gateways(&hops));
        gateways
    }

    /// Returns `desired` with those routes besides that are there and may not go yet.
    fn with_kept(
        &mut self,
        desired: BTreeMap<RouteKey, Route>,
        now: Timestamp,
    ) -> BTreeMap<RouteKey, Route> {
        let none = BTreeMap::new();
        let actual = self.routes.actual().unwrap_or(&none);
        let unwanted = actual.iter().filter(|(key, _)| !desired.contains_key(*key));
        let (replaced, unwanted): (Vec<_>, Vec<_>) = unwanted
            .map(|(key, route)| (*key, route.clone()))
            .partition(|(key, _)| successor(&desired, *key).is_some());
        let has_not_come = |key: RouteKey| {
            successor(&desired, key).is_some_and(|(new, route)| actual.get(new) != Some(route))
        };
        let replaced = replaced.into_iter().filter(|(key, _)| has_not_come(*key));
        let mut kept: Vec<(RouteKey, Route)> = replaced.collect();
        let is_workloads = |route: &Route| matches!(&route.target, RouteTarget::Link(name) if !TunnelDevice::is_ours(name));
        let unknown = unwanted.iter().filter(|(_, route)| is_workloads(route));
        let unknown: BTreeSet<RouteKey> = unknown.map(|(key, _)| *key).collect();
        self.unknown_since.retain(|key, _| unknown.contains(key));
        for key in unknown {
            self.unknown_since.entry(key).or_insert(now);
        }
        kept.extend(unwanted.into_iter().filter(|(key, route)| !self.may_go(*key, route, now)));
        desired.into_iter().chain(kept).collect()
    }

    /// May this route of ours go now, to a destination that no route is wanted to?
    fn may_go(&self, key: RouteKey, route: &Route, now: Timestamp) -> bool {
        match route.target {
            RouteTarget::Link(ref name) if TunnelDevice::is_ours(name) => true,
            RouteTarget::Link(_) => {
                self.unknown_since.get(&key).is_some_and(|since| since.until(now) >= ADD_GRACE)
            }
            RouteTarget::Via(_) => self.has_bgp_converged,
            // Peers announce what is reached by IP in IP, too.
            RouteTarget::Tunnel(ref device, _) => {
                self.has_bgp_converged || device.as_str() != TunnelDevice::IPIP
            }
            RouteTarget::Blackhole => true,
        }
    }
}

/// Returns what is to be used instead of an unwanted route: that of the lowest metric.
fn successor(desired: &BTreeMap<RouteKey, Route>, key: RouteKey) -> Option<(&RouteKey, &Route)> {
    desired.range(RouteKey::all_to(key.dst)).next()
}

/// Deletes come first, and what is to be a gateway before what leads there.
const fn order(change: &RouteChange) -> u8 {
    match change {
        RouteChange::Delete(..) => 0,
        RouteChange::Upsert(_, Route { target: RouteTarget::Link(_), .. }) => 1,
        RouteChange::Upsert(..) => 2,
    }
}

#[cfg(test)]
mod tests;
