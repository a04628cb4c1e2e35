//! The pods that cases are about: eight, in three namespaces, on two nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1 as core;
use model::net::Family;
use serde_json::json;

use super::cell::Cell;
use crate::Error;
use crate::cluster::{Cluster, Fabric, Families, NewPod, Plan, RunningPod};
use crate::control_plane::{Kind, root};
use crate::protocol::Transport;

/// Ports that every pod answers on: named `web` and `admin` over TCP, `talk` over UDP and
/// `link` over SCTP at pods that are called `web`.
pub const PORTS: [u16; 2] = [80, 8080];

/// Namespaces with their labels.
const NAMESPACES: [(&str, &[(&str, &str)]); 3] = [
    ("red", &[("team", "red"), ("env", "prod")]),
    ("blue", &[("team", "blue"), ("env", "prod")]),
    ("green", &[("team", "green"), ("env", "dev")]),
];

/// Namespace, name, service account, node, and labels.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// The pods.
const PODS: [Row; 8] = [
    ("red", "web", "web", "node-1", &[("app", "web"), ("tier", "front")]),
    ("red", "db", "db", "node-2", &[("app", "db"), ("tier", "back")]),
    ("red", "job", "job", "node-1", &[("app", "job")]),
    ("blue", "web", "web", "node-2", &[("app", "web"), ("tier", "front"), ("canary", "yes")]),
    ("blue", "db", "db", "node-1", &[("app", "db"), ("tier", "back")]),
    ("blue", "cache", "db", "node-2", &[("app", "cache"), ("tier", "back")]),
    ("green", "web", "web", "node-1", &[("app", "web"), ("tier", "front")]),
    ("green", "job", "job", "node-2", &[("app", "job"), ("canary", "no")]),
];

/// Service accounts with their labels.
const ACCOUNTS: [(&str, &[(&str, &str)]); 3] =
    [("web", &[("role", "serve")]), ("db", &[("role", "store")]), ("job", &[])];

/// Makes the cluster and its pods.
///
/// # Errors
///
/// [`Error`] with the step that failed.
pub fn up(dir: &Path, control_plane: Kind) -> Result<Cluster, Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::Dual, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    // Nodes notice that there is a new kind while they run.
    cluster.api.apply_file(&root().join("testdata/lab/clusternetworkpolicies.yaml"))?;
    for (namespace, labels) in NAMESPACES {
        let metadata = json!({"name": namespace, "labels": map(labels)});
        cluster.api.create::<core::Namespace>(json!({"metadata": metadata}))?;
        for (account, labels) in ACCOUNTS {
            let metadata = json!({"name": account, "namespace": namespace, "labels": map(labels)});
            cluster.api.create::<core::ServiceAccount>(json!({"metadata": metadata}))?;
        }
    }
    for (namespace, name, account, node, labels) in PODS {
        let ports = if name == "web" {
            json!([
                {"name": "web", "containerPort": 80},
                {"name": "admin", "containerPort": 8080},
                {"name": "talk", "containerPort": 8080, "protocol": "UDP"},
                {"name": "link", "containerPort": 80, "protocol": "SCTP"},
            ])
        } else {
            json!([])
        };
        let (labels, account) = (map(labels), account.to_owned());
        let pod = NewPod::plain(namespace, name, node);
        cluster.add_pod(&NewPod { labels, account, ports, ..pod })?;
    }
    for pod in &cluster.pods {
        cluster.node(&pod.node)?.serve(&pod.pod.container, &PORTS)?;
    }
    Ok(cluster)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Returns what a pod is called in cells and cases.
#[must_use]
pub fn name(pod: &RunningPod) -> String {
    format!("{}/{}", pod.pod.namespace, pod.pod.name)
}

/// Returns a pod's address of a family.
#[must_use]
pub fn addr(pod: &RunningPod, family: Family) -> Option<IpAddr> {
    pod.addrs().iter().copied().find(|addr| Family::of(*addr) == family)
}

/// Returns every cell: all ordered pairs, in all ways.
#[must_use]
pub fn cells() -> Vec<Cell> {
    let names: Vec<String> =
        PODS.iter().map(|(namespace, name, ..)| format!("{namespace}/{name}")).collect();
    let mut ways = vec![(Transport::Icmp, 0)];
    let with_ports = [Transport::Tcp, Transport::Udp, Transport::Sctp];
    ways.extend(PORTS.iter().flat_map(|port| with_ports.map(|transport| (transport, *port))));
    let mut cells = Vec::new();
    for from in &names {
        for to in names.iter().filter(|to| *to != from) {
            for family in Family::ALL {
                cells.extend(ways.iter().map(|(transport, port)| Cell {
                    from: from.clone(),
                    to: to.clone(),
                    family,
                    transport: *transport,
                    port: *port,
                }));
            }
        }
    }
    cells
}

/// Puts addresses of pods where a text names them, as `$red/web.v4` or `$red/web.v6`.
#[must_use]
pub fn with_addrs(text: &str, cluster: &Cluster) -> String {
    let mut text = text.to_owned();
    for pod in &cluster.pods {
        for (family, suffix) in [(Family::V4, "v4"), (Family::V6, "v6")] {
            let addr = addr(pod, family).map(|addr| addr.to_string()).unwrap_or_default();
            text = text.replace(&format!("${}.{suffix}", name(pod)), &addr);
        }
    }
    text
}
