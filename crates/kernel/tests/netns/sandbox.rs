//! Network namespaces that go when the test does.

use std::sync::atomic::{AtomicU32, Ordering};

use kernel::netlink::VethSpec;
use kernel::{Netlink, Netns, sysctl};
use model::net::{Cidr, IfIndex, IfName, InterfaceAddr, MacAddr};

/// A namespace with a route socket in it.
pub(crate) struct Sandbox {
    name: String,
    pub(crate) netns: Netns,
    pub(crate) netlink: Netlink,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Sandbox {
    pub(crate) async fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kernel-test-{}-{number}", std::process::id());
        let netns = Netns::create(&name).expect("these tests need root");
        // From here on `Drop` removes it.
        let netlink = Netlink::open_in(&netns);
        let sandbox = Self { name, netns, netlink: netlink.unwrap() };
        sandbox.netlink.set_link_up(IfIndex(1)).await.unwrap();
        sandbox
    }

    /// Makes a veth pair with this end in `self`, sets both up, returns this end's number.
    pub(crate) async fn connect(&self, other: &Self, host: &str, peer: &str) -> IfIndex {
        let (host_name, peer_name) = (if_name(host), if_name(peer));
        let veth = VethSpec {
            host_name: &host_name,
            host_mac: MacAddr::WORKLOAD_HOST_SIDE,
            peer_name: &peer_name,
            peer_mac: None,
            peer_netns: &other.netns,
            mtu: None,
            master: None,
        };
        self.netlink.add_veth(&veth).await.unwrap();
        let peer = other.netlink.require_link(&peer_name).await.unwrap();
        other.netlink.set_link_up(peer.index).await.unwrap();
        self.netlink.require_link(&host_name).await.unwrap().index
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.netns.run(|| sysctl::write(name, value)).unwrap().unwrap();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(Netns::remove(&self.name));
    }
}

pub(crate) fn if_name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub(crate) fn addr(text: &str) -> InterfaceAddr {
    text.parse().unwrap()
}
