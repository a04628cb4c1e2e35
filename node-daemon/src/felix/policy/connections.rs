//! The kernel's connections: those of freed addresses are forgotten, and those that policy
//! no longer allows are ended, if administrators want that.
//!
//! A thread of its own does what takes long: it lists and changes, and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

use kernel::conntrack::{self, Conntrack, Flow};
use kernel::socket_diag;
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
    /// Forget the connections of these addresses.
    Forget(BTreeSet<IpAddr>),
    /// Tell of the connections of these addresses.
    List(BTreeSet<IpAddr>),
    /// End these.
    End(Vec<(Flow, Ending)>, Mark),
}

/// This machine's own addresses, and the interfaces that have them.
pub(crate) type Hosts = BTreeMap<IpAddr, IfName>;

/// What is known of connections, and who looks after them.
#[derive(Debug)]
pub(crate) struct Connections {
    commands: mpsc::UnboundedSender<Command>,
    listed: mpsc::UnboundedReceiver<Vec<Flow>>,
    /// Whose addresses are this node's workloads'.
    homes: BTreeMap<IpAddr, IfName>,
    /// Addresses whose connections are to be judged.
    waiting: BTreeSet<IpAddr>,
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
            waiting: BTreeSet::new(),
            is_listing: false,
            is_ending: false,
        })
    }

    /// Takes note of what has come into force on the machine with these addresses.
    pub(crate) fn take(&mut self, news: &News, state: &PolicyState, hosts: &Hosts) {
        if news.are_workloads_changed() {
            let homes = homes(state);
            let gone = self.homes.keys().filter(|addr| !homes.contains_key(*addr));
            let gone: BTreeSet<IpAddr> = gone.copied().collect();
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
    pub(crate) async fn next(&mut self) -> Vec<Flow> {
        match self.listed.recv().await {
            Some(flows) => flows,
            None => std::future::pending().await,
        }
    }

    /// Has those of `flows` ended that policy no longer allows.
    pub(crate) fn judge(
        &mut self,
        flows: Vec<Flow>,
        state: &PolicyState,
        (hosts, settings): (&Hosts, &Settings),
    ) {
        self.is_listing = false;
        if !self.is_ending {
            return;
        }
        let mark = settings.marks.ended();
        let judge = Judge { state, homes: &self.homes, hosts, settings };
        let fresh = flows.into_iter().filter(|flow| flow.mark & mark.mask != mark.value);
        let denied = fresh.filter_map(|flow| {
            let ending = judge.ending(&flow.original, &flow.reply)?;
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
        self.waiting.extend(workloads.flat_map(|workload| &workload.addrs));
        self.waiting.extend(hosts.keys().filter(|_| affected.is_host));
        self.list();
    }

    /// Asks for the connections that wait to be judged, unless an answer is on its way.
    fn list(&mut self) {
        if !self.is_listing && !self.waiting.is_empty() {
            self.is_listing = true;
            let addrs = std::mem::take(&mut self.waiting);
            self.tell(Command::List(addrs));
        }
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("nobody looks after connections any more");
        }
    }
}

/// Returns whose addresses are this node's workloads'.
fn homes(state: &PolicyState) -> BTreeMap<IpAddr, IfName> {
    let of = |(name, workload)| addrs_of(name, workload);
    state.workloads.iter().flat_map(of).collect()
}

fn addrs_of<'a>(
    name: &'a IfName,
    workload: &'a model::desired::policy::WorkloadPolicy,
) -> impl Iterator<Item = (IpAddr, IfName)> + 'a {
    workload.addrs.iter().map(|addr| (*addr, name.clone()))
}

/// Does what it is told until nobody tells any more.
fn carry_out_all(
    mut commands: mpsc::UnboundedReceiver<Command>,
    listed: &mpsc::UnboundedSender<Vec<Flow>>,
) {
    while let Some(command) = commands.blocking_recv() {
        let is_list = matches!(command, Command::List(_));
        let found = carry_out(command).unwrap_or_else(|error| {
            tracing::warn!(%error, "connections are left as they are");
            Vec::new()
        });
        if is_list && listed.send(found).is_err() {
            return;
        }
    }
}

/// Does it, and returns the connections that were asked for.
fn carry_out(command: Command) -> Result<Vec<Flow>, conntrack::Error> {
    let mut conntrack = Conntrack::open()?;
    match command {
        Command::List(addrs) => conntrack.flows_of(&addrs),
        Command::Forget(addrs) => {
            let count = conntrack.forget(&addrs)?;
            tracing::debug!(?addrs, count, "connections of freed addresses forgotten");
            Ok(Vec::new())
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
            Ok(Vec::new())
        }
    }
}
