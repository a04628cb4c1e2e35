//! What the tasks need on this machine: Debian packages, the control plane, our programs.
//!
//! Everything is done once and looked at again each time; what is there is left alone.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::House;
use crate::command::{Failure, Run, step};

/// Debian packages that the lab uses, and what for.
const PACKAGES: &[(&str, &str)] = &[
    ("bird2", "a BGP speaker to test ours against"),
    ("containernetworking-plugins", "portmap and host-local, chained behind our plugin"),
    ("iproute2", "looking around in the lab by hand"),
    ("iputils-ping", "looking around in the lab by hand"),
    ("nftables", "reading back by another program what ours wrote; only tests use it"),
    ("openssl", "the control plane's certificates"),
];

/// The Kubernetes release that lab/control-plane/go.mod names.
const KUBERNETES: &str = "1.34.4";

/// Makes ready for the demo and the tests.
pub(crate) fn for_lab(house: &House) -> Result<(), Failure> {
    packages()?;
    control_plane(house)?;
    step("building calico, calico-ipam, calico-node and the lab");
    // The whole workspace, so that the tests find everything built with the same features.
    Run::new("cargo").args(["build", "--locked", "--workspace"]).dir(&house.root).run()
}

/// Makes ready for the benchmarks, which measure what is released.
pub(crate) fn for_bench(house: &House) -> Result<(), Failure> {
    for_lab(house)?;
    step("building the release to be measured (about 10 minutes the first time)");
    build(house, "lab", &["benchmarks"])?;
    build(house, "release", &["cni-plugin", "ipam-plugin", "node-daemon"])
}

fn build(house: &House, profile: &str, packages: &[&str]) -> Result<(), Failure> {
    let names = packages.iter().flat_map(|package| ["--package", package]);
    let cargo = Run::new("cargo").args(["build", "--locked", "--profile", profile]);
    cargo.args(names).dir(&house.root).run()
}

/// Installs the Debian packages that are missing.
fn packages() -> Result<(), Failure> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    step("installing Debian packages");
    for (name, purpose) in &missing {
        eprintln!("    {name}: {purpose}");
    }
    apt(["update"]).run_quietly("reading the list of packages")?;
    let names = missing.iter().map(|(name, _)| *name);
    let install = apt(["install", "--yes", "--no-install-recommends"]);
    install.args(names).run_quietly("installing packages")
}

fn apt<const N: usize>(arguments: [&str; N]) -> Run {
    let run = Run::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    run.args(["--quiet", "-o", "DPkg::Lock::Timeout=120"]).args(arguments)
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}

/// Builds the real kube-apiserver, etcd and kubectl from their Go modules, if that is not done yet.
fn control_plane(house: &House) -> Result<(), Failure> {
    let module = house.root.join("lab/control-plane");
    let binary = house.control_plane();
    let stamp = binary.with_extension("stamp");
    let wanted = fingerprint(&module)?;
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

/// Returns the sources of the control plane as one text: it is rebuilt when they change.
fn fingerprint(module: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    for name in ["go.mod", "go.sum", "main.go"] {
        let path = module.join(name);
        let content =
            std::fs::read_to_string(&path).map_err(|source| Failure::File { path, source })?;
        text.push_str(&content);
    }
    Ok(text)
}
