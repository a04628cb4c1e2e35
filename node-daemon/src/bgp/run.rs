//! The task that runs the speaker: inputs in, outputs carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ::bgp::{ConnectionId, Input, Output, PathFate, Problem, Speaker, State};
use bytes::Bytes;
use kernel::socket;
use model::net::zone;
use model::time::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::bfd::{self, Bfd};
use super::keys::{self, Keys};
use super::neighbours::{self, Neighbours};
use super::options::BySession;
use super::pending::Pending;
use super::{Command, Event, Routes, Snapshot, connection, listener};

/// How many messages of connections may wait for the speaker.
const QUEUE_LEN: usize = 256;
/// How long what peers say is collected before the others are told, for each peer: telling all of
/// them takes about as long.
const COLLECT_EACH: Duration = Duration::from_micros(10);
/// The most that it is collected.
const COLLECT_MOST: Duration = Duration::from_millis(10);
/// Less than this the runtime's clock cannot tell from nothing.
const COLLECT_LEAST: Duration = Duration::from_millis(1);
/// How stale the published states may be, however many change.
const STATE_INTERVAL: Duration = Duration::from_millis(50);
/// How stale the published counts may be.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the same problem is not reported again.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// How many problems are remembered for that; more in a minute are not reported.
const MAX_REPORTED: usize = 1024;

/// What other tasks tell the speaker's.
#[derive(Debug)]
pub(super) enum Message {
    /// Something that the speaker understands.
    Input(Input),
    /// A peer has connected.
    Accepted { stream: TcpStream, peer: SocketAddr, local: SocketAddr },
    /// We have connected.
    Connected { id: ConnectionId, stream: TcpStream },
}

/// A connection that the speaker has not closed.
#[derive(Debug)]
enum Link {
    Connecting(AbortHandle),
    Open(mpsc::UnboundedSender<Bytes>),
}

/// The speaker with everything that its outputs act on.
#[derive(Debug)]
pub(super) struct Runner {
    speaker: Speaker,
    origin: Instant,
    /// When what was taken in must be settled.
    settle_at: Option<Instant>,
    peers: usize,
    links: BTreeMap<ConnectionId, Link>,
    next_incoming: u64,
    pending: Pending,
    status: watch::Sender<Snapshot>,
    /// When the status must be published, if something has changed since it was.
    status_due: Option<Instant>,
    reported: BTreeMap<String, Instant>,
    messages: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    listeners: BTreeMap<SocketAddr, AbortHandle>,
    options: BySession,
    keys: watch::Sender<Keys>,
    bfd: Bfd,
    paths: BTreeMap<IpAddr, ::bfd::State>,
    of_paths: mpsc::UnboundedReceiver<bfd::News>,
    neighbours: Neighbours,
    of_neighbours: mpsc::UnboundedReceiver<neighbours::News>,
}

impl Runner {
    pub(super) fn new(
        speaker: Speaker,
        origin: Instant,
        status: watch::Sender<Snapshot>,
        seed: u64,
    ) -> Self {
        let (messages, inbox) = mpsc::channel(QUEUE_LEN);
        let (bfd, of_paths) = Bfd::new(seed);
        let (neighbours, of_neighbours) = Neighbours::new();
        Self {
            speaker,
            origin,
            settle_at: None,
            peers: 0,
            links: BTreeMap::new(),
            next_incoming: 0,
            pending: Pending::default(),
            status,
            status_due: None,
            reported: BTreeMap::new(),
            messages,
            inbox,
            listeners: BTreeMap::new(),
            options: BySession::default(),
            keys: watch::Sender::default(),
            bfd,
            paths: BTreeMap::new(),
            of_paths,
            neighbours,
            of_neighbours,
        }
    }

    /// Runs until nobody sends commands or takes events any more.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut questions: mpsc::Receiver<oneshot::Sender<Routes>>,
        events: mpsc::Sender<Event>,
    ) {
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                Some(asked) = questions.recv() => self.tell_routes(asked),
                Some(news) = self.of_paths.recv() => self.on_path(news),
                Some(news) = self.of_neighbours.recv() => self.on_neighbour(news),
                Some(message) = self.inbox.recv() => self.on_messages(message),
                permit = events.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.pending.take() { permit.send(event) },
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(deadline.into()) => self.on_deadline(),
                () = events.closed() => break,
            }
            if self.settle_at.is_some_and(|at| at <= Instant::now()) {
                self.settle();
            }
        }
        self.step(Input::Stop);
        self.settle();
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Listen(addrs) => self.listen(&addrs),
            Command::Advertise(all) => self.step(Input::Advertise(all)),
            Command::Ways(ways) => self.step(Input::Ways(ways)),
            Command::Configure(sessions) => {
                self.neighbours.configure(sessions);
                self.configure();
            }
        }
    }

    /// Has the sessions that are wanted, as far as their peers are known.
    fn configure(&mut self) {
        let sessions = self.neighbours.sessions();
        // Sockets first: the speaker's next words may be connections.
        self.options = BySession::new(&sessions);
        self.keys.send_if_modified(|old| {
            let new = keys::of(&sessions);
            let is_new = *old != new;
            *old = new;
            is_new
        });
        self.bfd.configure(&sessions);
        self.peers = sessions.len();
        self.step(Input::Configure(sessions));
    }

    fn on_neighbour(&mut self, news: neighbours::News) {
        let speaker = &self.speaker;
        if self.neighbours.on_news(news, |addr| speaker.is_established(addr)) {
            self.configure();
        }
    }

    /// Listens on `addrs` and nowhere else; connections that were made stay.
    fn listen(&mut self, addrs: &BTreeSet<SocketAddr>) {
        self.listeners.retain(|addr, task| {
            let is_wanted = addrs.contains(addr);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for addr in addrs {
            let (messages, keys) = (&self.messages, &self.keys);
            let start = || {
                let task = listener::run(*addr, messages.clone(), keys.subscribe());
                tokio::spawn(task).abort_handle()
            };
            self.listeners.entry(*addr).or_insert_with(start);
        }
    }

    fn on_path(&mut self, news: bfd::News) {
        match news {
            bfd::News::PathDown { neighbour, is_independent } => {
                let fate = if is_independent { PathFate::Broken } else { PathFate::MaybeRestart };
                self.step(Input::PathDown { peer_addr: neighbour, fate });
            }
            bfd::News::Paths(paths) => {
                self.paths = paths.into_iter().map(|path| (path.addr, path.state)).collect();
                self.publish();
            }
        }
    }

    fn tell_routes(&self, asked: oneshot::Sender<Routes>) {
        let routes = self.speaker.routes().map(|(cidr, gateways)| (*cidr, gateways.clone()));
        let mut routes: Routes = routes.collect();
        routes.sort_unstable();
        // Whoever asked may have gone.
        let _ = asked.send(routes);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_origin(self.origin.elapsed())
    }

    /// Returns when something is due; far away if nothing is.
    fn next_deadline(&self) -> Instant {
        let far = Instant::now().checked_add(REPORT_INTERVAL);
        let speaker = self.speaker.next_deadline();
        let speaker = speaker.and_then(|at| self.origin.checked_add(at.since_origin()));
        [speaker, self.settle_at, self.status_due, far]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.origin)
    }

    fn on_deadline(&mut self) {
        self.step(Input::DeadlineReached);
        if self.status_due.is_some_and(|due| due <= Instant::now()) {
            self.publish();
        }
    }

    /// Takes a message, and those that wait behind it.
    fn on_messages(&mut self, first: Message) {
        self.on_message(first);
        for _ in 0..QUEUE_LEN {
            match self.inbox.try_recv() {
                Ok(message) => self.on_message(message),
                Err(_) => return,
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Input(input) => {
                if let Input::Closed { connection, .. } = &input {
                    self.links.remove(connection);
                }
                self.step(input);
            }
            Message::Connected { id, stream } => {
                // The speaker may have closed the attempt while it succeeded.
                if self.links.contains_key(&id)
                    && let Ok(local) = stream.local_addr()
                {
                    self.open(id, stream);
                    let local_addr = zone::of_socket(local);
                    self.step(Input::Connected { connection: id, local_addr });
                }
            }
            Message::Accepted { stream, peer, local } => {
                let [peer_addr, local_addr] = [peer, local].map(zone::of_socket);
                let speaker = &self.speaker;
                if self.neighbours.on_call(peer_addr, |addr| speaker.is_established(addr)) {
                    self.configure();
                }
                let options = self.options.incoming(peer_addr);
                if let Err(error) = socket::accepted(&stream, peer, &options) {
                    tracing::warn!(%error, "dropped a connection of a BGP peer");
                    return;
                }
                let id = ConnectionId::Incoming(self.next_incoming);
                self.next_incoming = self.next_incoming.saturating_add(1);
                self.open(id, stream);
                self.step(Input::Accepted { connection: id, peer_addr, local_addr });
            }
        }
    }

    fn open(&mut self, id: ConnectionId, stream: TcpStream) {
        let (queue, queued) = mpsc::unbounded_channel();
        tokio::spawn(connection::run(id, stream, queued, self.messages.clone()));
        self.links.insert(id, Link::Open(queue));
    }

    /// Tells the speaker what happened and does what it says at once.
    fn step(&mut self, input: Input) {
        let now = self.now();
        for output in self.speaker.take_in(input, now) {
            self.carry_out(output);
        }
        if self.settle_at.is_none() {
            let peers = u32::try_from(self.peers).unwrap_or(u32::MAX);
            let collect = COLLECT_EACH.saturating_mul(peers).min(COLLECT_MOST);
            let collect = if collect < COLLECT_LEAST { Duration::ZERO } else { collect };
            self.settle_at = Instant::now().checked_add(collect);
        }
    }

    /// Does what follows from all that has happened since the last time.
    fn settle(&mut self) {
        self.settle_at = None;
        let now = self.now();
        for output in self.speaker.settle(now) {
            self.carry_out(output);
        }
        self.publish_within(STATUS_INTERVAL);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect { connection, to, from } => self.connect(connection, to, from),
            Output::Send { connection, bytes } => {
                if let Some(Link::Open(queue)) = self.links.get(&connection) {
                    // A task that has ended has said so, or is about to.
                    let _ = queue.send(bytes);
                }
            }
            Output::Close { connection } => {
                if let Some(Link::Connecting(task)) = self.links.remove(&connection) {
                    task.abort();
                }
            }
            Output::RoutesChanged(routes) => self.pending.add_routes(routes),
            Output::Converged => {
                self.pending.add_converged();
                self.publish_within(Duration::ZERO);
            }
            Output::SessionChanged { name, peer_addr, state, last_error } => {
                log_state(&name, state, last_error.as_deref());
                let event =
                    Event::SessionChanged { name: name.clone(), peer_addr, state, last_error };
                self.pending.add_session(name, event);
                self.publish_within(STATE_INTERVAL);
            }
            Output::Report(problem) => self.report(&problem),
        }
    }

    fn connect(&mut self, id: ConnectionId, to: SocketAddr, from: Option<IpAddr>) {
        let messages = self.messages.clone();
        let options = self.options.outgoing(to);
        let task = tokio::spawn(async move {
            let options = socket::Options { local_addr: from, ..options };
            let message = match socket::connect(to, &options).await {
                Ok(stream) => Message::Connected { id, stream },
                Err(error) => {
                    Message::Input(Input::Closed { connection: id, why: error.to_string() })
                }
            };
            // Nobody listening means that the speaker has ended.
            let _ = messages.send(message).await;
        });
        self.links.insert(id, Link::Connecting(task.abort_handle()));
    }

    /// Has the status published soon.
    fn publish_within(&mut self, time: Duration) {
        let due = Instant::now().checked_add(time);
        self.status_due = self.status_due.into_iter().chain(due).min();
    }

    fn publish(&mut self) {
        self.status_due = None;
        self.status.send_replace(Snapshot {
            status: self.speaker.status(),
            paths: self.paths.clone(),
            origin: self.origin,
        });
    }

    /// Logs a problem, each at most once a minute.
    fn report(&mut self, problem: &Problem) {
        let now = Instant::now();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < REPORT_INTERVAL;
        self.reported.retain(|_, at| is_recent(at));
        let text = problem.to_string();
        if self.reported.contains_key(&text) || self.reported.len() >= MAX_REPORTED {
            return;
        }
        tracing::warn!("{text}");
        self.reported.insert(text, now);
    }
}

fn log_state(peer: &str, state: State, last_error: Option<&str>) {
    match state {
        State::Established => tracing::info!(peer, "BGP session established"),
        State::Idle => {
            tracing::warn!(peer, error = last_error.unwrap_or_default(), "BGP session failed");
        }
        State::Active | State::Connect | State::OpenSent | State::OpenConfirm => {
            tracing::debug!(peer, ?state, error = last_error.unwrap_or_default(), "BGP session");
        }
    }
}
