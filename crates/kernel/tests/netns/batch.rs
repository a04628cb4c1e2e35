//! Facts about large tables.

use kernel::Netlink;
use kernel::netlink::{RouteChange, RouteEntry, RouteFilter, Target};
use model::desired::RouteProtocol;
use model::net::Cidr;

use crate::sandbox::{Sandbox, cidr};

fn entries(net: &str, count: u32) -> Vec<RouteEntry> {
    let net = cidr(net);
    let host = |number: u32| Cidr::host(net.nth(u128::from(number)).unwrap());
    let entry = |number| RouteEntry::new(host(number), Target::Blackhole, RouteProtocol::CALICO);
    (0..count).map(entry).collect()
}

fn filter() -> RouteFilter {
    RouteFilter::of_protocols([RouteProtocol::CALICO])
}

#[tokio::test]
async fn ten_thousand_routes_go_in_and_out() {
    let host = Sandbox::new().await;
    for net in ["10.0.0.0/8", "fd01::/64"] {
        let entries = entries(net, 10_000);
        let upserts: Vec<_> = entries.iter().cloned().map(RouteChange::Upsert).collect();
        let outcomes = host.netlink.apply_routes(&upserts).await.unwrap();
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(host.netlink.routes(&filter()).await.unwrap().len(), 10_000);
        let deletes: Vec<_> = entries.into_iter().map(RouteChange::Delete).collect();
        host.netlink.apply_routes(&deletes).await.unwrap();
        assert_eq!(host.netlink.routes(&filter()).await.unwrap(), []);
    }
}

/// Each reading is of one moment: a route that is there throughout is in each.
#[tokio::test]
async fn readings_are_whole_while_others_write() {
    let host = Sandbox::new().await;
    let writer = Netlink::open_in(&host.netns).unwrap();
    let steady: Vec<_> = entries("10.0.0.0/8", 2_000);
    let upserts: Vec<_> = steady.iter().cloned().map(RouteChange::Upsert).collect();
    host.netlink.apply_routes(&upserts).await.unwrap();
    let churn = tokio::spawn(async move {
        let others = entries("9.0.0.0/8", 200);
        loop {
            let upserts: Vec<_> = others.iter().cloned().map(RouteChange::Upsert).collect();
            let deletes: Vec<_> = others.iter().cloned().map(RouteChange::Delete).collect();
            writer.apply_routes(&upserts).await.unwrap();
            writer.apply_routes(&deletes).await.unwrap();
        }
    });
    for _ in 0..50 {
        // A table that never rests may be unreadable, but never misread.
        match host.netlink.routes(&filter()).await {
            Ok(found) => {
                let first = cidr("10.0.0.0/8");
                let count = found.iter().filter(|route| first.covers(&route.dst)).count();
                assert_eq!(count, 2_000);
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    churn.abort();
}

#[tokio::test]
async fn a_request_that_was_given_up_does_not_harm_the_next() {
    let host = Sandbox::new().await;
    let upserts: Vec<_> =
        entries("10.0.0.0/8", 5_000).into_iter().map(RouteChange::Upsert).collect();
    host.netlink.apply_routes(&upserts).await.unwrap();
    for _ in 0..20 {
        let reading = host.netlink.clone();
        let given_up = tokio::spawn(async move { reading.routes(&filter()).await });
        tokio::task::yield_now().await;
        given_up.abort();
        assert_eq!(host.netlink.links().await.unwrap().len(), 1);
    }
    assert_eq!(host.netlink.routes(&filter()).await.unwrap().len(), 5_000);
}
