//! `calicoctl node`: this node, as users of Calico know it.

mod checksystem;
mod diags;
mod status;

use crate::Error;
use crate::arguments::Node;
use crate::run::Verdict;

/// Does one of the commands.
///
/// # Errors
///
/// [`Error::Refused`] with the reason and the remedy.
pub fn run(task: &Node) -> Result<Verdict, Error> {
    match task {
        Node::Status { output } => status::run(*output),
        Node::Diags { log_dir } => diags::run(log_dir),
        Node::Checksystem { kernel_config } => checksystem::run(kernel_config.as_deref()),
    }
}
