//! Calls the CNI plugin as a container runtime does: variables, and configuration on stdin.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use lab::Error;
use serde::Deserialize;
use serde_json::json;

use super::world::{NODE, Pod};
use crate::load;

/// The network configuration's log: what Calico's manifests say.
const LOG: &str = "/var/log/calico/cni/cni.log";

/// A plugin, and how to call it.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    directory: PathBuf,
    stdin: Vec<u8>,
    trace: Option<PathBuf>,
}

impl Plugin {
    /// Makes calls of the `calico` in `directory` against the cluster of `kubeconfig`.
    #[must_use]
    pub(crate) fn new(directory: &Path, kubeconfig: &Path, log_level: &str) -> Self {
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "k8s-pod-network",
            "type": "calico",
            "log_level": log_level,
            "log_file_path": LOG,
            "datastore_type": "kubernetes",
            "nodename": NODE,
            "mtu": 1450,
            "ipam": {"type": "calico-ipam"},
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": kubeconfig},
        });
        let (directory, stdin) = (directory.to_owned(), config.to_string().into_bytes());
        Self { directory, stdin, trace: None }
    }

    /// Has each call append what it did to the file at `path`.
    #[must_use]
    pub(crate) fn traced(mut self, path: &Path) -> Self {
        self.trace = Some(path.to_owned());
        self
    }

    /// Starts a call for `pod`.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] if the plugin cannot be started.
    pub(crate) fn start(&self, command: &str, pod: &Pod) -> Result<Child, Error> {
        let mut call = Command::new(self.directory.join("calico"));
        call.env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.container_id)
            .env("CNI_NETNS", &pod.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", arguments(pod))
            .env("CNI_PATH", &self.directory);
        if let Some(trace) = &self.trace {
            call.env("CALICO_CNI_TRACE", trace);
        }
        load::start(&mut call, &self.stdin)
    }

    /// Calls the plugin for `pod` and returns what it wrote to stderr.
    ///
    /// # Errors
    ///
    /// What it answered, as text.
    pub(crate) fn call(&self, command: &str, pod: &Pod) -> Result<String, String> {
        let child = self.start(command, pod).map_err(|error| error.to_string())?;
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok(stderr);
        }
        Err(failure(command, &output.stdout, &stderr))
    }
}

fn arguments(pod: &Pod) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={};\
         K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.name, pod.container_id, pod.uid
    )
}

/// An error as the CNI spec has it.
#[derive(Debug, Deserialize)]
struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

/// Returns what a failed call said, in one line.
fn failure(command: &str, stdout: &[u8], stderr: &str) -> String {
    match serde_json::from_slice::<Refusal>(stdout) {
        Ok(Refusal { code, msg, details }) => format!("{command}: code {code}: {msg} {details}"),
        Err(_) => format!("{command}: no answer; stderr: {}", stderr.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_one_line() {
        let answer = br#"{"cniVersion":"1.0.0","code":11,"msg":"not ready","details":"wait"}"#;
        assert_eq!(failure("ADD", answer, ""), "ADD: code 11: not ready wait");
        assert_eq!(failure("DEL", b"", "killed\n"), "DEL: no answer; stderr: killed");
    }
}
