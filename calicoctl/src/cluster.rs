//! `calicoctl cluster diags`: what somebody who helps wants to see of a cluster, in one archive.
//!
//! kubectl is asked, as in Calico. No Secret is read: objects name theirs, and hold none.

use std::process::Command;

use datastore::Source;

use crate::Error;
use crate::archive::Archive;
use crate::arguments::{Cluster, Global};
use crate::config;
use crate::run::Verdict;

/// What is asked, and what the answer's file is called.
const COMMANDS: [(&str, &str); 12] = [
    ("version", "version"),
    ("nodes.yaml", "get nodes -o yaml"),
    ("nodes", "get nodes -o wide"),
    ("pods", "get pods --all-namespaces -o wide"),
    ("events", "get events --all-namespaces --sort-by=.lastTimestamp"),
    ("crds", "get customresourcedefinitions"),
    (
        "roles.yaml",
        "get clusterroles calico-node calico-cni-plugin calico-kube-controllers -o yaml",
    ),
    ("calico-node.yaml", "get daemonset calico-node --namespace kube-system -o yaml"),
    ("controllers.yaml", "get deployment calico-kube-controllers --namespace kube-system -o yaml"),
    ("policies.yaml", "get networkpolicies.networking.k8s.io --all-namespaces -o yaml"),
    ("services", "get services --all-namespaces -o wide"),
    ("leases", "get leases --namespace kube-system"),
];
/// The group of our objects.
const GROUP: &str = "crd.projectcalico.org";
/// What finds the pods whose logs are taken.
const NODES: &str = "get pods --namespace kube-system --selector k8s-app=calico-node --no-headers \
     -o custom-columns=:metadata.name,:spec.nodeName";

/// Collects everything and says where it is.
///
/// # Errors
///
/// [`Error::Refused`] if there is no kubectl, or it cannot reach the cluster.
pub fn run(global: &Global, task: &Cluster) -> Result<Verdict, Error> {
    let Cluster::Diags { since, max_logs, focus_nodes } = task;
    let kubectl = Kubectl::of(global)?;
    // Without an answer to this there is nothing to collect.
    let kinds = kubectl.says(&["api-resources", "--api-group", GROUP, "-o", "name"])?;
    let archive = Archive::begin("calico-cluster-diags")?;
    let ask = |file: &str, words: &[&str]| archive.ask(file, &kubectl.command(words));
    for (file, words) in COMMANDS {
        ask(file, &words.split(' ').collect::<Vec<_>>())?;
    }
    for kind in kinds.lines() {
        let name = kind.trim_end_matches(GROUP).trim_end_matches('.');
        let words = ["get", kind, "--all-namespaces", "-o", "yaml"];
        ask(&format!("objects/{name}.yaml"), &words)?;
    }
    let words: Vec<&str> = NODES.split_whitespace().collect();
    let pods = kubectl.says(&words)?;
    let pods = in_order(&pods, focus_nodes);
    let since: Vec<String> = since.iter().map(|since| format!("--since={since}")).collect();
    let logs = |file: &str, what: &str| {
        let words = ["logs", "--namespace", "kube-system", "--all-containers", "--prefix", what];
        let words: Vec<&str> = words.into_iter().chain(since.iter().map(String::as_str)).collect();
        ask(file, &words)
    };
    for (pod, node) in pods.iter().take(*max_logs) {
        logs(&format!("logs/calico-node-{node}"), pod)?;
    }
    logs("logs/calico-kube-controllers", "deployment/calico-kube-controllers")?;
    archive.end()?;
    Ok(Verdict::Fine)
}

/// Reads the names of pods and of their nodes; those of the named nodes come first.
fn in_order<'a>(text: &'a str, first: &[String]) -> Vec<(&'a str, &'a str)> {
    let mut pods: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(pod, node)| (pod, node.trim())))
        .collect();
    pods.sort_by_key(|(pod, node)| (!first.iter().any(|name| name == node), *pod));
    pods
}

/// How kubectl is called.
struct Kubectl {
    options: Vec<String>,
}

impl Kubectl {
    /// Has it reach the same cluster as we do.
    fn of(global: &Global) -> Result<Self, Error> {
        let file = config::read(global.config.as_deref())?;
        let file = file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
        let env = |name: &str| std::env::var(name).ok();
        let options = config::options(file, &env, global.context.as_deref())?;
        let mut words: Vec<String> =
            options.context.iter().map(|name| format!("--context={name}")).collect();
        match options.source {
            Source::Kubeconfig(path) => words.push(format!("--kubeconfig={}", path.display())),
            Source::Infer | Source::InCluster => {}
            Source::Inline(_) => {
                return Err(Error::Refused(
                    "the configuration holds its credentials in itself, which kubectl cannot be \
                     given: name a kubeconfig file by KUBECONFIG"
                        .to_owned(),
                ));
            }
        }
        Ok(Self { options: words })
    }

    fn command<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let options = self.options.iter().map(String::as_str);
        std::iter::once("kubectl").chain(options).chain(words.iter().copied()).collect()
    }

    fn says(&self, words: &[&str]) -> Result<String, Error> {
        let failed = |why: String| {
            Error::Refused(format!(
                "kubectl {}: {why}; install kubectl, and see that it reaches the cluster",
                words.join(" ")
            ))
        };
        let output = Command::new("kubectl").args(&self.options).args(words).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_that_matter_come_first() {
        let text = "calico-node-a   n1\ncalico-node-b n2\ncalico-node-c n3\n";
        let first = ["n3".to_owned()];
        let pods = in_order(text, &first);
        assert_eq!(pods.iter().map(|(_, node)| *node).collect::<Vec<_>>(), ["n3", "n1", "n2"]);
        assert_eq!(in_order("", &first), []);
    }
}
