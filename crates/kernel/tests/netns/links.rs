//! Facts about links, addresses and neighbours.

use std::time::Duration;

use kernel::Errno;
use kernel::netlink::{AddrScope, Link, VethSpec};
use model::net::{IfIndex, MacAddr, Mtu};

use crate::sandbox::{Sandbox, addr, if_name};

const POD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

#[tokio::test]
async fn one_request_makes_a_veth_pair_across_namespaces() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let veth = VethSpec {
        host_name: &if_name("cali0123456789a"),
        host_mac: MacAddr::WORKLOAD_HOST_SIDE,
        peer_name: &if_name("eth0"),
        peer_mac: Some(POD_MAC),
        peer_netns: &pod.netns,
        mtu: Some(Mtu(1410)),
        master: None,
    };
    host.netlink.add_veth(&veth).await.unwrap();
    let host_end = host.netlink.require_link(veth.host_name).await.unwrap();
    let pod_end = pod.netlink.require_link(veth.peer_name).await.unwrap();
    assert_eq!((host_end.mac, host_end.mtu), (Some(veth.host_mac), Mtu(1410)));
    assert_eq!((pod_end.mac, pod_end.mtu), (Some(POD_MAC), Mtu(1410)));
    assert_eq!((host_end.is_up, pod_end.is_up), (true, false));
    assert_eq!((host_end.peer, pod_end.peer), (Some(pod_end.index), Some(host_end.index)));
    assert_eq!(host_end.kind.as_deref(), Some("veth"));

    let again = host.netlink.add_veth(&veth).await.unwrap_err();
    assert!(again.is_exists(), "{again}");
    assert!(again.to_string().starts_with("cannot add veth cali0123456789a peer eth0"), "{again}");
}

#[tokio::test]
async fn a_link_goes_once_and_takes_its_peer_along() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    host.connect(&pod, "cali1", "eth0").await;
    assert!(host.netlink.delete_link(&if_name("cali1")).await.unwrap());
    assert!(!host.netlink.delete_link(&if_name("cali1")).await.unwrap());
    assert_eq!(pod.netlink.link(&if_name("eth0")).await.unwrap(), None);
    assert_eq!(host.netlink.link_by_index(IfIndex(999)).await.unwrap(), None);
}

#[tokio::test]
async fn changes_of_a_link_are_seen() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let index = host.connect(&pod, "cali1", "eth0").await;
    host.netlink.set_link_mac(index, POD_MAC).await.unwrap();
    host.netlink.set_link_mtu(index, Mtu(1400)).await.unwrap();
    host.netlink.set_link_down(index).await.unwrap();
    host.netlink.rename_link(index, &if_name("cali2")).await.unwrap();
    let names: Vec<_> =
        host.netlink.links().await.unwrap().iter().map(|link| link.name.to_string()).collect();
    assert_eq!(names, ["lo", "cali2"]);
    let link = host.netlink.link_by_index(index).await.unwrap().unwrap();
    assert_eq!((link.mac, link.mtu, link.is_up), (Some(POD_MAC), Mtu(1400), false));
    let gone = host.netlink.set_link_up(IfIndex(999)).await.unwrap_err();
    assert!(gone.is_missing(), "{gone}");
}

#[tokio::test]
async fn addresses_come_and_go_in_both_families() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let index = host.connect(&pod, "eth0", "eth0").await;
    for text in ["10.0.0.1/24", "10.65.0.2/32", "fd00::1/64", "fd00::2/128"] {
        // Twice, since an earlier run may have been interrupted after it.
        host.netlink.add_addr(index, addr(text)).await.unwrap();
        host.netlink.add_addr(index, addr(text)).await.unwrap();
        let found = host.netlink.addrs_of(index).await.unwrap();
        let found = found.iter().find(|found| found.addr == addr(text)).unwrap();
        assert_eq!((found.scope, found.is_tentative), (AddrScope::Global, false), "{text}");
        assert!(host.netlink.delete_addr(index, addr(text)).await.unwrap(), "{text}");
        assert!(!host.netlink.delete_addr(index, addr(text)).await.unwrap(), "{text}");
    }
}

#[tokio::test]
async fn waits_for_a_link_local_address() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    host.sysctl("net/ipv6/conf/default/accept_dad", "0");
    let index = host.connect(&pod, "cali1", "eth0").await;
    let link = host.netlink.link_by_index(index).await.unwrap().unwrap();
    let found = host.netlink.wait_link_local(&link, Duration::from_secs(10)).await.unwrap();
    assert_eq!(found.to_string(), "fe80::ecee:eeff:feee:eeee");

    host.sysctl("net/ipv6/conf/cali1/disable_ipv6", "1");
    let none = host.netlink.wait_link_local(&link, Duration::from_millis(20)).await.unwrap_err();
    assert!(none.to_string().contains("disable_ipv6=0"), "{none}");
}

#[tokio::test]
async fn permanent_neighbours_stay_until_they_are_deleted() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let index = host.connect(&pod, "cali1", "eth0").await;
    for text in ["10.65.0.2", "fd00::2"] {
        let addr = text.parse().unwrap();
        host.netlink.upsert_neighbour(index, addr, POD_MAC).await.unwrap();
        let all = host.netlink.neighbours().await.unwrap();
        let found = all.iter().find(|found| found.addr == addr).unwrap();
        assert_eq!((found.mac, found.is_permanent, found.link), (POD_MAC, true, index));
        assert!(host.netlink.delete_neighbour(index, addr).await.unwrap());
        assert!(!host.netlink.delete_neighbour(index, addr).await.unwrap());
    }
}

/// Most kernels of containers and CI machines have no VRFs: then that is what is said.
#[tokio::test]
async fn a_vrfs_device_has_its_table_and_takes_links() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let index = host.connect(&pod, "cali1", "eth0").await;
    host.netlink.set_link_alias(index, "calico").await.unwrap();
    let link = host.netlink.require_link(&if_name("cali1")).await.unwrap();
    assert_eq!((link.alias.as_deref(), link.vrf_table), (Some("calico"), None));
    match host.netlink.add_vrf(&if_name("vrf-red"), 5001).await {
        Ok(()) => {}
        Err(error) => return assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP), "{error}"),
    }
    let vrf = host.netlink.require_link(&if_name("vrf-red")).await.unwrap();
    assert_eq!((vrf.is_up, vrf.vrf_table, vrf.alias), (false, Some(5001), None));
    host.netlink.set_master(index, Some(vrf.index)).await.unwrap();
    let master = |link: Option<Link>| link.unwrap().master;
    let found = host.netlink.link(&if_name("cali1")).await.unwrap();
    assert_eq!(master(found), Some(vrf.index));
    host.netlink.set_master(index, None).await.unwrap();
    assert_eq!(master(host.netlink.link(&if_name("cali1")).await.unwrap()), None);
}
