//! The loop around policy's engine: waits for events, carries out effects, decides nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use calc::policy::Change;
use kernel::Netlink;
use kernel::monitor::{Monitor, Topic};
use kernel::netlink::Link;
use kernel::nftables::{self, Nftables};
use model::id::NodeName;
use model::net::IfName;
use model::time::Timestamp;
use model::vrf::{VrfId, VrfName};
use tokio::sync::{mpsc, watch};

use super::connections::{Connections, Hosts, Listed};
use super::engine::{Beginning, Engine};
use super::event::{Effect, Event, Outcome};
use super::report::{Teller, Told};
use super::status_files::StatusFiles;

/// How often the loop shows that it lives though there is nothing to do.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How many events are taken in before the engine is asked what to do.
const BATCH: usize = 4096;
/// How long this machine's interfaces may change before they are listed.
const SETTLE: Duration = Duration::from_millis(20);

/// How things are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Status {
    /// Is every kind of object in sync?
    pub(crate) is_in_sync: bool,
    /// The kinds that are not, in words.
    pub(crate) unsynced: String,
    /// Does the kernel hold what the datastore wants?
    pub(crate) is_in_force: bool,
    /// Has it ever?
    pub(crate) has_applied: bool,
    /// Policies in the cluster, staged ones among them.
    pub(crate) policies: usize,
    /// Policies that could not be read as a whole.
    pub(crate) faulty_policies: usize,
    /// Policies that apply to an endpoint of this node.
    pub(crate) local_policies: usize,
    /// Selectors that are followed.
    pub(crate) selectors: usize,
    /// Sets of addresses.
    pub(crate) sets: usize,
    /// Transactions that the kernel was given.
    pub(crate) applies: u64,
    /// Those that failed.
    pub(crate) failures: u64,
    /// How often somebody else changed our tables.
    pub(crate) interferences: u64,
    /// How long the last transaction took.
    pub(crate) last_apply: Duration,
}

/// What the loop starts with.
#[derive(Debug)]
pub(crate) struct Start {
    /// This node.
    pub(crate) node: NodeName,
    /// What administrators decide.
    pub(crate) settings: render::Settings,
    /// How often the kernel is read though nothing happens.
    pub(crate) refresh_interval: Duration,
    /// Where the CNI plugin is told whose policy is in force (`endpointStatusPathPrefix`).
    pub(crate) status_prefix: String,
    /// What the datastore tells.
    pub(crate) events: mpsc::Receiver<Event>,
    /// How things are, for health and metrics.
    pub(crate) status: watch::Sender<Status>,
    /// What is in force here, for others.
    pub(crate) reports: watch::Sender<Told>,
}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// nftables cannot be reached.
    #[error(transparent)]
    Nftables(#[from] nftables::Error),
    /// This machine's interfaces cannot be followed.
    #[error(transparent)]
    Netlink(#[from] kernel::netlink::Error),
    /// The thread cannot wait for anything.
    #[error("no runtime for policy: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Starts the loop in a thread of its own; what it says is why it ended.
///
/// # Errors
///
/// The operating system's, if it has no thread to give.
pub(crate) fn spawn(start: Start) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    thread::Builder::new().name("policy".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(run(start)),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            tracing::error!(%error, "policy is no longer looked after");
        }
        // Who waits for it may be gone.
        let _gone = sender.send(());
    })?;
    Ok(tokio::spawn(async move { drop(receiver.await) }))
}

async fn run(start: Start) -> Result<(), Error> {
    let nftables = Nftables::open()?;
    let others = nftables::Monitor::open(&nftables)?;
    let interfaces_changed = Monitor::open(&[Topic::Links, Topic::Addrs])?;
    let netlink = Netlink::open()?;
    let interfaces = addrs_by_interface(&netlink).await?.addrs;
    let is_workload = |name: &IfName| {
        start.settings.workload_prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
    };
    let has_workloads = interfaces.keys().any(is_workload);
    let beginning = if has_workloads { Beginning::Populated } else { Beginning::Empty };
    let teller = Teller::new(start.node.clone(), start.reports);
    let engine = Engine::new(start.node, start.settings, beginning, start.refresh_interval);
    let shell = Shell {
        teller,
        engine,
        nftables,
        others,
        netlink,
        interfaces_changed,
        interfaces: BTreeMap::new(),
        hosts: Hosts::new(),
        events: start.events,
        status: start.status,
        connections: Connections::start()?,
        status_files: StatusFiles::new(&start.status_prefix),
        progress: Status::default(),
        origin: Instant::now(),
    };
    shell.run().await
}

struct Shell {
    engine: Engine,
    nftables: Nftables,
    others: nftables::Monitor,
    netlink: Netlink,
    interfaces_changed: Monitor,
    /// What the engine was told of this machine's interfaces.
    interfaces: BTreeMap<IfName, Vec<IpAddr>>,
    /// The same by address.
    hosts: Hosts,
    events: mpsc::Receiver<Event>,
    status: watch::Sender<Status>,
    connections: Connections,
    status_files: StatusFiles,
    progress: Status,
    teller: Teller,
    origin: Instant,
}

impl Shell {
    async fn run(mut self) -> Result<(), Error> {
        let mut list_at = Some(Instant::now());
        loop {
            let wake = self.wake(list_at);
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take_in(event),
                    None => return Ok(()),
                },
                listed = self.connections.next() => self.judge(listed),
                event = self.others.next() => self.on_interference(&event?),
                batch = self.interfaces_changed.next_batch() => {
                    batch?;
                    list_at = list_at.into_iter().chain(Instant::now().checked_add(SETTLE)).min();
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            if list_at.is_some_and(|at| at <= Instant::now()) {
                list_at = None;
                self.list_interfaces().await?;
            }
            while let Some(effect) = self.engine.flush(self.now()) {
                let event = self.carry_out(effect);
                let now = self.now();
                self.engine.handle(event, now);
            }
            self.follow_up();
            self.publish();
            let now = self.now();
            self.teller.tell(&self.engine, now);
        }
    }

    /// Does what follows from what has come into force.
    fn follow_up(&mut self) {
        let news = self.engine.take_news();
        let (state, settings) = (self.engine.state(), self.engine.decided());
        if let Some(news) = news {
            if news.are_workloads_changed() {
                self.status_files.want(&state.workloads);
            }
            self.connections.take(&news, state, &self.hosts);
        }
        if self.engine.is_in_force() {
            self.connections.set_ending(settings.ends_denied, state, &self.hosts);
        }
        let now = self.now();
        self.status_files.settle(now);
    }

    /// Has those connections ended that policy no longer allows.
    fn judge(&mut self, listed: Listed) {
        let settings = self.engine.decided();
        self.connections.judge(listed, self.engine.state(), (&self.hosts, settings));
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_origin(self.origin.elapsed())
    }

    fn wake(&self, list_at: Option<Instant>) -> Instant {
        let deadlines =
            [self.engine.next_deadline(), self.teller.due(), self.status_files.next_deadline()];
        let deadline = deadlines.into_iter().flatten().min();
        let deadline = deadline.and_then(|at| self.origin.checked_add(at.since_origin()));
        let far = Instant::now().checked_add(HEARTBEAT);
        [deadline, list_at, far].into_iter().flatten().min().unwrap_or(self.origin)
    }

    /// Takes in an event, and those that wait behind it.
    fn take_in(&mut self, event: Event) {
        let now = self.now();
        self.engine.handle(event, now);
        for _ in 0..BATCH {
            match self.events.try_recv() {
                Ok(event) => self.engine.handle(event, now),
                Err(_) => return,
            }
        }
    }

    fn on_interference(&mut self, event: &nftables::Event) {
        match event {
            nftables::Event::Changed { by } => {
                tracing::warn!(%by, "somebody else changed our nftables; they are put right");
                self.progress.interferences = self.progress.interferences.saturating_add(1);
            }
            nftables::Event::Resync => tracing::debug!("events of nftables were lost"),
        }
        let now = self.now();
        self.engine.handle(Event::Drift, now);
    }

    async fn list_interfaces(&mut self) -> Result<(), Error> {
        let Interfaces { addrs: found, vrf_links } = addrs_by_interface(&self.netlink).await?;
        let now = self.now();
        let prefixes = &self.engine.decided().workload_prefixes;
        // Workloads and tunnels are there by what they are.
        let is_known = |name: &IfName| {
            VrfId::of_tunnel(name).is_some()
                || prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
        };
        let vrf_links = vrf_links.into_iter().filter(|(name, _)| !is_known(name)).collect();
        self.engine.handle(Event::VrfLinks(vrf_links), now);
        let gone = self.interfaces.keys().filter(|name| !found.contains_key(*name));
        let gone: Vec<_> = gone.map(|name| (name.clone(), None)).collect();
        let new = found.iter().filter(|(name, addrs)| self.interfaces.get(*name) != Some(*addrs));
        let new: Vec<_> = new.map(|(name, addrs)| (name.clone(), Some(addrs.clone()))).collect();
        for (name, addrs) in gone.into_iter().chain(new) {
            self.engine.handle(Event::Change(Change::Interface(name, addrs)), now);
        }
        let of = |(name, addrs): (&IfName, &Vec<IpAddr>)| {
            addrs.iter().map(|addr| (*addr, name.clone())).collect::<Vec<_>>()
        };
        self.hosts = found.iter().flat_map(of).collect();
        self.interfaces = found;
        Ok(())
    }

    /// Does it, and returns what came of it.
    fn carry_out(&mut self, effect: Effect) -> Event {
        match effect {
            Effect::List => match self.nftables.snapshot() {
                Ok(snapshot) => Event::Kernel(Box::new(snapshot)),
                Err(error) => self.failed(&error),
            },
            Effect::Apply(transaction) => {
                let started = Instant::now();
                let result = self.nftables.apply(&transaction);
                let progress = &mut self.progress;
                progress.applies = progress.applies.saturating_add(1);
                progress.last_apply = started.elapsed();
                tracing::debug!(steps = transaction.steps.len(), took = ?progress.last_apply, "nftables changed");
                match result {
                    Ok(()) => Event::Applied(Outcome::Done),
                    Err(error) => {
                        progress.failures = progress.failures.saturating_add(1);
                        self.failed(&error)
                    }
                }
            }
        }
    }

    fn failed(&mut self, error: &nftables::Error) -> Event {
        tracing::warn!(%error, "policy is not in the kernel yet; will be retried");
        self.teller.failure = Some(error.to_string());
        Event::Applied(Outcome::Failed)
    }

    fn publish(&mut self) {
        let engine = &self.engine;
        let is_in_force = engine.is_in_force();
        self.progress.has_applied |= is_in_force;
        let unsynced: Vec<String> = engine.unsynced().map(|kind| format!("{kind:?}")).collect();
        let (state, counts) = (engine.state(), engine.counts());
        let status = Status {
            is_in_sync: engine.is_in_sync(),
            unsynced: unsynced.join(", "),
            is_in_force,
            policies: counts.policies,
            faulty_policies: engine.faulty(),
            local_policies: state.policies.len(),
            selectors: counts.selectors,
            sets: state.sets.len(),
            ..self.progress.clone()
        };
        // Also when nothing changed: whoever listens takes silence for death.
        self.status.send_replace(status);
    }
}

/// This machine's interfaces.
struct Interfaces {
    addrs: BTreeMap<IfName, Vec<IpAddr>>,
    /// Those under VRFs' devices.
    vrf_links: BTreeMap<IfName, VrfName>,
}

/// Lists this machine's interfaces.
async fn addrs_by_interface(netlink: &Netlink) -> Result<Interfaces, Error> {
    let (links, addrs) = tokio::try_join!(netlink.links(), netlink.addrs())?;
    let mut found: BTreeMap<IfName, Vec<IpAddr>> = BTreeMap::new();
    let vrfs = links.iter().filter(|link| link.vrf_table.is_some());
    let vrfs: BTreeMap<_, _> =
        vrfs.filter_map(|link| Some((link.index, VrfName::of_device(&link.name)?))).collect();
    let under = |link: &Link| Some((link.name.clone(), vrfs.get(&link.master?)?.clone()));
    let vrf_links = links.iter().filter_map(under).collect();
    for link in links {
        let own = addrs.iter().filter(|addr| addr.link == link.index);
        let mut own: Vec<IpAddr> = own.map(|addr| addr.addr.addr()).collect();
        own.sort();
        found.insert(link.name, own);
    }
    Ok(Interfaces { addrs: found, vrf_links })
}
