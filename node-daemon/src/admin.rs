//! The socket on which the running daemon answers `calico-node bgp` and `calico-node wireguard`.
//!
//! Whoever connects writes one word, such as `status` or `routes`, and closes that side;
//! the answer is one JSON value. The socket belongs to root.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use calc::Problem;
use comfy_table::{Table, presets};
use model::net::zone;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use crate::bgp::{Snapshot, View};
use crate::felix::wireguard::run::Rotation;

/// Where the socket is.
pub(crate) const SOCKET: &str = "/var/run/calico/calico-node.sock";
/// How long an answer may take, and whoever asked to take it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same for new keys, which other nodes have to hear of.
const ROTATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest question.
const MAX_QUESTION: u64 = 64;

/// What can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Question {
    /// A [`BgpReport`].
    Status,
    /// A list of [`RouteReport`]s.
    Routes,
    /// New keys for WireGuard, and what came of it in words.
    RotateKeys,
}

impl Question {
    const fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Routes => "routes",
            Self::RotateKeys => "rotate-keys",
        }
    }

    /// Returns what is asked by a word; what is unknown asks for the status.
    fn of(word: &str) -> Self {
        let all = [Self::Routes, Self::RotateKeys].into_iter();
        let mut found = all.filter(|question| question.word() == word.trim());
        found.next().unwrap_or(Self::Status)
    }

    const fn timeout(self) -> Duration {
        match self {
            Self::Status | Self::Routes => TIMEOUT,
            Self::RotateKeys => ROTATION_TIMEOUT,
        }
    }
}

/// A learned route as it is shown.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct RouteReport {
    /// Its destination.
    pub(crate) destination: String,
    /// The next hops that it leads to.
    pub(crate) gateways: Vec<String>,
}

/// BGP as it is shown.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct BgpReport {
    /// Whether the first exchange of routes is over.
    pub(crate) has_converged: bool,
    /// How many destinations are known from peers.
    pub(crate) destinations: usize,
    /// The peers.
    pub(crate) peers: Vec<PeerReport>,
    /// What cannot be followed.
    #[serde(default)]
    pub(crate) refused: Vec<RefusedReport>,
}

/// An object that cannot be followed, or not as a whole.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct RefusedReport {
    /// Its kind and name: `BGPPeer tor`.
    pub(crate) object: String,
    /// What is wrong with it and what helps.
    pub(crate) problem: String,
}

/// A peer as it is shown.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct PeerReport {
    /// The session's name.
    pub(crate) name: String,
    /// The BGPPeer that asks for it; none is the mesh.
    pub(crate) object: Option<String>,
    /// The peer's address.
    pub(crate) address: String,
    /// The peer's AS.
    pub(crate) asn: u32,
    /// The state of the session (RFC 4271 §8.2.2).
    pub(crate) state: String,
    /// Seconds in that state.
    pub(crate) seconds: u64,
    /// How often it has become established.
    pub(crate) establishments: u64,
    /// How BFD sees the path, if it watches it.
    pub(crate) bfd: Option<String>,
    /// Messages sent.
    pub(crate) messages_sent: u64,
    /// Messages received.
    pub(crate) messages_received: u64,
    /// Routes that the peer has announced since the daemon started.
    pub(crate) announced: u64,
    /// Of these, not taken.
    pub(crate) rejected: u64,
    /// Destinations of the peer that are taken.
    pub(crate) received: usize,
    /// Destinations that the peer was told.
    pub(crate) advertised: usize,
    /// Why the last attempt or session ended.
    pub(crate) last_error: Option<String>,
}

impl BgpReport {
    /// Says how the speaker is, and what it was not told because it cannot be followed.
    fn of(snapshot: &Snapshot, problems: &[Problem]) -> Self {
        let peers = snapshot.status.peers.iter().map(|peer| PeerReport {
            name: peer.name.clone(),
            object: peer.object.clone(),
            address: zone::to_text(peer.peer_addr),
            asn: peer.peer_asn.0,
            state: format!("{:?}", peer.state),
            seconds: snapshot.time_in_state(peer).as_secs(),
            establishments: peer.establishments,
            bfd: snapshot.paths.get(&peer.peer_addr).map(|state| format!("{state:?}")),
            messages_sent: peer.sent.total(),
            messages_received: peer.heard.total(),
            announced: peer.routes.announced,
            rejected: peer.routes.rejected,
            received: peer.received,
            advertised: peer.advertised,
            last_error: peer.last_error.clone(),
        });
        Self {
            has_converged: snapshot.status.has_converged,
            destinations: snapshot.status.destinations,
            peers: peers.collect(),
            refused: problems
                .iter()
                .filter(|problem| problem.object.starts_with("BGP"))
                .map(|Problem { object, message }| RefusedReport {
                    object: object.clone(),
                    problem: message.clone(),
                })
                .collect(),
        }
    }
}

/// What answers come from.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// The speaker, if there is one.
    pub(crate) view: Option<View>,
    /// What cannot be followed.
    pub(crate) problems: watch::Receiver<Vec<Problem>>,
    /// Where new keys of WireGuard are asked for.
    pub(crate) rotations: mpsc::Sender<Rotation>,
}

/// Answers on the socket for as long as the daemon runs.
///
/// Without the socket the daemon works as well; that is only logged.
pub(crate) async fn serve(answers: Answers) {
    let listener = match listen(Path::new(SOCKET)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = SOCKET, "`calico-node bgp status` will not work");
            return;
        }
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answers = answers.clone();
        tokio::spawn(async move {
            let answered = tokio::time::timeout(ROTATION_TIMEOUT, answer(stream, &answers)).await;
            if !matches!(answered, Ok(Ok(()))) {
                tracing::debug!("a client did not take its answer");
            }
        });
    }
}

async fn answer(mut stream: UnixStream, answers: &Answers) -> std::io::Result<()> {
    let mut word = String::new();
    (&mut stream).take(MAX_QUESTION).read_to_string(&mut word).await?;
    let text = match Question::of(&word) {
        Question::Status => serde_json::to_vec(&status(answers)),
        Question::Routes => serde_json::to_vec(&routes(answers.view.as_ref()).await),
        Question::RotateKeys => serde_json::to_vec(&rotate(&answers.rotations).await),
    };
    stream.write_all(&text.map_err(std::io::Error::other)?).await
}

fn status(Answers { view, problems, .. }: &Answers) -> BgpReport {
    let report = view.as_ref().map(|view| BgpReport::of(&view.status.borrow(), &problems.borrow()));
    report.unwrap_or_default()
}

async fn routes(view: Option<&View>) -> Vec<RouteReport> {
    let Some(view) = view else { return Vec::new() };
    let routes = view.routes().await.into_iter().map(|(cidr, gateways)| RouteReport {
        destination: cidr.to_string(),
        gateways: gateways.iter().copied().map(zone::to_text).collect(),
    });
    routes.collect()
}

async fn rotate(rotations: &mpsc::Sender<Rotation>) -> Result<String, String> {
    let (reply, answer) = oneshot::channel();
    let asked = rotations.send(reply).await.is_ok();
    let answer = if asked { answer.await.ok() } else { None };
    answer.unwrap_or_else(|| Err("the part for WireGuard has ended: see the log".to_owned()))
}

/// Listens at `path`, for root only.
pub(crate) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Left behind by an earlier life; nobody else listens at this path.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Asks the running daemon.
///
/// # Errors
///
/// The reason why there is no answer.
pub(crate) fn ask<T: DeserializeOwned>(question: Question) -> std::io::Result<T> {
    let mut stream = std::os::unix::net::UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(question.timeout()))?;
    stream.write_all(question.word().as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.take(64 << 20).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

impl BgpReport {
    /// Returns the whole as a table, with a line about the speaker.
    pub(crate) fn table(&self) -> String {
        let exchange = if self.has_converged { "over" } else { "going on" };
        let up = self.peers.iter().filter(|peer| peer.state == "Established").count();
        format!(
            "{up} of {} peers up, {} destinations known, first exchange {exchange}\n\n{}{}",
            self.peers.len(),
            self.destinations,
            self.peers_table(),
            self.refused_table()
        )
    }

    /// Returns what cannot be followed as a table with a title; nothing if there is nothing.
    fn refused_table(&self) -> String {
        if self.refused.is_empty() {
            return String::new();
        }
        let row = |each: &RefusedReport| vec![each.object.clone(), each.problem.clone()];
        let table = table(&["NOT FOLLOWED", "WHY"], self.refused.iter().map(row));
        format!("\n\n{table}")
    }

    /// Returns the peers as a table.
    pub(crate) fn peers_table(&self) -> String {
        let head =
            ["NAME", "PEER ADDRESS", "AS", "STATE", "SINCE", "ACCEPTED", "ADVERTISED", "INFO"];
        table(
            &head,
            self.peers.iter().map(|peer| {
                vec![
                    peer.name.clone(),
                    peer.address.clone(),
                    peer.asn.to_string(),
                    peer.state.clone(),
                    format!("{} s", peer.seconds),
                    peer.received.to_string(),
                    peer.advertised.to_string(),
                    peer.info(),
                ]
            }),
        )
    }
}

impl PeerReport {
    /// Returns what there is to say besides: how BFD sees the path, and the last error.
    fn info(&self) -> String {
        let bfd = self.bfd.as_ref().map(|state| format!("BFD {state}"));
        bfd.iter().chain(&self.last_error).map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Returns routes as a table.
pub(crate) fn routes_table(routes: &[RouteReport]) -> String {
    let row = |route: &RouteReport| vec![route.destination.clone(), route.gateways.join(" ")];
    table(&["DESTINATION", "NEXT HOPS"], routes.iter().map(row))
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.to_vec());
    rows.for_each(|row| {
        table.add_row(row);
    });
    table.trim_fmt()
}
