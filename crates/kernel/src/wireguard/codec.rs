//! Devices and peers as attributes, both ways (the kernel's `linux/wireguard.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use model::net::{Cidr, Family, IfName};
use nix::libc;
use zeroize::Zeroizing;

use super::{Device, PeerChange, PublicKey, Settings};
use crate::nftables::attr::{Reader, Writer};

/// `WGDEVICE_A_…`.
mod device {
    pub(super) const NAME: u16 = 2;
    pub(super) const PRIVATE_KEY: u16 = 3;
    pub(super) const PUBLIC_KEY: u16 = 4;
    pub(super) const LISTEN_PORT: u16 = 6;
    pub(super) const MARK: u16 = 7;
    pub(super) const PEERS: u16 = 8;
}

/// `WGPEER_A_…`.
mod peer {
    pub(super) const PUBLIC_KEY: u16 = 1;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const ADDR: u16 = 4;
    pub(super) const KEEPALIVE: u16 = 5;
    pub(super) const LAST_HANDSHAKE: u16 = 6;
    pub(super) const RECEIVED: u16 = 7;
    pub(super) const SENT: u16 = 8;
    pub(super) const ALLOWED: u16 = 9;
    /// `WGPEER_F_REMOVE_ME`.
    pub(super) const REMOVE: u32 = 1;
}

/// `WGALLOWEDIP_A_…`.
mod allowed {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const ADDR: u16 = 2;
    pub(super) const LEN: u16 = 3;
}

/// An attribute holds less than 64 KiB, so many peers take several messages.
const MESSAGE: usize = 24 << 10;
/// Addresses of a peer that go into one message: each takes 44 bytes at most.
const ADDRS: usize = 256;

/// Writes a change of a device apart from its peers; wiped when dropped, as it may hold a key.
pub(super) fn settings(name: &IfName, settings: &Settings) -> Zeroizing<Vec<u8>> {
    let mut body = Writer::default();
    body.text(device::NAME, name.as_str());
    // Before the key, so that what the key sets off carries the mark.
    if let Some(mark) = settings.mark {
        body.bytes(device::MARK, &mark.to_ne_bytes());
    }
    if let Some(port) = settings.listen_port {
        body.bytes(device::LISTEN_PORT, &port.to_ne_bytes());
    }
    if let Some(key) = &settings.private_key {
        body.bytes(device::PRIVATE_KEY, &key.0[..]);
    }
    Zeroizing::new(body.into_bytes())
}

/// Writes changes of peers, as many messages as they take.
pub(super) fn peers(name: &IfName, changes: &[PeerChange]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut list = Writer::default();
    let mut close = |list: Writer| {
        let mut body = Writer::default();
        body.text(device::NAME, name.as_str());
        let bytes = list.into_bytes();
        body.nest(device::PEERS, |inner| inner.raw(&bytes));
        bodies.push(body.into_bytes());
    };
    for change in changes {
        for part in parts(change) {
            if list.len().saturating_add(part.len()) > MESSAGE && list.len() > 0 {
                close(std::mem::take(&mut list));
            }
            list.raw(&part);
        }
    }
    if list.len() > 0 {
        close(list);
    }
    bodies
}

/// Writes a change, as several of the same peer if it has many addresses.
fn parts(change: &PeerChange) -> Vec<Vec<u8>> {
    let part = |fill: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        writer.nest(0, |inner| fill(inner));
        writer.into_bytes()
    };
    match change {
        PeerChange::Remove(key) => vec![part(&|body| {
            body.bytes(peer::PUBLIC_KEY, &key.0);
            body.bytes(peer::FLAGS, &peer::REMOVE.to_ne_bytes());
        })],
        PeerChange::Update { key, peer_addr, keepalive, allow: cidrs } => {
            let first = part(&|body| {
                body.bytes(peer::PUBLIC_KEY, &key.0);
                if let Some(addr) = peer_addr {
                    body.bytes(peer::ADDR, &socket_addr(*addr));
                }
                if let Some(keepalive) = keepalive {
                    let seconds = u16::try_from(keepalive.as_secs()).unwrap_or(u16::MAX);
                    body.bytes(peer::KEEPALIVE, &seconds.to_ne_bytes());
                }
            });
            let all: Vec<&Cidr> = cidrs.iter().collect();
            let rest = all.chunks(ADDRS).map(|some| {
                part(&|body| {
                    body.bytes(peer::PUBLIC_KEY, &key.0);
                    body.nest(peer::ALLOWED, |list| allow(list, some));
                })
            });
            std::iter::once(first).chain(rest).collect()
        }
    }
}

fn allow(list: &mut Writer, cidrs: &[&Cidr]) {
    for cidr in cidrs {
        allow_one(list, cidr);
    }
}

fn allow_one(list: &mut Writer, cidr: &Cidr) {
    list.nest(0, |entry| {
        let family = match cidr.family() {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        entry.bytes(allowed::FAMILY, &u16::try_from(family).unwrap_or_default().to_ne_bytes());
        match cidr.addr() {
            IpAddr::V4(addr) => entry.bytes(allowed::ADDR, &addr.octets()),
            IpAddr::V6(addr) => entry.bytes(allowed::ADDR, &addr.octets()),
        }
        entry.bytes(allowed::LEN, &[cidr.prefix_len()]);
    });
}

/// Writes an address as `struct sockaddr_in` or `sockaddr_in6`.
fn socket_addr(addr: SocketAddr) -> Vec<u8> {
    match addr {
        SocketAddr::V4(addr) => {
            let family = u16::try_from(libc::AF_INET).unwrap_or_default().to_ne_bytes();
            let bytes = [&family[..], &addr.port().to_be_bytes(), &addr.ip().octets(), &[0; 8]];
            bytes.concat()
        }
        SocketAddr::V6(addr) => {
            let family = u16::try_from(libc::AF_INET6).unwrap_or_default().to_ne_bytes();
            let (port, scope) = (addr.port().to_be_bytes(), addr.scope_id().to_ne_bytes());
            [&family[..], &port, &[0; 4], &addr.ip().octets(), &scope].concat()
        }
    }
}

/// Takes in one message of a device's description; what makes no sense in it is left out.
///
/// A peer with many addresses goes on in the next message.
pub(super) fn read(body: &[u8], device: &mut Device) {
    let all = Reader(body);
    // The private key in there is not looked at.
    if let Some(key) = key(all, device::PUBLIC_KEY) {
        device.public_key = Some(key);
    }
    if let Some(port) = number(all, device::LISTEN_PORT) {
        device.listen_port = u16::from_ne_bytes(port);
    }
    if let Some(mark) = number(all, device::MARK) {
        device.mark = u32::from_ne_bytes(mark);
    }
    for (_, one) in all.within(device::PEERS).all() {
        read_peer(Reader(one), device);
    }
}

fn read_peer(one: Reader<'_>, device: &mut Device) {
    let Some(key) = key(one, peer::PUBLIC_KEY) else { return };
    let peer = device.peers.entry(key).or_default();
    if let Some(addr) = one.find(peer::ADDR) {
        peer.peer_addr = read_socket_addr(addr);
    }
    if let Some(seconds) = number(one, peer::KEEPALIVE) {
        peer.keepalive = Duration::from_secs(u16::from_ne_bytes(seconds).into());
    }
    // Seconds and nanoseconds, eight bytes each.
    if let Some(time) = one.find(peer::LAST_HANDSHAKE) {
        let number = |bytes: Option<&[u8; 8]>| bytes.copied().map(u64::from_ne_bytes);
        let seconds = number(time.first_chunk()).unwrap_or_default();
        let nanos = number(time.last_chunk()).and_then(|nanos| u32::try_from(nanos).ok());
        let time = Duration::from_secs(seconds);
        let time = time.saturating_add(Duration::from_nanos(nanos.unwrap_or_default().into()));
        peer.last_handshake = (seconds != 0).then_some(time);
    }
    if let Some(bytes) = number(one, peer::RECEIVED) {
        peer.received = u64::from_ne_bytes(bytes);
    }
    if let Some(bytes) = number(one, peer::SENT) {
        peer.sent = u64::from_ne_bytes(bytes);
    }
    let allowed = one.within(peer::ALLOWED).all();
    peer.allowed.extend(allowed.filter_map(|(_, entry)| read_allowed(Reader(entry))));
}

fn read_allowed(entry: Reader<'_>) -> Option<Cidr> {
    let bytes = entry.find(allowed::ADDR)?;
    let of_v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let addr = of_v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?;
    let len = *entry.find(allowed::LEN)?.first()?;
    Cidr::containing(addr, len).ok()
}

fn read_socket_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let [family_low, family_high, port_high, port_low, rest @ ..] = bytes else { return None };
    let port = u16::from_be_bytes([*port_high, *port_low]);
    let family = i32::from(u16::from_ne_bytes([*family_low, *family_high]));
    let addr = match family {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(addr, port))
}

fn key(all: Reader<'_>, kind: u16) -> Option<PublicKey> {
    all.find(kind)?.try_into().ok().map(PublicKey)
}

fn number<const N: usize>(all: Reader<'_>, kind: u16) -> Option<[u8; N]> {
    all.find(kind)?.try_into().ok()
}

/// Reads any bytes as if they were descriptions of a device, and returns how many peers were in
/// there: a door for fuzzers.
#[must_use]
pub fn read_any(bytes: &[u8]) -> usize {
    let mut device = Device::default();
    read(bytes, &mut device);
    device.peers.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::wireguard::{Peer, PrivateKey};

    fn name() -> IfName {
        "wireguard.cali".parse().unwrap()
    }

    fn cidrs() -> impl Strategy<Value = BTreeSet<Cidr>> {
        let v4 = (any::<u32>(), 0_u8..=32)
            .prop_map(|(addr, len)| Cidr::containing(Ipv4Addr::from(addr).into(), len).unwrap());
        let v6 = (any::<u128>(), 0_u8..=128)
            .prop_map(|(addr, len)| Cidr::containing(Ipv6Addr::from(addr).into(), len).unwrap());
        proptest::collection::btree_set(prop_oneof![v4, v6], 0..600)
    }

    fn socket_addrs() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            (any::<u32>(), any::<u16>()).prop_map(|(a, p)| (Ipv4Addr::from(a), p).into()),
            (any::<u128>(), any::<u16>()).prop_map(|(a, p)| (Ipv6Addr::from(a), p).into()),
        ]
    }

    proptest! {
        #[test]
        fn peers_that_are_written_are_read(
            peers in proptest::collection::btree_map(
                any::<[u8; 32]>(), (socket_addrs(), 0_u16.., cidrs()), 0..6),
        ) {
            let updates = peers.iter().map(|(key, (addr, keepalive, allow))| PeerChange::Update {
                key: PublicKey(*key),
                peer_addr: Some(*addr),
                keepalive: Some(Duration::from_secs((*keepalive).into())),
                allow: allow.clone(),
            });
            let bodies = super::peers(&name(), &updates.collect::<Vec<_>>());
            let mut device = Device::default();
            for body in &bodies {
                // The kernel's limit for a message's attribute.
                prop_assert!(body.len() < 1 << 16);
                read(body, &mut device);
            }
            prop_assert_eq!(device.peers.len(), peers.len());
            for (key, (addr, keepalive, allow)) in &peers {
                let wanted = Peer {
                    peer_addr: Some(*addr),
                    keepalive: Duration::from_secs((*keepalive).into()),
                    allowed: allow.clone(),
                    ..Peer::default()
                };
                prop_assert_eq!(device.peers.get(&PublicKey(*key)), Some(&wanted));
            }
        }

        #[test]
        fn reading_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read_any(&bytes) <= bytes.len() / 36);
        }
    }

    #[test]
    fn a_private_key_is_written_and_never_read() {
        let key = PrivateKey::of_random([7; 32]);
        assert_eq!(format!("{key:?}"), "PrivateKey");
        let wanted = Settings { private_key: Some(key), listen_port: Some(51_820), mark: Some(2) };
        let body = settings(&name(), &wanted);
        assert_eq!(Reader(&body).find(device::PRIVATE_KEY), Some(&[7; 32][..]));
        let mut device = Device::default();
        read(&body, &mut device);
        assert_eq!((device.listen_port, device.mark, device.public_key), (51_820, 2, None));
        assert!(!format!("{device:?}").contains("7, 7"));
    }
}
