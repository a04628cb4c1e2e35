//! `calico-datastore`: the Kubernetes API for one machine, without a cluster.

mod arguments;
mod error;
mod export;
mod import;
mod offline;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use telemetry::logging;

use arguments::{Arguments, Command};
use error::Error;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = logging::Options { screen: arguments.log_level, ..logging::Options::default() };
    let done = logging::init(&options).map_err(Error::from).and_then(|()| run(arguments.command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calico-datastore: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    // Few threads: an idle server is to cost next to nothing, and disk and TLS are the limits.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(async {
        match command {
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Backup { data, file } => offline::backup(&data.path, &file),
            Command::Restore { data, file } => offline::restore(&data.path, &file),
            Command::Export { data, include_secrets } => {
                export::run(&data.path, export::Secrets::included(include_secrets)).await
            }
            Command::Import { file, kubeconfig, overwrite } => {
                import::run(&file, kubeconfig, import::Existing::overwritten(overwrite)).await
            }
            Command::Token { data, account } => offline::token(&data.path, &account).await,
            Command::Kubeconfig { data, account } => {
                offline::kubeconfig(&data.path, &account).await
            }
            Command::Completion { shell } => completion(shell),
        }
    })
}

fn completion(shell: clap_complete::Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "calico-datastore", &mut script);
    offline::print(&script)
}
