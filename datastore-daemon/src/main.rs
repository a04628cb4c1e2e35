//! `calico-datastore`: the Kubernetes API for one machine, without a cluster.

mod arguments;
mod error;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;
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
        }
    })
}
