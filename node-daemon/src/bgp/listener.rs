//! Accepting peers' connections on one address, for as long as the daemon lives.

use std::net::SocketAddr;
use std::time::Duration;

use kernel::socket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::run::Message;

/// The first pause after a failure, and the most it doubles to.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Listens on `addr` and passes on what comes in; tries again when the address cannot be
/// had, because the old owner of the port may be about to end.
pub(super) async fn run(addr: SocketAddr, messages: mpsc::Sender<Message>) {
    let mut pause = PAUSE.0;
    loop {
        match socket::listen(addr) {
            Ok(listener) => {
                tracing::info!(%addr, "listening for BGP peers");
                pause = PAUSE.0;
                if accept(&listener, &messages).await.is_none() {
                    return;
                }
            }
            Err(error) => tracing::error!(%error, "cannot listen for BGP peers; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = messages.closed() => return,
        }
        pause = pause.saturating_mul(2).min(PAUSE.1);
    }
}

/// Accepts until the socket fails; `None` if nobody wants connections any more.
async fn accept(listener: &TcpListener, messages: &mpsc::Sender<Message>) -> Option<()> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = messages.closed() => return None,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(local) = prepared(&stream, peer) {
                    messages.send(Message::Accepted { stream, peer, local }).await.ok()?;
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept BGP peers; listening anew");
                return Some(());
            }
        }
    }
}

/// Returns our end of a usable connection.
fn prepared(stream: &TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
    let options = socket::Options::default();
    if let Err(error) = socket::accepted(stream, peer, &options) {
        tracing::warn!(%error, "dropped a connection of a BGP peer");
        return None;
    }
    stream.local_addr().ok()
}
