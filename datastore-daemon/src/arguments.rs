//! The command line of `calico-datastore`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use telemetry::logging::Level;

/// The Kubernetes API for one machine, without a cluster.
///
/// It is for demonstrations, tests and single hosts; clusters use Kubernetes' own API server.
#[derive(Debug, Parser)]
#[command(
    name = "calico-datastore",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the server cannot be reached.\n\n\
                  Example:\n  \
                  calico-datastore serve --data-dir ./data &\n  \
                  kubectl --kubeconfig ./data/admin.kubeconfig get namespaces"
)]
pub(crate) struct Arguments {
    /// What to log to standard error: debug, info, warning, error or none.
    #[arg(long, global = true, default_value = "info", value_parser = level)]
    pub(crate) log_level: Level,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the API until SIGTERM or Ctrl-C.
    Serve(Serve),
}

/// Where everything is kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataDir {
    /// The directory of the datastore; made with mode 0700 if it is not there.
    #[arg(
        long = "data-dir",
        value_name = "DIR",
        env = "CALICO_DATASTORE_DIR",
        default_value = "/var/lib/calico-datastore"
    )]
    pub(crate) path: PathBuf,
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The address to listen on; port 0 takes a free one.
    ///
    /// Everybody who reaches it needs a token, but choose another than a loopback address
    /// only if somebody else is to come in.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    /// A file that gets the server's URL when it is ready, in one step.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Print the administrator's kubeconfig to standard output when ready; it holds a secret.
    #[arg(long)]
    pub(crate) print_kubeconfig: bool,
}

fn level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|error: telemetry::logging::UnknownLevel| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serves_on_loopback_by_default() {
        let arguments = Arguments::try_parse_from(["calico-datastore", "serve"]).unwrap();
        let Command::Serve(serve) = arguments.command;
        assert!(serve.listen.ip().is_loopback());
    }
}
