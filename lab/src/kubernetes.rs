//! A whole Kubernetes on one machine: a control plane, and machines with kubelets.
//!
//! It is what `kubeadm init --pod-network-cidr` and `kubeadm join` leave behind: nodes that are
//! not ready, because nobody has given them a network yet. Installing one is what comes next.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use serde_json::json;

use crate::api_access::Api;
use crate::cluster::{Fabric, eventually, program_dir};
use crate::control_plane::{ControlPlane, Extent, Kind, Settings, root};
use crate::machine::{Machine, ProxyMode, Site, name};
use crate::{Error, fabric, images, rbac};

/// What kubeadm is told with `--pod-network-cidr`: not what anybody would choose by default.
pub const POD_SUBNET: &str = "10.217.0.0/16";
/// How long nodes may take until they are ready, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many machines, 1 to 9.
    pub machines: u8,
    /// How they serve Services.
    pub proxy: ProxyMode,
}

/// A running Kubernetes; dropping it ends it.
#[derive(Debug)]
pub struct Kubernetes {
    /// The machines, in the order of their numbers.
    pub machines: Vec<Machine>,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The API, as administrator.
    pub api: Api,
    /// The archives of images that are on every machine.
    pub images: Vec<PathBuf>,
}

impl Kubernetes {
    /// Starts everything but a pod network; `say` hears of each step.
    ///
    /// # Errors
    ///
    /// [`Error`] with the step that failed.
    pub fn up(dir: &Path, plan: Plan, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        fabric::make(Fabric::Bridge)?;
        let settings = Settings {
            kind: Kind::Kubernetes,
            dir: dir.join("control-plane"),
            addr: fabric::SERVER.into(),
            port: 6443,
            is_durable: false,
            extent: Extent::Whole {
                pod_subnet: POD_SUBNET.to_owned(),
                machines: (1..=plan.machines).map(name).collect(),
            },
        };
        let control_plane = ControlPlane::start(settings)?;
        let api = control_plane.api()?;
        api.wait_namespace("kube-system")?;
        api.create::<core::ConfigMap>(kubeadm_config())?;
        say("etcd, kube-apiserver, kube-controller-manager and kube-scheduler run");
        let images = images::write_all(&program_dir()?, &dir.join("images"))?;
        say("the images are made");
        let site = Site {
            dir: dir.to_owned(),
            pod_subnet: POD_SUBNET.to_owned(),
            proxy: plan.proxy,
            images: images.clone(),
        };
        let mut this = Self { machines: Vec::new(), control_plane, api, images };
        for number in 1..=plan.machines {
            let machine = Machine::start(&this.control_plane, &site, number)?;
            say(&format!(
                "{} runs containerd, kubelet and kube-proxy ({})",
                machine.node.name,
                plan.proxy.name()
            ));
            this.machines.push(machine);
        }
        Ok(this)
    }

    /// Applies a manifest, or a directory with a kustomization, as people do.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] with what kubectl says.
    pub fn apply(&self, manifest: &Path) -> Result<(), Error> {
        let option = if manifest.is_dir() { "-k" } else { "-f" };
        self.control_plane.kubectl(&["apply", option, &manifest.to_string_lossy()]).map(drop)
    }

    /// Waits until Kubernetes calls every machine's node ready.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with what the nodes and the pods of the network say.
    pub fn wait_ready(&self) -> Result<(), Error> {
        let waited = eventually("every node to be ready", READY_WITHIN, || {
            let nodes = self.api.list::<core::Node>()?;
            let ready = nodes.iter().filter(|node| is_ready(node)).count();
            if ready == self.machines.len() {
                return Ok(());
            }
            Err(Error::wrong(format!("{ready} of {}", self.machines.len())))
        });
        waited.map_err(|error| Error::wrong(format!("{error}\n{}", self.describe())))
    }

    /// Returns what there is to know when something does not come up.
    #[must_use]
    pub fn describe(&self) -> String {
        let ask = |arguments: &[&str]| {
            self.control_plane.kubectl(arguments).unwrap_or_else(|error| error.to_string())
        };
        let pods = ask(&["get", "pods,nodes", "--all-namespaces", "--output", "wide"]);
        let events = ask(&["get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp"]);
        let events: Vec<&str> = events.lines().collect();
        let events = events.get(events.len().saturating_sub(30)..).unwrap_or_default().join("\n");
        let node = ["logs", "--namespace", "kube-system", "--prefix", "--tail", "30", "--selector"];
        let logs = ["calico-node", "calico-kube-controllers"].map(|app| {
            let selector = format!("k8s-app={app}");
            ask(&[&node[..], &[&selector, "--all-containers"]].concat())
        });
        let machines: String = self.machines.iter().map(Machine::ends_of_logs).collect();
        format!("{pods}\n{events}\n{}\n{machines}", logs.join("\n"))
    }

    /// Returns what our programs have asked of the API server so far.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the audit log cannot be read.
    pub fn done(&self) -> Result<rbac::Done, Error> {
        rbac::done_in(&self.control_plane.file(""))
    }

    /// Returns where the API server is.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        self.control_plane.endpoint()
    }
}

/// Returns where a manifest of the repository is.
#[must_use]
pub fn manifest(name: &str) -> PathBuf {
    root().join("manifests").join(name)
}

/// Returns what is applied to install our network: without IP-in-IP, whose module the kernels of
/// machines that build and test often lack.
#[must_use]
pub fn installation() -> PathBuf {
    manifest("unencapsulated")
}

/// Whether a node's condition `Ready` is true.
fn is_ready(node: &core::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What kubeadm writes down of its own settings.
fn kubeadm_config() -> serde_json::Value {
    let configuration = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n\
         kubernetesVersion: v1.34.4\nnetworking:\n  dnsDomain: cluster.local\n  \
         podSubnet: {POD_SUBNET}\n  serviceSubnet: {}\n",
        crate::control_plane::kubernetes::SERVICES
    );
    json!({
        "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
        "data": {"ClusterConfiguration": configuration},
    })
}
