//! Accepting peers' connections on one address, for as long as that is wanted.

use std::net::SocketAddr;
use std::time::Duration;

use kernel::socket::{self, Md5Key};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::keys::Keys;
use super::run::Message;

/// The first pause after a failure, and the most it doubles to.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Listens on `addr` and passes on what comes in; tries again when the address cannot be
/// had, because the old owner of the port may be about to end.
pub(super) async fn run(
    addr: SocketAddr,
    messages: mpsc::Sender<Message>,
    mut keys: watch::Receiver<Keys>,
) {
    let mut pause = PAUSE.0;
    loop {
        match socket::listen(addr) {
            Ok(listener) => {
                tracing::info!(%addr, "listening for BGP peers");
                pause = PAUSE.0;
                if accept(&listener, addr, &messages, &mut keys).await.is_none() {
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
async fn accept(
    listener: &TcpListener,
    addr: SocketAddr,
    messages: &mpsc::Sender<Message>,
    keys: &mut watch::Receiver<Keys>,
) -> Option<()> {
    let mut held = Keys::new();
    keys.mark_changed();
    loop {
        let accepted = tokio::select! {
            biased;
            changed = keys.changed() => {
                changed.ok()?;
                let wanted = keys.borrow_and_update().clone();
                exchange(listener, addr, &held, &wanted);
                held = wanted;
                continue;
            }
            accepted = listener.accept() => accepted,
            () = messages.closed() => return None,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Ok(local) = stream.local_addr() {
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

/// Gives the socket the keys that are `wanted` in place of those that it `held`.
///
/// A peer whose key the kernel does not take cannot connect, but may be connected to.
fn exchange(listener: &TcpListener, addr: SocketAddr, held: &Keys, wanted: &Keys) {
    let is_ours = |range: &model::net::Cidr| range.addr().is_ipv4() == addr.is_ipv4();
    let gone = held.keys().filter(|range| !wanted.contains_key(range)).map(|range| (range, None));
    let new = wanted.iter().filter(|(range, key)| held.get(range) != Some(key));
    let new = new.map(|(range, key)| (range, Some(key)));
    for (range, key) in gone.chain(new).filter(|(range, _)| is_ours(range)) {
        let key = key.and_then(|key| Md5Key::new(key.expose().to_vec()).ok());
        let key = key.as_ref();
        if let Err(error) = socket::set_listener_key(listener, *range, key) {
            tracing::error!(%range, %error, "peers with a password there cannot connect to us");
        }
    }
}
