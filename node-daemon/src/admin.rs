//! The socket on which the running daemon answers `calico-node bgp status`.
//!
//! Whoever connects is sent one JSON object and nothing is read. The socket
//! belongs to root.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::bgp::Snapshot;

/// Where the socket is.
pub(crate) const SOCKET: &str = "/var/run/calico/calico-node.sock";
/// How long somebody who asks has to take the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// BGP as it is shown.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct BgpReport {
    /// Whether the first exchange of routes is over.
    pub(crate) has_converged: bool,
    /// How many destinations are known from peers.
    pub(crate) destinations: usize,
    /// The peers.
    pub(crate) peers: Vec<PeerReport>,
}

/// A peer as it is shown.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct PeerReport {
    /// The session's name.
    pub(crate) name: String,
    /// The peer's address.
    pub(crate) address: String,
    /// The peer's AS.
    pub(crate) asn: u32,
    /// The state of the session (RFC 4271 §8.2.2).
    pub(crate) state: String,
    /// Seconds in that state.
    pub(crate) seconds: u64,
    /// Destinations that the peer told.
    pub(crate) received: usize,
    /// Destinations that the peer was told.
    pub(crate) advertised: usize,
    /// Why the last attempt or session ended.
    pub(crate) last_error: Option<String>,
}

impl From<&Snapshot> for BgpReport {
    fn from(snapshot: &Snapshot) -> Self {
        let peers = snapshot.status.peers.iter().map(|peer| PeerReport {
            name: peer.name.clone(),
            address: peer.peer_addr.to_string(),
            asn: peer.peer_asn.0,
            state: format!("{:?}", peer.state),
            seconds: snapshot.time_in_state(peer).as_secs(),
            received: peer.received,
            advertised: peer.advertised,
            last_error: peer.last_error.clone(),
        });
        Self {
            has_converged: snapshot.status.has_converged,
            destinations: snapshot.status.destinations,
            peers: peers.collect(),
        }
    }
}

/// Answers on the socket for as long as the daemon runs.
///
/// Without the socket the daemon works as well; that is only logged.
pub(crate) async fn serve(status: watch::Receiver<Snapshot>) {
    let listener = match listen(Path::new(SOCKET)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = SOCKET, "`calico-node bgp status` will not work");
            return;
        }
    };
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let report = BgpReport::from(&*status.borrow());
        let Ok(text) = serde_json::to_vec(&report) else { continue };
        let written = tokio::time::timeout(TIMEOUT, stream.write_all(&text)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::debug!("a client did not take its answer");
        }
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
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
pub(crate) fn ask() -> std::io::Result<BgpReport> {
    let stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut text = String::new();
    stream.take(64 << 20).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

impl BgpReport {
    /// Returns the report as a table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "NAME",
            "PEER ADDRESS",
            "AS",
            "STATE",
            "SINCE",
            "RECEIVED",
            "ADVERTISED",
            "INFO",
        ]);
        for peer in &self.peers {
            table.add_row([
                peer.name.clone(),
                peer.address.clone(),
                peer.asn.to_string(),
                peer.state.clone(),
                format!("{} s", peer.seconds),
                peer.received.to_string(),
                peer.advertised.to_string(),
                peer.last_error.clone().unwrap_or_default(),
            ]);
        }
        table.trim_fmt()
    }
}
