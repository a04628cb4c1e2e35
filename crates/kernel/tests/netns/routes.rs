//! Facts about routes by the kernel's numbers.

use std::time::Duration;

use kernel::netlink::{NextHop, RouteChange, RouteEntry, RouteFilter, Target};
use model::desired::RouteProtocol;
use model::net::Family;

use crate::sandbox::{Sandbox, addr, cidr, if_name};

fn filter(protocol: RouteProtocol) -> RouteFilter {
    RouteFilter::of_protocols([protocol])
}

#[tokio::test]
async fn what_is_written_is_what_is_listed() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let index = host.connect(&pod, "eth0", "eth0").await;
    host.netlink.add_addr(index, addr("10.0.0.1/24")).await.unwrap();
    host.netlink.add_addr(index, addr("fd00::1/64")).await.unwrap();
    let hop = |text: &str| NextHop::on(index, text.parse().unwrap());
    let link_local = NextHop::on(index, "fe80::1".parse().unwrap());
    let far = NextHop { is_on_link: true, ..hop("192.0.2.1") };
    let cases = [
        ("10.65.0.2/32", Target::Link(index)),
        ("10.65.0.64/26", Target::Blackhole),
        ("10.65.0.128/26", Target::Unreachable),
        ("10.65.1.0/26", Target::Via(vec![hop("10.0.0.2")])),
        ("10.65.2.0/26", Target::Via(vec![hop("10.0.0.2"), hop("10.0.0.3")])),
        ("10.65.3.0/26", Target::Via(vec![far])),
        ("0.0.0.0/0", Target::Via(vec![hop("10.0.0.2")])),
        ("fd01::2/128", Target::Link(index)),
        ("fd01::40/122", Target::Blackhole),
        ("fd01::80/122", Target::Unreachable),
        ("fd02::/122", Target::Via(vec![hop("fd00::2")])),
        ("fd03::/122", Target::Via(vec![hop("fd00::2"), hop("fd00::3")])),
        ("::/0", Target::Via(vec![link_local])),
    ];
    for (dst, target) in cases {
        for (table, metric) in [(254, None), (254, Some(512)), (1000, None)] {
            let mut route = RouteEntry::new(cidr(dst), target.clone(), RouteProtocol::CALICO);
            route.table = table;
            route.metric = metric.unwrap_or(route.metric);
            host.netlink.upsert_route(&route).await.unwrap();
            let filter = RouteFilter { table, ..filter(RouteProtocol::CALICO) };
            let found = host.netlink.routes(&filter).await.unwrap();
            assert_eq!(found, [route.clone()], "{route}");
            assert!(host.netlink.add_route(&route).await.unwrap_err().is_exists(), "{route}");
            assert!(host.netlink.delete_route(&route).await.unwrap(), "{route}");
            assert!(!host.netlink.delete_route(&route).await.unwrap(), "{route}");
            assert_eq!(host.netlink.routes(&filter).await.unwrap(), [], "{route}");
        }
    }
}

#[tokio::test]
async fn the_kernel_filters_by_protocol_family_and_table() {
    let host = Sandbox::new().await;
    for (protocol, dst) in [(80, "10.1.0.0/16"), (3, "10.2.0.0/16"), (80, "fd01::/64")] {
        let protocol = RouteProtocol(protocol);
        let route = RouteEntry::new(cidr(dst), Target::Blackhole, protocol);
        host.netlink.upsert_route(&route).await.unwrap();
    }
    let v4 = RouteFilter { families: [Family::V4].into(), ..filter(RouteProtocol::CALICO) };
    let both = filter(RouteProtocol::CALICO);
    let nowhere = RouteFilter { table: 4321, ..both.clone() };
    let dsts = async |filter: &RouteFilter| -> Vec<String> {
        let found = host.netlink.routes(filter).await.unwrap();
        found.iter().map(|route| route.dst.to_string()).collect()
    };
    assert_eq!(dsts(&v4).await, ["10.1.0.0/16"]);
    assert_eq!(dsts(&both).await, ["10.1.0.0/16", "fd01::/64"]);
    assert_eq!(dsts(&nowhere).await, [""; 0]);
    assert!(dsts(&RouteFilter::of_protocols([])).await.len() >= 3);
}

#[tokio::test]
async fn a_pod_reaches_its_host_by_link_local_addresses_of_both_families() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    host.sysctl("net/ipv6/conf/default/accept_dad", "0");
    let index = host.connect(&pod, "cali1", "eth0").await;
    let link = host.netlink.link_by_index(index).await.unwrap().unwrap();
    let gateway = host.netlink.wait_link_local(&link, Duration::from_secs(10)).await.unwrap();
    let eth0 = pod.netlink.require_link(&if_name("eth0")).await.unwrap().index;
    let boot = RouteProtocol::BOOT;
    let v4 = "169.254.1.1".parse().unwrap();
    for route in [
        RouteEntry::new(cidr("169.254.1.1/32"), Target::Link(eth0), boot),
        RouteEntry::new(cidr("0.0.0.0/0"), Target::Via(vec![NextHop::on(eth0, v4)]), boot),
        RouteEntry::new(cidr("::/0"), Target::Via(vec![NextHop::on(eth0, gateway)]), boot),
    ] {
        pod.netlink.add_route(&route).await.unwrap();
    }
    assert_eq!(pod.netlink.routes(&filter(boot)).await.unwrap().len(), 3);
}

#[tokio::test]
async fn each_refusal_in_a_batch_has_its_own_reason() {
    let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
    let index = host.connect(&pod, "cali1", "eth0").await;
    let protocol = RouteProtocol::CALICO;
    let lost = Target::Via(vec![NextHop::new("192.0.2.1".parse().unwrap())]);
    let good = RouteEntry::new(cidr("10.1.0.0/16"), Target::Link(index), protocol);
    let absent = RouteEntry::new(cidr("10.4.0.0/16"), Target::Blackhole, protocol);
    let changes = [
        RouteChange::Upsert(good.clone()),
        RouteChange::Upsert(RouteEntry::new(cidr("10.2.0.0/16"), lost, protocol)),
        RouteChange::Upsert(RouteEntry::new(cidr("10.3.0.0/16"), Target::Via(vec![]), protocol)),
        RouteChange::Delete(absent),
        RouteChange::Upsert(RouteEntry::new(
            cidr("10.5.0.0/16"),
            Target::Link(model::net::IfIndex(999)),
            protocol,
        )),
    ];
    let outcomes = host.netlink.apply_routes(&changes).await.unwrap();
    let said: Vec<String> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned()))
        .collect();
    assert_eq!(said[0], "done");
    assert!(said[1].starts_with("cannot write route 10.2.0.0/16 via 192.0.2.1"), "{}", said[1]);
    assert!(said[1].contains("no link leads to the gateway"), "{}", said[1]);
    assert_eq!(said[2], "route 10.3.0.0/16 cannot be written: it names no gateway");
    assert_eq!(said[3], "done");
    assert!(said[4].contains("the link is gone"), "{}", said[4]);
    assert_eq!(host.netlink.routes(&filter(protocol)).await.unwrap(), [good]);
}
