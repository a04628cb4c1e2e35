//! What kubelet does for pods: objects in the API, CNI, and their status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::{Cluster, NAMESPACE};
use crate::Error;
use crate::protocol::{Attached, Pod};

/// How many pods a node's kubelet makes at the same time.
const AT_ONCE: usize = 8;

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct RunningPod {
    /// What the runtime knows of it.
    pub pod: Pod,
    /// The node that it runs on.
    pub node: String,
    /// What the plugins said.
    pub attached: Attached,
}

impl RunningPod {
    /// Returns the pod's addresses.
    #[must_use]
    pub fn addrs(&self) -> &[IpAddr] {
        &self.attached.addrs
    }

    /// Returns the pod's first address.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if it has none.
    pub fn addr(&self) -> Result<IpAddr, Error> {
        let addr = self.addrs().first().copied();
        addr.ok_or_else(|| Error::wrong(format!("{} has no address", self.pod.name)))
    }
}

/// What a pod should be like.
#[derive(Clone, Debug)]
pub struct NewPod {
    /// The namespace, which must be there.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its service account; empty for none.
    pub account: String,
    /// The ports of its container, as a Pod has them.
    pub ports: Value,
}

impl NewPod {
    /// Makes a pod of which nothing is said but where it is.
    #[must_use]
    pub fn plain(namespace: &str, name: &str, node: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            labels: BTreeMap::new(),
            account: String::new(),
            ports: json!([]),
        }
    }
}

impl Cluster {
    /// Makes one pod, as it is wanted.
    ///
    /// # Errors
    ///
    /// [`Error`] of the API or of a plugin.
    pub fn add_pod(&mut self, wanted: &NewPod) -> Result<(), Error> {
        let pod = self.make_pod(wanted)?;
        self.pods.push(pod);
        Ok(())
    }

    /// Makes pods called `prefix-1` and so on, spread over the nodes, several at once.
    ///
    /// # Errors
    ///
    /// The first failure; pods that were made stay.
    pub fn add_pods(&mut self, prefix: &str, count: usize) -> Result<(), Error> {
        let names: Vec<String> = (1..=count).map(|number| format!("{prefix}-{number}")).collect();
        let nodes = self.nodes.iter().map(|node| node.name.as_str()).cycle();
        let wanted: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(nodes).collect();
        let made = in_parallel(&wanted, |(name, node)| self.make_pod(&lab_pod(name, node)));
        let mut first_error = None;
        for outcome in made {
            match outcome {
                Ok(pod) => self.pods.push(pod),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Makes one pod on a node, as scheduler and kubelet do.
    fn make_pod(&self, wanted: &NewPod) -> Result<RunningPod, Error> {
        self.attach_pod(self.create_pod(wanted)?, &wanted.node)
    }

    /// Makes a pod's object, as the scheduler leaves it.
    ///
    /// # Errors
    ///
    /// [`Error`] of the API.
    pub fn create_pod(&self, wanted: &NewPod) -> Result<Pod, Error> {
        let NewPod { namespace, name, node, labels, account, ports } = wanted;
        let object = self.api.create::<core::Pod>(json!({
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "nodeName": node,
                "serviceAccountName": account,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{"name": "echo", "image": "lab/echo", "ports": ports}],
            },
        }))?;
        let uid = object.metadata.uid.unwrap_or_default();
        let container = uid.replace('-', "");
        Ok(Pod { namespace: namespace.clone(), name: name.clone(), uid, container })
    }

    /// Attaches a pod that was made, as the kubelet of its node does.
    ///
    /// # Errors
    ///
    /// [`Error`] of a plugin or of the API.
    pub fn attach_pod(&self, pod: Pod, node: &str) -> Result<RunningPod, Error> {
        let attached = self.node(node)?.add(&pod)?;
        let ips: Vec<_> = attached.addrs.iter().map(|addr| json!({"ip": addr})).collect();
        let patch = json!({"status": {
            "phase": "Running", "podIP": attached.addrs.first(), "podIPs": ips,
        }});
        self.api.patch_status::<core::Pod>(Some(&pod.namespace), &pod.name, &patch)?;
        Ok(RunningPod { pod, node: node.to_owned(), attached })
    }

    /// Ends the pods that `is_chosen` says, several at once.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn remove_pods(&mut self, is_chosen: impl Fn(&RunningPod) -> bool) -> Result<(), Error> {
        let (chosen, rest) = std::mem::take(&mut self.pods).into_iter().partition(is_chosen);
        self.pods = rest;
        let chosen: Vec<RunningPod> = chosen;
        in_parallel(&chosen, |pod| self.end_pod(&pod)).into_iter().collect()
    }

    fn end_pod(&self, pod: &RunningPod) -> Result<(), Error> {
        self.node(&pod.node)?.del(&pod.pod)?;
        match self.api.get_in::<core::Pod>(&pod.pod.namespace, &pod.pod.name)? {
            Some(object) => self.api.delete(&object),
            None => Ok(()),
        }
    }
}

/// Returns what the pods of a lab are like that differ only by name.
fn lab_pod(name: &str, node: &str) -> NewPod {
    let labels = BTreeMap::from([("app".to_owned(), "lab".to_owned())]);
    NewPod { labels, ..NewPod::plain(NAMESPACE, name, node) }
}

/// Does something for each item, a few at a time; outcomes come in the order of the items.
fn in_parallel<T: Clone + Sync, R: Send>(items: &[T], work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut outcomes = Vec::new();
    for some in items.chunks(AT_ONCE) {
        outcomes.extend(std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                some.iter().map(|item| scope.spawn(move || work(item.clone()))).collect();
            // A panic in one is a panic of all.
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Vec<_>>()
        }));
    }
    outcomes
}
