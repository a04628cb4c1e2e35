//! The kernel's connections: those of freed addresses are forgotten, and those that policy
//! no longer allows are ended, if administrators want that.
//!
//! A thread of its own does what takes long: it lists and changes, and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

use kernel::conntrack::{self, Conntrack, Flow};
use kernel::socket_diag;
use kernel::ways::{self, Ways};
use model::desired::policy::PolicyState;
use model::net::IfName;
use model::ruleset::Mark;
use render::Settings;
use tokio::sync::mpsc;

use super::denied::{Ending, Judge};
use super::news::News;

/// What the thread is told to do.
#[derive(Debug)]
enum Command {
    /// Forget the connections of these addresses in their zones.
    Forget(BTreeSet<(u16, IpAddr)>),
    /// Tell of these connections.
    List(Wanted),
    /// End these.
    End(Vec<(Flow, Ending)>, Mark),
}

/// This machine's own addresses, and the interfaces that have them.
pub(crate) type Hosts = BTreeMap<IpAddr, IfName>;

/// Whose addresses are this node's workloads', by the zone of their connections.
pub(crate) type Homes = BTreeMap<(u16, IpAddr), IfName>;

/// Which connections are asked for.
#[derive(Debug, Default)]
struct Wanted {
    /// Those of these addresses.
    addrs: BTreeSet<IpAddr>,
    /// All of them, and by which interfaces packets leave for their ends.
    is_all: bool,
}

/// Connections that may have to end.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    flows: Vec<Flow>,
    /// By which interfaces packets leave for their ends, if somebody has asked for that.
    ways: BTreeMap<IpAddr, IfName>,
}

/// What is known of connections, and who looks after them.
#[derive(Debug)]
pub(crate) struct Connections {
    commands: mpsc::UnboundedSender<Command>,
    listed: mpsc::UnboundedReceiver<Listed>,
    /// Whose addresses are this node's workloads'.
    homes: Homes,
    /// Which connections are to be judged.
    waiting: Wanted,
    is_listing: bool,
    /// Are connections ended that policy no longer allows?
    is_ending: bool,
}

impl Connections {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no thread to give.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (commands, received) = mpsc::unbounded_channel();
        let (sender, listed) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name("connections".to_owned());
        thread.spawn(move || carry_out_all(received, &sender))?;
        Ok(Self {
            commands,
            listed,
            homes: BTreeMap::new(),
            waiting: Wanted::default(),
            is_listing: false,
            is_ending: false,
        })
    }

    /// Takes note of what has come into force on the machine with these addresses.
    pub(crate) fn take(&mut self, news: &News, state: &PolicyState, hosts: &Hosts) {
        if news.are_workloads_changed() {
            let homes = homes(state);
            let gone = self.homes.keys().filter(|home| !homes.contains_key(*home));
            let gone: BTreeSet<(u16, IpAddr)> = gone.copied().collect();
            self.homes = homes;
            if !gone.is_empty() {
                self.tell(Command::Forget(gone));
            }
        }
        if self.is_ending {
            self.judge_soon(news, state, hosts);
        }
    }

    /// Takes note whether connections are ended that policy no longer allows.
    pub(crate) fn set_ending(&mut self, is_ending: bool, state: &PolicyState, hosts: &Hosts) {
        if is_ending && !self.is_ending {
            self.judge_soon(&News::everything(), state, hosts);
        }
        self.is_ending = is_ending;
    }

    /// Waits for connections that are to be judged; for ever if nobody will tell of any.
    pub(crate) async fn next(&mut self) -> Listed {
        match self.listed.recv().await {
            Some(listed) => listed,
            None => std::future::pending().await,
        }
    }

    /// Has those of the connections ended that policy no longer allows.
    pub(crate) fn judge(
        &mut self,
        listed: Listed,
        state: &PolicyState,
        (hosts, settings): (&Hosts, &Settings),
    ) {
        self.is_listing = false;
        if !self.is_ending {
            return;
        }
        let mark = settings.marks.ended();
        let judge = Judge { state, homes: &self.homes, hosts, ways: &listed.ways, settings };
        let fresh = listed.flows.into_iter().filter(|flow| flow.mark & mark.mask != mark.value);
        let denied = fresh.filter_map(|flow| {
            let ending = judge.ending(flow.zone, &flow.original, &flow.reply)?;
            Some((flow, ending))
        });
        let denied: Vec<_> = denied.collect();
        if !denied.is_empty() {
            self.tell(Command::End(denied, mark));
        }
        self.list();
    }

    fn judge_soon(&mut self, news: &News, state: &PolicyState, hosts: &Hosts) {
        let affected = news.affected(state);
        let workloads = affected.workloads.iter().filter_map(|name| state.workloads.get(*name));
        self.waiting.addrs.extend(workloads.flat_map(|workload| &workload.addrs));
        self.waiting.addrs.extend(hosts.keys().filter(|_| affected.is_host));
        self.waiting.is_all |= affected.is_forwarded;
        self.list();
    }

    /// Asks for the connections that wait to be judged, unless an answer is on its way.
    fn list(&mut self) {
        if !self.is_listing && (self.waiting.is_all || !self.waiting.addrs.is_empty()) {
            self.is_listing = true;
            let wanted = std::mem::take(&mut self.waiting);
            self.tell(Command::List(wanted));
        }
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("nobody looks after connections any more");
        }
    }
}

/// Returns whose addresses are this node's workloads'.
fn homes(state: &PolicyState) -> Homes {
    let of = |(name, workload)| addrs_of(name, workload);
    state.workloads.iter().flat_map(of).collect()
}

fn addrs_of<'a>(
    name: &'a IfName,
    workload: &'a model::desired::policy::WorkloadPolicy,
) -> impl Iterator<Item = ((u16, IpAddr), IfName)> + 'a {
    let zone = workload.zone().number();
    workload.addrs.iter().map(move |addr| ((zone, *addr), name.clone()))
}

/// Does what it is told until nobody tells any more.
fn carry_out_all(
    mut commands: mpsc::UnboundedReceiver<Command>,
    listed: &mpsc::UnboundedSender<Listed>,
) {
    while let Some(command) = commands.blocking_recv() {
        let is_list = matches!(command, Command::List(_));
        let found = carry_out(command).unwrap_or_else(|error| {
            tracing::warn!(%error, "connections are left as they are");
            Listed::default()
        });
        if is_list && listed.send(found).is_err() {
            return;
        }
    }
}

/// Does it, and returns the connections that were asked for.
fn carry_out(command: Command) -> Result<Listed, conntrack::Error> {
    let mut conntrack = Conntrack::open()?;
    match command {
        Command::List(Wanted { is_all: true, .. }) => {
            let flows = conntrack.flows(|_| true)?;
            // Without ways, what is passed on is left as it is; all others are judged.
            let ways = ways_to(&flows).unwrap_or_else(|error| {
                tracing::warn!(%error, "connections that this machine passes on are left as they are");
                BTreeMap::new()
            });
            return Ok(Listed { flows, ways });
        }
        Command::List(Wanted { addrs, .. }) => {
            let flows = conntrack.flows_of(&addrs)?;
            return Ok(Listed { flows, ..Listed::default() });
        }
        Command::Forget(addrs) => {
            let count = conntrack.forget(&addrs)?;
            tracing::debug!(?addrs, count, "connections of freed addresses forgotten");
        }
        Command::End(flows, mark) => {
            for (flow, ending) in flows {
                tracing::info!(%flow, ?ending, "policy no longer allows a connection; ending it");
                match ending {
                    Ending::Reset => conntrack.mark(&flow, mark.value, mark.mask)?,
                    Ending::Close { local, remote } => {
                        // The socket first: it tells both ends, and needs its packets for that.
                        if let Err(error) = socket_diag::end_tcp(local, remote) {
                            tracing::warn!(%error, "whoever sends next is told instead");
                        }
                        conntrack.mark(&flow, mark.value, mark.mask)?;
                    }
                    Ending::Forget => conntrack.delete(&flow)?,
                }
            }
        }
    }
    Ok(Listed::default())
}

/// Returns by which interfaces packets leave for the ends of connections.
fn ways_to(flows: &[Flow]) -> Result<BTreeMap<IpAddr, IfName>, ways::Error> {
    let mut ways = Ways::open()?;
    let ends = flows.iter().flat_map(|flow| [flow.original.source, flow.reply.source]);
    let ends: BTreeSet<IpAddr> = ends.collect();
    let way = |addr| Ok(ways.to(addr)?.map(|name| (addr, name)));
    ends.into_iter().map(way).filter_map(Result::transpose).collect()
}
