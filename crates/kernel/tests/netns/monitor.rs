//! Facts about the monitor.

use std::time::Duration;

use kernel::Monitor;
use kernel::monitor::{Event, Topic};
use kernel::netlink::{RouteChange, RouteEntry, Target};
use model::desired::RouteProtocol;
use model::net::{Cidr, IfName};

use crate::sandbox::{Sandbox, addr, cidr, if_name};

const ALL: [Topic; 3] = [Topic::Links, Topic::Addrs, Topic::Routes];

/// Reads events until one is `wanted`; only a fault makes this wait for its limit.
async fn wait(monitor: &mut Monitor, wanted: impl Fn(&Event) -> bool) {
    let look = async { while !monitor.next_batch().await.unwrap().iter().any(&wanted) {} };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("the event was not told");
}

#[tokio::test]
async fn tells_of_links_addresses_and_routes() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let mut monitor = Monitor::open_in(&host.netns, &ALL).unwrap();
    let index = host.connect(&pod, "cali1", "eth0").await;
    let name: IfName = if_name("cali1");
    wait(&mut monitor, |event| matches!(event, Event::Link(link) if link.name == name)).await;

    let address = addr("10.65.0.1/32");
    host.netlink.add_addr(index, address).await.unwrap();
    wait(&mut monitor, |event| matches!(event, Event::Addr(found) if found.addr == address)).await;
    host.netlink.delete_addr(index, address).await.unwrap();
    wait(&mut monitor, |event| matches!(event, Event::AddrGone(found) if found.addr == address))
        .await;

    for dst in ["10.65.0.2/32", "fd01::2/128"] {
        let route = RouteEntry::new(cidr(dst), Target::Link(index), RouteProtocol::BOOT);
        host.netlink.upsert_route(&route).await.unwrap();
        wait(&mut monitor, |event| *event == Event::Route(route.clone())).await;
        host.netlink.delete_route(&route).await.unwrap();
        wait(&mut monitor, |event| *event == Event::RouteGone(route.clone())).await;
    }

    host.netlink.delete_link(&name).await.unwrap();
    let gone = Event::LinkGone { index, name };
    wait(&mut monitor, |event| *event == gone).await;
}

#[tokio::test]
async fn of_many_changes_of_one_object_the_last_is_told() {
    let host = Sandbox::new().await;
    let mut monitor = Monitor::open_in(&host.netns, &[Topic::Routes]).unwrap();
    let route = RouteEntry::new(cidr("10.1.0.0/16"), Target::Blackhole, RouteProtocol::CALICO);
    for _ in 0..50 {
        host.netlink.upsert_route(&route).await.unwrap();
        host.netlink.delete_route(&route).await.unwrap();
    }
    assert_eq!(monitor.next_batch().await.unwrap(), [Event::RouteGone(route)]);
}

#[tokio::test]
async fn lost_events_are_told_as_a_resync() {
    let host = Sandbox::new().await;
    let mut monitor = Monitor::open_in(&host.netns, &[Topic::Routes]).unwrap();
    let all = cidr("10.0.0.0/8");
    let change = |number: u32| {
        let dst = Cidr::host(all.nth(u128::from(number)).unwrap());
        RouteChange::Upsert(RouteEntry::new(dst, Target::Blackhole, RouteProtocol::CALICO))
    };
    let changes: Vec<RouteChange> = (0..60_000).map(change).collect();
    host.netlink.apply_routes(&changes).await.unwrap();
    assert_eq!(monitor.next_batch().await.unwrap(), [Event::Resync]);

    // What happens afterwards is told again.
    let last = RouteEntry::new(cidr("11.0.0.0/8"), Target::Blackhole, RouteProtocol::CALICO);
    host.netlink.upsert_route(&last).await.unwrap();
    let told = |event: &Event| matches!(event, Event::Route(route) if *route == last);
    wait(&mut monitor, told).await;
}
