//! Addresses that host-local gave to running pods become ours, once and for each container.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use datastore::{Client, Options};
use ipam_plugin::delete::delete;
use ipam_plugin::holder::Holder;
use ipam_plugin::host_local::adopt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use lab::api_access::Api;
use lab::control_plane::{Identity, Kind};
use ledger::{Driver, HostLock};
use serde_json::json;

use super::{Datastore, Held};

const CLUSTER: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.244.0.0/16, nodeSelector: all()}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
";

#[test]
fn pods_of_host_local_keep_their_addresses_on_the_embedded_datastore() {
    pods_keep_their_addresses(Kind::Embedded);
}

#[test]
fn pods_of_host_local_keep_their_addresses_on_kubernetes() {
    pods_keep_their_addresses(Kind::Kubernetes);
}

fn pods_keep_their_addresses(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    let store = Datastore::start(kind, directory.path(), CLUSTER);
    let (api, plane) = (&store.api, &store.plane);
    let networks = directory.path().join("k8s-pod-network");
    fs::create_dir(&networks).unwrap();
    host_local_gave(&networks, "10.244.1.2", "c1");
    host_local_gave(&networks, "10.244.1.3", "c2");
    fs::write(networks.join("last_reserved_ip.0"), "10.244.1.3").unwrap();
    fs::write(networks.join("lock"), "").unwrap();
    run(api, "web", "10.244.1.2");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let adopted = || {
        runtime.block_on(async {
            // As the init container of calico-node does it.
            let client =
                Client::connect(&Options::kubeconfig(plane.kubeconfig(Identity::Node))).unwrap();
            adopt(&client, &HostLock::none(), &"node-1".parse().unwrap(), &networks).await
        })
    };
    adopted().unwrap();
    let of = |handle: &str, pod: Option<&str>| {
        (format!("k8s-pod-network.{handle}"), pod.map(str::to_owned))
    };
    let expected = BTreeMap::from([
        ("10.244.1.2".to_owned(), of("c1", Some("web"))),
        ("10.244.1.3".to_owned(), of("c2", None)),
    ]);
    assert_eq!(holders(&store), expected);
    assert_eq!(left(&networks), ["last_reserved_ip.0", "lock"]);
    // Interrupted, it goes on; what it cannot take stays and is told.
    host_local_gave(&networks, "10.244.1.2", "c1");
    host_local_gave(&networks, "192.0.2.9", "c3");
    let error = adopted().unwrap_err().to_string();
    assert!(error.contains("1 addresses in") && error.contains("192.0.2.9"), "{error}");
    assert!(error.contains("make an IPPool that contains them"), "{error}");
    assert_eq!(holders(&store), expected);
    assert_eq!(left(&networks), ["192.0.2.9", "last_reserved_ip.0", "lock"]);
    // Their DEL finds what it frees.
    runtime.block_on(async {
        let client =
            Client::connect(&Options::kubeconfig(plane.kubeconfig(Identity::CniPlugin))).unwrap();
        let mut driver = Driver::new(client, HostLock::none());
        let holder =
            Holder { network: "k8s-pod-network".into(), container_id: "c1".into(), pod: None };
        delete(&mut driver, &holder).await.unwrap();
    });
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), ["10.244.1.3"]);
}

fn host_local_gave(networks: &Path, addr: &str, container: &str) {
    fs::write(networks.join(addr), format!("{container}\r\neth0")).unwrap();
}

fn left(networks: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(networks)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn run(api: &Api, name: &str, addr: &str) {
    api.create::<Namespace>(json!({"metadata": {"name": "shop"}})).unwrap();
    api.create::<Pod>(json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "nodeName": "node-1", "automountServiceAccountToken": false,
            "containers": [{"name": "echo", "image": "lab/echo"}],
        },
    }))
    .unwrap();
    let status = json!({"status": {"phase": "Running", "podIP": addr, "podIPs": [{"ip": addr}]}});
    api.patch_status::<Pod>(Some("shop"), name, &status).unwrap();
}

/// Returns who holds each address.
fn holders(store: &Datastore) -> BTreeMap<String, Held> {
    store.blocks().iter().flat_map(super::holders).collect()
}
