//! `cargo xtask`: every chore of this repository, with its own set-up.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod check;
mod command;
mod image;
mod manifests;
mod second_kernel;
mod setup;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::command::{Failure, Run};
use crate::setup::ControlPlane;

/// Builds, tests and shows the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring up nodes and pods on this machine and show that every pod reaches every other.
    Demo {
        /// Arguments of the demo: `--scenario policy`, `ipam`, `bgp` or `docker`,
        /// `--nodes N --pods M`,
        /// `--datastore embedded|kubernetes --keep`;
        /// `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run all tests: units, integration with real peers, and the lab's scenarios.
    Test {
        /// Only the lab's scenarios of these names, and nothing else.
        #[arg(long, value_name = "NAME", num_args = 1..)]
        scenario: Vec<String>,
    },
    /// Check format, lints, documentation, dependencies and the rules of the house.
    Check,
    /// Measure, and print the figures with a line of JSON at the end.
    Bench {
        /// Which benchmark.
        name: Benchmark,
        /// Its own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A control plane for hands-on work.
    Cluster {
        /// `up [--datastore embedded|kubernetes]`, `up --kubelets N [--proxy iptables|nftables]
        /// [--bare]`, `down`, or `kubectl` with its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Make our container image as an archive, without a registry, and its bill of materials.
    Image(image::Arguments),
    /// Write manifests/calico.yaml anew from its parts.
    Manifests,
    /// Write the golden files anew; look at the difference before you commit it.
    Golden,
    /// Check only the rules of the house: layers, first lines, file lengths.
    Tidy,
    /// Install and build what all other tasks need, and do nothing else.
    Setup,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What can be measured.
#[derive(Clone, Copy, Eq, PartialEq, clap::ValueEnum)]
enum Benchmark {
    /// Pods attached and detached.
    Cni,
    /// The embedded datastore beside kube-apiserver and etcd.
    Datastore,
    /// Addresses assigned and released.
    Ipam,
    /// Policy: starts, changes, and connections under it.
    Policy,
    /// Our BGP speaker beside BIRD, FRR and GoBGP.
    Bgp,
    /// Pods of a real kubelet, and calls while the API server is away.
    Pods,
    /// Containers of Docker on our network beside Docker's own bridge.
    Docker,
    /// The way between pods: bare, ours, in tunnels; on the second kernel, too.
    Overlay,
}

impl Benchmark {
    const fn name(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Datastore => "datastore",
            Self::Ipam => "ipam",
            Self::Policy => "policy",
            Self::Bgp => "bgp",
            Self::Pods => "pods",
            Self::Docker => "docker",
            Self::Overlay => "overlay",
        }
    }

    /// Returns the packages of the programs that are measured.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Cni => &["cni-plugin", "ipam-plugin", "node-daemon"],
            Self::Datastore | Self::Ipam => &["datastore-daemon"],
            // What `bgp` compares speakers by it has in itself; into the kernel goes calico-node.
            Self::Policy | Self::Overlay | Self::Bgp => {
                &["cni-plugin", "ipam-plugin", "node-daemon", "datastore-daemon"]
            }
            Self::Pods => {
                &["cni-plugin", "ipam-plugin", "node-daemon", "kube-controllers", "calicoctl"]
            }
            Self::Docker => &[
                "cni-plugin",
                "ipam-plugin",
                "libnetwork-plugin",
                "node-daemon",
                "datastore-daemon",
            ],
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run(task: Task) -> Result<(), Failure> {
    let house = House::new();
    match task {
        Task::Demo { arguments } => {
            if arguments.iter().any(|word| word == "docker" || word == "--scenario=docker") {
                setup::for_docker()?;
            }
            setup::for_demo(&house, ControlPlane::of(&arguments))?;
            house.lab().arg("demo").args(arguments).run()
        }
        Task::Test { scenario } if scenario.is_empty() => test(&house),
        Task::Test { scenario } => {
            setup::for_tests(&house)?;
            some_scenarios(&house, scenario)
        }
        Task::Check => check::run(&house),
        Task::Bench { name, arguments } => {
            match name {
                Benchmark::Pods => setup::for_machines(&house)?,
                Benchmark::Bgp => setup::for_speakers()?,
                Benchmark::Docker => setup::for_docker()?,
                Benchmark::Overlay => setup::for_overlay_bench(&house)?,
                Benchmark::Cni | Benchmark::Datastore | Benchmark::Ipam | Benchmark::Policy => {}
            }
            setup::for_bench(&house, name.programs())?;
            let benchmarks = house.tests(Run::new(house.benchmarks()));
            let benchmarks = benchmarks.env("CALICO_BIN_DIR", house.release());
            let is_whole = arguments.is_empty();
            benchmarks.arg(name.name()).args(arguments).run()?;
            if is_whole && name == Benchmark::Overlay {
                second_kernel::benchmark(&house)?;
            }
            Ok(())
        }
        Task::Cluster { arguments } => {
            setup::for_cluster(&house, &arguments)?;
            house.lab().arg("cluster").args(arguments).run()
        }
        Task::Image(arguments) => image::run(&house, &arguments),
        Task::Manifests => manifests::write(&house.root),
        Task::Golden => golden(&house),
        Task::Tidy => tidy::run(&house.root),
        Task::Setup => setup::for_tests(&house),
        Task::Completion { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "xtask", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Runs everything that proves the project right; stops at the first failure.
fn test(house: &House) -> Result<(), Failure> {
    setup::for_tests(house)?;
    command::step("unit and integration tests");
    house.tests(Run::new("cargo")).args(["test", "--workspace", "--no-fail-fast"]).run()?;
    command::step("scenarios in the lab");
    // Most wait most of the time: two at once keep two cores busy, and no core waits for its turn.
    house.lab().args(["scenarios", "--at-once", "2"]).run()?;
    second_kernel::scenarios(house, &[])
}

/// Runs scenarios by name, each on the kernel that it is for.
fn some_scenarios(house: &House, names: Vec<String>) -> Result<(), Failure> {
    let list = house.lab().args(["scenarios", "--kernel", "second", "--list"]).output()?;
    let is_second = |name: &String| list.lines().any(|known| known == name);
    let (second, first): (Vec<_>, Vec<_>) = names.into_iter().partition(is_second);
    if !first.is_empty() {
        house.lab().arg("scenarios").args(first).run()?;
    }
    if second.is_empty() { Ok(()) } else { second_kernel::scenarios(house, &second) }
}

/// Has the crates with golden files, which are named after them, write these anew.
fn golden(house: &House) -> Result<(), Failure> {
    let dir = house.root.join("testdata");
    let failed = |source| Failure::File { path: dir.clone(), source };
    let mut run = Run::new("cargo").arg("test").dir(&house.root).env("UPDATE_GOLDEN", "1");
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let manifest = |parent: &Path| parent.join(&name).join("Cargo.toml").exists();
        if manifest(&house.root.join("crates")) || manifest(&house.root) {
            run = run.arg("--package").arg(name);
        }
    }
    run.run()
}

/// Where things are.
struct House {
    /// The root of the checkout.
    root: PathBuf,
    /// What cargo builds into.
    target: PathBuf,
}

impl House {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize().unwrap_or(root);
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        Self { root, target }
    }

    /// Where the lab finds our programs.
    fn programs(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// Where the programs are as they are released.
    fn release(&self) -> PathBuf {
        self.target.join("release")
    }

    /// The program that measures.
    fn benchmarks(&self) -> PathBuf {
        self.target.join("lab/benchmarks")
    }

    /// Where the real control plane is.
    fn control_plane(&self) -> PathBuf {
        self.target.join("lab/control-plane")
    }

    /// Where the reference CNI plugins are.
    fn plugins(&self) -> PathBuf {
        self.target.join("lab/plugins")
    }

    /// Returns a run of the lab.
    fn lab(&self) -> Run {
        self.tests(Run::new(self.programs().join("lab")))
    }

    /// Returns `run` with what the tests want to know of this machine.
    fn tests(&self, run: Run) -> Run {
        run.dir(&self.root)
            .env("CALICO_BIN_DIR", self.programs())
            .env("CALICO_CONTROL_PLANE", self.control_plane())
            .env("CALICO_CNI_PLUGINS", self.plugins())
    }
}
