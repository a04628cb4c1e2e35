//! What the CNI plugin's permissions are for: each is taken away, and what needs it fails and says
//! which one it was.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use http::Method;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, NAMESPACE, NewPod, Plan, eventually};
use lab::control_plane::{Kind, root};
use lab::protocol::Pod;
use lab::rbac::{self, Permission};
use lab::rest::Request;
use serde_json::{Value, json};

use super::planted::{add_pool, delete_pool, set_disabled, set_rules};

const ACCOUNT: &str = "calico-cni-plugin";
/// How long the API server may take to hear of a role's change.
const WITHIN: Duration = Duration::from_secs(20);
/// What address management keeps in the API.
const RECORDS: [&str; 3] = ["ipamhandles", "ipamblocks", "blockaffinities"];

/// What needs a permission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deed {
    /// ADD on a node that has no block.
    Add,
    /// DEL.
    Del,
    /// ADD where the node's block is empty, and of a pool that is disabled.
    GiveUp,
    /// Nothing that is sure to happen here, and why it is granted.
    Rare(&'static str),
}
use Deed::{Add, Del, GiveUp, Rare};

/// Each permission, and what fails without it.
const NEEDS: &[(&str, Deed)] = &[
    ("get pods", Add),
    ("get nodes", Add),
    ("get namespaces", Add),
    ("patch pods/status", Add),
    ("get clusterinformations.crd.projectcalico.org", Add),
    ("get ipamconfigs.crd.projectcalico.org", Add),
    ("list ippools.crd.projectcalico.org", Add),
    ("list ipreservations.crd.projectcalico.org", Add),
    ("list blockaffinities.crd.projectcalico.org", Add),
    ("create blockaffinities.crd.projectcalico.org", Add),
    ("update blockaffinities.crd.projectcalico.org", Add),
    ("delete blockaffinities.crd.projectcalico.org", GiveUp),
    ("list ipamblocks.crd.projectcalico.org", Add),
    ("create ipamblocks.crd.projectcalico.org", Add),
    ("get ipamblocks.crd.projectcalico.org", Del),
    ("update ipamblocks.crd.projectcalico.org", Del),
    ("delete ipamblocks.crd.projectcalico.org", GiveUp),
    ("create ipamhandles.crd.projectcalico.org", Add),
    ("get ipamhandles.crd.projectcalico.org", Del),
    ("delete ipamhandles.crd.projectcalico.org", Del),
    ("get blockaffinities.crd.projectcalico.org", Rare("two claim a block at once")),
    ("update ipamhandles.crd.projectcalico.org", Rare("a pod's addresses lie in two blocks")),
];

/// Takes one permission after the other, does what needs it, and gives it back.
pub(crate) fn are_needed(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let granted = granted()?;
    let named: BTreeSet<&str> = NEEDS.iter().map(|(name, _)| *name).collect();
    let all: BTreeSet<String> = granted.iter().map(name_of).collect();
    if named.iter().any(|name| !all.contains(*name)) || named.len() != all.len() {
        return Err(Error::wrong(format!("the table has {named:#?}, and the role {all:#?}")));
    }
    let plan = Plan { control_plane, nodes: 1, families: Families::V4, fabric: Fabric::Bridge };
    let cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    let pod = cluster.create_pod(&NewPod::plain(NAMESPACE, "victim", "node-1"))?;
    let mut wrong = Vec::new();
    for (name, deed) in NEEDS {
        let permission = granted.iter().find(|permission| name_of(permission) == *name);
        let Some(permission) = permission else { continue };
        if let Rare(why) = deed {
            eprintln!("{name}: {why}");
            continue;
        }
        let outcome = without(&cluster, &pod, &granted, permission, *deed)?;
        let (verb, resource) = name.split_once(' ').unwrap_or((name, ""));
        let resource = resource.split('.').next().unwrap_or(resource);
        let said = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let is_named = said.contains(": code 110: ") && said.contains("not permitted");
        let has_words =
            said.contains(&format!("{verb} resource")) && said.contains(&format!("\"{resource}\""));
        if is_named && has_words {
            eprintln!("{deed:?} needs {name}");
        } else {
            wrong.push(format!("{deed:?} without {name}: {outcome:?}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::wrong(wrong.join("\n"))) }
}

/// Does something without a permission, and returns what became of it; before and after it there
/// is nothing in address management, and every permission.
fn without(
    cluster: &Cluster,
    pod: &Pod,
    granted: &BTreeSet<Permission>,
    permission: &Permission,
    deed: Deed,
) -> Result<Result<(), Error>, Error> {
    let node = cluster.node("node-1")?;
    if deed != Add {
        node.add(pod)?;
    }
    if deed == GiveUp {
        node.del(pod)?;
        set_disabled(&cluster.api, true)?;
        add_pool(&cluster.api)?;
    }
    let others = granted.iter().filter(|other| *other != permission);
    set_rules(&cluster.api, &rules(others))?;
    wait(cluster, permission, Expected::Refused)?;
    let outcome = match deed {
        Del => node.del(pod).map(drop),
        Add | GiveUp | Rare(_) => node.add(pod).map(drop),
    };
    set_rules(&cluster.api, &rules(granted.iter()))?;
    wait(cluster, permission, Expected::Permitted)?;
    node.del(pod)?;
    if deed == GiveUp {
        delete_pool(&cluster.api)?;
        set_disabled(&cluster.api, false)?;
    }
    for plural in RECORDS {
        let path = format!("/apis/crd.projectcalico.org/v1/{plural}");
        let all = Request { method: Method::DELETE, ..Request::get(path) };
        cluster.api.send(all)?.success()?;
    }
    Ok(outcome)
}

/// What the API server should say to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    Permitted,
    Refused,
}

/// Waits until the API server acts by the role as it is now (authorization.k8s.io/v1).
fn wait(cluster: &Cluster, permission: &Permission, expected: Expected) -> Result<(), Error> {
    let (resource, group) = parts(permission);
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let attributes = json!({
        "verb": permission.verb, "group": group, "resource": resource, "subresource": part,
    });
    eventually(&format!("{permission} to be {expected:?}"), WITHIN, || {
        rbac::require(&cluster.api, ACCOUNT, &attributes, expected == Expected::Permitted)
    })
}

/// Returns what the manifest grants the plugin.
fn granted() -> Result<BTreeSet<Permission>, Error> {
    let path = root().join("manifests/parts/rbac.yaml");
    let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    let all = rbac::granted(&text)?;
    Ok(all.into_iter().filter(|permission| permission.account == ACCOUNT).collect())
}

fn name_of(permission: &Permission) -> String {
    format!("{} {}", permission.verb, permission.resource)
}

/// Returns a permission's resource and its group.
fn parts(permission: &Permission) -> (&str, &str) {
    permission.resource.split_once('.').unwrap_or((&permission.resource, ""))
}

/// Returns the rules of a role that grants this.
fn rules<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Value {
    let rule = |permission: &'a Permission| {
        let (resource, group) = parts(permission);
        json!({"apiGroups": [group], "resources": [resource], "verbs": [permission.verb]})
    };
    permissions.map(rule).collect()
}
