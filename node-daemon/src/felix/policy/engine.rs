//! Policy without IO: events in, transactions out.
//!
//! [`Engine::handle`] only takes note; [`Engine::flush`] says what to do next.
//! There is a transaction for what changed as long as the kernel is known to
//! hold what it should. When it is not (at the start, after a failure, when
//! somebody else touched our tables), the kernel is read, and the transaction
//! is what differs: what is right stays, with its counters.
//!
//! Before the datastore is in sync nothing that is there is changed. Where
//! there is nothing and no workload either, the empty tables are made, so that
//! the first pods of a machine that has just started meet a closed door.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use calc::policy::{Change, Counts, Policies};
use model::desired::policy::{PolicyChange, PolicyState};
use model::endpoint::Controls;
use model::id::NodeName;
use model::net::{Cidr, Family, IfName};
use model::policy::NodeReport;
use model::pool::IpPool;
use model::ruleset::{Snapshot, Transaction};
use model::time::Timestamp;
use model::vrf::{VrfName, Zone, vrfs};
use reconcile::Backoff;
use render::{Counting, Renderer, Settings, Tenants, tunnel};

use super::event::{Effect, Event, OfBgp, Outcome};
use super::floating::Floating;
use super::ledger::Ledger;
use super::news::News;
use crate::felix::event::Kind;

/// How long to wait after failures: policy that is not in force is more urgent than a route.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };

/// Whether a machine had workloads when the daemon started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Beginning {
    /// There was none: whoever comes before the datastore is in sync must wait.
    Empty,
    /// There were some, and their connections go on as they are until then.
    Populated,
}

/// Decides what this node's tables should hold.
#[derive(Debug)]
pub(crate) struct Engine {
    this_node: NodeName,
    beginning: Beginning,
    unsynced: BTreeSet<Kind>,
    policies: Policies,
    ledger: Ledger,
    /// What administrators decide, without pools, nodes and what BGP's configuration says of Services.
    settings: Settings,
    pools: BTreeMap<String, Arc<IpPool>>,
    nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    bgp: OfBgp,
    /// The port that BGP listens on at this node, if that is another one here.
    bgp_port: Option<u16>,
    floating: Floating,
    are_settings_changed: bool,
    /// A kernel that refuses tables that count packets and connections gets others: nobody's limits
    /// may keep policy out.
    counting: Counting,
    /// What this machine has under VRFs' devices.
    vrf_links: BTreeMap<IfName, VrfName>,
    renderer: Option<Renderer>,
    kernel: Kernel,
    /// What has changed since [`Engine::take_news`].
    news: News,
    refresh_interval: Duration,
    /// The wait after the last failure; `None` after a success.
    waited: Option<Duration>,
}

/// What is known of the kernel.
#[derive(Debug)]
enum Kernel {
    /// Nothing; it is read when that time has come.
    Unknown { not_before: Timestamp },
    /// It was read.
    Read(Box<Snapshot>),
    /// It holds what the renderer has, and is read again at that time.
    InStep { until: Timestamp },
}

impl Engine {
    /// Starts with nothing known; the kernel is read every `refresh_interval` at least.
    pub(crate) fn new(
        this_node: NodeName,
        settings: Settings,
        beginning: Beginning,
        refresh_interval: Duration,
    ) -> Self {
        Self {
            policies: Policies::new(this_node.clone()),
            this_node,
            beginning,
            unsynced: Kind::POLICY.into(),
            ledger: Ledger::default(),
            settings,
            pools: BTreeMap::new(),
            nodes: BTreeMap::new(),
            bgp: OfBgp::default(),
            bgp_port: None,
            floating: Floating::default(),
            are_settings_changed: false,
            counting: Counting::Possible,
            vrf_links: BTreeMap::new(),
            renderer: None,
            kernel: Kernel::Unknown { not_before: Timestamp::ZERO },
            news: News::everything(),
            refresh_interval,
            waited: None,
        }
    }

    /// Takes note of `event`.
    pub(crate) fn handle(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Change(change) => self.change(change),
            Event::Policy(id, known) => {
                self.ledger.put(&id, known.as_deref());
                let policy = known.map(|known| known.policy);
                self.policies.apply(Change::Policy(id, policy));
            }
            Event::Node(name, node) => {
                self.floating.node(&name, node.as_deref());
                self.refresh_floating();
                let addrs = node.map(|node| {
                    let addrs = Family::ALL.into_iter().filter_map(|family| node.addr(family));
                    addrs.map(|addr| addr.addr()).collect()
                });
                self.are_settings_changed |= put(&mut self.nodes, name, addrs);
            }
            Event::Pool(name, pool) => {
                let pool = pool.map(|pool| Arc::new(*pool));
                self.policies.apply(Change::Pool(name.clone(), pool.clone()));
                self.are_settings_changed |= put(&mut self.pools, name, pool);
                self.refresh_floating();
            }
            Event::Bgp(bgp) => {
                self.are_settings_changed |= self.bgp != *bgp;
                self.bgp = *bgp;
            }
            Event::BgpPort(node, port) if node == self.this_node => {
                self.are_settings_changed |= self.bgp_port != port;
                self.bgp_port = port;
            }
            Event::BgpPort(..) => {}
            Event::VrfLinks(links) => {
                self.are_settings_changed |= self.vrf_links != links;
                self.vrf_links = links;
            }
            Event::Settings(settings) => {
                self.are_settings_changed |= self.settings != *settings;
                self.settings = *settings;
            }
            Event::Synced(kind) => {
                if self.unsynced.remove(&kind) && self.unsynced.is_empty() {
                    self.kernel = Kernel::Unknown { not_before: now };
                }
            }
            Event::Kernel(snapshot) => self.kernel = Kernel::Read(snapshot),
            Event::Drift => self.kernel = Kernel::Unknown { not_before: now },
            Event::Applied(Outcome::Done) => {
                self.waited = None;
                self.kernel = Kernel::InStep { until: now + self.refresh_interval };
            }
            Event::Applied(Outcome::Failed) => {
                self.suspect_controls();
                let wait = BACKOFF.after(self.waited);
                self.waited = Some(wait);
                self.kernel = Kernel::Unknown { not_before: now + wait };
            }
        }
    }

    /// Returns what to do now; `None` if all is as it should be.
    ///
    /// The caller does it and reports it before it asks again.
    pub(crate) fn flush(&mut self, now: Timestamp) -> Option<Effect> {
        let is_due = match &self.kernel {
            Kernel::Unknown { not_before } => *not_before <= now,
            Kernel::Read(_) => false,
            Kernel::InStep { until } => *until <= now,
        };
        if is_due {
            // What changed meanwhile is in the tables, and so in the plan.
            self.render();
            return Some(Effect::List);
        }
        if !self.is_in_sync() {
            return self.close_the_door(now);
        }
        let changes = self.render();
        let transaction = match &self.kernel {
            Kernel::Unknown { .. } => return None,
            Kernel::InStep { .. } => changes,
            Kernel::Read(snapshot) => render::plan(self.renderer.as_ref()?.tables(), snapshot),
        };
        if !transaction.is_empty() {
            return Some(Effect::Apply(transaction));
        }
        if matches!(self.kernel, Kernel::Read(_)) {
            self.kernel = Kernel::InStep { until: now + self.refresh_interval };
        }
        None
    }

    /// Returns when [`Engine::flush`] has something to do although nothing happens until then.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        match &self.kernel {
            Kernel::Unknown { not_before } => Some(*not_before),
            Kernel::Read(_) => None,
            Kernel::InStep { until } => Some(*until),
        }
    }

    /// Is every kind of object in sync?
    pub(crate) fn is_in_sync(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Does the kernel hold what the datastore wants?
    pub(crate) fn is_in_force(&self) -> bool {
        self.renderer.is_some() && matches!(self.kernel, Kernel::InStep { .. })
    }

    /// Returns the kinds of objects that are not in sync yet.
    pub(crate) fn unsynced(&self) -> impl Iterator<Item = Kind> {
        self.unsynced.iter().copied()
    }

    /// Returns how much there is of everything.
    pub(crate) fn counts(&self) -> Counts {
        self.policies.counts()
    }

    /// Returns how many policies could not be read as a whole.
    pub(crate) const fn faulty(&self) -> usize {
        self.ledger.faulty()
    }

    /// Returns a number that is another one when there may be something new to report.
    pub(crate) const fn revision(&self) -> u64 {
        self.ledger.revision()
    }

    /// Returns how many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Returns which policies the kernel enforces, provided that [`Engine::is_in_force`].
    pub(crate) fn report(&self, node: NodeName) -> NodeReport {
        self.ledger.report(node, self.state().policies.keys())
    }

    /// Returns what should be enforced.
    pub(crate) const fn state(&self) -> &PolicyState {
        self.policies.state()
    }

    /// Returns what has changed since the last time, once the kernel enforces it.
    pub(crate) fn take_news(&mut self) -> Option<News> {
        let is_news = self.is_in_force() && !self.news.is_empty();
        is_news.then(|| std::mem::take(&mut self.news))
    }

    /// Returns what administrators decide, without pools, nodes and Services.
    pub(crate) const fn decided(&self) -> &Settings {
        &self.settings
    }

    /// Brings the tables up to date, once the datastore is in sync, and returns
    /// what that changes.
    fn render(&mut self) -> Transaction {
        if !self.is_in_sync() {
            return Transaction::default();
        }
        // Settings hold every node's addresses, so they are made only if they are needed.
        let are_changed = std::mem::take(&mut self.are_settings_changed);
        let settings = (are_changed || self.renderer.is_none()).then(|| self.settings());
        let changes = self.policies.take_changes();
        if changes.iter().any(|change| matches!(change, PolicyChange::Policy(..))) {
            self.ledger.changed();
        }
        self.news.note(&changes);
        let Some(renderer) = &mut self.renderer else {
            let state = self.policies.state().clone();
            self.renderer = settings.map(|settings| Renderer::new(state, settings));
            return Transaction::default();
        };
        let mut transaction = renderer.apply(&changes);
        if let Some(settings) = settings {
            transaction.steps.extend(renderer.configure(settings).steps);
        }
        transaction
    }

    /// Makes the empty tables where there are none, unless that cuts somebody off.
    fn close_the_door(&mut self, now: Timestamp) -> Option<Effect> {
        let Kernel::Read(snapshot) = &self.kernel else { return None };
        if self.beginning == Beginning::Populated || !snapshot.tables.is_empty() {
            self.kernel = Kernel::InStep { until: now + self.refresh_interval };
            return None;
        }
        let empty = render::render(&PolicyState::default(), &self.settings());
        Some(Effect::Apply(render::plan(&empty, snapshot)))
    }

    /// After a second failure, limits of packets and connections may be what the kernel refuses.
    fn suspect_controls(&mut self) {
        let mut workloads = self.state().workloads.values();
        let has_some = workloads.any(|workload| workload.controls != Controls::default());
        if self.waited.is_some() && has_some && self.counting == Counting::Possible {
            self.counting = Counting::Refused;
            self.are_settings_changed = true;
            tracing::warn!(
                "the kernel refuses tables with limits of packets and connections: pods' \
                 annotations for these and for DSCP have no effect until calico-node starts again"
            );
        }
    }

    fn change(&mut self, change: Change) {
        let is_about_floating = if let Change::Workload(id, pod) = &change {
            self.floating.pod(id, pod.as_ref(), &self.this_node)
        } else {
            false
        };
        self.policies.apply(change);
        if is_about_floating {
            self.refresh_floating();
        }
    }

    fn refresh_floating(&mut self) {
        let pools = self.pools.values().filter(|pool| pool.vrf.is_none());
        let pools: Vec<Cidr> = pools.map(|pool| pool.cidr).collect();
        let is_new = self.floating.refresh(&pools, &self.policies);
        self.are_settings_changed |= is_new && self.settings.floating.is_some();
    }

    fn settings(&self) -> Settings {
        let floating = self.settings.floating.as_ref();
        let vrfs = vrfs(self.pools.values().map(AsRef::as_ref));
        // Of tenants' addresses nobody without a VRF knows, unless they exchange routes.
        let zone = |pool: &IpPool| vrfs.zone(pool.vrf.as_ref().map(|vrf| &vrf.name));
        let pools = self.pools.values().filter(|pool| zone(pool) == Zone::Default);
        let pools = pools.map(|pool| render::Pool {
            net: pool.cidr,
            is_translated: pool.nat_outgoing && pool.vrf.is_none(),
        });
        Settings {
            counting: self.counting,
            floating: floating.map(|_| self.floating.destinations().clone()),
            pools: pools.collect(),
            tenants: Tenants { links: self.vrf_links.clone(), ..Tenants::of(&vrfs) },
            hosts: self.nodes.values().flatten().copied().collect(),
            service_ranges: [&*self.settings.service_ranges, &*self.bgp.service_ranges].concat(),
            peering: self.bgp.peering(self.bgp_port),
            tunnels: tunnel::Tunnels {
                pools: self.pools.values().filter_map(|pool| tunnel::Pool::of(pool)).collect(),
                ..self.settings.tunnels.clone()
            },
            ..self.settings.clone()
        }
    }
}

/// Puts a value in, or takes it out; returns whether that changed something.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    if map.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
    true
}

#[cfg(test)]
mod tests;
