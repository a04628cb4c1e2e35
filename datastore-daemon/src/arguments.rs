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
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\n\
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
    /// Copy the datastore to a new file, also while it is served.
    Backup {
        #[command(flatten)]
        data: DataDir,
        /// The file to write; it must not exist. It holds every secret, and gets mode 0600.
        file: PathBuf,
    },
    /// Make a data directory from a backup; clients list everything again.
    Restore {
        #[command(flatten)]
        data: DataDir,
        /// What `backup` wrote.
        file: PathBuf,
    },
    /// Print every object as YAML, so that `import` or `kubectl apply` can make them elsewhere.
    ///
    /// Left out are events, leases, what every cluster makes itself, and what only this server
    /// can know: uid, resourceVersion, generation, times of creation, owners, cluster IPs.
    Export {
        #[command(flatten)]
        data: DataDir,
        /// Print secrets, too. Whoever reads the output then knows them.
        #[arg(long)]
        include_secrets: bool,
    },
    /// Make the objects of a file in a cluster, or in a datastore that is being served.
    ///
    /// What exists is left alone. Owners are not set. The command can be run again.
    Import {
        /// What `export` printed, or any YAML of Kubernetes; `-` is standard input.
        file: PathBuf,
        /// Where the objects go.
        #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
        kubeconfig: PathBuf,
        /// Replace what exists.
        #[arg(long)]
        overwrite: bool,
    },
    /// Print the administrator's token, or a new one for a service account.
    Token {
        #[command(flatten)]
        data: DataDir,
        #[command(flatten)]
        account: Account,
    },
    /// Print the administrator's kubeconfig, or one for a service account.
    Kubeconfig {
        #[command(flatten)]
        data: DataDir,
        #[command(flatten)]
        account: Account,
    },
    /// Print a script that completes this command line.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
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

/// Whose token is wanted.
#[derive(Args, Clone, Debug)]
pub(crate) struct Account {
    /// The service account; the administrator without it.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = account)]
    pub(crate) service_account: Option<(String, String)>,
    /// How long a service account's token is valid, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, requires = "service_account")]
    pub(crate) duration: u32,
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

fn account(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    });
    let (namespace, name) =
        parts.ok_or("write NAMESPACE/NAME, as in kube-system/calico-node".to_owned())?;
    Ok((namespace.to_owned(), name.to_owned()))
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
    fn service_accounts_have_a_namespace_and_a_name() {
        assert_eq!(account("a/b"), Ok(("a".to_owned(), "b".to_owned())));
        for text in ["a", "a/", "/b", "a/b/c", ""] {
            assert!(account(text).is_err(), "{text}");
        }
    }

    #[test]
    fn serves_on_loopback_by_default() {
        let arguments = Arguments::try_parse_from(["calico-datastore", "serve"]).unwrap();
        let Command::Serve(serve) = arguments.command else { panic!("{arguments:?}") };
        assert!(serve.listen.ip().is_loopback());
    }
}
