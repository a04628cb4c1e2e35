//! The demonstration: a cluster comes up, pods get addresses, everyone reaches everyone.

pub mod bgp;
pub mod docker;
pub mod ipam;
pub mod policy;

use std::time::{Duration, Instant};

use comfy_table::{Table, TableStyle};

use crate::Error;
use crate::cluster::{Cluster, Fabric, Families, Plan};
use crate::control_plane::Kind;
use crate::reachability::Matrix;
use crate::sandbox::Inside;

/// How long routes may take to arrive everywhere before a cell counts as wrong.
const CONVERGED_WITHIN: Duration = Duration::from_secs(10);

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// Which control plane.
    pub control_plane: Kind,
    /// How many nodes.
    pub nodes: u8,
    /// How many pods in all.
    pub pods: usize,
    /// Which addresses pods get.
    pub families: Families,
    /// Whether the lab stays up.
    pub afterwards: Afterwards,
}

/// What a demonstration is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Subject {
    /// Nodes, pods and routes: everyone reaches everyone.
    Reachability,
    /// Policies, step by step: who reaches whom, and why not.
    Policy,
    /// Pools per zone and namespace, an exhausted one, and a leak found and repaired.
    Ipam,
    /// A rack with switches, route reflectors, and a Service reached over several paths.
    Bgp,
    /// Containers of Docker on two hosts without Kubernetes.
    Docker,
}

/// What becomes of the lab when all has been shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Afterwards {
    /// It is removed.
    Remove,
    /// It stays, for a look around, until `lab down`.
    Keep,
}

/// Runs the demonstration; each step is printed as it happens.
///
/// # Errors
///
/// The step that failed, or the cells of the matrix that are wrong.
pub fn run(inside: &mut Inside, show: Show) -> Result<(), Error> {
    let started = Instant::now();
    let mut say =
        |text: &str| print(&format!("[{:6.2} s] {text}", started.elapsed().as_secs_f32()));
    let plan = Plan {
        control_plane: show.control_plane,
        nodes: show.nodes,
        families: show.families,
        fabric: Fabric::Bridge,
    };
    let mut cluster = Cluster::up(&inside.dir, plan, &mut say)?;
    cluster.add_pods("pod", show.pods)?;
    say(&format!("{} pods are attached by the CNI plugins", cluster.pods.len()));
    let matrix = Matrix::probe(&cluster, CONVERGED_WITHIN)?;
    say(&format!("every pod has tried every pod, by ping, TCP and UDP: {} cells", matrix.cells()));
    print(&report(&cluster)?);
    print("REACHABILITY (# reached by ping, TCP and UDP, . not)");
    print(&matrix.to_string());
    if show.afterwards == Afterwards::Keep {
        print(&keep_hints(inside, &cluster)?);
    }
    let verdict = matrix.require_full();
    if verdict.is_ok() {
        print(&format!(
            "all {} cells reachable, {:.1} s after the start",
            matrix.cells(),
            started.elapsed().as_secs_f32()
        ));
    }
    if show.afterwards == Afterwards::Keep {
        inside.keep()?;
    }
    verdict
}

fn report(cluster: &Cluster) -> Result<String, Error> {
    let mut pods = Table::new();
    pods.load_style(TableStyle::new()).set_header(["POD", "NODE", "ADDRESSES", "ADD"]);
    for pod in &cluster.pods {
        let addrs: Vec<String> = pod.addrs().iter().map(ToString::to_string).collect();
        let millis = Duration::from_micros(pod.attached.took_us).as_millis();
        pods.add_row([
            pod.pod.name.clone(),
            pod.node.clone(),
            addrs.join(" "),
            format!("{millis} ms"),
        ]);
    }
    let node = cluster.nodes.first().ok_or_else(|| Error::wrong("a cluster without nodes"))?;
    let routes = node.run(&["ip", "route", "show"])?;
    let sessions = node.run(&[&cluster.program("calico-node"), "bgp", "status"])?;
    Ok(format!(
        "\nPODS\n{pods}\n\nROUTES of {name}\n{routes}\nBGP SESSIONS of {name}\n{sessions}",
        name = node.name
    ))
}

fn keep_hints(inside: &mut Inside, cluster: &Cluster) -> Result<String, Error> {
    let outside = inside.forward(cluster.control_plane.endpoint())?;
    let path = cluster.control_plane.write_outside_kubeconfig(outside)?;
    let program = std::env::current_exe().map_err(Error::file(&inside.dir))?;
    let lab = program.display();
    let node = cluster.nodes.first().map_or("node-1", |node| node.name.as_str());
    let pod = cluster.pods.first().map_or("", |pod| pod.pod.container.as_str());
    Ok(format!(
        "The lab stays up. To look around:\n\
         \x20 kubectl --kubeconfig {} get pods --all-namespaces --output wide\n\
         \x20 {lab} cluster kubectl get ipamblocks\n\
         \x20 {lab} in {node} ip route\n\
         \x20 {lab} in {node} calico-node bgp status\n\
         \x20 {lab} in {node} nsenter --net=/run/netns/{pod} ip address\n\
         \x20 less {}/nodes/{node}/calico-node.log\n\
         and to end it:\n\
         \x20 {lab} down\n",
        path.display(),
        inside.dir.display(),
    ))
}

#[expect(clippy::print_stdout, reason = "the demonstration is there to be seen")]
fn print(text: &str) {
    println!("{text}");
}
