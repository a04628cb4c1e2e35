//! What the command line asks for, and the exit code.

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use crate::arguments::{Arguments, BgpQuery, Command, Probe};
use crate::why::Question;
use crate::{admin, daemon, health};

/// Does what `arguments` ask for; the program's name comes first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // The message cannot be printed: then nobody reads it.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let probes = arguments.probes();
    match arguments.command {
        Some(Command::Bgp { query: BgpQuery::Status { json } }) => bgp_status(json),
        Some(Command::Why { from, to, traffic }) => why(&Question { from, to, traffic }),
        None if !probes.is_empty() => probe(&probes),
        None if arguments.shutdown => in_runtime(daemon::announce_shutdown()),
        None => in_runtime(daemon::run()),
    }
}

/// Runs one task to its end; one thread is enough, and keeps the memory of a node small.
fn in_runtime<E: Display>(task: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(task).map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calico-node: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the health endpoint; the first bad answer decides.
fn probe(probes: &[Probe]) -> ExitCode {
    let (host, port) = daemon::health_endpoint();
    for probe in probes {
        match health::ask(&host, port, *probe) {
            Ok((true, _)) => {}
            Ok((false, why)) => {
                eprintln!("calico-node: {probe:?}: {why}");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!(
                    "calico-node: {probe:?}: no answer at {host}:{port}: {error}; \
                     is FELIX_HEALTHENABLED true?"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "the explanation is this command's result")]
fn why(question: &Question) -> ExitCode {
    in_runtime(async { daemon::explain(question).await.map(|text| println!("{text}")) })
}

#[expect(clippy::print_stdout, reason = "the report is this command's result")]
fn bgp_status(is_json: bool) -> ExitCode {
    let report = match admin::ask() {
        Ok(report) => report,
        Err(error) => {
            eprintln!("calico-node: {}: {error}; is calico-node running here?", admin::SOCKET);
            return ExitCode::FAILURE;
        }
    };
    if is_json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        println!("{}", report.table());
    }
    ExitCode::SUCCESS
}
