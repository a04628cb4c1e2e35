//! How the socket of a session must be.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kernel::socket::{Md5Key, Options};
use model::desired::BgpSession;

/// What is asked of sockets, by the peer's address and port.
#[derive(Debug, Default)]
pub(super) struct BySession(BTreeMap<(IpAddr, u16), Options>);

impl BySession {
    pub(super) fn new(sessions: &[BgpSession]) -> Self {
        let options = |session: &BgpSession| {
            let key = session.password.as_ref();
            Options {
                local_addr: session.local_addr,
                // RFC 5082 §3: we send the most, and each router on the way takes one off.
                ttl: session.ttl_security.map(|_| u8::MAX),
                min_ttl: session.ttl_security.map(least_ttl),
                md5_key: key.and_then(|key| Md5Key::new(key.expose().to_vec()).ok()),
            }
        };
        let key = |session: &BgpSession| (session.peer_addr, session.peer_port);
        Self(sessions.iter().map(|session| (key(session), options(session))).collect())
    }

    /// Returns the options to connect with.
    pub(super) fn outgoing(&self, to: SocketAddr) -> Options {
        self.0.get(&(to.ip(), to.port())).cloned().unwrap_or_default()
    }

    /// Returns the options for a connection that somebody has made to us.
    pub(super) fn incoming(&self, from: IpAddr) -> Options {
        let mut range = self.0.range((from, 0)..=(from, u16::MAX));
        range.next().map(|(_, options)| options.clone()).unwrap_or_default()
    }
}

/// Returns the least TTL of packets from a peer that is at most `hops` away: 255 for one.
fn least_ttl(hops: u8) -> u8 {
    u8::MAX.saturating_sub(hops).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use model::net::Asn;

    use super::*;

    #[test]
    fn a_neighbours_packets_have_passed_no_router() {
        assert_eq!([1, 2, 255].map(least_ttl), [255, 254, 1]);
    }

    #[test]
    fn a_session_is_found_by_its_peer() {
        let plain = BgpSession::new("a".to_owned(), "10.0.0.1".parse().unwrap(), Asn(1), Asn(1));
        let near = BgpSession {
            ttl_security: Some(1),
            ..BgpSession::new("b".to_owned(), "10.0.0.2".parse().unwrap(), Asn(1), Asn(2))
        };
        let sessions = BySession::new(&[plain, near]);
        assert_eq!(sessions.outgoing("10.0.0.2:179".parse().unwrap()).min_ttl, Some(255));
        assert_eq!(sessions.incoming("10.0.0.2".parse().unwrap()).ttl, Some(255));
        assert_eq!(sessions.incoming("10.0.0.1".parse().unwrap()).min_ttl, None);
    }
}
