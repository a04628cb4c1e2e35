//! What calico-node's permissions are for: each is taken away, calico-node is started, and its log
//! says which one it lacks.
//!
//! What a permission is needed for depends on what there is when calico-node starts (`World`).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use http::Method;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::{Kind, root};
use lab::node::Node;
use lab::rbac;
use lab::rest::Request;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How long the API server may take to hear of a role's change, and calico-node to stumble.
const WITHIN: Duration = Duration::from_secs(30);
/// The role and its account.
const NAME: &str = "calico-node";
/// Where our kinds are.
const GROUP: &str = "/apis/crd.projectcalico.org/v1";
/// What address management keeps in the API.
const RECORDS: [&str; 3] = ["ipamhandles", "ipamblocks", "blockaffinities"];
/// What the first node makes for the cluster.
const FIRST: [&str; 4] = ["felixconfigurations", "ippools", "tiers", "clusterinformations"];
/// What makes calico-node do all that needs a permission on one node alone.
const SETTINGS: &[(&str, &str)] = &[("KUBECONFIG", ""), ("CALICO_IPV4POOL_VXLAN", "Always")];
/// Kinds that a cluster may be without, and something to answer and something that cannot be
/// followed.
const OBJECTS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: profiles.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  scope: Cluster
  names: {kind: Profile, listKind: ProfileList, plural: profiles, singular: profile}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: workloadendpoints.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  scope: Namespaced
  names:
    kind: WorkloadEndpoint
    listKind: WorkloadEndpointList
    plural: workloadendpoints
    singular: workloadendpoint
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
/// Objects of the kinds that are there now.
const WISHES: &str = r"
apiVersion: crd.projectcalico.org/v1
kind: CalicoNodeStatus
metadata: {name: node-1}
spec: {node: node-1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 1}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 10.96.0.0/16}]}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: nobody}
spec: {peerIP: nonsense, asNumber: 64999}
";

/// What there is when calico-node starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum World {
    /// All that calico-node has once made, its tunnel's address among it.
    Settled,
    /// Nothing that the first node makes.
    Empty,
    /// Another version has been here.
    OtherVersion,
    /// Nobody knows the node's address.
    Unknown,
    /// The tunnel's address is not held, where the node has a block.
    Unassigned,
    /// The tunnel is not wanted any more.
    Leaving,
    /// The tunnel is to have an address of another pool, and the node's block is of one that is off.
    Moving,
    /// What is told of policies is not there.
    Unreported,
    /// What is told of policies is wrong.
    Misreported,
}
use World::{
    Empty, Leaving, Misreported, Moving, OtherVersion, Settled, Unassigned, Unknown, Unreported,
};

/// What shows that a permission is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deed {
    /// A start in such a world.
    Start(World),
    /// The same, with the log of one who looks for something.
    Whispered(World),
    /// Nothing that is sure to happen here, and why it is granted.
    Rare(&'static str),
}
use Deed::{Rare, Start, Whispered};

/// The role that grants it, by the place that it is for: the whole cluster, or a namespace.
const CLUSTER: &str = "";
const SYSTEM: &str = "kube-system";
const DEFAULT: &str = "default";

/// Resources of which everything is read for as long as calico-node runs.
const WATCHED: &[&str] = &[
    "namespaces",
    "nodes",
    "pods",
    "serviceaccounts",
    "services",
    "endpointslices.discovery.k8s.io",
    "networkpolicies.networking.k8s.io",
    "clusternetworkpolicies.policy.networking.k8s.io",
    "bgpconfigurations.crd.projectcalico.org",
    "bgpfilters.crd.projectcalico.org",
    "bgppeers.crd.projectcalico.org",
    "blockaffinities.crd.projectcalico.org",
    "caliconodestatuses.crd.projectcalico.org",
    "felixconfigurations.crd.projectcalico.org",
    "globalnetworkpolicies.crd.projectcalico.org",
    "globalnetworksets.crd.projectcalico.org",
    "hostendpoints.crd.projectcalico.org",
    "ippools.crd.projectcalico.org",
    "networkpolicies.crd.projectcalico.org",
    "networksets.crd.projectcalico.org",
    "stagedglobalnetworkpolicies.crd.projectcalico.org",
    "stagedkubernetesnetworkpolicies.crd.projectcalico.org",
    "stagednetworkpolicies.crd.projectcalico.org",
    "tiers.crd.projectcalico.org",
];

/// Those of Docker hosts: roles of Calico's lack them, and clusters without Docker need not hear that
/// at each start. calico-node says it to who asks it to say more.
const OF_DOCKER: &[&str] =
    &["profiles.crd.projectcalico.org", "workloadendpoints.crd.projectcalico.org"];

/// Each other permission, by its role, and what fails without it; the order spares preparations.
const NEEDS: &[(&str, &str, Deed)] = &[
    (CLUSTER, "create serviceaccounts/token", Start(Settled)),
    (CLUSTER, "get nodes", Start(Settled)),
    (CLUSTER, "patch nodes/status", Start(Unknown)),
    (CLUSTER, "get felixconfigurations.crd.projectcalico.org", Start(Settled)),
    (CLUSTER, "get clusterinformations.crd.projectcalico.org", Start(Settled)),
    (CLUSTER, "get tiers.crd.projectcalico.org", Start(Settled)),
    (CLUSTER, "patch caliconodestatuses/status.crd.projectcalico.org", Start(Settled)),
    (CLUSTER, "get ipamhandles.crd.projectcalico.org", Start(Settled)),
    (CLUSTER, "get ipamblocks.crd.projectcalico.org", Start(Settled)),
    (DEFAULT, "create events", Start(Settled)),
    (SYSTEM, "get configmaps", Start(Settled)),
    (SYSTEM, "create configmaps", Start(Unreported)),
    (SYSTEM, "update configmaps", Start(Misreported)),
    (CLUSTER, "update clusterinformations.crd.projectcalico.org", Start(OtherVersion)),
    (CLUSTER, "get ipamconfigs.crd.projectcalico.org", Start(Unassigned)),
    (CLUSTER, "list ipreservations.crd.projectcalico.org", Start(Unassigned)),
    (CLUSTER, "update ipamblocks.crd.projectcalico.org", Start(Leaving)),
    (CLUSTER, "create ipamhandles.crd.projectcalico.org", Start(Unassigned)),
    (CLUSTER, "delete ipamhandles.crd.projectcalico.org", Start(Leaving)),
    (CLUSTER, "delete blockaffinities.crd.projectcalico.org", Start(Moving)),
    (CLUSTER, "delete ipamblocks.crd.projectcalico.org", Start(Moving)),
    (CLUSTER, "create felixconfigurations.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "create ippools.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "get ippools.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "create tiers.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "create clusterinformations.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "create blockaffinities.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "update blockaffinities.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "list ipamblocks.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "create ipamblocks.crd.projectcalico.org", Start(Empty)),
    (CLUSTER, "get blockaffinities.crd.projectcalico.org", Rare("two claim a block at once")),
    (CLUSTER, "update ipamhandles.crd.projectcalico.org", Rare("a tunnel held two addresses")),
    (DEFAULT, "update events", Rare("the same trouble comes twice")),
];

/// One thing that a role permits.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Grant {
    /// The namespace of the role, empty for that of the whole cluster.
    role: String,
    group: String,
    resource: String,
    /// The only objects that it is for; all, if there are none.
    names: Vec<String>,
    verb: String,
}

/// Takes one permission after the other.
pub(crate) fn are_needed(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let grants = grants()?;
    let table = table();
    require_complete(&grants, &table)?;
    let plan = Plan { control_plane, nodes: 1, families: Families::V4, fabric: Fabric::Bridge };
    let cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    let definitions = root().join("testdata/lab/clusternetworkpolicies.yaml");
    cluster.api.apply_file(&definitions)?;
    cluster.api.apply(OBJECTS)?;
    cluster.api.wait_established()?;
    cluster.api.apply(WISHES)?;
    let lab = Lab { cluster, grants };
    let token = lab.cluster.api.create_token(SYSTEM, NAME)?;
    lab.cluster.write_account(lab.node()?, "at first", &token)?;
    lab.settle()?;
    let mut wrong = Vec::new();
    let mut last = Settled;
    for (role, name, deed) in &table {
        let world = match deed {
            Rare(why) => {
                eprintln!("{name}: {why}");
                continue;
            }
            Start(world) | Whispered(world) => *world,
        };
        // Only what a settled world lacks a permission for leaves it as it is.
        if last != Settled {
            lab.settle()?;
        }
        lab.prepare(world)?;
        let level = if matches!(deed, Whispered(_)) { "Debug" } else { "Warning" };
        match lab.without(role, name, level) {
            Ok(line) => eprintln!("needs {name}: {line}"),
            Err(error) => wrong.push(format!("{role} {name}, {world:?}: {error}")),
        }
        last = world;
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::wrong(wrong.join("\n"))) }
}

struct Lab {
    cluster: Cluster,
    grants: Vec<Grant>,
}

impl Lab {
    fn node(&self) -> Result<&Node, Error> {
        self.cluster.node("node-1")
    }

    fn start(&self, level: &str) -> Result<(), Error> {
        let level = [("FELIX_LOGSEVERITYSCREEN", level)];
        self.cluster.start_daemon_as_pod(self.node()?, &[SETTINGS, &level].concat())
    }

    /// Ends calico-node, if it has not ended by itself.
    fn end(&self) -> Result<(), Error> {
        self.cluster.end_daemon(self.node()?, Signal::SIGKILL)
    }

    /// Has calico-node do all that it does, with every permission.
    fn settle(&self) -> Result<(), Error> {
        self.permit(None)?;
        self.change(
            "ippools/default-ipv4-ippool",
            &json!({
                "spec": {"vxlanMode": "Always", "disabled": false},
            }),
        )?;
        self.delete("ippools/other")?;
        self.start("Info")?;
        eventually("calico-node to have done everything", WITHIN, || {
            let node = self.get("/api/v1/nodes/node-1")?;
            let annotation = "/metadata/annotations/projectcalico.org~1IPv4VXLANTunnelAddr";
            let handle = self.get(&format!("{GROUP}/ipamhandles/vxlan-tunnel-addr-node-1"))?;
            let report = self.get(REPORT)?;
            let pool = self.get(&format!("{GROUP}/ippools/default-ipv4-ippool"))?;
            let is_of_pool = pool.pointer("/spec/cidr") == Some(&json!("10.244.0.0/16"));
            let addr = node.pointer(annotation).and_then(Value::as_str).unwrap_or_default();
            let is_done = addr.starts_with("10.244.") && handle.get("spec").is_some();
            if is_done && is_of_pool && report.get("data").is_some() {
                return Ok(());
            }
            Err(Error::wrong(format!("{addr}, {handle}, {report}, {pool}")))
        })?;
        self.end()
    }

    /// Makes a settled world another one.
    fn prepare(&self, world: World) -> Result<(), Error> {
        match world {
            Settled => Ok(()),
            Empty => {
                for plural in RECORDS.iter().chain(&FIRST) {
                    self.delete(plural)?;
                }
                self.forget("IPv4VXLANTunnelAddr")
            }
            Unknown => self.forget("IPv4Address"),
            OtherVersion => {
                let other = json!({"spec": {"calicoVersion": "v0"}});
                self.change("clusterinformations/default", &other)
            }
            Unassigned => {
                self.delete("ipamhandles/vxlan-tunnel-addr-node-1")?;
                self.forget("IPv4VXLANTunnelAddr")
            }
            Leaving => {
                let never = json!({"spec": {"vxlanMode": "Never"}});
                self.change("ippools/default-ipv4-ippool", &never)
            }
            Moving => {
                let other = json!({
                    "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool",
                    "metadata": {"name": "other"},
                    "spec": {"cidr": "10.99.0.0/24", "blockSize": 26, "vxlanMode": "Always"},
                });
                self.cluster.api.create_any(&other)?;
                let off = json!({"spec": {"vxlanMode": "Never", "disabled": true}});
                self.change("ippools/default-ipv4-ippool", &off)
            }
            Unreported => {
                let request = Request { method: Method::DELETE, ..Request::get(REPORT) };
                self.cluster.api.send(request)?.success().map(drop)
            }
            Misreported => {
                let wrong = json!({"data": {"report": "of somebody else"}});
                self.cluster.api.send(Request::merge(REPORT, &wrong))?.success().map(drop)
            }
        }
    }

    /// Takes an annotation of ours from the Node.
    fn forget(&self, annotation: &str) -> Result<(), Error> {
        let name = format!("projectcalico.org/{annotation}");
        let none = json!({"metadata": {"annotations": {name: null}}});
        self.cluster.api.send(Request::merge("/api/v1/nodes/node-1", &none))?.success().map(drop)
    }

    /// Starts calico-node without a permission, and returns the line of its log that says so.
    fn without(&self, role: &str, name: &str, level: &str) -> Result<String, Error> {
        let taken = self.grants.iter().find(|grant| grant.role == role && grant.name() == name);
        let taken = taken.ok_or_else(|| Error::wrong("nobody grants it"))?;
        self.permit(Some(taken))?;
        let log = self.node()?.dir.join("calico-node.log");
        let before = std::fs::metadata(&log).map_or(0, |log| log.len());
        let before = usize::try_from(before).map_err(Error::wrong)?;
        self.start(level)?;
        let words = format!("cannot {} resource \"{}\"", taken.verb, taken.resource);
        let told = eventually("calico-node to say what it lacks", WITHIN, || {
            let text = std::fs::read(&log).map_err(Error::file(&log))?;
            let text = String::from_utf8_lossy(text.get(before..).unwrap_or_default());
            let is_it = |line: &&str| {
                line.contains(&words)
                    && line.contains("not permitted")
                    && line.contains("grant this verb in the ClusterRole")
            };
            let line = text.lines().find(is_it).map(str::to_owned);
            line.ok_or_else(|| {
                let refused = text.lines().filter(|line| line.contains("cannot"));
                let refused: Vec<&str> = refused.take(5).collect();
                Error::wrong(format!("no `{words}`, but {refused:#?}"))
            })
        });
        self.end()?;
        told
    }

    /// Gives calico-node all permissions but one, and waits until the API server acts so.
    fn permit(&self, but: Option<&Grant>) -> Result<(), Error> {
        for role in [CLUSTER, SYSTEM, DEFAULT] {
            let rules: Vec<Value> = self
                .grants
                .iter()
                .filter(|grant| grant.role == role && Some(*grant) != but)
                .map(Grant::rule)
                .collect();
            let path = match role {
                CLUSTER => format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{NAME}"),
                role => {
                    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{role}/roles/{NAME}")
                }
            };
            self.cluster.api.send(Request::merge(path, &json!({"rules": rules})))?.success()?;
        }
        match but {
            Some(taken) => self.wait(taken, false),
            None => self.grants.iter().try_for_each(|grant| self.wait(grant, true)),
        }
    }

    /// Waits until the API server permits something, or does not (authorization.k8s.io/v1).
    fn wait(&self, grant: &Grant, is_permitted: bool) -> Result<(), Error> {
        let (resource, part) = grant.resource.split_once('/').unwrap_or((&grant.resource, ""));
        let attributes = json!({
            "verb": grant.verb, "group": grant.group, "resource": resource,
            "subresource": part, "namespace": grant.role,
            "name": grant.names.first().cloned().unwrap_or_default(),
        });
        eventually(&format!("{grant:?} to be permitted: {is_permitted}"), WITHIN, || {
            rbac::require(&self.cluster.api, NAME, &attributes, is_permitted)
        })
    }

    /// Returns an object, or whatever the server says instead.
    fn get(&self, path: &str) -> Result<Value, Error> {
        let answer = self.cluster.api.send(Request::get(path))?;
        serde_json::from_slice(&answer.body).map_err(Error::wrong)
    }

    /// Changes one of our objects, if it is there.
    fn change(&self, what: &str, change: &Value) -> Result<(), Error> {
        let answer = self.cluster.api.send(Request::merge(format!("{GROUP}/{what}"), change))?;
        if answer.status == 404 { Ok(()) } else { answer.success().map(drop) }
    }

    /// Deletes an object of ours, or all of a kind, if there is any.
    fn delete(&self, what: &str) -> Result<(), Error> {
        let path = format!("{GROUP}/{what}");
        let answer =
            self.cluster.api.send(Request { method: Method::DELETE, ..Request::get(path) })?;
        if answer.status == 404 { Ok(()) } else { answer.success().map(drop) }
    }
}

/// Where calico-node tells which policies are in force.
const REPORT: &str = "/api/v1/namespaces/kube-system/configmaps/calico-policy-report-node-1";

impl Grant {
    /// Returns what people call it.
    fn name(&self) -> String {
        let Self { verb, resource, group, .. } = self;
        let dot = if group.is_empty() { "" } else { "." };
        format!("{verb} {resource}{dot}{group}")
    }

    fn rule(&self) -> Value {
        let mut rule = json!({
            "apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb],
        });
        if let (Some(rule), false) = (rule.as_object_mut(), self.names.is_empty()) {
            rule.insert("resourceNames".to_owned(), json!(self.names));
        }
        rule
    }
}

/// Returns the whole table.
fn table() -> Vec<(&'static str, String, Deed)> {
    let deeds = [(WATCHED, Start(Settled)), (OF_DOCKER, Whispered(Settled))];
    let watched = deeds
        .into_iter()
        .flat_map(|(resources, deed)| resources.iter().map(move |resource| (resource, deed)));
    let watched = watched.flat_map(|(resource, deed)| {
        ["list", "watch"].map(|verb| (CLUSTER, format!("{verb} {resource}"), deed))
    });
    let others = NEEDS.iter().map(|(role, name, deed)| (*role, (*name).to_owned(), *deed));
    watched.chain(others).collect()
}

/// The table has each permission of the manifest, and nothing else.
fn require_complete(grants: &[Grant], table: &[(&'static str, String, Deed)]) -> Result<(), Error> {
    let granted: BTreeSet<(String, String)> =
        grants.iter().map(|grant| (grant.role.clone(), grant.name())).collect();
    let named: BTreeSet<(String, String)> =
        table.iter().map(|(role, name, _)| ((*role).to_owned(), name.clone())).collect();
    let more: Vec<_> = granted.difference(&named).collect();
    let less: Vec<_> = named.difference(&granted).collect();
    if more.is_empty() && less.is_empty() && granted.len() == grants.len() {
        return Ok(());
    }
    Err(Error::wrong(format!("not in the table: {more:#?}\nnot granted: {less:#?}")))
}

/// Returns what the manifest grants calico-node.
fn grants() -> Result<Vec<Grant>, Error> {
    let path = root().join("manifests/parts/rbac.yaml");
    let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(Error::wrong)?;
    let mut grants = Vec::new();
    for role in &objects {
        let kind = role.get("kind").and_then(Value::as_str).unwrap_or_default();
        let is_ours = role.pointer("/metadata/name").is_some_and(|name| name == NAME);
        if !is_ours || !["ClusterRole", "Role"].contains(&kind) {
            continue;
        }
        let namespace = role.pointer("/metadata/namespace").and_then(Value::as_str);
        for rule in role.get("rules").and_then(Value::as_array).into_iter().flatten() {
            let words = |field: &str| -> Vec<String> {
                let words = rule.get(field).and_then(Value::as_array).into_iter().flatten();
                words.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    grants.extend(words("verbs").into_iter().map(|verb| Grant {
                        role: namespace.unwrap_or_default().to_owned(),
                        group: group.clone(),
                        resource: resource.clone(),
                        names: words("resourceNames"),
                        verb,
                    }));
                }
            }
        }
    }
    Ok(grants)
}
