//! `calico-kube-controllers`: what one program does for the whole cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    kube_controllers::cli::run(std::env::args_os())
}
