//! Peers without configured addresses: whoever is on the other end of an interface ("unnumbered").
//!
//! Both sides say by Router Advertisements that they are there (RFC 4861), as FRR does; the
//! address that one comes from is the peer's. A peer that calls first is found by that. The
//! speaker knows such an address with its link's number in it (`model::net::zone`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use kernel::advertisement::{self, Advertiser};
use model::desired::BgpSession;
use model::net::{IfIndex, IfName, zone};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// How often we say that we are there: until somebody answers, and then (FRR's interval).
const ADVERTISE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(10));
/// How long a neighbour may be silent before another one takes its place.
const SILENCE: Duration = Duration::from_secs(60);
/// How long to wait before an interface is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// The address of a peer that has not been seen yet: that of the link itself.
const NOBODY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// Does an address stand for a peer that has not been seen yet?
pub(super) fn is_nobody(addr: IpAddr) -> bool {
    zone::split(addr).0 == IpAddr::V6(NOBODY)
}

/// What is seen on interfaces.
#[derive(Debug)]
pub(super) enum News {
    /// An interface is there, with this number; what was known on another one is no more.
    Link(IfName, IfIndex),
    /// Somebody on it has said to be there.
    Heard(IfName, Ipv6Addr),
}

/// A neighbour, and when it was last heard.
#[derive(Clone, Copy, Debug)]
struct Known {
    addr: IpAddr,
    heard: Instant,
}

/// The interfaces on which peers are looked for.
#[derive(Debug)]
pub(super) struct Neighbours {
    sessions: Vec<BgpSession>,
    watches: BTreeMap<IfName, AbortHandle>,
    links: BTreeMap<IfName, IfIndex>,
    known: BTreeMap<IfName, Known>,
    news: mpsc::UnboundedSender<News>,
}

impl Neighbours {
    /// Prepares it, and returns where news will come: few, since neighbours speak seldom.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<News>) {
        let (news, told) = mpsc::unbounded_channel();
        let new = Self {
            sessions: Vec::new(),
            watches: BTreeMap::new(),
            links: BTreeMap::new(),
            known: BTreeMap::new(),
            news,
        };
        (new, told)
    }

    /// Looks on the interfaces that `sessions` name, and on no others.
    pub(super) fn configure(&mut self, sessions: Vec<BgpSession>) {
        let wanted: BTreeSet<&IfName> =
            sessions.iter().filter_map(|session| session.interface.as_ref()).collect();
        self.links.retain(|name, _| wanted.contains(name));
        self.known.retain(|name, _| wanted.contains(name));
        self.watches.retain(|name, task| {
            let is_wanted = wanted.contains(name);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for name in wanted {
            // Known at once, so that a restart waits for the neighbour (RFC 4724 §4.1).
            if let Ok(index) = advertisement::index_of(name) {
                self.links.entry(name.clone()).or_insert(index);
            }
            let watch = || tokio::spawn(watch(name.clone(), self.news.clone())).abort_handle();
            self.watches.entry(name.clone()).or_insert_with(watch);
        }
        self.sessions = sessions;
    }

    /// Returns the sessions with the addresses that are known by now.
    ///
    /// One whose peer has not been seen waits for it, at an address that nobody has.
    pub(super) fn sessions(&self) -> Vec<BgpSession> {
        self.sessions.iter().filter_map(|session| self.resolved(session)).collect()
    }

    fn resolved(&self, session: &BgpSession) -> Option<BgpSession> {
        let Some(name) = &session.interface else { return Some(session.clone()) };
        if let Some(known) = self.known.get(name) {
            return Some(BgpSession { peer_addr: known.addr, ..session.clone() });
        }
        let peer_addr = zone::on_link(NOBODY, *self.links.get(name)?)?;
        Some(BgpSession { peer_addr, is_passive: true, ..session.clone() })
    }

    /// Takes news; returns whether sessions are others now. `is_up` says whether the session with
    /// an address is Established: then nobody takes its place.
    pub(super) fn on_news(&mut self, news: News, is_up: impl Fn(IpAddr) -> bool) -> bool {
        match news {
            News::Link(name, index) if self.watches.contains_key(&name) => {
                let is_new = self.links.insert(name.clone(), index) != Some(index);
                if is_new {
                    self.known.remove(&name);
                }
                is_new
            }
            News::Heard(name, addr) => self.on_heard(&name, addr, is_up),
            News::Link(..) => false,
        }
    }

    /// Takes note that `addr` calls us; returns whether sessions are others now.
    pub(super) fn on_call(&mut self, addr: IpAddr, is_up: impl Fn(IpAddr) -> bool) -> bool {
        let (IpAddr::V6(plain), Some(index)) = zone::split(addr) else { return false };
        let mut links = self.links.iter();
        let Some(name) = links.find(|(_, known)| **known == index).map(|(name, _)| name.clone())
        else {
            return false;
        };
        self.on_heard(&name, plain, is_up)
    }

    fn on_heard(&mut self, name: &IfName, addr: Ipv6Addr, is_up: impl Fn(IpAddr) -> bool) -> bool {
        let index = self.links.get(name).copied();
        let Some(addr) = index.and_then(|index| zone::on_link(addr, index)) else { return false };
        let heard = Instant::now();
        if let Some(known) = self.known.get_mut(name) {
            if known.addr == addr {
                known.heard = heard;
                return false;
            }
            if heard.saturating_duration_since(known.heard) < SILENCE || is_up(known.addr) {
                let (used, other) = (zone::to_text(known.addr), zone::to_text(addr));
                tracing::debug!(%name, used, other, "more than one neighbour: the first is used");
                return false;
            }
        }
        tracing::info!(%name, neighbour = zone::to_text(addr), "found a BGP neighbour");
        self.known.insert(name.clone(), Known { addr, heard });
        true
    }
}

/// Tells what is seen on an interface, for as long as somebody wants to know.
async fn watch(name: IfName, news: mpsc::UnboundedSender<News>) {
    while !news.is_closed() {
        match Advertiser::open(&name) {
            Ok(advertiser) => {
                if news.send(News::Link(name.clone(), advertiser.index())).is_err() {
                    return;
                }
                if let Err(error) = talk(&name, &advertiser, &news).await {
                    tracing::warn!(%name, %error, "lost the interface of a BGP neighbour");
                }
            }
            Err(error) => {
                tracing::error!(
                    %name, %error,
                    "cannot look for BGP neighbours; does the interface exist? Trying again"
                );
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn talk(
    name: &IfName,
    advertiser: &Advertiser,
    news: &mpsc::UnboundedSender<News>,
) -> std::io::Result<()> {
    let mut last: Option<Ipv6Addr> = None;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            heard = advertiser.hear() => {
                let addr = heard?;
                if last.replace(addr) != Some(addr) {
                    // Who is new here has not heard us yet.
                    due = Instant::now();
                }
                if news.send(News::Heard(name.clone(), addr)).is_err() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(due.into()) => {
                match advertiser.advertise().await {
                    Err(error) if is_lost(&error) => return Err(error),
                    Err(error) => tracing::debug!(%name, %error, "cannot tell that we are here"),
                    Ok(()) => {}
                }
                let pause = if last.is_some() { ADVERTISE.1 } else { ADVERTISE.0 };
                due = Instant::now().checked_add(pause).unwrap_or(due);
            }
        }
    }
}

/// Is the interface itself gone, and not only down or without an address yet?
fn is_lost(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error().map(kernel::Errno::from_raw),
        Some(kernel::Errno::ENODEV | kernel::Errno::ENXIO)
    )
}

#[cfg(test)]
mod tests {
    use model::net::Asn;

    use super::*;

    const ETH0: IfIndex = IfIndex(4);

    fn eth0() -> IfName {
        "eth0".parse().unwrap()
    }

    /// Looks on eth0, whose link is there, without a socket.
    fn neighbours() -> Neighbours {
        let (mut neighbours, _) = Neighbours::new();
        let nobody = Ipv6Addr::UNSPECIFIED.into();
        let session = BgpSession::new("Global_eth0".to_owned(), nobody, Asn(1), Asn(2));
        neighbours.sessions = vec![BgpSession { interface: Some(eth0()), ..session }];
        let task = tokio::spawn(std::future::pending::<()>());
        neighbours.watches.insert(eth0(), task.abort_handle());
        assert!(neighbours.on_news(News::Link(eth0(), ETH0), |_| false));
        neighbours
    }

    fn peer(neighbours: &Neighbours) -> (String, bool) {
        let sessions = neighbours.sessions();
        (zone::to_text(sessions[0].peer_addr), sessions[0].is_passive)
    }

    #[tokio::test]
    async fn a_session_waits_until_somebody_is_heard() {
        let mut neighbours = neighbours();
        assert_eq!(peer(&neighbours), ("fe80::%4".to_owned(), true));
        let heard = |addr: &str| News::Heard(eth0(), addr.parse().unwrap());
        assert!(neighbours.on_news(heard("fe80::2"), |_| false));
        assert_eq!(peer(&neighbours), ("fe80::2%4".to_owned(), false));
        // Another one is not believed, and the same one is no news.
        assert!(!neighbours.on_news(heard("fe80::3"), |_| false));
        assert!(!neighbours.on_news(heard("fe80::2"), |_| false));
        assert_eq!(peer(&neighbours).0, "fe80::2%4");
    }

    #[tokio::test]
    async fn who_calls_is_found_too_but_only_on_a_link_that_is_watched() {
        let mut neighbours = neighbours();
        for (addr, index) in [("fe80::9", 5), ("fd00::9", 4)] {
            let addr: Ipv6Addr = addr.parse().unwrap();
            let addr = zone::on_link(addr, IfIndex(index)).unwrap_or(addr.into());
            assert!(!neighbours.on_call(addr, |_| false), "{addr}");
        }
        let caller = zone::on_link("fe80::9".parse().unwrap(), ETH0).unwrap();
        assert!(neighbours.on_call(caller, |_| false));
        assert_eq!(peer(&neighbours).0, "fe80::9%4");
    }

    #[tokio::test]
    async fn an_interface_that_was_made_anew_has_new_neighbours() {
        let mut neighbours = neighbours();
        neighbours.on_news(News::Heard(eth0(), "fe80::2".parse().unwrap()), |_| false);
        assert!(neighbours.on_news(News::Link(eth0(), IfIndex(9)), |_| false));
        assert_eq!(peer(&neighbours), ("fe80::%9".to_owned(), true));
    }
}
