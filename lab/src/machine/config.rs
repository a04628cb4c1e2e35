//! What a machine's programs are told, as kubeadm would tell them.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Files, PROXY, Site, group};
use crate::Error;
use crate::control_plane::ControlPlane;
use crate::images::PAUSE;

/// Writes the configuration of a machine's programs into its directory.
pub(super) fn write(
    control_plane: &ControlPlane,
    site: &Site,
    name: &str,
    dir: &Path,
) -> Result<Files, Error> {
    let put = |file: &str, text: String| -> Result<PathBuf, Error> {
        let path = dir.join(file);
        std::fs::write(&path, text).map_err(Error::file(&path))?;
        Ok(path)
    };
    let kubelet = kubelet(&control_plane.file("ca.crt"), &group(&site.dir, name));
    let proxy = proxy(&control_plane.kubeconfig_of(PROXY), site, name);
    Ok(Files {
        kubelet_config: put("kubelet.yaml", kubelet.to_string())?,
        kubelet_kubeconfig: control_plane.kubeconfig_of(name),
        proxy_config: put("kube-proxy.yaml", proxy.to_string())?,
        proxy_kubeconfig: control_plane.kubeconfig_of(PROXY),
        runtime_config: put("containerd.toml", RUNTIME.replace("__PAUSE__", PAUSE))?,
    })
}

/// Writes the configuration of a machine's proxy anew.
pub(super) fn write_proxy(files: &Files, site: &Site, name: &str) -> Result<(), Error> {
    let text = proxy(&files.proxy_kubeconfig, site, name).to_string();
    std::fs::write(&files.proxy_config, text).map_err(Error::file(&files.proxy_config))
}

/// kubeadm's `KubeletConfiguration`, and what this kind of machine needs: control groups of its
/// own, and no eviction by the disk that all machines share.
fn kubelet(authority: &Path, group: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        "oomScoreAdj": 0,
        "registerNode": true,
        "resolvConf": "",
        "rotateCertificates": false,
        // Reboots are tested: nobody should wait minutes for pods to be counted as gone.
        "nodeStatusReportFrequency": "30s",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
}

fn proxy(kubeconfig: &Path, site: &Site, name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": site.pod_subnet,
        "hostnameOverride": name,
        "mode": site.proxy.name(),
        // Limits of conntrack belong to the whole machine.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}

/// containerd for the CRI: root of the lab may not lower scores of the out-of-memory killer.
const RUNTIME: &str = r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "__PAUSE__"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
"#;
