//! The contract of tunnels, kept by the kernel and by the fake alike; and what only the kernel has.
//!
//! IP in IP needs a kernel with its module: the scenarios of the second kernel cover it.

use kernel::netlink::VxlanLink;
use kernel::tunnels::{EntryChange, KernelTunnels, STALE, State};
use kernel::{Tunnels, fake};
use model::desired::{
    Checksums, TunnelDevice, TunnelDeviceKind, TunnelEntry, TunnelEntryKey, Vxlan,
};
use model::net::{IfName, Mtu};

use crate::sandbox::{Sandbox, addr, if_name};

trait World {
    async fn new() -> Self;
    fn tunnels(&self) -> impl Tunnels;
}

struct Real(Sandbox);

impl World for Real {
    async fn new() -> Self {
        Self(Sandbox::new().await)
    }

    fn tunnels(&self) -> impl Tunnels {
        KernelTunnels::new(self.0.netlink.clone())
    }
}

impl World for fake::Tunnels {
    async fn new() -> Self {
        Self::default()
    }

    fn tunnels(&self) -> impl Tunnels {
        self.clone()
    }
}

fn names() -> Vec<IfName> {
    TunnelDevice::names()
}

fn vxlan(local: &str, addr: Option<&str>) -> TunnelDevice {
    TunnelDevice {
        kind: TunnelDeviceKind::Vxlan(Vxlan {
            vni: 4096,
            port: 4789,
            local: local.parse().unwrap(),
            mac: "66:b3:68:28:39:8e".parse().unwrap(),
            checksums: Checksums::Offloaded,
        }),
        mtu: Mtu(1450),
        addr: addr.map(|addr| addr.parse().unwrap()),
    }
}

fn with_vni(device: TunnelDevice, vni: u32) -> TunnelDevice {
    let TunnelDeviceKind::Vxlan(vxlan) = device.kind else { return device };
    TunnelDevice { kind: TunnelDeviceKind::Vxlan(Vxlan { vni, ..vxlan }), ..device }
}

fn with_checksums(device: TunnelDevice, checksums: Checksums) -> TunnelDevice {
    let TunnelDeviceKind::Vxlan(vxlan) = device.kind else { return device };
    TunnelDevice { kind: TunnelDeviceKind::Vxlan(Vxlan { checksums, ..vxlan }), ..device }
}

fn neighbour(device: &str, addr: &str, mac: &str) -> (TunnelEntryKey, TunnelEntry) {
    let key = TunnelEntryKey::Neighbour(if_name(device), addr.parse().unwrap());
    (key, TunnelEntry::Mac(mac.parse().unwrap()))
}

fn forward(device: &str, mac: &str, to: &str) -> (TunnelEntryKey, TunnelEntry) {
    let key = TunnelEntryKey::Forward(if_name(device), mac.parse().unwrap());
    (key, TunnelEntry::Node(to.parse().unwrap()))
}

fn upsert((key, entry): &(TunnelEntryKey, TunnelEntry)) -> EntryChange {
    EntryChange::Upsert(key.clone(), *entry)
}

fn delete((key, entry): &(TunnelEntryKey, TunnelEntry)) -> EntryChange {
    EntryChange::Delete(key.clone(), *entry)
}

async fn state(tunnels: &impl Tunnels) -> State {
    tunnels.list(&names()).await.unwrap()
}

async fn all_well(tunnels: &impl Tunnels, changes: &[EntryChange]) {
    for outcome in tunnels.apply(changes).await.unwrap() {
        outcome.unwrap();
    }
}

async fn lists_what_was_written<W: World>() {
    let world = W::new().await;
    let tunnels = world.tunnels();
    let v4 = (if_name("vxlan.calico"), vxlan("192.0.2.1", Some("10.244.0.0")));
    let v6 = (if_name("vxlan-v6.calico"), vxlan("2001:db8::1", Some("fd00::")));
    for (name, device) in [&v4, &v6] {
        tunnels.upsert(name, device).await.unwrap();
        tunnels.upsert(name, device).await.unwrap();
    }
    let entries = [
        neighbour("vxlan.calico", "10.244.1.0", "66:00:00:00:00:02"),
        forward("vxlan.calico", "66:00:00:00:00:02", "192.0.2.2"),
        neighbour("vxlan-v6.calico", "fd00::40", "66:00:00:00:00:06"),
        forward("vxlan-v6.calico", "66:00:00:00:00:06", "2001:db8::2"),
    ];
    all_well(&tunnels, &entries.each_ref().map(upsert)).await;
    let found = state(&tunnels).await;
    assert_eq!(found.devices, [v4, v6].into());
    assert_eq!(found.entries, entries.clone().into());
    let moved = [
        neighbour("vxlan.calico", "10.244.1.0", "66:00:00:00:00:03"),
        forward("vxlan.calico", "66:00:00:00:00:02", "192.0.2.3"),
    ];
    all_well(&tunnels, &moved.each_ref().map(upsert)).await;
    let found = state(&tunnels).await.entries;
    assert_eq!(found.get(&moved[0].0), Some(&moved[0].1));
    assert_eq!(found.get(&moved[1].0), Some(&moved[1].1));
    let now: Vec<_> = found.into_iter().collect();
    let gone: Vec<EntryChange> = now.iter().map(delete).collect();
    all_well(&tunnels, &gone).await;
    all_well(&tunnels, &gone).await;
    assert_eq!(state(&tunnels).await.entries, [].into());
}

async fn a_device_keeps_its_entries_while_it_changes<W: World>() {
    let world = W::new().await;
    let tunnels = world.tunnels();
    let name = if_name("vxlan.calico");
    tunnels.upsert(&name, &vxlan("192.0.2.1", Some("10.244.0.0"))).await.unwrap();
    let entries = [
        neighbour("vxlan.calico", "10.244.1.0", "66:00:00:00:00:02"),
        forward("vxlan.calico", "66:00:00:00:00:02", "192.0.2.2"),
    ];
    all_well(&tunnels, &entries.each_ref().map(upsert)).await;
    let other = TunnelDevice { mtu: Mtu(1400), ..vxlan("192.0.2.77", Some("10.244.9.9")) };
    tunnels.upsert(&name, &other).await.unwrap();
    let found = state(&tunnels).await;
    assert_eq!(found.devices, [(name.clone(), other)].into());
    assert_eq!(found.entries, entries.clone().into());
    for checksums in [Checksums::Filled, Checksums::Offloaded] {
        let other = with_checksums(other, checksums);
        tunnels.upsert(&name, &other).await.unwrap();
        let found = state(&tunnels).await;
        assert_eq!(found.devices, [(name.clone(), other)].into());
        assert_eq!(found.entries, entries.clone().into());
    }
    let bare = TunnelDevice { addr: None, ..other };
    tunnels.upsert(&name, &bare).await.unwrap();
    let found = state(&tunnels).await;
    assert_eq!(found.devices, [(name.clone(), bare)].into());
    assert_eq!(found.entries, entries[1..].iter().cloned().collect(), "no neighbours");
    let anew = with_vni(other, 4097);
    tunnels.upsert(&name, &anew).await.unwrap();
    let found = state(&tunnels).await;
    assert_eq!(found.devices, [(name, anew)].into());
    assert_eq!(found.entries, [].into(), "it was made anew");
}

async fn a_device_takes_its_entries_along<W: World>() {
    let world = W::new().await;
    let tunnels = world.tunnels();
    let name = if_name("vxlan.calico");
    let entry = neighbour("vxlan.calico", "10.244.1.0", "66:00:00:00:00:02");
    let refused = tunnels.apply(&[upsert(&entry)]).await.unwrap().remove(0).unwrap_err();
    assert!(refused.to_string().starts_with("there is no link `vxlan.calico`"), "{refused}");
    tunnels.upsert(&name, &vxlan("192.0.2.1", None)).await.unwrap();
    all_well(&tunnels, &[upsert(&entry)]).await;
    tunnels.delete(&name).await.unwrap();
    tunnels.delete(&name).await.unwrap();
    assert_eq!(state(&tunnels).await, State::default());
    all_well(&tunnels, &[delete(&entry)]).await;
}

macro_rules! contract {
    ($($fact:ident)+) => {
        mod on_the_kernel {
            $(#[tokio::test] async fn $fact() { super::$fact::<super::Real>().await; })+
        }
        mod on_the_fake {
            $(#[tokio::test] async fn $fact() { super::$fact::<kernel::fake::Tunnels>().await; })+
        }
    };
}

contract! {
    lists_what_was_written
    a_device_keeps_its_entries_while_it_changes
    a_device_takes_its_entries_along
}

/// As Calico's Felix makes it: over a link, found by its number afterwards.
#[tokio::test]
async fn a_device_of_calicos_is_adopted_as_it_is() {
    let (host, peer) = (Sandbox::new().await, Sandbox::new().await);
    let uplink = host.connect(&peer, "eth0", "eth0").await;
    host.netlink.add_addr(uplink, addr("192.0.2.1/24")).await.unwrap();
    let make = "ip link add vxlan.calico address 66:b3:68:28:39:8e mtu 1450 type vxlan id 4096 \
                local 192.0.2.1 dev eth0 dstport 4789 nolearning && \
                ip address add 10.244.0.0/32 dev vxlan.calico && ip link set vxlan.calico up";
    run(&host, make);
    let name = if_name("vxlan.calico");
    let before = host.netlink.require_link(&name).await.unwrap();
    let tunnels = KernelTunnels::new(host.netlink.clone());
    let device = vxlan("192.0.2.1", Some("10.244.0.0"));
    assert_eq!(state(&tunnels).await.devices, [(name.clone(), device)].into());
    tunnels.upsert(&name, &device).await.unwrap();
    let moved = vxlan("192.0.2.9", Some("10.244.0.1"));
    tunnels.upsert(&name, &moved).await.unwrap();
    assert_eq!(state(&tunnels).await.devices, [(name.clone(), moved)].into());
    let after = host.netlink.require_link(&name).await.unwrap();
    assert_eq!(after.index, before.index, "it is the same device");
}

#[tokio::test]
async fn what_is_odd_about_a_device_is_put_right() {
    let host = Sandbox::new().await;
    run(&host, "ip link add vxlan.calico mtu 1450 type vxlan id 4096 local 192.0.2.1 dstport 4789");
    run(&host, "ip address add 10.244.0.7/24 dev vxlan.calico");
    let name = if_name("vxlan.calico");
    let tunnels = KernelTunnels::new(host.netlink.clone());
    assert_eq!(state(&tunnels).await.devices[&name].mtu, STALE, "it is down, and learns");
    let device = vxlan("192.0.2.1", Some("10.244.0.0"));
    tunnels.upsert(&name, &device).await.unwrap();
    assert_eq!(state(&tunnels).await.devices, [(name.clone(), device)].into());
    let link = host.netlink.require_link(&name).await.unwrap().vxlan.unwrap();
    let local = Some("192.0.2.1".parse().unwrap());
    assert_eq!(link, VxlanLink { vni: 4096, port: 4789, local, learns: false });
}

#[tokio::test]
async fn somebody_elses_device_of_that_name_is_left_alone() {
    let host = Sandbox::new().await;
    run(&host, "ip link add vxlan.calico type bridge");
    let (name, tunnels) = (if_name("vxlan.calico"), KernelTunnels::new(host.netlink.clone()));
    assert_eq!(state(&tunnels).await, State::default());
    for refused in
        [tunnels.upsert(&name, &vxlan("192.0.2.1", None)).await, tunnels.delete(&name).await]
    {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("vxlan.calico is no tunnel"), "{error}");
    }
    assert!(host.netlink.link(&name).await.unwrap().is_some());
}

#[tokio::test]
async fn the_kernel_says_what_it_lacks_for_ip_in_ip() {
    let host = Sandbox::new().await;
    let (name, tunnels) = (if_name("tunl0"), KernelTunnels::new(host.netlink.clone()));
    let device = TunnelDevice {
        kind: TunnelDeviceKind::Ipip,
        mtu: Mtu(1480),
        addr: Some("10.244.0.0".parse().unwrap()),
    };
    match tunnels.upsert(&name, &device).await {
        Ok(()) => {
            assert_eq!(state(&tunnels).await.devices, [(name.clone(), device)].into());
            tunnels.delete(&name).await.unwrap();
            assert_eq!(state(&tunnels).await, State::default());
        }
        Err(error) => {
            assert!(error.to_string().starts_with("cannot add ipip tunl0: EOPNOTSUPP"), "{error}");
        }
    }
}

fn run(host: &Sandbox, script: &str) {
    let status = host
        .netns
        .run(|| std::process::Command::new("sh").args(["-ec", script]).status().expect("sh"));
    assert!(status.unwrap().success(), "{script}");
}
