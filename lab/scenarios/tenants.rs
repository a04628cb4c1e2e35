//! Tenants (VRFs, ADR 9) whose pods have the same addresses, judged by packets: who answers is told
//! by the pods' own counters, since an address says nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::capture::Capture;
use lab::cluster::{Cluster, Fabric, Families, NAMESPACE, NewPod, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::rest::Request;
use nix::sys::signal::Signal;
use serde_json::json;

/// How long nodes may take to hear of objects and to act.
const WITHIN: Duration = Duration::from_secs(60);

/// If this variable is set, partners, restarts and the end of tenants are looked at, too: another ten
/// minutes of the second kernel's time.
const IN_FULL: &str = "TENANTS_IN_FULL";

const NAME: &str = "vrf.projectcalico.org/name";
const IMPORT: &str = "vrf.projectcalico.org/import";

/// The tenants: name, number, range. Two have the same range.
const TENANTS: [(&str, &str, &str); 3] = [
    ("red", "5001", "10.66.0.0/24"),
    ("blue", "5002", "10.66.0.0/24"),
    ("green", "5003", "10.77.0.0/24"),
];

/// Pods: namespace, name, node and the address that each asks for, if it does.
///
/// There is half a minute of the second kernel's time in each.
const PODS: [(&str, &str, &str, Option<&str>); 6] = [
    ("red", "red-1", "node-1", Some("10.66.0.1")),
    ("red", "red-2", "node-2", Some("10.66.0.65")),
    ("blue", "blue-1", "node-1", Some("10.66.0.1")),
    ("blue", "blue-2", "node-2", Some("10.66.0.65")),
    ("green", "green-1", "node-1", None),
    (NAMESPACE, "plain-1", "node-2", None),
];

/// Two tenants of one range, a third of another and everybody else share two nodes.
pub(crate) fn share_a_range(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    let before: Vec<_> = cluster.nodes.iter().map(found).collect::<Result<_, _>>()?;
    found_tenants(&cluster)?;
    add_pods(&mut cluster)?;
    let red = pod(&cluster, "red-1")?;
    cluster.node(&red.node)?.check(&red.pod)?;

    eprintln!("each tenant reaches its own");
    let capture = Capture::start(dir, "vxlan", "udp port 4789")?;
    for (from, to) in [("red-1", "red-2"), ("blue-2", "blue-1")] {
        reaches(&cluster, from, to)?;
    }
    let seen = capture.end()?.packets;
    for (vni, packets) in [(5001, 6), (5002, 6)] {
        let count = seen.iter().filter(|line| line.contains(&format!("vni {vni}"))).count();
        if count < packets {
            let text = format!("{count} packets with VNI {vni}:\n{}", seen.join("\n"));
            return Err(Error::wrong(text));
        }
    }

    eprintln!("and nobody else");
    let strangers = [("red-1", "plain-1"), ("plain-1", "red-2"), ("red-1", "green-1")];
    for (from, to) in strangers {
        is_apart(&cluster, from, to)?;
    }

    policy_tells_tenants_apart(&cluster)?;

    if std::env::var(IN_FULL).is_err() {
        return Ok(());
    }
    eprintln!("those who import each other are partners");
    import(&cluster, "red", "green")?;
    import(&cluster, "green", "red")?;
    for (from, to) in [("red-2", "green-1"), ("green-1", "red-2"), ("green-1", "red-1")] {
        eventually(&format!("{from} to reach {to}"), WITHIN, || reaches(&cluster, from, to))?;
    }
    is_apart(&cluster, "blue-2", "green-1")?;
    import(&cluster, "red", "")?;
    for (from, to) in [("red-2", "green-1"), ("green-1", "red-1")] {
        eventually(&format!("{from} to lose {to}"), WITHIN, || is_apart(&cluster, from, to))?;
    }

    survive_restarts(&cluster)?;
    leave_nothing(&mut cluster, &before)
}

/// Both have the same policy, which lets one tenant in: its pods, not the other's who have the very
/// same addresses; and then the other way round.
fn policy_tells_tenants_apart(cluster: &Cluster) -> Result<(), Error> {
    let policy = |tenant: &str| {
        json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "default.one-tenant"},
            "spec": {
                "tier": "default",
                "selector": "projectcalico.org/namespace in {'red', 'blue'}",
                "types": ["Ingress"],
                "ingress": [{
                    "action": "Allow",
                    "source": {"selector": format!("projectcalico.org/namespace == '{tenant}'")},
                }],
            },
        })
    };
    cluster.api.create_any(&policy("red"))?;
    // Each is once the guest, and once in each direction: there are seconds in each packet.
    for (welcome, other, from, to) in [("red", "blue", 1, 2), ("blue", "red", 2, 1)] {
        eprintln!("policy lets {welcome} in, and not {other}");
        cluster.api.patch_any(&policy(welcome), &policy(welcome))?;
        let [stranger, its_own] = [from, to].map(|number| format!("{other}-{number}"));
        eventually(&format!("{stranger} to be denied"), WITHIN, || {
            is_apart(cluster, &stranger, &its_own)
        })?;
        let [guest, host] = [from, to].map(|number| format!("{welcome}-{number}"));
        eventually(&format!("{guest} to be let in"), WITHIN, || reaches(cluster, &guest, &host))?;
    }
    cluster.api.delete_any(&policy("red"))
}

/// Makes the tenants' pools and namespaces, and waits until nodes have their devices.
fn found_tenants(cluster: &Cluster) -> Result<(), Error> {
    for (name, id, cidr) in TENANTS {
        cluster.api.create::<api::IpPool>(json!({
            "metadata": {
                "name": name,
                "annotations": {NAME: name, "vrf.projectcalico.org/id": id},
            },
            "spec": {"cidr": cidr, "nodeSelector": "all()"},
        }))?;
        cluster.api.create::<core::Namespace>(json!({
            "metadata": {"name": name, "annotations": {NAME: name}},
        }))?;
    }
    for node in &cluster.nodes {
        for (name, id, _) in TENANTS {
            for device in [format!("vrf-{name}"), format!("vxvrf{id}")] {
                eventually(&format!("{device} on {}", node.name), WITHIN, || {
                    let text = node.run(&["ip", "-brief", "link", "show", &device])?;
                    let is_up = text.contains("UP");
                    if is_up { Ok(()) } else { Err(Error::wrong(text)) }
                })?;
            }
        }
    }
    Ok(())
}

fn add_pods(cluster: &mut Cluster) -> Result<(), Error> {
    for (namespace, name, node, addr) in PODS {
        let wanted = NewPod::plain(namespace, name, node);
        let pod = cluster.create_pod(&wanted)?;
        if let Some(addr) = addr {
            let key = "cni.projectcalico.org/ipAddrs";
            let change = json!({"metadata": {"annotations": {key: json!([addr]).to_string()}}});
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            cluster.api.send(Request::merge(path, &change))?.success()?;
        }
        let pod = cluster.attach_pod(pod, node)?;
        if let Some(addr) = addr
            && pod.addr()?.to_string() != addr
        {
            return Err(Error::wrong(format!("{name} has {:?}, not {addr}", pod.addrs())));
        }
        cluster.pods.push(pod);
    }
    Ok(())
}

fn pod<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a RunningPod, Error> {
    let pod = cluster.pods.iter().find(|pod| pod.pod.name == name);
    pod.ok_or_else(|| Error::wrong(format!("there is no {name}")))
}

fn in_pod(cluster: &Cluster, pod: &RunningPod, command: &[&str]) -> Result<String, Error> {
    let words = [&["ip", "netns", "exec", pod.pod.container.as_str()], command].concat();
    cluster.node(&pod.node)?.run(&words)
}

/// Returns per pod how many echo requests it has got (RFC 2011, `icmpInEchos`).
fn echoes(cluster: &Cluster) -> Result<BTreeMap<String, u64>, Error> {
    let mut found = BTreeMap::new();
    for node in &cluster.nodes {
        // One process for all pods of a node: each is slow on the second kernel.
        let pods: Vec<&RunningPod> =
            cluster.pods.iter().filter(|pod| pod.node == node.name).collect();
        let each = pods
            .iter()
            .map(|pod| format!("ip netns exec {} grep ^Icmp: /proc/net/snmp", pod.pod.container));
        let text = node.run(&["sh", "-c", &each.collect::<Vec<_>>().join(" && ")])?;
        let lines: Vec<&str> = text.lines().collect();
        for (pod, lines) in pods.iter().zip(lines.chunks(2)) {
            let [names, values] = lines else { return Err(Error::wrong(text)) };
            let pairs = names.split_whitespace().zip(values.split_whitespace());
            let count = pairs.filter(|(name, _)| *name == "InEchos").last();
            let count = count.and_then(|(_, count)| count.parse().ok());
            let count = count.ok_or_else(|| Error::wrong(format!("no counter: {text}")))?;
            found.insert(pod.pod.name.clone(), count);
        }
    }
    Ok(found)
}

/// Who has got how many echo requests, and what ping says.
type Pinged = (BTreeMap<String, u64>, Result<String, Error>);

/// Sends three echo requests; returns who has got how many of them, and whether all were answered.
fn ping(cluster: &Cluster, from: &str, to: &str) -> Result<Pinged, Error> {
    let before = echoes(cluster)?;
    let addr = pod(cluster, to)?.addr()?.to_string();
    let command = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", &addr];
    let said = in_pod(cluster, pod(cluster, from)?, &command);
    let after = echoes(cluster)?;
    let news = after.into_iter().filter_map(|(name, count)| {
        let news = count.saturating_sub(before.get(&name).copied().unwrap_or_default());
        (news > 0).then_some((name, news))
    });
    Ok((news.collect(), said))
}

/// All that one pod sends to another arrives there, nowhere else, and is answered.
fn reaches(cluster: &Cluster, from: &str, to: &str) -> Result<(), Error> {
    let (got, said) = ping(cluster, from, to)?;
    let said = said?;
    if said.contains(" 3 received") && got == BTreeMap::from([(to.to_owned(), 3)]) {
        return Ok(());
    }
    Err(Error::wrong(format!("{from} to {to}: {got:?} have got echo requests:\n{said}")))
}

/// Nothing that one pod sends to another arrives at anybody.
fn is_apart(cluster: &Cluster, from: &str, to: &str) -> Result<(), Error> {
    let (got, said) = ping(cluster, from, to)?;
    match said {
        Err(_) if got.is_empty() => Ok(()),
        _ => Err(Error::wrong(format!("{from} to {to}: {got:?} have got echo requests"))),
    }
}

/// Says whom the tenant of a pool imports.
fn import(cluster: &Cluster, pool: &str, whom: &str) -> Result<(), Error> {
    let path = format!("/apis/crd.projectcalico.org/v1/ippools/{pool}");
    let change = json!({"metadata": {"annotations": {IMPORT: whom}}});
    cluster.api.send(Request::merge(path, &change))?.success().map(drop)
}

/// Tenants with the same addresses talk while their node's daemon is killed and started again.
fn survive_restarts(cluster: &Cluster) -> Result<(), Error> {
    let flows = [("red-1", "red-2"), ("blue-1", "blue-2")];
    for (from, to) in flows {
        let (from, to) = (pod(cluster, from)?, pod(cluster, to)?);
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    let victim = cluster.node("node-1")?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        eprintln!("calico-node ends by {signal}");
        cluster.end_daemon(victim, signal)?;
        cluster.start_daemon(victim)?;
        cluster.wait_ready()?;
    }
    for (from, to) in flows {
        let (from, to) = (pod(cluster, from)?, pod(cluster, to)?);
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        super::faults::require_lossless(from, to, &ledger)?;
    }
    Ok(())
}

/// Deletes pods and pools: nodes are as they were, and no object of a tenant is left.
fn leave_nothing(cluster: &mut Cluster, before: &[BTreeSet<String>]) -> Result<(), Error> {
    // A namespace that has lost its word changes nothing about where its pods' addresses are.
    let path = "/api/v1/namespaces/blue";
    let change = json!({"metadata": {"annotations": {NAME: null}}});
    cluster.api.send(Request::merge(path, &change))?.success()?;
    cluster.remove_pods(|_| true)?;
    if let Some(left) = cluster.api.list::<api::IpamHandle>()?.first() {
        return Err(Error::wrong(format!("handle {:?} is left", left.metadata.name)));
    }
    for (name, ..) in TENANTS {
        let pool = cluster.api.get::<api::IpPool>(name)?;
        cluster.api.delete(&pool.ok_or_else(|| Error::wrong(format!("no pool {name}")))?)?;
    }
    for (node, before) in cluster.nodes.iter().zip(before) {
        eventually(&format!("{} to be as before", node.name), WITHIN, || {
            let left: Vec<String> = found(node)?.difference(before).cloned().collect();
            if left.is_empty() { Ok(()) } else { Err(Error::wrong(left.join("\n"))) }
        })?;
    }
    Ok(())
}

/// Returns what VRFs could leave in a kernel: links, rules, and the tables that have routes.
///
/// One rule stays, which the kernel adds with its first VRF, and never again.
fn found(node: &Node) -> Result<BTreeSet<String>, Error> {
    let word = |line: &str, at: usize| {
        let word = line.split_whitespace().nth(at).unwrap_or_default();
        word.split('@').next().unwrap_or_default().to_owned()
    };
    let links = node.run(&["ip", "-brief", "link", "show"])?;
    let rules = node.run(&["ip", "rule", "show"])?;
    let routes = node.run(&["ip", "route", "show", "table", "all"])?;
    let links = links.lines().map(|line| format!("link {}", word(line, 0)));
    let rules = rules.lines().filter(|line| !line.contains("l3mdev-table"));
    let rules = rules.map(|line| format!("rule {line}"));
    let tables = routes.lines().filter_map(|line| line.split(" table ").nth(1));
    let tables = tables.map(|rest| format!("table {}", word(rest, 0)));
    Ok(links.chain(rules).chain(tables).collect())
}
