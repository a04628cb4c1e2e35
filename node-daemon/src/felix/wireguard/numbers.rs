//! What WireGuard's devices have carried, under Calico's names: `wireguard_…`.

use std::collections::BTreeMap;

use ::kernel::wireguard::Device;
use model::net::IfName;
use telemetry::metrics::{Counters, Gauges, Labels, Registry};

/// The numbers, as they were last read from the kernel.
///
/// Who is no peer any more has none.
#[derive(Debug)]
pub(super) struct Numbers {
    node: String,
    meta: Gauges,
    handshake: Gauges,
    received: Counters,
    sent: Counters,
}

impl Numbers {
    pub(super) fn new(registry: &Registry, node: String) -> Self {
        Self {
            node,
            meta: registry.gauges("wireguard_meta", "WireGuard's devices of this node; always 1"),
            handshake: registry.gauges(
                "wireguard_latest_handshake_seconds",
                "When the last handshake with a peer was, in seconds since 1970; 0 is never",
            ),
            received: registry
                .counters("wireguard_bytes_rcvd", "Bytes that a peer has sent to this node"),
            sent: registry
                .counters("wireguard_bytes_sent", "Bytes that this node has sent to a peer"),
        }
    }

    /// Shows what devices hold now.
    pub(super) fn set(&self, devices: &BTreeMap<IfName, Device>) {
        self.meta.clear();
        self.handshake.clear();
        self.received.clear();
        self.sent.clear();
        for (name, device) in devices {
            let Some(key) = device.public_key else { continue };
            let own: Labels = vec![
                ("hostname", self.node.clone()),
                ("iface", name.to_string()),
                ("public_key", key.to_string()),
            ];
            let mut meta = own.clone();
            meta.push(("listen_port", device.listen_port.to_string()));
            self.meta.get_or_create(&meta).set(1);
            for (key, peer) in &device.peers {
                let endpoint = peer.peer_addr.map(|addr| addr.to_string()).unwrap_or_default();
                let mut labels = own.clone();
                labels.push(("peer_key", key.to_string()));
                labels.push(("peer_endpoint", endpoint));
                let handshake = peer.last_handshake.unwrap_or_default().as_secs();
                let handshake = i64::try_from(handshake).unwrap_or(i64::MAX);
                self.handshake.get_or_create(&labels).set(handshake);
                self.received.get_or_create(&labels).inc_by(peer.received);
                self.sent.get_or_create(&labels).inc_by(peer.sent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::kernel::wireguard::Peer;
    use model::wireguard::PublicKey;

    use super::*;

    #[test]
    fn numbers_are_the_kernels_and_go_with_the_peer() {
        let registry = Registry::new();
        let numbers = Numbers::new(&registry, "n1".to_owned());
        let peer = Peer {
            peer_addr: Some("192.0.2.2:51820".parse().unwrap()),
            last_handshake: Some(Duration::from_millis(1_700_000_000_900)),
            received: 148,
            sent: 92,
            ..Peer::default()
        };
        let mut device = Device {
            public_key: Some(PublicKey([1; 32])),
            listen_port: 51_820,
            peers: [(PublicKey([2; 32]), peer)].into(),
            ..Device::default()
        };
        let name: IfName = "wireguard.cali".parse().unwrap();
        let told = |device: &Device| {
            numbers.set(&[(name.clone(), device.clone())].into());
            registry.encode()
        };
        told(&device);
        // Twice the same is not twice as much.
        let text = told(&device);
        let (own, far) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let labels = format!("hostname=\"n1\",iface=\"wireguard.cali\",public_key=\"{own}\"");
        let of_peer = format!("{labels},peer_key=\"{far}\",peer_endpoint=\"192.0.2.2:51820\"");
        for line in [
            format!("wireguard_meta{{{labels},listen_port=\"51820\"}} 1"),
            format!("wireguard_latest_handshake_seconds{{{of_peer}}} 1700000000"),
            format!("wireguard_bytes_rcvd{{{of_peer}}} 148"),
            format!("wireguard_bytes_sent{{{of_peer}}} 92"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        device.peers.clear();
        assert!(!told(&device).contains("peer_key"));
        numbers.set(&BTreeMap::new());
        assert!(!registry.encode().contains("listen_port"));
    }
}
