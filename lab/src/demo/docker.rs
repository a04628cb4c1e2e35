//! Docker without Kubernetes, shown: containers on two hosts, BGP between them, policy by labels.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Afterwards, keep_hints, print};
use crate::Error;
use crate::cluster::{Cluster, Fabric, Families, Plan, eventually};
use crate::control_plane::Kind;
use crate::docker::{Hosts, NewContainer, docker};
use crate::reachability::Matrix;
use crate::sandbox::Inside;

/// How long routes and policies may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Names of containers, their hosts and their roles.
const CONTAINERS: [(&str, &str, &str); 4] = [
    ("front-1", "node-1", "front"),
    ("back-1", "node-1", "back"),
    ("front-2", "node-2", "front"),
    ("back-2", "node-2", "back"),
];

/// Runs the demonstration.
///
/// # Errors
///
/// The step that failed, or did not show what it should.
pub fn run(inside: &mut Inside, kind: Kind, afterwards: Afterwards) -> Result<(), Error> {
    let started = Instant::now();
    let say = |text: &str| print(&format!("\n[{:6.2} s] {text}", started.elapsed().as_secs_f32()));
    let plan =
        Plan { control_plane: kind, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let cluster = Cluster::without_daemons(&inside.dir, plan, &mut |step| eprintln!("{step}"))?;
    let mut hosts = Hosts::up(cluster)?;
    say("two hosts, each with dockerd, calico-docker and calico-node; no Kubernetes");
    let create = "docker network create --driver calico --ipam-driver calico-ipam \
                  --subnet 10.65.0.0/16 shop";
    print(&format!("$ {create}   # on both hosts"));
    hosts.create_network("shop", &["--subnet", "10.65.0.0/16"])?;
    for (name, node, role) in CONTAINERS {
        let labels = [("role", role)];
        print(&format!(
            "{node}$ docker run --network shop --label org.projectcalico.label.role={role} --name {name} …"
        ));
        let wanted = NewContainer { name, network: "shop", labels: &labels, arguments: &[] };
        hosts.run(node, &wanted)?;
    }
    let matrix = Matrix::probe(&hosts.cluster, WITHIN)?;
    say("every container has tried every container, by ping, TCP and UDP");
    print(&matrix.to_string());
    matrix.require_full()?;
    let node = hosts.cluster.node("node-1")?;
    print(&format!("node-1$ ip route show\n{}", node.run(&["ip", "route", "show"])?));
    let status = node.run(&[&hosts.cluster.program("calico-node"), "bgp", "status"])?;
    print(&format!("node-1$ calico-node bgp status\n{status}"));
    say("a policy: only the front may speak to the back");
    let policy = json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "back"},
        "spec": {
            "selector": "role == 'back'",
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'front'"}}],
        },
    });
    print(&format!("  + GlobalNetworkPolicy back {}", policy.get("spec").unwrap_or(&Value::Null)));
    hosts.cluster.api.create_any(&policy)?;
    let matrix = eventually("the policy to be in force", WITHIN, || {
        let matrix = Matrix::probe(&hosts.cluster, Duration::from_millis(700))?;
        match matrix.unreached().len() {
            2 => Ok(matrix),
            count => Err(Error::wrong(format!("{count} cells are closed, not 2:\n{matrix}"))),
        }
    })?;
    print(&matrix.to_string());
    let inspect = "{{range $id, $c := .Containers}}{{$c.Name}} {{$c.IPv4Address}}\n{{end}}";
    let inspected = docker(node, &["network", "inspect", "--format", inspect, "shop"])?;
    print(&format!("node-1$ docker network inspect shop\n{}", inspected.trim()));
    say("all was as it should be");
    if afterwards == Afterwards::Keep {
        print(&keep_hints(inside, &hosts.cluster)?);
        inside.keep()?;
    }
    Ok(())
}
