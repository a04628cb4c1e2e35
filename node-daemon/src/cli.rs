//! What the command line asks for, and the exit code.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::{BgpReport, Question as Asked, RouteReport};
use crate::arguments::{
    Arguments, BgpQuery, Command, Form, Output, PolicyQuery, Probe, WireguardTask,
};
use crate::counters::Counters;
use crate::why::Question;
use crate::{admin, cni, daemon, health, uninstall};

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
        Some(Command::Bgp { query }) => bgp(&query),
        Some(Command::Policy { query: PolicyQuery::Counters }) => policy_counters(),
        Some(Command::InstallCni { remove: false }) => in_runtime(cni::install::run()),
        Some(Command::InstallCni { remove: true }) => ended(cni::install::remove()),
        Some(Command::Wireguard { task: WireguardTask::Rotate }) => rotate_keys(),
        Some(Command::Uninstall { check, with_pods }) => uninstall(check, with_pods),
        Some(Command::Why { from, to, traffic }) => why(&Question { from, to, traffic }),
        None if !probes.is_empty() => probe(&probes),
        None if arguments.shutdown => in_runtime(daemon::announce_shutdown()),
        None => in_runtime(daemon::run()),
    }
}

/// Runs one task to its end; one thread is enough, and keeps the memory of a node small.
fn in_runtime<E: Display>(task: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    ended(match runtime {
        Ok(runtime) => runtime.block_on(task).map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot start: {error}")),
    })
}

fn ended<E: Display>(result: Result<(), E>) -> ExitCode {
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

#[expect(clippy::print_stdout, reason = "what was removed is this command's result")]
fn uninstall(check: bool, with_pods: bool) -> ExitCode {
    in_runtime(async { uninstall::run(check, with_pods).await.map(|text| println!("{text}")) })
}

#[expect(clippy::print_stdout, reason = "the table is this command's result")]
fn policy_counters() -> ExitCode {
    match Counters::read() {
        Ok(counters) => {
            println!("{counters}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("calico-node: {error}; run it as root on the node itself");
            ExitCode::FAILURE
        }
    }
}

fn bgp(query: &BgpQuery) -> ExitCode {
    let answer = match query {
        BgpQuery::Status(form) => ask(Asked::Status, *form, BgpReport::table),
        BgpQuery::Peers(form) => admin::ask(Asked::Status)
            .and_then(|report: BgpReport| written(&report.peers, *form, || report.peers_table())),
        BgpQuery::Routes(form) => {
            ask(Asked::Routes, *form, |routes: &Vec<RouteReport>| admin::routes_table(routes))
        }
    };
    show(answer)
}

fn rotate_keys() -> ExitCode {
    match admin::ask::<Result<String, String>>(Asked::RotateKeys) {
        Ok(Err(why)) => {
            eprintln!("calico-node: {why}");
            ExitCode::FAILURE
        }
        Ok(Ok(text)) => show(Ok(text)),
        Err(error) => show(Err(error)),
    }
}

/// Asks the daemon, and writes its answer in the form that is wanted.
fn ask<T: DeserializeOwned + Serialize>(
    question: Asked,
    form: Form,
    table: impl FnOnce(&T) -> String,
) -> io::Result<String> {
    let answer: T = admin::ask(question)?;
    written(&answer, form, || table(&answer))
}

fn written<T: Serialize>(
    answer: &T,
    form: Form,
    table: impl FnOnce() -> String,
) -> io::Result<String> {
    match form.output() {
        Output::Table => Ok(table()),
        Output::Json => serde_json::to_string_pretty(answer).map_err(io::Error::other),
    }
}

#[expect(clippy::print_stdout, reason = "the answer is this command's result")]
fn show(answer: io::Result<String>) -> ExitCode {
    match answer {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("calico-node: {}: {error}; is calico-node running here?", admin::SOCKET);
            ExitCode::FAILURE
        }
    }
}
