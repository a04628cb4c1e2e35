//! How fast this node's pods may receive and send: annotations of pods, brought into the kernel.
//!
//! Pods of this node are watched for themselves, since nothing else depends on these annotations.
//! What the kernel has is compared with what should be, whenever a pod or a link changes; only
//! queues with our handle are touched, and only on interfaces of pods that are known.

use std::collections::BTreeMap;
use std::time::Duration;

use api::qos::{Bandwidth, Rate, bandwidth};
use datastore::{Change, Client, Filter, Mirror, ObjectKey};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kernel::Netlink;
use kernel::monitor::{Monitor, Topic};
use kernel::netlink::{Error, Link, RateLimit, ifb_name};
use model::id::NodeName;
use model::net::{IfIndex, IfName};

/// How long changes may gather, so that a burst costs one comparison.
const SETTLE: Duration = Duration::from_millis(50);
/// How often to compare though nothing happens.
const REFRESH: Duration = Duration::from_secs(90);
/// What links for receiving are made of, and how their names start.
const IFB: &str = "ifb";
const IFB_START: &str = "bw-";

/// Limits by the hosts' sides of pods; pods without limits have an entry too.
type Limits = BTreeMap<IfName, Bandwidth>;

/// Something to be done about a link.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    LimitSending(IfIndex, RateLimit),
    UnlimitSending(IfIndex),
    LimitReceiving(IfIndex, IfName, RateLimit),
    UnlimitReceiving(IfIndex, IfName),
    DeleteLink(IfName),
}

/// Looks after limits until the daemon ends.
pub(crate) async fn run(client: Client, netlink: Netlink, node: NodeName, prefix: String) {
    let Ok(mut monitor) = Monitor::open(&[Topic::Links]) else {
        tracing::error!("no netlink socket: bandwidth of pods is not limited");
        return;
    };
    let filter = Filter { fields: Some(format!("spec.nodeName={node}")), ..Filter::default() };
    let mut stream = std::pin::pin!(client.watch::<Pod>(&filter));
    let (mut mirror, mut limits, mut is_synced) = (Mirror::default(), Limits::new(), false);
    let mut names = BTreeMap::new();
    loop {
        tokio::select! {
            event = stream.next() => {
                let Some(event) = event else { return };
                for change in mirror.apply(event) {
                    is_synced |= matches!(change, Change::Synced);
                    note(change, &prefix, &mut names, &mut limits);
                }
            }
            batch = monitor.next_batch() => if batch.is_err() { return },
            () = tokio::time::sleep(REFRESH) => {}
        }
        // A half-known set of pods limits, but lifts no limit.
        if !is_synced {
            continue;
        }
        tokio::time::sleep(SETTLE).await;
        if let Err(error) = settle(&netlink, &limits).await {
            tracing::warn!(%error, "bandwidth of pods is not limited as it should be");
        }
    }
}

/// Takes note of a pod.
fn note(
    change: Change<Pod>,
    prefix: &str,
    names: &mut BTreeMap<ObjectKey, IfName>,
    limits: &mut Limits,
) {
    let (key, pod) = match change {
        Change::Upsert(key, pod) => (key, Some(pod)),
        Change::Delete(key) | Change::Unreadable(key, _) => (key, None),
        Change::Synced => return,
    };
    let namespace = key.namespace.clone().unwrap_or_default();
    let if_name = api::names::host_veth_name(&namespace, &key.name, prefix);
    let is_ours =
        |pod: &Pod| !pod.spec.as_ref().is_some_and(|spec| spec.host_network.unwrap_or_default());
    match (pod.filter(is_ours), if_name) {
        (Some(pod), Some(if_name)) => {
            let annotations = pod.metadata.annotations.unwrap_or_default();
            let (bandwidth, faults) = bandwidth(&annotations);
            if limits.get(&if_name) != Some(&bandwidth) {
                for fault in faults {
                    tracing::warn!(pod = %key, %fault, "not limited");
                }
            }
            limits.insert(if_name.clone(), bandwidth);
            names.insert(key, if_name);
        }
        _ => {
            if let Some(if_name) = names.remove(&key) {
                limits.remove(&if_name);
            }
        }
    }
}

async fn settle(netlink: &Netlink, limits: &Limits) -> Result<(), Error> {
    let (links, actual) = tokio::try_join!(netlink.links(), netlink.limits())?;
    for step in plan(limits, &links, &actual) {
        tracing::debug!(?step, "limits of bandwidth");
        let done = match &step {
            Step::LimitSending(link, limit) => netlink.limit_sending(*link, *limit).await,
            Step::UnlimitSending(link) => netlink.unlimit_sending(*link).await.map(drop),
            Step::LimitReceiving(link, ifb, limit) => {
                netlink.limit_receiving(*link, ifb, *limit).await
            }
            Step::UnlimitReceiving(link, ifb) => {
                netlink.unlimit_receiving(*link, ifb).await.map(drop)
            }
            Step::DeleteLink(name) => netlink.delete_link(name).await.map(drop),
        };
        // Pods come and go meanwhile.
        done.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error) })?;
    }
    Ok(())
}

/// Decides what to do so that links are limited as they should be.
fn plan(limits: &Limits, links: &[Link], actual: &BTreeMap<IfIndex, RateLimit>) -> Vec<Step> {
    let limit = |rate: Rate| RateLimit::of_bits(rate.rate, rate.burst);
    let by_name: BTreeMap<&str, &Link> =
        links.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut steps = Vec::new();
    let mut kept = Vec::new();
    for link in links {
        let Some(ifb) = ifb_name(&link.name) else { continue };
        let through = by_name.get(ifb.as_str()).and_then(|through| actual.get(&through.index));
        kept.push(ifb.clone());
        let Some(wanted) = limits.get(&link.name) else { continue };
        match (wanted.ingress.map(limit), actual.get(&link.index)) {
            (Some(wanted), found) if !found.is_some_and(|found| is_same(*found, wanted)) => {
                steps.push(Step::LimitSending(link.index, wanted));
            }
            (None, Some(_)) => steps.push(Step::UnlimitSending(link.index)),
            _ => {}
        }
        let is_there = by_name.contains_key(ifb.as_str());
        match (wanted.egress.map(limit), through) {
            (Some(wanted), found) if !found.is_some_and(|found| is_same(*found, wanted)) => {
                steps.push(Step::LimitReceiving(link.index, ifb, wanted));
            }
            (None, _) if is_there => steps.push(Step::UnlimitReceiving(link.index, ifb)),
            _ => {}
        }
    }
    // What a pod received through outlives the pod's interface.
    let is_left = |link: &&Link| {
        link.kind.as_deref() == Some(IFB)
            && link.name.as_str().starts_with(IFB_START)
            && actual.contains_key(&link.index)
            && !kept.contains(&link.name)
    };
    steps.extend(links.iter().filter(is_left).map(|link| Step::DeleteLink(link.name.clone())));
    steps
}

/// Is a limit as it should be? The kernel rounds bursts.
fn is_same(found: RateLimit, wanted: RateLimit) -> bool {
    let close = found.burst.abs_diff(wanted.burst) <= wanted.burst / 20;
    found.rate == wanted.rate && close
}

#[cfg(test)]
mod tests {
    use model::net::Mtu;

    use super::*;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            index: IfIndex(index),
            name: name.parse().unwrap(),
            mac: None,
            mtu: Mtu(1500),
            is_up: true,
            is_running: true,
            is_loopback: false,
            kind: Some(kind.to_owned()),
            peer: None,
            vxlan: None,
            master: None,
            vrf_table: None,
            alias: None,
        }
    }

    const RATE: Option<Rate> = Some(Rate { rate: 8_000_000, burst: 800_000 });

    fn wanted(ingress: Option<Rate>, egress: Option<Rate>) -> Limits {
        [("cali1".parse().unwrap(), Bandwidth { ingress, egress })].into()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let limit = RateLimit::of_bits(8_000_000, 800_000);
        let ifb: IfName = "bw-cali1".parse().unwrap();
        let links = [link(2, "eth0", "veth"), link(5, "cali1", "veth")];
        let both = wanted(RATE, RATE);
        assert_eq!(
            plan(&both, &links, &BTreeMap::new()),
            [
                Step::LimitSending(IfIndex(5), limit),
                Step::LimitReceiving(IfIndex(5), ifb.clone(), limit)
            ]
        );
        let links = [link(2, "eth0", "veth"), link(5, "cali1", "veth"), link(6, "bw-cali1", IFB)];
        let rounded = RateLimit { burst: limit.burst - 7, ..limit };
        let actual = [(IfIndex(5), rounded), (IfIndex(6), limit)].into();
        assert_eq!(plan(&both, &links, &actual), []);
        assert_eq!(
            plan(&wanted(None, None), &links, &actual),
            [Step::UnlimitSending(IfIndex(5)), Step::UnlimitReceiving(IfIndex(5), ifb)]
        );
        // Nobody knows the pod: it is not ours to decide.
        assert_eq!(plan(&Limits::new(), &links, &actual), []);
    }

    #[test]
    fn what_outlives_its_pod_goes() {
        let limit = RateLimit::of_bits(8_000_000, 800_000);
        let links = [link(6, "bw-cali1", IFB), link(7, "bw-other", IFB), link(8, "bw-x", "veth")];
        let actual = [(IfIndex(6), limit), (IfIndex(8), limit)].into();
        let name: IfName = "bw-cali1".parse().unwrap();
        assert_eq!(plan(&Limits::new(), &links, &actual), [Step::DeleteLink(name)]);
    }
}
