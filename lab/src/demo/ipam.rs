//! Address management, shown: pools per zone and namespace, exhaustion, and a leak repaired.

use std::process::Command;
use std::time::Instant;

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::{Afterwards, keep_hints, print};
use crate::Error;
use crate::cluster::{Cluster, Fabric, Families, NAMESPACE, NewPod, Plan, RunningPod, program_dir};
use crate::control_plane::{Identity, Kind};
use crate::process::output;
use crate::sandbox::Inside;

/// The nodes and the zone of each.
const ZONES: [(&str, &str); 3] = [("node-1", "a"), ("node-2", "a"), ("node-3", "b")];
/// How many addresses the pool of the namespace `red` has.
const RED: usize = 8;

/// Runs the demonstration.
///
/// # Errors
///
/// The step that failed, or did not show what it should.
pub fn run(inside: &mut Inside, kind: Kind, afterwards: Afterwards) -> Result<(), Error> {
    let started = Instant::now();
    let say = |text: &str| print(&format!("\n[{:6.2} s] {text}", started.elapsed().as_secs_f32()));
    let plan =
        Plan { control_plane: kind, nodes: 3, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(&inside.dir, plan, &mut |step| eprintln!("{step}"))?;
    say("a pool for each zone, and one of eight addresses for the namespace red");
    make_pools(&cluster)?;
    for (number, (node, _)) in ZONES.iter().enumerate() {
        cluster.add_pod(&NewPod::plain(NAMESPACE, &format!("web-{number}"), node))?;
    }
    for number in 1..=RED {
        cluster.add_pod(&NewPod::plain("red", &format!("red-{number}"), "node-1"))?;
    }
    print(&pods(&cluster));
    ctl(&cluster, &["show", "--show-blocks"])?;
    say("one pod more than the pool of red has addresses");
    let one_more = NewPod::plain("red", "red-9", "node-1");
    let pod = cluster.create_pod(&one_more)?;
    match cluster.attach_pod(pod.clone(), "node-1") {
        Err(error) => {
            // The lab's errors have the plugin's log behind its message.
            let text = error.to_string();
            let message = text.split("  ").next().unwrap_or_default();
            print(&format!("CNI ADD of red/red-9 fails:\n  {message}"));
        }
        Ok(_) => return Err(Error::wrong("a ninth pod got one of eight addresses")),
    }
    say("two pods are removed behind the back of their node, which never hears of it");
    let lost = lose(&mut cluster, "red-3")?;
    lose(&mut cluster, "red-5")?;
    ctl(&cluster, &["check"])?;
    ctl(&cluster, &["explain", &lost])?;
    say("the repair, which shows its plan and keeps a way back");
    let undo = inside.dir.join("undo.json").display().to_string();
    ctl(&cluster, &["repair", "--yes", "--grace=0", "--undo-file", &undo])?;
    let checked = ctl(&cluster, &["check"])?;
    if !checked.contains("found 0 problems") {
        return Err(Error::wrong("the repair has left problems"));
    }
    say("the ninth pod, tried again");
    let running = cluster.attach_pod(pod, "node-1")?;
    print(&format!("red/red-9 has {}", running.addr()?));
    cluster.pods.push(running);
    ctl(&cluster, &["forecast"])?;
    say("all was as it should be");
    if afterwards == Afterwards::Keep {
        print(&keep_hints(inside, &cluster)?);
        inside.keep()?;
    }
    Ok(())
}

fn make_pools(cluster: &Cluster) -> Result<(), Error> {
    let api = &cluster.api;
    api.create::<core::Namespace>(json!({"metadata": {"name": "red", "labels": {"team": "red"}}}))?;
    let default: Option<api::IpPool> = api.get("default-ipv4-ippool")?;
    let mut default = default.ok_or_else(|| Error::wrong("there is no default pool"))?;
    default.spec.disabled = Some(true);
    api.update(&default)?;
    for (node, zone) in ZONES {
        let object: Option<core::Node> = api.get(node)?;
        let mut object = object.ok_or_else(|| Error::wrong(format!("{node} is gone")))?;
        object.metadata.labels.get_or_insert_default().insert("zone".to_owned(), zone.to_owned());
        api.update(&object)?;
    }
    let pools = [
        pool("zone-a", "10.10.0.0/24", ("zone == 'a'", "team != 'red'")),
        pool("zone-b", "10.20.0.0/24", ("zone == 'b'", "team != 'red'")),
        pool("red", "10.30.0.0/29", ("all()", "team == 'red'")),
    ];
    for object in pools {
        print(&format!("  + IPPool {}", object.get("spec").unwrap_or(&Value::Null)));
        api.create_any(&object)?;
    }
    Ok(())
}

fn pool(name: &str, cidr: &str, (nodes, namespaces): (&str, &str)) -> Value {
    json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {
            "cidr": cidr,
            "blockSize": 29,
            "nodeSelector": nodes,
            "namespaceSelector": namespaces,
            "allowedUses": ["Workload"],
        },
    })
}

fn pods(cluster: &Cluster) -> String {
    let line = |pod: &RunningPod| {
        let addrs: Vec<String> = pod.addrs().iter().map(ToString::to_string).collect();
        format!("  {}/{} on {}: {}", pod.pod.namespace, pod.pod.name, pod.node, addrs.join(" "))
    };
    cluster.pods.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Ends a pod without a CNI DEL, as when its machine lost its disk; returns its address.
fn lose(cluster: &mut Cluster, name: &str) -> Result<String, Error> {
    let at = cluster.pods.iter().position(|pod| pod.pod.name == name);
    let at = at.ok_or_else(|| Error::wrong(format!("there is no pod {name}")))?;
    let lost = cluster.pods.remove(at);
    let link = api::names::host_veth_name(&lost.pod.namespace, name, "cali");
    let link = link.ok_or_else(|| Error::wrong(format!("{name} has no link")))?;
    cluster.node(&lost.node)?.run(&["ip", "link", "delete", &link.to_string()])?;
    if let Some(object) = cluster.api.get_in::<core::Pod>(&lost.pod.namespace, name)? {
        cluster.api.delete(&object)?;
    }
    Ok(lost.addr()?.to_string())
}

/// Runs `calicoctl ipam`, shows and returns what it prints. Problems found are no failure.
fn ctl(cluster: &Cluster, arguments: &[&str]) -> Result<String, Error> {
    let program = program_dir()?.join("calicoctl");
    if !program.exists() {
        return Err(Error::Missing(program));
    }
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" ipam \"$@\"; code=$?; [ $code -eq 3 ] || exit $code"]);
    command.arg(program).args(arguments);
    command.env("KUBECONFIG", cluster.control_plane.kubeconfig(Identity::Admin));
    let said = output(&mut command)?;
    print(&format!("$ calicoctl ipam {}\n{}", arguments.join(" "), said.trim_end()));
    Ok(said)
}
