//! benchmarks: measures the programs as they are released, beside what they are compared with.
//!
//! Each benchmark prints tables for people and ends with one line of JSON that
//! holds all its figures. `cargo xtask bench NAME` builds what is needed and
//! runs it. What was measured when is in docs/benchmarks.md.
//!
//! ```text
//! main ─► isolation: the benchmark again, in namespaces of its own
//!          └► cni ─► world: etcd, kube-apiserver, pods
//!                 ├► plugin (calico, calico-ipam) and floor, under load
//!                 ├► start, memory, sizes
//!                 └► report: tables, JSON
//! ```
//!
//! The benchmark `policy` has a cluster of the same kind with thousands of pods and policies.
//! The benchmark `ipam` measures the library of calico-ipam against a control plane alone.
//! The benchmark `pods` has real kubelets start pods, in a lab of its own, and takes the API server away.
//! The benchmarks `docker` and `overlay` run containers and pods in labs of their own.
//! The benchmark `datastore` (starts, writes, watches, lists) runs on the control planes alone.
//!
//! Nothing of a benchmark is left when it ends, however it ends.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod bgp;
mod cni;
mod cpu;
mod daemon;
mod datastore;
mod docker;
mod ipam;
mod isolation;
mod load;
mod memory;
mod overlay;
mod pods;
mod policy;
mod statistics;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lab::control_plane::Kind;

/// Measures the programs as they are released, beside what they are compared with.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Containers attached and detached: alone, 10 and 50 at once.
    Cni(ProgramArguments),
    /// The embedded datastore beside kube-apiserver and etcd.
    Datastore(DatastoreArguments),
    /// Addresses: assigned and released, by few and many clients, in small and large clusters.
    Ipam(DatastoreArguments),
    /// Our BGP speaker beside others: time, memory, many clients.
    Bgp(bgp::Arguments),
    /// What policy costs: at the start, at changes, and in new connections.
    Policy(ProgramArguments),
    /// Pods of a real kubelet: what they wait for, and how much of it is ours.
    Pods(pods::Arguments),
    /// Containers of Docker on our network, and on Docker's own.
    Docker {
        /// Measure less, to see whether it works.
        #[arg(long)]
        quick: bool,
    },
    /// The way between pods of two nodes: bare, ours, and in tunnels.
    Overlay {
        /// Measure less, to see whether it works.
        #[arg(long)]
        quick: bool,
        /// Measure the tunnels that only some kernels have, as fits a machine that is emulated.
        #[arg(long)]
        all_tunnels: bool,
    },
    /// The inside of a lab that a benchmark makes; it runs this itself.
    #[command(hide = true)]
    Inside {
        dir: PathBuf,
        #[command(subcommand)]
        what: InLab,
    },
    /// The inside of a node of that lab.
    #[command(hide = true)]
    Agent {
        name: String,
        dir: PathBuf,
        #[arg(long)]
        kind: lab::agent::Kind,
    },
    /// Speaks BGP as a file says; the benchmark `bgp` runs this itself.
    #[command(hide = true)]
    Speaker {
        /// The file.
        file: PathBuf,
    },
    /// Looks at the addresses of a large cluster once; the benchmark `ipam` runs this itself.
    #[command(hide = true)]
    Look {
        /// How to reach the cluster.
        kubeconfig: PathBuf,
    },
    /// Does what the benchmark `cni` compares with, once; it runs this itself.
    #[command(hide = true)]
    Floor,
    /// Serves calls of the plugin as calico-node does; the benchmark `cni` runs this itself.
    #[command(hide = true)]
    Serve {
        /// The plugin's credentials.
        kubeconfig: PathBuf,
    },
}

/// What is measured inside of a lab.
#[derive(Debug, Subcommand)]
enum InLab {
    /// The benchmark `docker`, so many times.
    DockerRounds { rounds: usize },
    /// The benchmark `pods`: so many, and so many seconds without an API server.
    Pods { pods: u64, outage: u64 },
    /// The benchmark `overlay`, so much of it.
    Overlay { extent: String },
}

/// How to measure our programs.
#[derive(Clone, Debug, Args)]
struct ProgramArguments {
    /// Measure less, to see whether it works.
    #[arg(long)]
    quick: bool,
    /// Where cargo has put the programs; `release` beside it goes first.
    #[arg(long, env = "CALICO_BIN_DIR", default_value = "target/lab")]
    bin_dir: PathBuf,
}

/// How to measure control planes.
#[derive(Clone, Debug, Args)]
struct DatastoreArguments {
    /// Measure less, to see whether it works.
    #[arg(long)]
    quick: bool,
    /// Measure only this one.
    #[arg(long)]
    only: Option<Kind>,
}

impl DatastoreArguments {
    fn run(&self) -> Result<ExitCode, lab::Error> {
        let kinds = self.only.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
        let extent = if self.quick { datastore::Extent::QUICK } else { datastore::Extent::FULL };
        datastore::run(&kinds, extent)
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().benchmark {
        Benchmark::Floor => cni::floor::run().map(|()| ExitCode::SUCCESS),
        Benchmark::Serve { kubeconfig } => cni::served::run(kubeconfig).map(|()| ExitCode::SUCCESS),
        Benchmark::Cni(_) | Benchmark::Policy(_) if !isolation::is_inside() => {
            isolation::run_inside(isolation::LIMIT)
        }
        Benchmark::Bgp(_) if !isolation::is_inside() => {
            isolation::run_inside(isolation::LIMIT.saturating_mul(2))
        }
        Benchmark::Bgp(arguments) => bgp::run(&arguments),
        Benchmark::Look { kubeconfig } => ipam::look::run(&kubeconfig),
        Benchmark::Speaker { file } => bgp::speaker::run(&file),
        Benchmark::Cni(arguments) => cni::run(&arguments.bin_dir, extent(arguments.quick)),
        Benchmark::Policy(arguments) => {
            policy::run(&arguments.bin_dir, policy::Extent::of(arguments.quick))
        }
        Benchmark::Ipam(arguments) => {
            let extent = if arguments.quick { ipam::Extent::QUICK } else { ipam::Extent::FULL };
            ipam::run(arguments.only.unwrap_or(Kind::Kubernetes), extent)
        }
        Benchmark::Datastore(arguments) => arguments.run(),
        Benchmark::Docker { quick } => docker::run(quick),
        Benchmark::Pods(arguments) => pods::run(&arguments),
        Benchmark::Overlay { quick, all_tunnels } => overlay::run(quick, all_tunnels),
        Benchmark::Inside { dir, what } => match what {
            InLab::DockerRounds { rounds } => docker::measure(&dir, rounds),
            InLab::Pods { pods, outage } => {
                pods::measure(&dir, pods, std::time::Duration::from_secs(outage))
            }
            InLab::Overlay { extent } => overlay::measure(&dir, &extent),
        },
        Benchmark::Agent { name, dir, kind } => {
            lab::agent::run(&name, &dir, kind).map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("benchmarks: {error}");
        ExitCode::FAILURE
    })
}

const fn extent(is_quick: bool) -> cni::Extent {
    if is_quick { cni::Extent::Quick } else { cni::Extent::Full }
}

/// Returns the load average of the last minute, which says how far to believe the figures.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Says what comes next.
fn step(what: &str) {
    eprintln!("==> {what}");
}
