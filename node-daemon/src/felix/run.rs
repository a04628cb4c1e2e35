//! The loop around the engine: waits for events, carries out effects, decides nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::kernel::Netlink;
use ::kernel::monitor::{Monitor, Topic};
use calc::Problem;
use model::net::Mtu;
use model::time::Timestamp;
use tokio::sync::{mpsc, watch};

use super::engine::Engine;
use super::event::{
    Demand, DeviceChange, Effect, EntryChange, Event, PeeringAddrChange, RouteChange, TunnelNeeds,
};
use super::table::{self, Ownership};
use super::{vrf, wireguard};
use crate::{bgp, startup};

/// How long the kernel may change before it is listed: one listing for a burst.
const SETTLE: Duration = Duration::from_millis(20);
/// How soon a kernel that could not be listed is listed again.
const LIST_RETRY: Duration = Duration::from_secs(1);
/// How often the loop shows that it lives though there is nothing to do.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How many events are taken in before the engine compares.
const BATCH: usize = 4096;

/// What the loop is made of.
#[derive(Debug)]
pub(crate) struct Felix {
    /// The decisions.
    pub(crate) engine: Engine,
    /// The kernel.
    pub(crate) netlink: Netlink,
    /// What the kernel tells.
    pub(crate) monitor: Monitor,
    /// Which routes are ours.
    pub(crate) ownership: Ownership,
    /// What the datastore tells.
    pub(crate) store: mpsc::Receiver<Event>,
    /// What BGP is told; `None` if this node speaks none.
    pub(crate) bgp_commands: Option<mpsc::Sender<bgp::Command>>,
    /// What BGP tells.
    pub(crate) bgp_events: Option<mpsc::Receiver<bgp::Event>>,
    /// What is to be watched because of what is configured.
    pub(crate) demand: watch::Sender<Demand>,
    /// The addresses that tunnels need.
    pub(crate) tunnel_needs: watch::Sender<Option<TunnelNeeds>>,
    /// What should be of WireGuard.
    pub(crate) wireguard: watch::Sender<Option<wireguard::Wanted>>,
    /// What should be of VRFs.
    pub(crate) vrfs: watch::Sender<Option<vrf::Wanted>>,
    /// Where the CNI plugin reads the MTU of pods.
    pub(crate) mtu_file: PathBuf,
    /// What cannot be followed, for people.
    pub(crate) problems: watch::Sender<Vec<Problem>>,
    /// How things are, for health and metrics.
    pub(crate) status: watch::Sender<Status>,
}

/// How things are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Status {
    /// Is every kind of object in sync?
    pub(crate) is_in_sync: bool,
    /// The kinds that are not, in words.
    pub(crate) unsynced: String,
    /// Has the kernel been brought to what it should hold at least once?
    pub(crate) has_applied: bool,
    /// Routes that the kernel refused and that will be tried again.
    pub(crate) failing_routes: usize,
    /// Nodes in the cluster.
    pub(crate) nodes: usize,
    /// Workloads on this node.
    pub(crate) local_endpoints: usize,
    /// How often routes were changed.
    pub(crate) applies: u64,
    /// How many route changes failed.
    pub(crate) failures: u64,
    /// How often the kernel was listed.
    pub(crate) resyncs: u64,
    /// Routes that are ours, as last listed.
    pub(crate) routes: usize,
    /// How long the last change of routes took.
    pub(crate) last_apply: Duration,
}

impl Felix {
    /// Runs until the datastore's events end.
    pub(crate) async fn run(mut self) {
        let origin = Instant::now();
        let mut list_at: Option<Instant> = None;
        let mut progress = Status::default();
        loop {
            let wake = self.wake(origin, list_at);
            tokio::select! {
                event = self.store.recv() => match event {
                    Some(event) => self.take_in(event, origin),
                    None => return,
                },
                Some(event) = next(&mut self.bgp_events) => self.on_bgp(event, origin),
                batch = self.monitor.next_batch() => {
                    if let Err(error) = batch {
                        tracing::error!(%error, "no longer told of the kernel's changes");
                        return;
                    }
                    list_at = list_at.into_iter().chain(Instant::now().checked_add(SETTLE)).min();
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            if list_at.is_some_and(|at| at <= Instant::now()) {
                list_at = self.list(origin, &mut progress).await;
            }
            if self.flush(origin, &mut progress).await {
                list_at = Some(Instant::now());
            }
            self.publish(&progress);
        }
    }

    /// Returns when to wake although nothing happens.
    fn wake(&self, origin: Instant, list_at: Option<Instant>) -> Instant {
        let deadline = self.engine.next_deadline();
        let deadline = deadline.and_then(|at| origin.checked_add(at.since_origin()));
        let far = Instant::now().checked_add(HEARTBEAT);
        [deadline, list_at, far].into_iter().flatten().min().unwrap_or(origin)
    }

    /// Takes in an event, and those that wait behind it.
    fn take_in(&mut self, event: Event, origin: Instant) {
        self.note(event, origin);
        for _ in 0..BATCH {
            match self.store.try_recv() {
                Ok(event) => self.note(event, origin),
                Err(_) => return,
            }
        }
    }

    fn note(&mut self, event: Event, origin: Instant) {
        if let Event::Settings(settings) = &event {
            self.ownership.device_route_protocol = settings.device_route_protocol;
        }
        self.engine.handle(event, now(origin));
    }

    fn on_bgp(&mut self, event: bgp::Event, origin: Instant) {
        match event {
            bgp::Event::RoutesChanged(changes) => self.note(Event::Learned(changes), origin),
            bgp::Event::Converged => self.note(Event::BgpConverged, origin),
            bgp::Event::SessionChanged { name, peer_addr, state, last_error } => {
                let last_error = last_error.unwrap_or_default();
                tracing::debug!(%name, %peer_addr, ?state, last_error, "BGP session changed");
            }
        }
    }

    /// Lists the kernel; returns when to try again if that failed.
    async fn list(&mut self, origin: Instant, progress: &mut Status) -> Option<Instant> {
        match table::list(&self.netlink, &self.ownership).await {
            Ok(state) => {
                progress.resyncs = progress.resyncs.saturating_add(1);
                progress.routes = state.routes.len();
                self.engine.handle(Event::Kernel(Box::new(state)), now(origin));
                None
            }
            Err(error) => {
                tracing::warn!(%error, "cannot list the kernel's routes");
                Instant::now().checked_add(LIST_RETRY)
            }
        }
    }

    /// Carries out what the engine wants; returns whether the kernel must be listed now.
    async fn flush(&mut self, origin: Instant, progress: &mut Status) -> bool {
        let mut must_list = false;
        for effect in self.engine.flush(now(origin)) {
            match effect {
                Effect::ListKernel => must_list = true,
                Effect::Routes(changes) => {
                    must_list |= !self.change(changes, origin, progress).await;
                }
                Effect::Devices(changes) => {
                    self.change_devices(changes, origin).await;
                    must_list = true;
                }
                Effect::Entries(changes) => {
                    must_list |= !self.change_entries(changes, origin).await;
                }
                Effect::PeeringAddrs(changes) => {
                    must_list |= !self.change_peering_addrs(changes, origin).await;
                }
                Effect::TunnelAddrs(needs) => {
                    self.tunnel_needs.send_replace(Some(needs));
                }
                Effect::PodMtu(mtu) => self.write_mtu(mtu),
                Effect::Wireguard(wanted) => {
                    self.wireguard.send_replace(Some(wanted));
                }
                Effect::Vrfs(wanted) => {
                    self.vrfs.send_replace(Some(wanted));
                }
                Effect::Demand(demand) => {
                    self.demand.send_replace(demand);
                }
                Effect::Listen(addrs) => self.tell_bgp(bgp::Command::Listen(addrs)).await,
                Effect::Advertise(all) => self.tell_bgp(bgp::Command::Advertise(all)).await,
                Effect::Ways(ways) => self.tell_bgp(bgp::Command::Ways(ways)).await,
                Effect::Sessions(all) => self.tell_bgp(bgp::Command::Configure(all)).await,
                Effect::Problems(problems) => self.report(problems),
            }
        }
        progress.has_applied |= self.engine.is_in_sync() && !must_list;
        must_list
    }

    /// Changes routes; returns whether all went well.
    async fn change(
        &mut self,
        changes: Vec<RouteChange>,
        origin: Instant,
        progress: &mut Status,
    ) -> bool {
        let started = Instant::now();
        let results = table::apply(&self.netlink, changes).await;
        let failed = results.iter().filter(|(_, result)| result.is_err()).count();
        for (change, result) in &results {
            let route = change.key();
            match result {
                Ok(()) => tracing::debug!(%route, "route changed"),
                Err(error) => tracing::warn!(%route, %error, "route not changed, will be retried"),
            }
        }
        progress.applies = progress.applies.saturating_add(1);
        progress.failures = progress.failures.saturating_add(failed.try_into().unwrap_or(u64::MAX));
        progress.last_apply = started.elapsed();
        self.engine.handle(Event::Applied(results), now(origin));
        failed == 0
    }

    /// Changes tunnel devices; the kernel must be listed afterwards.
    async fn change_devices(&mut self, changes: Vec<DeviceChange>, origin: Instant) {
        let results = table::apply_devices(&self.netlink, changes).await;
        for (change, result) in &results {
            let device = change.key();
            match (change, result) {
                (DeviceChange::Upsert(_, value), Ok(())) => {
                    tracing::info!(%device, %value, "tunnel set up");
                }
                (DeviceChange::Delete(..), Ok(())) => tracing::info!(%device, "tunnel removed"),
                (_, Err(error)) => {
                    tracing::warn!(%device, %error, "tunnel not changed, will be retried");
                }
            }
        }
        self.engine.handle(Event::DevicesApplied(results), now(origin));
    }

    /// Changes tunnels' entries; returns whether all went well.
    async fn change_entries(&mut self, changes: Vec<EntryChange>, origin: Instant) -> bool {
        let results = table::apply_entries(&self.netlink, changes).await;
        let mut is_well = true;
        for (change, result) in &results {
            if let Err(error) = result {
                let entry = change.key();
                tracing::warn!(%entry, %error, "tunnel's entry not changed, will be retried");
                is_well = false;
            }
        }
        self.engine.handle(Event::EntriesApplied(results), now(origin));
        is_well
    }

    /// Changes addresses that workloads peer with; returns whether all went well.
    async fn change_peering_addrs(
        &mut self,
        changes: Vec<PeeringAddrChange>,
        origin: Instant,
    ) -> bool {
        let results = table::apply_peering_addrs(&self.netlink, changes).await;
        let mut is_well = true;
        for (change, result) in &results {
            let (name, addr) = change.key();
            match result {
                Ok(()) => tracing::debug!(%name, %addr, "address for a peering workload changed"),
                Err(error) => {
                    tracing::warn!(%name, %addr, %error, "address not changed, will be retried");
                    is_well = false;
                }
            }
        }
        self.engine.handle(Event::PeeringAddrsApplied(results), now(origin));
        is_well
    }

    fn write_mtu(&self, mtu: Mtu) {
        match startup::write_mtu(&self.mtu_file, mtu) {
            Ok(true) => tracing::info!(mtu = mtu.0, "new pods get another MTU"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "new pods get a wrong MTU"),
        }
    }

    /// Tells people what cannot be followed: those that were told already are not told again.
    fn report(&self, problems: Vec<Problem>) {
        self.problems.send_modify(|old| {
            for problem in problems.iter().filter(|problem| !old.contains(problem)) {
                tracing::warn!(%problem, "cannot be followed");
            }
            *old = problems;
        });
    }

    async fn tell_bgp(&self, command: bgp::Command) {
        if let Some(commands) = &self.bgp_commands
            && commands.send(command).await.is_err()
        {
            tracing::error!("the BGP speaker has ended");
        }
    }

    fn publish(&self, progress: &Status) {
        let cluster = self.engine.cluster();
        let unsynced: Vec<String> =
            self.engine.unsynced().map(|kind| format!("{kind:?}")).collect();
        let status = Status {
            is_in_sync: self.engine.is_in_sync(),
            unsynced: unsynced.join(", "),
            failing_routes: self.engine.failing_routes(),
            nodes: cluster.nodes.len(),
            local_endpoints: cluster.local_workloads(),
            ..progress.clone()
        };
        // Also when nothing changed: whoever listens takes silence for death.
        self.status.send_replace(status);
    }
}

/// Opens the kernel's side of the loop; subscribed first, so that no change is missed.
///
/// # Errors
///
/// [`kernel::netlink::Error`] if there is no netlink socket to be had.
pub(crate) fn open_kernel() -> Result<(Netlink, Monitor), ::kernel::netlink::Error> {
    let monitor = Monitor::open(&[Topic::Links, Topic::Addrs, Topic::Routes])?;
    Ok((Netlink::open()?, monitor))
}

fn now(origin: Instant) -> Timestamp {
    Timestamp::from_origin(origin.elapsed())
}

/// Waits for the next event of BGP; for ever if there is none to come.
async fn next(events: &mut Option<mpsc::Receiver<bgp::Event>>) -> Option<bgp::Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}
