//! What the tasks need on this machine: Debian packages, the control plane, our programs.
//!
//! Each task gets what it needs and no more: the demo runs with Rust and iproute2 alone.
//! Everything is done once and looked at again each time; what is there is left alone.

use std::path::{Path, PathBuf};

use crate::House;
use crate::command::{Failure, Run, step};
use crate::second_kernel;

/// A program of others.
pub(crate) struct Tool {
    /// The program, or its path.
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// What it is used for.
    pub(crate) purpose: &'static str,
}

/// What the lab runs: it wires nodes and pods with ip(8), and shows routes with it.
const LAB: &[Tool] = &[Tool {
    program: "ip",
    package: "iproute2",
    purpose: "wires the nodes, and shows their routes",
}];

/// What the tests run beside that.
const TESTS: &[Tool] = &[
    Tool { program: "bird", package: "bird2", purpose: "a BGP speaker to test ours against" },
    Tool { program: "gobgpd", package: "gobgpd", purpose: "a second one" },
    Tool { program: "vtysh", package: "frr", purpose: "a third, bgpd" },
    Tool {
        program: "/usr/lib/cni/host-local",
        package: "containernetworking-plugins",
        purpose: "portmap and host-local, chained behind our plugin",
    },
    Tool {
        program: "nft",
        package: "nftables",
        purpose: "reads back what ours wrote into the kernel",
    },
    Tool {
        program: "iptables-legacy-save",
        package: "iptables",
        purpose: "plants what Calico and others have in iptables",
    },
    Tool { program: "ipset", package: "ipset", purpose: "plants Calico's sets" },
    Tool { program: "ping", package: "iputils-ping", purpose: "asks pods whether they are there" },
    Tool { program: "socat", package: "socat", purpose: "sends frames as a pod that means harm" },
];

/// What machines with kubelets run.
const MACHINES: &[Tool] = &[
    Tool { program: "containerd", package: "containerd", purpose: "runs the pods of kubelets" },
    Tool { program: "runc", package: "runc", purpose: "starts their containers" },
    Tool {
        program: "iptables",
        package: "iptables",
        purpose: "kube-proxy and portmap write with it",
    },
    Tool { program: "nft", package: "nftables", purpose: "kube-proxy writes with it too" },
    Tool {
        program: "conntrack",
        package: "conntrack",
        purpose: "kube-proxy forgets flows with it",
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
        purpose: "what pods of tests run, and a DHCP server and client",
    },
    Tool {
        program: "strip",
        package: "binutils",
        purpose: "makes the image of our programs small",
    },
    Tool { program: "mount", package: "mount", purpose: "mounts the volumes of pods" },
];

/// What builds programs that need no library.
const IMAGE: &[Tool] =
    &[Tool { program: "musl-gcc", package: "musl-tools", purpose: "compiles for musl" }];

/// What hosts with Docker are made of.
const DOCKER: &[Tool] = &[
    Tool { program: "dockerd", package: "docker.io", purpose: "runs containers, in labs" },
    Tool { program: "iptables", package: "iptables", purpose: "publishes ports of containers" },
    Tool { program: "/bin/busybox", package: "busybox-static", purpose: "is their only image" },
    Tool { program: "docker-compose", package: "docker-compose", purpose: "uses our networks" },
    Tool { program: "systemd-analyze", package: "systemd", purpose: "verifies our units" },
];

/// What the benchmark `bgp` compares with.
const SPEAKERS: &[Tool] = &[
    Tool { program: "bird", package: "bird2", purpose: "injects routes, counts them, is measured" },
    Tool { program: "/usr/lib/frr/bgpd", package: "frr", purpose: "is measured beside ours" },
    Tool { program: "gobgpd", package: "gobgpd", purpose: "is measured beside ours" },
];

/// What the benchmark `overlay` sends packets with, and what it compares with.
const STREAMS: &[Tool] = &[
    Tool { program: "iperf3", package: "iperf3", purpose: "sends what is measured" },
    Tool { program: "ping", package: "iputils-ping", purpose: "measures round trips" },
    Tool { program: "bridge", package: "iproute2", purpose: "is measured beside ours" },
];

/// The programs of a node, and the lab that runs them.
const NODE: &[&str] = &[
    "lab",
    "cni-plugin",
    "ipam-plugin",
    "kube-controllers",
    "libnetwork-plugin",
    "node-daemon",
    "datastore-daemon",
    "calicoctl",
];

/// The Kubernetes release that lab/control-plane/go.mod names.
const KUBERNETES: &str = "1.34.4";

/// Which control plane a task wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ControlPlane {
    /// The embedded datastore, which is one of our programs.
    Embedded,
    /// kube-apiserver and etcd, built here.
    Kubernetes,
}

impl ControlPlane {
    /// Returns what the arguments of a task ask for with `--datastore`.
    pub(crate) fn of(arguments: &[String]) -> Self {
        let mut words = arguments.iter().flat_map(|argument| argument.split('='));
        let is_named = words.any(|word| word == "--datastore");
        if is_named && words.next() == Some("kubernetes") {
            Self::Kubernetes
        } else {
            Self::Embedded
        }
    }
}

/// Makes ready for the demo.
pub(crate) fn for_demo(house: &House, wanted: ControlPlane) -> Result<(), Failure> {
    for_lab(house, wanted, NODE)
}

/// Makes ready for a control plane, without nodes or with machines that run kubelets.
pub(crate) fn for_cluster(house: &House, arguments: &[String]) -> Result<(), Failure> {
    let has_kubelets = arguments.iter().any(|word| word.starts_with("--kubelets"));
    if !has_kubelets {
        return for_lab(house, ControlPlane::of(arguments), &["lab", "datastore-daemon"]);
    }
    for_machines(house)?;
    for_lab(house, ControlPlane::Kubernetes, NODE)
}

/// Installs what machines with kubelets are made of.
pub(crate) fn for_machines(house: &House) -> Result<(), Failure> {
    install(MACHINES)?;
    plugins(house)
}

/// Installs what hosts with Docker are made of.
pub(crate) fn for_docker() -> Result<(), Failure> {
    install(DOCKER)
}

fn for_lab(house: &House, wanted: ControlPlane, programs: &[&str]) -> Result<(), Failure> {
    install(LAB)?;
    if wanted == ControlPlane::Kubernetes {
        control_plane(house)?;
    }
    step("building the lab and the programs that it runs");
    build(house, "dev", programs)
}

/// Makes ready for the tests, which need everything.
pub(crate) fn for_tests(house: &House) -> Result<(), Failure> {
    install(LAB)?;
    install(TESTS)?;
    install(MACHINES)?;
    install(DOCKER)?;
    control_plane(house)?;
    second_kernel::set_up(house)?;
    plugins(house)?;
    step("building all programs and the lab");
    // The whole workspace, so that the tests find everything built with the same features.
    Run::new("cargo").args(["build", "--locked", "--workspace"]).dir(&house.root).run()
}

/// Makes ready to build the image: programs for musl need its compiler and its standard library.
pub(crate) fn for_image(house: &House) -> Result<(), Failure> {
    install(IMAGE)?;
    step("looking for the standard library for musl");
    let rustup = Run::new("rustup").args(["target", "add", "x86_64-unknown-linux-musl"]);
    rustup.run_quietly("installing the standard library for musl")?;
    plugins(house)
}

/// Makes ready for a benchmark, which measures what is released.
pub(crate) fn for_bench(house: &House, programs: &[&str]) -> Result<(), Failure> {
    install(LAB)?;
    control_plane(house)?;
    step("building the release to be measured (about 10 minutes the first time)");
    build(house, "lab", &["benchmarks"])?;
    build(house, "release", programs)
}

/// Makes ready for what the benchmark `overlay` needs beside other benchmarks.
pub(crate) fn for_overlay_bench(house: &House) -> Result<(), Failure> {
    install(STREAMS)?;
    second_kernel::set_up(house)
}

/// Installs what the benchmark `bgp` compares with.
pub(crate) fn for_speakers() -> Result<(), Failure> {
    install(SPEAKERS)
}

fn build(house: &House, profile: &str, packages: &[&str]) -> Result<(), Failure> {
    let names = packages.iter().flat_map(|package| ["--package", package]);
    let cargo = Run::new("cargo").args(["build", "--locked", "--profile", profile]);
    cargo.args(names).dir(&house.root).run()
}

/// Installs the Debian packages of the tools that are missing.
pub(crate) fn install(tools: &[Tool]) -> Result<(), Failure> {
    let missing: Vec<_> = tools.iter().filter(|tool| !is_there(tool.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    step("installing Debian packages");
    for Tool { program, package, purpose } in &missing {
        eprintln!("    {package}, for {program}: {purpose}");
    }
    apt(["update"]).run_quietly("reading the list of packages")?;
    let names = missing.iter().map(|tool| tool.package);
    let install = apt(["install", "--yes", "--no-install-recommends"]);
    install.args(names).run_quietly("installing packages")
}

pub(crate) fn apt<const N: usize>(arguments: [&str; N]) -> Run {
    let run = Run::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    run.args(["--quiet", "-o", "DPkg::Lock::Timeout=120"]).args(arguments)
}

/// Whether a program is in one of the directories of PATH, or at its path.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    dirs.map(|dir| dir.join(program)).any(|path| path.is_file())
}

/// Builds the reference plugins that our image carries, without libraries, if that is not done yet.
pub(crate) fn plugins(house: &House) -> Result<(), Failure> {
    let module = house.root.join("lab/cni-plugins");
    let dir = house.plugins();
    let stamp = dir.with_extension("stamp");
    let wanted = fingerprint(&module, &["go.mod", "go.sum"])?;
    if dir.exists() && std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(&dir).map_err(|source| Failure::File { path: dir.clone(), source })?;
    step("building the reference CNI plugins from their Go module (a minute the first time)");
    // No build identifier and no paths: the same sources give the same bytes.
    let flags = ["build", "-v", "-trimpath", "-ldflags", "-s -w -buildid=", "-o"];
    let build = Run::new("go").args(flags).arg(&dir).arg("tool").dir(&module);
    build.env("CGO_ENABLED", "0").run_quietly("building the reference CNI plugins")?;
    std::fs::write(&stamp, wanted).map_err(|source| Failure::File { path: stamp, source })
}

/// Builds the real kube-apiserver, etcd and kubectl from their Go modules, if that is not done yet.
fn control_plane(house: &House) -> Result<(), Failure> {
    let module = house.root.join("lab/control-plane");
    let binary = house.control_plane();
    let stamp = binary.with_extension("stamp");
    let wanted = fingerprint(&module, &["go.mod", "go.sum", "main.go"])?;
    if binary.exists() && std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    step(&format!(
        "building kube-apiserver, etcd and kubectl {KUBERNETES} from their Go modules \
         (about 5 minutes the first time)"
    ));
    let build = Run::new("go").args(["build", "-v", "-trimpath", "-ldflags", &link_flags(), "-o"]);
    let build = build.arg(&binary).arg(".").dir(&module).env("CGO_ENABLED", "0");
    build.run_quietly("building the control plane")?;
    std::fs::write(&stamp, wanted).map_err(|source| Failure::File { path: stamp, source })
}

/// Returns the flags that strip the binary and tell it its version, which upstream's build sets too.
fn link_flags() -> String {
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    let versions = packages.map(|package| {
        format!(
            "-X {package}.gitVersion=v{KUBERNETES} -X {package}.gitMajor=1 \
             -X {package}.gitMinor=34"
        )
    });
    format!("-s -w {}", versions.join(" "))
}

/// Returns the sources of a Go module as one text: it is rebuilt when they change.
fn fingerprint(module: &Path, files: &[&str]) -> Result<String, Failure> {
    let mut text = String::new();
    for name in files {
        let path = module.join(name);
        let content =
            std::fs::read_to_string(&path).map_err(|source| Failure::File { path, source })?;
        text.push_str(&content);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_for_kubernetes_has_it_built() {
        let of = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            ControlPlane::of(&words)
        };
        for line in ["", "--keep", "--datastore embedded", "up --datastore=embedded", "kubernetes"]
        {
            assert_eq!(of(line), ControlPlane::Embedded, "{line}");
        }
        for line in ["--datastore kubernetes", "--nodes 5 --datastore=kubernetes --keep"] {
            assert_eq!(of(line), ControlPlane::Kubernetes, "{line}");
        }
    }

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        assert!(is_there("sh") && is_there("/bin/sh"));
        assert!(!is_there("no-such-program") && !is_there("/bin/no-such-program"));
    }
}
