//! BGP as one node should speak it: its sessions and what it announces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::bgp_filter::FilterRule;
use crate::net::{Asn, Cidr, Family, IfName};
use crate::peer::{BgpConfiguration, Community, NextHopMode, RoutePriority};

/// A BGP session that this node should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BgpSession {
    /// The name that people know it by: `Mesh_10_0_0_2`, `Global_…`, `Node_…`.
    pub name: String,
    /// The BGPPeer that asks for it; `None` is the mesh.
    pub object: Option<String>,
    /// The peer's address; while it is not known, that of nobody.
    pub peer_addr: IpAddr,
    /// The interface that the peer is found on by itself, if it has no address of its own.
    pub interface: Option<IfName>,
    /// The peer's TCP port.
    pub peer_port: u16,
    /// The address to connect from; `None` leaves it to the kernel.
    pub local_addr: Option<IpAddr>,
    /// Our AS in this session.
    pub local_asn: Asn,
    /// The AS that the peer must have.
    pub peer_asn: Asn,
    /// Whether we wait for the peer to connect.
    pub is_passive: bool,
    /// How long the peer keeps our routes when the session breaks (RFC 4724).
    pub restart_time: Duration,
    /// How often a KEEPALIVE is sent; `None` is a third of the Hold Time.
    pub keepalive: Option<Duration>,
    /// The next hop in routes that are passed on.
    pub next_hop: NextHopMode,
    /// The families whose routes are carried; never empty.
    ///
    /// IPv4 over an IPv6 session takes IPv6 next hops (RFC 8950).
    pub families: BTreeSet<Family>,
    /// How we reflect to this internal peer if we are a route reflector (RFC 4456).
    pub reflection: Option<Reflection>,
    /// How often our AS may stand in an AS path that is received; usually 0 (RFC 4271 §9.1.2).
    pub allowed_own_asns: u8,
    /// How many hops away the peer is at most, which its TTL must prove (RFC 5082); 1 to 255.
    pub ttl_security: Option<u8>,
    /// What both sides sign their segments with (RFC 2385).
    pub password: Option<Password>,
    /// Which received routes are taken.
    pub import: Filters,
    /// Which routes are told.
    pub export: Filters,
    /// How many prefixes of a family the peer may announce; one more ends the session
    /// (RFC 4486 §4).
    pub max_prefixes: Option<u32>,
    /// What we are to the peer, if that is agreed (RFC 9234).
    pub role: Option<Role>,
    /// Whether messages may have 65535 octets (RFC 8654).
    pub allows_extended_messages: bool,
    /// Whether an external session without filters carries nothing (RFC 8212).
    pub requires_policy: bool,
    /// Several paths of one prefix (RFC 7911).
    pub add_path: AddPath,
    /// How the path to the peer is watched (RFC 5880, RFC 5881).
    pub bfd: Option<BfdSettings>,
}

impl BgpSession {
    /// How long peers keep a silent node's routes unless configured otherwise.
    pub const DEFAULT_RESTART_TIME: Duration = Duration::from_secs(120);

    /// Returns a session of which nothing else is configured.
    #[must_use]
    pub fn new(name: String, peer_addr: IpAddr, local_asn: Asn, peer_asn: Asn) -> Self {
        Self {
            name,
            object: None,
            peer_addr,
            interface: None,
            peer_port: BgpConfiguration::DEFAULT_PORT,
            local_addr: None,
            local_asn,
            peer_asn,
            is_passive: false,
            restart_time: Self::DEFAULT_RESTART_TIME,
            keepalive: None,
            next_hop: NextHopMode::Auto,
            families: BTreeSet::from([Family::of(peer_addr)]),
            reflection: None,
            allowed_own_asns: 0,
            ttl_security: None,
            password: None,
            import: Filters::default(),
            export: Filters::default(),
            max_prefixes: None,
            role: None,
            allows_extended_messages: false,
            requires_policy: false,
            add_path: AddPath::default(),
            bfd: None,
        }
    }

    /// Is the peer in our own AS (RFC 4271 §1.1, "internal peer")?
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }
}

/// How a route reflector treats an internal peer (RFC 4456).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reflection {
    /// The id of our cluster (§7).
    pub cluster_id: u32,
    /// Is the peer a client of ours?
    pub is_client: bool,
}

/// Rules of filters in the order in which they are asked.
///
/// `None` is no filter at all, which RFC 8212 tells from filters without rules.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filters {
    /// For IPv4 routes.
    pub v4: Option<Arc<[FilterRule]>>,
    /// For IPv6 routes.
    pub v6: Option<Arc<[FilterRule]>>,
}

impl Filters {
    /// Returns the rules for routes of `family`.
    #[must_use]
    pub fn of(&self, family: Family) -> Option<&[FilterRule]> {
        match family {
            Family::V4 => self.v4.as_deref(),
            Family::V6 => self.v6.as_deref(),
        }
    }
}

/// What a speaker is to its peer (RFC 9234 §4.1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The peer is our customer.
    Provider,
    /// The peer is a client of our route server.
    RouteServer,
    /// The peer is a route server of ours.
    RouteServerClient,
    /// The peer is our provider.
    Customer,
    /// Both are equals.
    Peer,
}

/// In which directions several paths of one prefix are carried (RFC 7911 §4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddPath {
    /// Are we able to receive them?
    pub receives: bool,
    /// Would we send them?
    pub sends: bool,
}

impl Default for AddPath {
    fn default() -> Self {
        Self { receives: true, sends: true }
    }
}

/// How a path is watched (RFC 5880 §6.8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BfdSettings {
    /// How often packets are sent, and at least expected.
    pub interval: Duration,
    /// How many may be missed; at least 1.
    pub multiplier: u8,
}

/// A secret shared with a peer; printing it says only that there is one.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(Arc<[u8]>);

impl Password {
    /// The longest that the kernel takes, in octets (`TCP_MD5SIG_MAXKEYLEN` of linux/tcp.h).
    pub const MAX_LEN: usize = 80;

    /// Takes the secret's octets; `None` if there are none or too many.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        (1..=Self::MAX_LEN).contains(&secret.len()).then(|| Self(Arc::from(secret)))
    }

    /// Returns the secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What this node announces by BGP.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Advertisements {
    /// Prefixes that this node originates.
    pub originated: BTreeMap<Cidr, Origination>,
    /// Ranges whose learned routes may be passed on to external peers.
    pub exportable: BTreeSet<Cidr>,
    /// Ranges that nothing leaves of, whatever else is said of it.
    pub not_exported: BTreeSet<Cidr>,
    /// The communities that learned routes inside a range are marked with when they are passed on.
    pub marks: BTreeMap<Cidr, BTreeSet<Community>>,
    /// The priority that what this node originates is told with.
    pub priority: RoutePriority,
}

/// How a prefix is originated.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origination {
    /// The communities that it is marked with, in order.
    pub communities: Vec<Community>,
    /// Is it a Service's? Then what others announce inside it is no leftover.
    pub is_service: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_prints() {
        let password = Password::new(b"hunter2").unwrap();
        assert_eq!(format!("{password:?}"), "Password(…)");
    }

    #[test]
    fn a_password_fits_the_kernel() {
        assert_eq!(Password::new(b""), None);
        assert!(Password::new(&[b'x'; 80]).is_some());
        assert_eq!(Password::new(&[b'x'; 81]), None);
    }

    #[test]
    fn a_plain_session_carries_its_own_family() {
        let session =
            BgpSession::new("peer".to_owned(), "fd00::1".parse().unwrap(), Asn(1), Asn(2));
        assert_eq!(session.families, BTreeSet::from([Family::V6]));
        assert!(!session.is_internal());
    }
}
