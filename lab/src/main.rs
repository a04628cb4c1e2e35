//! The lab on the command line.

mod scenarios;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lab::cluster::Families;
use lab::control_plane::{self, ControlPlane, Kind, Settings};
use lab::demo::{Afterwards, Show, Subject};
use lab::kubernetes::{self, Kubernetes, Plan};
use lab::machine::ProxyMode;
use lab::sandbox::{self, Inside};
use lab::{Error, agent, demo};
use scenarios::Kernel;

/// A cluster on one machine: a control plane, nodes and pods in namespaces.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show nodes coming up, pods getting addresses and everyone reaching everyone.
    Demo(DemoArguments),
    /// Run scenarios, all or those of these names; `--list` names them.
    Scenarios {
        /// Names the scenarios instead of running them.
        #[arg(long)]
        list: bool,
        /// Those that this kernel is for; whether it is that kernel, they will find out.
        #[arg(long, value_enum, default_value_t)]
        kernel: Kernel,
        /// Only on this control plane, instead of on those that each scenario is for.
        #[arg(long)]
        datastore: Option<Kind>,
        /// How many run at any time: most of them wait most of the time.
        #[arg(long, default_value = "1")]
        at_once: NonZeroUsize,
        /// Which; all if none is named.
        names: Vec<String>,
    },
    /// Run one scenario and say nothing of others.
    Scenario {
        /// Which.
        name: String,
        #[command(flatten)]
        on: On,
    },
    /// A control plane for hands-on work.
    Cluster {
        #[command(subcommand)]
        task: ClusterTask,
    },
    /// Run a program in a node of the lab that was kept.
    In {
        /// The node.
        node: String,
        /// The command line.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// End the labs that were kept and remove what crashed ones left.
    Down,
    /// The inside of a lab.
    #[command(hide = true)]
    Inside {
        dir: PathBuf,
        #[command(subcommand)]
        task: InsideTask,
    },
    /// The inside of a node.
    #[command(hide = true)]
    Agent {
        name: String,
        dir: PathBuf,
        #[arg(long)]
        kind: agent::Kind,
    },
}

#[derive(Debug, Subcommand)]
enum InsideTask {
    Demo(DemoArguments),
    Scenario {
        name: String,
        #[command(flatten)]
        on: On,
    },
    Cluster(ClusterArguments),
}

#[derive(Debug, Subcommand)]
enum ClusterTask {
    /// Start one with our CRDs, and print where the kubeconfig is; with kubelets a whole
    /// Kubernetes, with our manifest applied.
    Up(ClusterArguments),
    /// End it.
    Down,
    /// Run kubectl against it.
    Kubectl {
        /// What kubectl is to do.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What the lab runs on.
#[derive(Args, Clone, Copy, Debug)]
struct On {
    /// The control plane: one process of ours, or kube-apiserver and etcd.
    #[arg(long, default_value = "embedded")]
    datastore: Kind,
}

#[derive(Args, Clone, Copy, Debug)]
struct ClusterArguments {
    #[command(flatten)]
    on: On,
    /// How many machines with kubelet, containerd and kube-proxy; they need kube-apiserver,
    /// whatever `--datastore` says.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    kubelets: u8,
    /// How kube-proxy serves Services.
    #[arg(long, default_value = "iptables")]
    proxy: ProxyMode,
    /// Leave the pod network away: nodes stay not ready until you apply a manifest.
    #[arg(long)]
    bare: bool,
}

#[derive(Args, Debug)]
struct DemoArguments {
    #[command(flatten)]
    on: On,
    /// What to show; those of policy, ipam, bgp and docker have their own nodes and pods.
    #[arg(long, default_value = "reachability")]
    scenario: Subject,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    nodes: u8,
    /// How many pods in all.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=500))]
    pods: u16,
    /// Give pods IPv4 and IPv6 addresses.
    #[arg(long)]
    dual_stack: bool,
    /// Leave the lab up, and print how to look around in it.
    #[arg(long)]
    keep: bool,
}

impl DemoArguments {
    fn show(&self) -> Show {
        Show {
            control_plane: self.on.datastore,
            nodes: self.nodes,
            pods: self.pods.into(),
            families: if self.dual_stack { Families::Dual } else { Families::V4 },
            afterwards: if self.keep { Afterwards::Keep } else { Afterwards::Remove },
        }
    }
}

fn main() -> ExitCode {
    // Namespaces can only be entered as long as there is one thread.
    let outcome = run(Arguments::parse().task);
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<u8, Error> {
    match task {
        Task::Demo(_) | Task::Scenario { .. } => sandbox::run(&own_arguments()),
        Task::Scenarios { list: true, kernel, .. } => {
            say(&scenarios::names(kernel).join("\n"));
            Ok(0)
        }
        Task::Scenarios { names, kernel, datastore, at_once, .. } => {
            scenarios::run_all(kernel, &names, datastore, at_once)
        }
        Task::Cluster { task: ClusterTask::Up(_) } => {
            // What was asked for is said again inside, without the `up`.
            let arguments = own_arguments().into_iter().filter(|word| word != "up");
            sandbox::run(&arguments.collect::<Vec<_>>())
        }
        Task::Cluster { task: ClusterTask::Kubectl { arguments } } => kubectl(&arguments),
        Task::Cluster { task: ClusterTask::Down } | Task::Down => {
            say(&format!("removed {} labs", sandbox::down()));
            Ok(0)
        }
        Task::In { node, command } => sandbox::run_in_node(&node, &command),
        Task::Agent { name, dir, kind } => agent::run(&name, &dir, kind).map(|()| 0),
        Task::Inside { dir, task } => run_inside(&dir, &task),
    }
}

fn run_inside(dir: &Path, task: &InsideTask) -> Result<u8, Error> {
    let mut inside = Inside::enter(dir)?;
    match task {
        InsideTask::Demo(arguments) => {
            let show = arguments.show();
            match arguments.scenario {
                Subject::Reachability => demo::run(&mut inside, show),
                Subject::Policy => {
                    demo::policy::run(&mut inside, show.control_plane, show.afterwards)
                }
                Subject::Ipam => demo::ipam::run(&mut inside, show.control_plane, show.afterwards),
                Subject::Bgp => demo::bgp::run(&mut inside, show.control_plane, show.afterwards),
                Subject::Docker => {
                    demo::docker::run(&mut inside, show.control_plane, show.afterwards)
                }
            }
            .map(|()| 0)
        }
        InsideTask::Scenario { name, on } => {
            scenarios::run_one(&inside.dir, name, on.datastore).map(|()| 0)
        }
        InsideTask::Cluster(arguments) if arguments.kubelets > 0 => {
            kubernetes_up(&mut inside, *arguments).map(|()| 0)
        }
        InsideTask::Cluster(arguments) => {
            cluster_up(&mut inside, arguments.on.datastore).map(|()| 0)
        }
    }
}

fn cluster_up(inside: &mut Inside, kind: Kind) -> Result<(), Error> {
    let settings = Settings::loopback(kind, &inside.dir.join("control-plane"));
    let control_plane = ControlPlane::start(settings)?;
    control_plane.install()?;
    let outside = inside.forward(control_plane.endpoint())?;
    let path = control_plane.write_outside_kubeconfig(outside)?;
    say(&format!(
        "the control plane ({}) is ready, with our CRDs and roles\nexport KUBECONFIG={}",
        kind.name(),
        path.display()
    ));
    inside.keep()
}

/// Starts a whole Kubernetes and installs our network, as its manual says.
fn kubernetes_up(inside: &mut Inside, arguments: ClusterArguments) -> Result<(), Error> {
    let plan = Plan { machines: arguments.kubelets, proxy: arguments.proxy };
    let cluster = Kubernetes::up(&inside.dir, plan, &mut |step| say(step))?;
    if !arguments.bare {
        cluster.apply(&kubernetes::installation())?;
        cluster.wait_ready()?;
        say("manifests/unencapsulated is applied, and every node is ready");
    }
    let outside = inside.forward(cluster.endpoint())?;
    let path = cluster.control_plane.write_outside_kubeconfig(outside)?;
    say(&format!("export KUBECONFIG={}", path.display()));
    inside.keep()
}

/// Runs kubectl against the lab that was kept.
fn kubectl(arguments: &[String]) -> Result<u8, Error> {
    let kept = sandbox::kept();
    let dir = kept.first().ok_or_else(|| {
        Error::wrong("no lab was kept: start one with `lab cluster up` or `lab demo --keep`")
    })?;
    let dir = dir.join("control-plane");
    let mut command = control_plane::kubectl(&dir, &dir.join("outside.kubeconfig"));
    let status = command.args(arguments).status().map_err(|error| {
        let remedy = "install it, or have `cargo xtask setup` build it";
        Error::program("kubectl", format!("{error}: {remedy}"))
    })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Returns our own command line, without the program.
fn own_arguments() -> Vec<String> {
    std::env::args().skip(1).collect()
}

#[expect(clippy::print_stdout, reason = "a program that people call")]
fn say(text: &str) {
    println!("{text}");
}
