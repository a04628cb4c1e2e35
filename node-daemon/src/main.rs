//! `calico-node`: the daemon of one node.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_daemon::cli::run(std::env::args_os())
}
