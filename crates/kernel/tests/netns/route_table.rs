//! The contract of a route table, kept by the kernel and by the fake alike.

use std::collections::BTreeMap;

use kernel::netlink::{RouteEntry, RouteFilter, Target};
use kernel::route_table::{Change, KernelRoutes};
use kernel::{RouteTable, fake};
use model::desired::{Route, RouteKey, RouteProtocol, RouteTarget};
use model::net::{IfName, zone};

use crate::sandbox::{Sandbox, addr, cidr, if_name};

const OURS: [RouteProtocol; 2] = [RouteProtocol::CALICO, RouteProtocol::BOOT];
const FOREIGN: RouteProtocol = RouteProtocol(4);

/// A table and what is around it: `eth0` with 10.0.0.1/24 and `fd00::1/64`, and `cali1`.
trait World {
    async fn new() -> Self;
    fn table(&self, protocols: &[RouteProtocol]) -> impl RouteTable;
    async fn delete_link(&self, name: &IfName);
}

struct Real {
    host: Sandbox,
    _pod: Sandbox,
}

impl World for Real {
    async fn new() -> Self {
        let (host, pod) = (Sandbox::new().await, Sandbox::new().await);
        let eth0 = host.connect(&pod, "eth0", "eth0").await;
        host.connect(&pod, "cali1", "eth1").await;
        host.netlink.add_addr(eth0, addr("10.0.0.1/24")).await.unwrap();
        host.netlink.add_addr(eth0, addr("fd00::1/64")).await.unwrap();
        Self { host, _pod: pod }
    }

    fn table(&self, protocols: &[RouteProtocol]) -> impl RouteTable {
        let filter = RouteFilter::of_protocols(protocols.iter().copied());
        KernelRoutes::new(self.host.netlink.clone(), filter)
    }

    async fn delete_link(&self, name: &IfName) {
        self.host.netlink.delete_link(name).await.unwrap();
    }
}

impl World for fake::Routes {
    async fn new() -> Self {
        let routes = Self::new([]);
        routes.add_link(if_name("eth0"), &[addr("10.0.0.1/24"), addr("fd00::1/64")]);
        routes.add_link(if_name("cali1"), &[]);
        routes
    }

    fn table(&self, protocols: &[RouteProtocol]) -> impl RouteTable {
        self.seen_by(protocols.iter().copied())
    }

    async fn delete_link(&self, name: &IfName) {
        fake::Routes::delete_link(self, name);
    }
}

/// Reads `10.1.0.0/26 metric 7 via 10.0.0.2 10.0.0.3 proto 80`, as [`Change`] writes it.
fn route(text: &str) -> (RouteKey, Route) {
    let (text, protocol) = text.split_once(" proto ").unwrap();
    let (dst, target) = text.split_once(' ').unwrap();
    let mut key = RouteKey::from(cidr(dst));
    let mut target = target;
    if let Some((metric, rest)) = target.strip_prefix("metric ").and_then(|t| t.split_once(' ')) {
        (key.metric, target) = (metric.parse().unwrap(), rest);
    }
    let target = match target.split_once(' ') {
        None => RouteTarget::Blackhole,
        Some(("dev", name)) => RouteTarget::Link(if_name(name)),
        Some((_, tunnel)) if tunnel.ends_with(" onlink") => {
            let words: Vec<&str> = tunnel.split(' ').collect();
            RouteTarget::Tunnel(if_name(words[2]), words[0].parse().unwrap())
        }
        Some((_, gateways)) => {
            RouteTarget::Via(gateways.split(' ').map(|addr| addr.parse().unwrap()).collect())
        }
    };
    (key, Route { target, protocol: RouteProtocol(protocol.parse().unwrap()) })
}

fn routes(texts: &[&str]) -> BTreeMap<RouteKey, Route> {
    texts.iter().map(|text| route(text)).collect()
}

/// Applies `+ route` and `- route` and says what came of each.
async fn apply(table: &impl RouteTable, changes: &[&str]) -> Vec<String> {
    let change = |text: &&str| {
        let (key, route) = route(&text[2..]);
        if text.starts_with('+') { Change::Upsert(key, route) } else { Change::Delete(key, route) }
    };
    let changes: Vec<Change> = changes.iter().map(change).collect();
    let outcomes = table.apply(&changes).await.unwrap();
    let said = outcomes.iter().map(|outcome| match outcome {
        Ok(()) => "done".to_owned(),
        Err(error) => error.errno().map_or(error.to_string(), |errno| format!("{errno:?}")),
    });
    said.collect()
}

async fn lists_what_was_written<W: World>() {
    let world = W::new().await;
    let table = world.table(&OURS);
    let written = [
        "10.65.0.2/32 dev cali1 proto 3",
        "10.65.0.0/26 blackhole proto 80",
        "10.65.1.0/26 via 10.0.0.2 proto 80",
        "10.65.2.0/26 via 10.0.0.2 10.0.0.3 10.0.0.4 proto 80",
        "10.65.4.0/26 via fd00::2 proto 80",
        "10.65.5.0/26 via 10.0.0.2 fd00::2 proto 80",
        "10.65.3.0/26 via 198.51.100.1 dev cali1 onlink proto 80",
        "fd01::2/128 dev cali1 proto 3",
        "fd01::/122 blackhole proto 80",
        "fd02::/122 via fd00::2 proto 80",
        "fd03::/122 via fd00::2 fd00::3 proto 80",
        "fd04::/122 via 2001:db8::7 dev cali1 onlink proto 80",
    ];
    let upserts: Vec<String> = written.iter().map(|text| format!("+ {text}")).collect();
    let upserts: Vec<&str> = upserts.iter().map(String::as_str).collect();
    assert_eq!(apply(&table, &upserts).await, ["done"; 12]);
    assert_eq!(table.list().await.unwrap(), routes(&written));
    let deletes: Vec<String> = written.iter().map(|text| format!("- {text}")).collect();
    let deletes: Vec<&str> = deletes.iter().map(String::as_str).collect();
    assert_eq!(apply(&table, &deletes).await, ["done"; 12]);
    assert_eq!(table.list().await.unwrap(), BTreeMap::new());
}

/// Every kind of route takes the place of every other, in both families.
async fn a_destination_has_one_route<W: World>() {
    let world = W::new().await;
    let everybody = world.table(&[OURS[0], OURS[1], FOREIGN]);
    let v4 = [
        "dev cali1",
        "blackhole",
        "via 10.0.0.2",
        "via 10.0.0.2 10.0.0.3",
        "via 10.0.0.4",
        "via 198.51.100.1 dev cali1 onlink",
    ];
    let v6 = [
        "dev cali1",
        "blackhole",
        "via fd00::2",
        "via fd00::2 fd00::3",
        "via fd00::4",
        "via 2001:db8::7 dev cali1 onlink",
    ];
    for (dst, targets) in [("10.65.0.0/26", v4), ("fd01::/122", v6)] {
        for first in targets {
            for second in targets {
                for (old, new) in [(80, 80), (3, 80), (80, 3), (4, 80)] {
                    let old = format!("{dst} {first} proto {old}");
                    let new = format!("{dst} {second} proto {new}");
                    let said = apply(&everybody, &[&format!("+ {old}"), &format!("+ {new}")]).await;
                    assert_eq!(said, ["done"; 2], "{old}, then {new}");
                    let found = everybody.list().await.unwrap();
                    assert_eq!(found, routes(&[&new]), "{old}, then {new}");
                    apply(&everybody, &[&format!("- {new}")]).await;
                    assert_eq!(everybody.list().await.unwrap(), routes(&[]), "{old}, then {new}");
                }
            }
        }
    }
}

/// So one can be written before the other goes.
async fn routes_of_other_metrics_stand_beside<W: World>() {
    let world = W::new().await;
    let table = world.table(&OURS);
    for (dst, gateway) in [("10.65.0.0/26", "10.0.0.2"), ("fd01::/122", "fd00::2")] {
        let of = |metric: &str| format!("{dst} {metric}via {gateway} proto 80");
        let [plain, better, worse] = [of(""), of("metric 512 "), of("metric 2000 ")];
        for route in [&plain, &better, &worse] {
            assert_eq!(apply(&table, &[&format!("+ {route}")]).await, ["done"]);
        }
        assert_eq!(table.list().await.unwrap(), routes(&[&plain, &better, &worse]));
        apply(&table, &[&format!("- {plain}")]).await;
        assert_eq!(table.list().await.unwrap(), routes(&[&better, &worse]));
        apply(&table, &[&format!("- {worse}")]).await;
        assert_eq!(table.list().await.unwrap(), routes(&[&better]));
        apply(&table, &[&format!("- {better}")]).await;
        assert_eq!(table.list().await.unwrap(), routes(&[]));
    }
}

/// A workload's address may be another one's by the time that its route is deleted.
async fn a_route_out_of_another_link_stays<W: World>() {
    let world = W::new().await;
    let table = world.table(&OURS);
    let new = "10.65.0.2/32 metric 1024 dev cali1 proto 3";
    apply(&table, &[&format!("+ {new}")]).await;
    for old in ["10.65.0.2/32 dev eth0 proto 3", "10.65.0.2/32 dev gone proto 3"] {
        assert_eq!(apply(&table, &[&format!("- {old}")]).await, ["done"]);
        assert_eq!(table.list().await.unwrap(), routes(&[new]));
    }
}

#[tokio::test]
async fn a_sole_route_is_written_beside_none() {
    let world = Real::new().await;
    let netlink = &world.host.netlink;
    let links = netlink.links().await.unwrap();
    let index = |name| links.iter().find(|link| link.name == if_name(name)).unwrap().index;
    for (to, other) in [("10.65.0.2", "10.65.0.0/24"), ("fd01::2", "fd01::/64")] {
        let ours = RouteEntry::to_workload(to.parse().unwrap(), index("cali1"));
        let theirs = |metric| {
            let target = Target::Link(index("eth0"));
            RouteEntry { metric, ..RouteEntry::new(ours.dst, target, RouteProtocol::BOOT) }
        };
        // What leads to more is in nobody's way.
        let wider = RouteEntry::new(cidr(other), Target::Link(index("eth0")), RouteProtocol::BOOT);
        netlink.add_route(&wider).await.unwrap();
        for metric in [1, 1024, 2000] {
            netlink.add_route(&theirs(metric)).await.unwrap();
            let found = netlink.add_sole_route(&ours).await.unwrap();
            assert_eq!(found, Some(theirs(metric)));
            netlink.delete_route(&theirs(metric)).await.unwrap();
        }
        for _ in 0..2 {
            assert_eq!(
                netlink.add_sole_route(&ours).await.unwrap(),
                None,
                "ours is not in its way"
            );
        }
    }
}

async fn foreign_routes_are_neither_seen_nor_deleted<W: World>() {
    let world = W::new().await;
    let (ours, foreign) = (world.table(&OURS), world.table(&[FOREIGN]));
    let theirs = ["10.9.0.0/16 blackhole proto 4", "fd09::/64 blackhole proto 4"];
    apply(&foreign, &["+ 10.9.0.0/16 blackhole proto 4", "+ fd09::/64 blackhole proto 4"]).await;
    assert_eq!(ours.list().await.unwrap(), routes(&[]));
    let said =
        apply(&ours, &["- 10.9.0.0/16 blackhole proto 80", "- fd09::/64 blackhole proto 80"]).await;
    assert_eq!(said, ["done"; 2]);
    assert_eq!(foreign.list().await.unwrap(), routes(&theirs));
}

async fn a_refused_change_does_not_stop_the_others<W: World>() {
    let world = W::new().await;
    let table = world.table(&OURS);
    let said = apply(
        &table,
        &[
            "+ 10.1.0.0/16 via 192.0.2.1 proto 80",
            "+ fd01::/64 via 2001:db8::1 proto 80",
            "+ 10.2.0.0/16 dev none0 proto 3",
            "+ fd03::/64 via 10.0.0.2 proto 80",
            "+ 10.4.0.0/16 blackhole proto 80",
        ],
    )
    .await;
    assert_eq!(said[..2], ["ENETUNREACH", "EHOSTUNREACH"]);
    assert!(said[2].starts_with("there is no link `none0`"), "{}", said[2]);
    assert!(said[3].contains("destination's family"), "{}", said[3]);
    assert_eq!(said[4], "done");
    assert_eq!(table.list().await.unwrap(), routes(&["10.4.0.0/16 blackhole proto 80"]));
}

async fn a_link_takes_its_routes_along<W: World>() {
    let world = W::new().await;
    let table = world.table(&OURS);
    apply(
        &table,
        &[
            "+ 10.65.0.2/32 dev cali1 proto 3",
            "+ fd01::2/128 dev cali1 proto 3",
            "+ 10.65.1.0/26 via 10.0.0.2 proto 80",
        ],
    )
    .await;
    world.delete_link(&if_name("cali1")).await;
    assert_eq!(table.list().await.unwrap(), routes(&["10.65.1.0/26 via 10.0.0.2 proto 80"]));
    let gone = "- 10.65.0.2/32 dev cali1 proto 3";
    assert_eq!(apply(&table, &[gone]).await, ["done"], "what is gone is deleted");
    world.delete_link(&if_name("eth0")).await;
    assert_eq!(table.list().await.unwrap(), routes(&[]));
}

macro_rules! contract {
    ($($fact:ident)+) => {
        mod on_the_kernel {
            $(#[tokio::test] async fn $fact() { super::$fact::<super::Real>().await; })+
        }
        mod on_the_fake {
            $(#[tokio::test] async fn $fact() { super::$fact::<kernel::fake::Routes>().await; })+
        }
    };
}

contract! {
    lists_what_was_written
    a_destination_has_one_route
    routes_of_other_metrics_stand_beside
    a_route_out_of_another_link_stays
    foreign_routes_are_neither_seen_nor_deleted
    a_refused_change_does_not_stop_the_others
    a_link_takes_its_routes_along
}

/// IPv4 by way of IPv6 too (RFC 8950); the same address on two links is two gateways.
#[tokio::test]
async fn a_link_local_gateway_is_on_the_link_that_it_names() {
    let world = Real::new().await;
    let mut gateways = Vec::new();
    for name in ["eth0", "cali1"] {
        let link = world.host.netlink.link(&if_name(name)).await.unwrap().unwrap();
        gateways.push(zone::on_link("fe80::2".parse().unwrap(), link.index).unwrap());
    }
    let [one, other] = [gateways[0], gateways[1]];
    let table = world.table(&OURS);
    let written = [
        format!("10.65.1.0/26 via {one} proto 80"),
        format!("10.65.2.0/26 via {one} {other} proto 80"),
        format!("fd02::/122 via {other} proto 80"),
        format!("fd03::/122 via {one} {other} proto 80"),
    ];
    let upserts: Vec<String> = written.iter().map(|text| format!("+ {text}")).collect();
    let upserts: Vec<&str> = upserts.iter().map(String::as_str).collect();
    assert_eq!(apply(&table, &upserts).await, ["done"; 4]);
    let written: Vec<&str> = written.iter().map(String::as_str).collect();
    assert_eq!(table.list().await.unwrap(), routes(&written));
}
