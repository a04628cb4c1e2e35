//! The sockets and the clock around BFD (RFC 5881), in a thread of its own.
//!
//! A speaker that takes in a hundred thousand routes is busy for longer than a neighbour waits
//! for a BFD packet, so nothing else runs in this thread. It starts with the first session that
//! asks for BFD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ::bfd::{Input, NeighbourStatus, Output, Watch};
use kernel::datagram::{Datagram, Receiver, Sender};
use model::desired::{BfdSettings, BgpSession};
use model::net::Family;
use model::time::Timestamp;
use tokio::sync::{mpsc, watch};

use super::neighbours;

/// The port that packets go to (RFC 5881 §4).
const PORT: u16 = 3784;
/// More than any packet has.
const BUFFER: usize = 128;
/// How long to wait before a socket is tried again that could not be had.
const PAUSE: Duration = Duration::from_secs(5);
/// How long to do nothing when there is nothing to do.
const FAR: Duration = Duration::from_secs(3600);

/// A neighbour whose path is watched: how, and the address that it knows us by.
pub(super) type Neighbours = BTreeMap<IpAddr, (BfdSettings, Option<IpAddr>)>;

/// What the thread tells.
#[derive(Debug)]
pub(super) enum News {
    /// The path to a neighbour was up and is down.
    PathDown {
        neighbour: IpAddr,
        /// Does its BFD survive its control plane?
        is_independent: bool,
    },
    /// How all paths are, after a change.
    Paths(Vec<NeighbourStatus>),
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Bfd {
    wanted: watch::Sender<Neighbours>,
    news: mpsc::UnboundedSender<News>,
    seed: u64,
    is_started: bool,
}

impl Bfd {
    /// Prepares the thread, and returns where it will tell its news: few, since states change
    /// seldom.
    pub(super) fn new(seed: u64) -> (Self, mpsc::UnboundedReceiver<News>) {
        let (news, told) = mpsc::unbounded_channel();
        (Self { wanted: watch::Sender::default(), news, seed, is_started: false }, told)
    }

    /// Watches the paths that `sessions` ask for, and no others.
    pub(super) fn configure(&mut self, sessions: &[BgpSession]) {
        let neighbour =
            |session: &BgpSession| Some((session.peer_addr, (session.bfd?, session.local_addr)));
        // On an interface on which nobody has been found yet there is nobody to watch.
        let is_found = |session: &&BgpSession| !neighbours::is_nobody(session.peer_addr);
        let wanted: Neighbours = sessions.iter().filter(is_found).filter_map(neighbour).collect();
        if !self.is_started && wanted.is_empty() {
            return;
        }
        self.wanted.send_if_modified(|old| {
            let is_new = *old != wanted;
            *old = wanted;
            is_new
        });
        if !self.is_started {
            self.is_started = true;
            let (wanted, news, seed) = (self.wanted.subscribe(), self.news.clone(), self.seed);
            // The thread is born into this one's network namespace.
            let thread = std::thread::Builder::new().name("bfd".to_owned());
            if let Err(error) = thread.spawn(move || live(seed, wanted, news)) {
                tracing::error!(%error, "no thread for BFD: paths to peers are not watched");
            }
        }
    }
}

fn live(seed: u64, wanted: watch::Receiver<Neighbours>, news: mpsc::UnboundedSender<News>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Shell::new(seed, news).run(wanted)),
        Err(error) => tracing::error!(%error, "BFD cannot run: paths to peers are not watched"),
    }
}

/// The watch with its sockets.
struct Shell {
    watch: Watch,
    origin: Instant,
    seed: u16,
    wanted: Neighbours,
    receivers: BTreeMap<Family, Receiver>,
    senders: BTreeMap<(Family, Option<IpAddr>), Sender>,
    /// When sockets that could not be had are tried again.
    retry_at: Option<Instant>,
    news: mpsc::UnboundedSender<News>,
}

impl Shell {
    fn new(seed: u64, news: mpsc::UnboundedSender<News>) -> Self {
        let [low, high, ..] = seed.to_ne_bytes();
        Self {
            watch: Watch::new(seed),
            origin: Instant::now(),
            seed: u16::from_ne_bytes([low, high]),
            wanted: Neighbours::new(),
            receivers: BTreeMap::new(),
            senders: BTreeMap::new(),
            retry_at: None,
            news,
        }
    }

    /// Runs until nobody says what is wanted any more; neighbours are told that we go.
    async fn run(mut self, mut wanted: watch::Receiver<Neighbours>) {
        wanted.mark_changed();
        let (mut v4, mut v6) = ([0; BUFFER], [0; BUFFER]);
        loop {
            let wake = self.wake();
            tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() { break }
                    let new = wanted.borrow_and_update().clone();
                    self.configure(new);
                }
                got = receive(self.receivers.get(&Family::V4), &mut v4) => {
                    self.on_received(Family::V4, got, &v4);
                }
                got = receive(self.receivers.get(&Family::V6), &mut v6) => {
                    self.on_received(Family::V6, got, &v6);
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                        self.open_sockets();
                    }
                    self.step(Input::DeadlineReached);
                }
            }
        }
        self.step(Input::Configure(BTreeMap::new()));
    }

    fn wake(&self) -> Instant {
        let due = self.watch.next_deadline();
        let due = due.and_then(|at| self.origin.checked_add(at.since_origin()));
        let far = Instant::now().checked_add(FAR);
        [due, self.retry_at, far].into_iter().flatten().min().unwrap_or(self.origin)
    }

    fn configure(&mut self, wanted: Neighbours) {
        let settings = wanted.iter().map(|(addr, (settings, _))| (*addr, *settings)).collect();
        // Who is no longer wanted is still told so for a while, by the sockets of before.
        let known: BTreeSet<IpAddr> = self.watch.status().map(|each| each.addr).collect();
        self.wanted.retain(|addr, _| known.contains(addr));
        self.wanted.extend(wanted);
        self.open_sockets();
        self.step(Input::Configure(settings));
    }

    /// Opens the sockets that are missing.
    fn open_sockets(&mut self) {
        self.retry_at = None;
        let mut failed = BTreeSet::new();
        for (addr, (_, local)) in &self.wanted {
            let family = Family::of(*addr);
            let is_missing = !self.receivers.contains_key(&family);
            if is_missing && !failed.contains(&(family, None)) {
                match Receiver::listen(family, PORT) {
                    Ok(socket) => drop(self.receivers.insert(family, socket)),
                    Err(error) => {
                        failed.insert((family, None));
                        tracing::error!(
                            %error, %family,
                            "cannot listen for BFD on UDP port 3784; trying again. \
                             Does another BFD daemon run here?"
                        );
                    }
                }
            }
            let key = (family, *local);
            if !self.senders.contains_key(&key) && !failed.contains(&key) {
                match Sender::open(family, *local, self.seed) {
                    Ok(socket) => drop(self.senders.insert(key, socket)),
                    Err(error) => {
                        failed.insert(key);
                        tracing::error!(%error, ?local, "cannot send BFD packets; trying again");
                    }
                }
            }
        }
        if !failed.is_empty() {
            self.retry_at = Instant::now().checked_add(PAUSE);
        }
    }

    fn on_received(&mut self, family: Family, got: std::io::Result<Datagram>, buffer: &[u8]) {
        match got {
            Ok(Datagram { from, ttl, len }) => {
                let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                self.step(Input::Received { from, ttl, bytes });
            }
            Err(error) => {
                tracing::error!(%error, %family, "no BFD packets can be received; listening anew");
                self.receivers.remove(&family);
                self.retry_at = Instant::now().checked_add(PAUSE);
            }
        }
    }

    fn step(&mut self, input: Input) {
        let now = Timestamp::from_origin(self.origin.elapsed());
        let mut is_changed = false;
        for output in self.watch.handle(input, now) {
            match output {
                Output::Send { to, bytes } => self.send(to, &bytes),
                Output::Changed { neighbour, state, diagnostic } => {
                    is_changed = true;
                    tracing::info!(peer = %neighbour, ?state, %diagnostic, "BFD session changed");
                }
                Output::PathDown { neighbour, is_independent } => {
                    // Nobody listening means that the speaker has ended.
                    let _ = self.news.send(News::PathDown { neighbour, is_independent });
                }
            }
        }
        if is_changed {
            let _ = self.news.send(News::Paths(self.watch.status().collect()));
        }
    }

    /// A packet that cannot be sent is one that got lost: the watch knows what to make of that.
    fn send(&self, to: IpAddr, bytes: &[u8]) {
        let local = self.wanted.get(&to).and_then(|(_, local)| *local);
        let sender = self.senders.get(&(Family::of(to), local));
        let sent = sender.map(|sender| sender.send(bytes, SocketAddr::new(to, PORT)));
        if let Some(Err(error)) = sent {
            tracing::debug!(%error, %to, "BFD packet not sent");
        }
    }
}

async fn receive(receiver: Option<&Receiver>, buffer: &mut [u8]) -> std::io::Result<Datagram> {
    match receiver {
        Some(receiver) => receiver.receive(buffer).await,
        None => std::future::pending().await,
    }
}
