//! `calicoctl node`: this node, as users of Calico know it.

mod checksystem;
mod diags;
mod status;

use crate::Error;
use crate::arguments::Node;
use crate::run::Verdict;

/// What `calicoctl node run` does in Calico, and how it is done here.
const HOW_TO_RUN: &str = "calico-node is no container that calicoctl starts: in a cluster `kubectl \
     apply -f manifests/calico.yaml` runs it on every node; on a host without Kubernetes install the \
     program and its systemd unit, `systemctl enable --now calico-node`, as docs/docker.md shows";

/// Does one of the commands.
///
/// # Errors
///
/// [`Error::Refused`] with the reason and the remedy.
pub fn run(task: &Node) -> Result<Verdict, Error> {
    match task {
        Node::Status { output } => status::run(*output),
        Node::Diags { log_dir } => diags::run(log_dir),
        Node::Run { .. } => Err(Error::Refused(HOW_TO_RUN.to_owned())),
        Node::Checksystem { kernel_config } => checksystem::run(kernel_config.as_deref()),
    }
}
