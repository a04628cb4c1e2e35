//! What the command line asks for, and the exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{daemon, health};

/// What one program does for the whole cluster.
///
/// Without arguments it runs until SIGTERM. Its settings are environment variables and the
/// `KubeControllersConfiguration` object `default`.
#[derive(Debug, Parser)]
#[command(name = "calico-kube-controllers", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Exit with 0 if the program that runs here lives or is ready.
    CheckStatus {
        /// Is it ready?
        #[arg(short, long)]
        ready: bool,
        /// Does it live?
        #[arg(short, long)]
        live: bool,
    },
}

/// Does what `arguments` ask for; the program's name comes first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = arguments.into_iter().map(|word| match word.to_str() {
        Some("-v") => "--version".into(),
        _ => word,
    });
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // The message cannot be printed: then nobody reads it.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let result = match arguments.command {
        Some(Command::CheckStatus { live: true, ready: false }) => check("/liveness"),
        Some(Command::CheckStatus { .. }) => check("/readiness"),
        None => serve(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calico-kube-controllers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(path: &str) -> Result<(), String> {
    let port = daemon::health_port(&daemon::environment());
    match health::ask(port, path) {
        Ok((true, _)) => Ok(()),
        Ok((false, why)) => Err(why),
        Err(error) => Err(format!(
            "no answer at localhost:{port}: {error}; is HEALTH_ENABLED true, and HEALTH_PORT {port}?"
        )),
    }
}

fn serve() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(daemon::run()).map_err(|error| error.to_string())
}
