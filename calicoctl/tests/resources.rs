//! Objects of every kind, as people write them, through the real program to a real API server.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use serde_json::{Value, json};

#[test]
fn objects_are_written_and_read_on_the_embedded_datastore() {
    objects_are_written_and_read(Kind::Embedded);
}

#[test]
fn objects_are_written_and_read_on_kubernetes() {
    objects_are_written_and_read(Kind::Kubernetes);
}

struct Cluster {
    dir: PathBuf,
    plane: ControlPlane,
}

fn objects_are_written_and_read(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { is_durable: false, ..Settings::loopback(kind, dir.path()) };
    let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
    plane.install().unwrap();
    let cluster = Cluster { dir: dir.path().to_owned(), plane };
    every_kind(&cluster);
    pools(&cluster);
    policies(&cluster);
    nodes_and_pods(&cluster);
    docker(&cluster);
}

/// Where there is Docker, profiles are objects that people write.
fn docker(cluster: &Cluster) {
    cluster.plane.install_docker().unwrap();
    let profile = |action: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {{name: shop}}\n\
             spec: {{egress: [{{action: {action}}}], labelsToApply: {{shop: ''}}}}\n"
        )
    };
    for action in ["Allow", "Deny"] {
        cluster.file("profile.yaml", &profile(action));
        cluster.succeeds(&["apply", "-f", "profile.yaml"]);
        let said = cluster.succeeds(&["get", "profile", "shop", "-o", "yaml"]);
        assert!(said.contains(&format!("action: {action}")), "{said}");
    }
    cluster.file("profile.yaml", &profile("Perhaps"));
    assert!(cluster.refused(&["apply", "-f", "profile.yaml"]).contains("action"));
    assert!(cluster.succeeds(&["get", "profiles"]).contains("kns.default"));
    cluster.succeeds(&["delete", "profile", "shop"]);
    assert!(!cluster.succeeds(&["get", "profiles"]).contains("shop"));
}

/// What is applied is what is got, applied again it changes nothing, deleted it is gone.
fn every_kind(cluster: &Cluster) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/api/objects");
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let fixture: Value = serde_saphyr::from_str(&text).unwrap();
        let Ok(resource) = api::v3::resource_of(&fixture) else { continue };
        if !resource.is_writable {
            continue;
        }
        let file = entry.path().display().to_string();
        let said = cluster.succeeds(&["apply", "-f", &file]);
        assert_eq!(said, format!("Successfully applied 1 '{}' resource(s)", resource.kind));
        let name = fixture["metadata"]["name"].as_str().unwrap();
        let namespace = fixture["metadata"]["namespace"].as_str().unwrap_or("default");
        let get = ["get", resource.kind, name, "-n", namespace, "-o", "json"];
        let got: Value = serde_json::from_str(&cluster.succeeds(&get)).unwrap();
        assert_eq!(got["apiVersion"], api::v3::VERSION);
        for (key, value) in fixture["spec"].as_object().unwrap() {
            assert_eq!(&got["spec"][key], value, "{} {key}", resource.kind);
        }
        std::fs::write(cluster.dir.join("got.json"), got.to_string()).unwrap();
        cluster.succeeds(&["replace", "-f", "got.json"]);
        assert!(cluster.refused(&["create", "-f", &file]).contains("exists: use apply or replace"));
        cluster.succeeds(&["create", "--skip-exists", "-f", &file]);
        cluster.succeeds(&["delete", resource.kind, name, "-n", namespace]);
        cluster.refused(&["delete", resource.kind, name, "-n", namespace]);
        cluster.succeeds(&["delete", resource.kind, name, "-n", namespace, "--skip-not-exists"]);
        tried += 1;
    }
    assert_eq!(tried, 18);
}

fn pools(cluster: &Cluster) {
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: one, labels: {a: b}}\n\
                spec: {cidr: 10.5.0.0/16, natOutgoing: true}\n";
    cluster.file("pool.yaml", pool);
    cluster.succeeds(&["create", "-f", "pool.yaml"]);
    let table = "NAME   CIDR          SELECTOR\none    10.5.0.0/16   all()";
    assert_eq!(cluster.succeeds(&["get", "ippools"]), table);
    assert_eq!(
        cluster.succeeds(&["get", "pool", "-o", "custom-columns=NAME,NAT"]),
        "NAME   NAT\none    true"
    );
    assert_eq!(cluster.succeeds(&["get", "ipp", "-o", "name"]), "ippool/one");
    cluster.file("other.yaml", &pool.replace("name: one", "name: two").replace("/16", "/24"));
    let said = cluster.refused(&["apply", "-f", "other.yaml"]);
    assert!(said.contains("overlaps 10.5.0.0/16 of IPPool one"), "{said}");
    cluster.file("changed.yaml", &pool.replace("natOutgoing: true", "blockSize: 28"));
    let said = cluster.refused(&["apply", "-f", "changed.yaml"]);
    assert!(said.contains("spec.blockSize is 26 and cannot be changed"), "{said}");
    cluster.succeeds(&["patch", "ippool", "one", "-p", "{\"spec\": {\"disabled\": true}}"]);
    let operations = "[{\"op\": \"replace\", \"path\": \"/spec/natOutgoing\", \"value\": false}]";
    cluster.succeeds(&["patch", "ippool", "one", "-t", "json", "-p", operations]);
    cluster.succeeds(&["label", "ippool", "one", "zone=west"]);
    assert!(cluster.refused(&["label", "ippool", "one", "zone=east"]).contains("--overwrite"));
    cluster.succeeds(&["label", "ippool", "one", "a", "--remove"]);
    let got: Value =
        serde_json::from_str(&cluster.succeeds(&["get", "ippool", "one", "-o", "json"])).unwrap();
    assert_eq!(got["spec"]["disabled"], true);
    assert_eq!(got["spec"]["natOutgoing"], false);
    assert_eq!(got["metadata"]["labels"], json!({"zone": "west"}));
    let exported = cluster.succeeds(&["get", "ippool", "one", "-o", "yaml", "--export"]);
    assert!(!exported.contains("resourceVersion"), "{exported}");
    cluster.succeeds(&["delete", "-f", "pool.yaml"]);
    assert!(cluster.refused(&["get", "pods"]).contains("use one of BGPConfiguration"));
}

fn policies(cluster: &Cluster) {
    let policy = |name: &str, namespace: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{order: 5, selector: app == 'web', ingress: [{{action: Allow}}]}}\n---\n"
        )
    };
    let text = policy("web", "default") + &policy("web", "kube-system");
    cluster.file("policies.yaml", &text);
    let said = cluster.succeeds(&["apply", "-f", "policies.yaml"]);
    assert_eq!(said, "Successfully applied 2 'NetworkPolicy' resource(s)");
    let all =
        "NAMESPACE     NAME   TIER\ndefault       web    default\nkube-system   web    default";
    assert_eq!(cluster.succeeds(&["get", "np", "-A"]), all);
    assert_eq!(cluster.succeeds(&["get", "np"]), "NAME   TIER\nweb    default");
    let wide = cluster.succeeds(&["get", "np", "-n", "kube-system", "-o", "wide"]);
    assert_eq!(wide, "NAME   TIER      ORDER   SELECTOR\nweb    default   5       app == 'web'");
    cluster.file("wrong.yaml", &text.replacen("app == 'web'", "app = web", 1));
    let said = cluster.refused(&["validate", "-f", "wrong.yaml"]);
    assert!(said.contains("NetworkPolicy default/web: spec.selector"), "{said}");
    let kept = cluster.plane.kubectl(&[
        "get",
        "networkpolicies.crd.projectcalico.org",
        "web",
        "-n",
        "default",
        "-o",
        "yaml",
    ]);
    cluster.file("kept.yaml", &kept.unwrap());
    let converted = cluster.succeeds(&["convert", "-f", "kept.yaml"]);
    assert!(converted.contains("projectcalico.org/v3"), "{converted}");
    assert!(cluster.refused(&["delete", "tier", "default"]).contains("it stays"));
    assert!(
        cluster
            .refused(&["patch", "clusterinformation", "default", "-p", "{}"])
            .contains("programs only")
    );
}

fn nodes_and_pods(cluster: &Cluster) {
    let api = cluster.plane.api().unwrap();
    api.create::<k8s_openapi::api::core::v1::Node>(json!({"metadata": {
        "name": "node-1",
        "annotations": {"projectcalico.org/IPv4Address": "192.0.2.1/24", "projectcalico.org/ASNumber": "64513"},
    }}))
    .unwrap();
    let table = "NAME     ASN     IPV4           IPV6\nnode-1   64513   192.0.2.1/24";
    assert_eq!(cluster.succeeds(&["get", "nodes", "-o", "wide"]), table);
    assert!(cluster.succeeds(&["get", "profiles"]).contains("kns.default"));
    assert_eq!(
        cluster.succeeds(&["get", "wep", "-A"]),
        "NAMESPACE   WORKLOAD   NODE   NETWORKS   INTERFACE"
    );
}

impl Cluster {
    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).unwrap();
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calicoctl"));
        command.env("KUBECONFIG", self.plane.kubeconfig(Identity::Admin)).current_dir(&self.dir);
        command.args(arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}
