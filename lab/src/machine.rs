//! A machine with a kubelet: a node whose pods containerd and runc run, behind kube-proxy.
//!
//! What is in it is what kubeadm would put there. Whatever it starts has it as its first
//! process's descendant, so that the end of the machine is the end of all of it.

mod config;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Error;
use crate::cluster::{Fabric, eventually};
use crate::control_plane::{ControlPlane, binary};
use crate::node::Node;
use crate::{cgroups, fabric};

/// The runtime's program, and what it is called in the machine.
const RUNTIME: &str = "containerd";
/// What the kubelet is called in the machine, and in the executable.
const KUBELET: &str = "kubelet";
/// What the proxy is called.
const PROXY: &str = "kube-proxy";
/// How long the runtime may take until it answers, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// How kube-proxy brings Services to pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum ProxyMode {
    /// With rules of iptables.
    Iptables,
    /// With tables of nftables.
    Nftables,
}

impl ProxyMode {
    /// Returns kube-proxy's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// Where machines are, and what they are told.
#[derive(Clone, Debug)]
pub struct Site {
    /// The lab's directory.
    pub dir: PathBuf,
    /// What kubeadm is told with `--pod-network-cidr`.
    pub pod_subnet: String,
    /// How Services are served.
    pub proxy: ProxyMode,
    /// The archives of images that every machine has from the beginning.
    pub images: Vec<PathBuf>,
}

/// A running machine; dropping it ends all that runs in it.
#[derive(Debug)]
pub struct Machine {
    /// Its inside.
    pub node: Node,
    number: u8,
    files: Files,
    site: Site,
    binary: PathBuf,
}

/// What it is started with: files outside of it, which it sees too.
#[derive(Clone, Debug)]
struct Files {
    kubelet_config: PathBuf,
    kubelet_kubeconfig: PathBuf,
    proxy_config: PathBuf,
    proxy_kubeconfig: PathBuf,
    runtime_config: PathBuf,
}

impl Machine {
    /// Starts a machine; `number` counts from one.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn start(control_plane: &ControlPlane, site: &Site, number: u8) -> Result<Self, Error> {
        let name = name(number);
        let dir = site.dir.join("nodes").join(&name);
        crate::sandbox::make_dirs(&dir)?;
        let files = config::write(control_plane, site, &name, &dir)?;
        let node = Node::start_machine(&name, &dir)?;
        let mut this = Self { node, number, files, site: site.clone(), binary: binary()? };
        this.boot()?;
        this.import(&site.images)?;
        this.start_kubelet()?;
        this.start_proxy()?;
        Ok(this)
    }

    /// Plugs the machine in and starts its container runtime.
    fn boot(&mut self) -> Result<(), Error> {
        cgroups::make(&group(&self.site.dir, &self.node.name));
        fabric::connect(Fabric::Bridge, &mut self.node, self.number)?;
        // What kubeadm demands before it begins.
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        self.node.run(&["sh", "-c", forward])?;
        self.start_runtime()
    }

    /// Starts the container runtime and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Error`] with the end of its log.
    pub fn start_runtime(&self) -> Result<(), Error> {
        let config = self.files.runtime_config.to_string_lossy();
        self.start_program(RUNTIME, &[RUNTIME, "--config", &config])?;
        eventually("containerd to answer", WITHIN, || {
            self.node
                .run(&["ctr", "version"])
                .map(drop)
                .map_err(|error| self.with_log(RUNTIME, &error))
        })
    }

    /// Starts the kubelet and waits until it serves; it gives up where the container runtime is
    /// not ready yet, and is started again then, as systemd would.
    ///
    /// # Errors
    ///
    /// [`Error`] with the end of its log.
    pub fn start_kubelet(&self) -> Result<(), Error> {
        self.run_kubelet()?;
        let is_serving = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/10248"];
        eventually("the kubelet to serve", WITHIN, || {
            if self.node.program_pid(KUBELET)?.is_none() {
                self.run_kubelet()?;
            }
            self.node.run(&is_serving).map(drop).map_err(|error| self.with_log(KUBELET, &error))
        })
    }

    fn run_kubelet(&self) -> Result<(), Error> {
        let binary = self.binary.to_string_lossy();
        let (config, kubeconfig) = (&self.files.kubelet_config, &self.files.kubelet_kubeconfig);
        let flags = [
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={}", self.node.name),
            format!("--node-ip={}", self.node.addr()?),
            "--root-dir=/var/lib/kubelet".to_owned(),
            "--cert-dir=/var/lib/kubelet/pki".to_owned(),
            "--v=2".to_owned(),
        ];
        let flags = flags.iter().map(String::as_str);
        let command: Vec<&str> = [&*binary, KUBELET].into_iter().chain(flags).collect();
        self.start_program(KUBELET, &command)
    }

    /// Starts kube-proxy.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be started.
    pub fn start_proxy(&self) -> Result<(), Error> {
        let binary = self.binary.to_string_lossy();
        let config = format!("--config={}", self.files.proxy_config.display());
        self.start_program(PROXY, &[&binary, PROXY, &config, "--v=2"])
    }

    /// Ends the kubelet as a crash would; pods go on.
    ///
    /// # Errors
    ///
    /// [`Error`] if it did not run.
    pub fn stop_kubelet(&self) -> Result<(), Error> {
        self.node.end_program(KUBELET, Signal::SIGKILL)
    }

    /// Ends the kubelet as a crash would, and starts it again.
    ///
    /// # Errors
    ///
    /// [`Error`] if it did not run, or cannot be started.
    pub fn restart_kubelet(&self) -> Result<(), Error> {
        self.stop_kubelet()?;
        self.start_kubelet()
    }

    /// Ends the container runtime as a crash would, and starts it again; containers go on.
    ///
    /// # Errors
    ///
    /// [`Error`] if it did not run, or cannot be started.
    pub fn restart_runtime(&self) -> Result<(), Error> {
        self.node.end_program(RUNTIME, Signal::SIGKILL)?;
        self.start_runtime()
    }

    /// Ends the proxy and starts it in another mode.
    ///
    /// # Errors
    ///
    /// [`Error`] if it did not run, or cannot be started.
    pub fn change_proxy(&mut self, mode: ProxyMode) -> Result<(), Error> {
        self.site.proxy = mode;
        self.node.end_program(PROXY, Signal::SIGTERM)?;
        config::write_proxy(&self.files, &self.site, &self.node.name)?;
        self.start_proxy()
    }

    /// Pulls the plug and starts the machine again: what is on disk stays, and nothing else.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn reboot(&mut self) -> Result<(), Error> {
        let (name, dir) = (self.node.name.clone(), self.node.dir.clone());
        self.node.stop();
        let group = group(&self.site.dir, &name);
        let is_gone = || {
            let is_empty = cgroups::remove(&group);
            if is_empty { Ok(()) } else { Err(Error::wrong("somebody is in them")) }
        };
        eventually("the control groups to be empty", WITHIN, is_gone)?;
        let run = dir.join("run");
        std::fs::remove_dir_all(&run).map_err(Error::file(&run))?;
        fabric::disconnect(&name);
        self.node = Node::start_machine(&name, &dir)?;
        self.boot()?;
        self.start_kubelet()?;
        self.start_proxy()
    }

    /// Loads archives of images into the container runtime.
    ///
    /// # Errors
    ///
    /// [`Error`] with what the runtime says.
    pub fn import(&self, images: &[PathBuf]) -> Result<(), Error> {
        for image in images {
            let image = image.to_string_lossy();
            self.node.run(&["ctr", "--namespace", "k8s.io", "images", "import", &image])?;
        }
        Ok(())
    }

    /// Returns the machine's address in the fabric.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if it has none.
    pub fn addr(&self) -> Result<IpAddr, Error> {
        self.node.addr()
    }

    /// Returns the ends of the logs of its programs, for errors.
    #[must_use]
    pub fn ends_of_logs(&self) -> String {
        let log = |program: &&str| {
            let end = crate::process::tail(&self.node.dir.join(format!("{program}.log")));
            format!("\nthe end of the log of {program} on {}:\n{end}", self.node.name)
        };
        [RUNTIME, KUBELET].iter().map(log).collect()
    }

    fn start_program(&self, name: &str, command: &[&str]) -> Result<(), Error> {
        self.node.start_program(name, command, &BTreeMap::new())
    }

    fn with_log(&self, program: &str, error: &Error) -> Error {
        let end = crate::process::tail(&self.node.dir.join(format!("{program}.log")));
        Error::program(program, format!("{error}; the end of its log:\n{end}"))
    }
}

/// Returns the name of a machine.
#[must_use]
pub fn name(number: u8) -> String {
    format!("node-{number}")
}

/// Returns the control group that a machine's pods are in.
fn group(lab: &Path, machine: &str) -> String {
    format!("{}/{machine}", cgroups::of(lab))
}
