//! The sockets and the clock around the BGP speaker, which decides everything (RFC 4271).
//!
//! One task runs the speaker; one task for each connection moves bytes; one for
//! each listening address accepts. No task here knows what a message means. BFD has
//! a thread of its own.
//!
//! Queues are bounded: what a peer sends waits in its socket when the speaker is
//! busy, what it is sent is bounded by the speaker's account of unwritten bytes,
//! and what the daemon has not taken yet is merged (`pending`).

mod bfd;
mod connection;
mod keys;
mod listener;
mod neighbours;
mod options;
mod pending;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ::bgp::rib::Gateways;
use ::bgp::{BgpIdentifier, PeerStatus, Speaker, SpeakerConfig, State};
use model::desired::{Advertisements, BgpSession};
use model::net::{Cidr, IfName};
use model::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What the speaker is born with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Config {
    /// Our BGP identifier, for both families.
    pub identifier: Ipv4Addr,
    /// Did an earlier life of the daemon leave routes in the kernel (RFC 4724 §4.1)?
    pub is_restarting: bool,
    /// Where the jitter of timers starts: a random number.
    pub seed: u64,
}

/// What the daemon wants of the speaker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// This is where peers reach us from now on.
    Listen(BTreeSet<SocketAddr>),
    /// These are all the sessions from now on.
    Configure(Vec<BgpSession>),
    /// This is all that is announced from now on.
    Advertise(Advertisements),
    /// These interfaces lead to these ranges.
    Ways(BTreeMap<Cidr, IfName>),
}

/// What the speaker tells the daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The kernel should hold these routes: gateways by destination, none to remove it.
    RoutesChanged(Vec<(Cidr, Gateways)>),
    /// A session is in another state.
    SessionChanged {
        /// Its name.
        name: String,
        /// The peer's address.
        peer_addr: IpAddr,
        /// The new state.
        state: State,
        /// Why the last attempt or session ended, if one did.
        last_error: Option<String>,
    },
    /// Learned routes of an earlier life that have not been named since are stale. Said once,
    /// after all routes that were known by then.
    Converged,
}

/// The speaker at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// How things are.
    pub status: ::bgp::Status,
    /// How the paths are that BFD watches, by peer.
    pub paths: BTreeMap<IpAddr, ::bfd::State>,
    origin: Instant,
}

impl Snapshot {
    /// Returns how long `peer` has been in its state.
    #[must_use]
    pub fn time_in_state(&self, peer: &PeerStatus) -> Duration {
        self.since(peer.since)
    }

    /// Returns how long ago `at` was.
    #[must_use]
    pub fn since(&self, at: Timestamp) -> Duration {
        self.origin.elapsed().saturating_sub(at.since_origin())
    }

    /// Returns how long the speaker has been running.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Makes the snapshot of a speaker that has just started.
    #[cfg(test)]
    pub(crate) fn at_start(status: ::bgp::Status) -> Self {
        Self { status, paths: BTreeMap::new(), origin: Instant::now() }
    }
}

/// Learned routes: gateways by destination, in order.
pub type Routes = Vec<(Cidr, BTreeSet<IpAddr>)>;

/// Looks at a running speaker; clones look at the same one.
#[derive(Clone, Debug)]
pub struct View {
    /// How it is.
    pub status: watch::Receiver<Snapshot>,
    /// Its BGP identifier.
    pub identifier: Ipv4Addr,
    questions: mpsc::Sender<oneshot::Sender<Routes>>,
}

impl View {
    /// Returns the routes that the kernel should hold; none if the speaker has ended.
    pub async fn routes(&self) -> Routes {
        let (sender, answer) = oneshot::channel();
        if self.questions.send(sender).await.is_err() {
            return Routes::new();
        }
        answer.await.unwrap_or_default()
    }
}

/// A running speaker.
///
/// It ends when the commands' sender or the events' receiver is dropped: all
/// connections close without a NOTIFICATION, so that peers keep our routes.
#[derive(Debug)]
pub struct Handle {
    /// What the speaker tells.
    pub events: mpsc::Receiver<Event>,
    /// How it is; changes are published at once for sessions, within a second for counts.
    pub status: watch::Receiver<Snapshot>,
    /// The same, with its routes.
    pub view: View,
    /// Ends with the speaker.
    pub task: JoinHandle<()>,
}

/// Starts a speaker on the runtime that this is called from, in the network
/// namespace of its threads.
#[must_use]
pub fn spawn(config: Config, commands: mpsc::Receiver<Command>) -> Handle {
    let (event_sender, events) = mpsc::channel(16);
    let speaker = Speaker::new(SpeakerConfig {
        identifier: BgpIdentifier::from(config.identifier),
        is_restarting: config.is_restarting,
        seed: config.seed,
        send_limit: SpeakerConfig::SEND_LIMIT,
    });
    let origin = Instant::now();
    let snapshot = Snapshot { status: speaker.status(), paths: BTreeMap::new(), origin };
    let (status_sender, status) = watch::channel(snapshot);
    let (questions, asked) = mpsc::channel(1);
    let view = View { status: status.clone(), identifier: config.identifier, questions };
    let runner = run::Runner::new(speaker, origin, status_sender, config.seed);
    let task = tokio::spawn(runner.run(commands, asked, event_sender));
    Handle { events, status, view, task }
}
