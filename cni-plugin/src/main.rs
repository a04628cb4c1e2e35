//! The CNI plugin `calico`: attaches containers to the network (CNI spec 1.1.0).
//!
//! A container runtime runs this program once for each container that it starts
//! (ADD), checks (CHECK) or stops (DEL). It speaks by `CNI_…` variables, standard
//! input and standard output; see the `cni` crate. Everything else that it says
//! goes to standard error and to the log.
//!
//! ```text
//! main ─► call ─► add ──► store (datastore), delegate (IPAM plugin), wire (kernel)
//!              │   └───► wishes, plan: decisions, without IO
//!              ├► del    cleanup: undoes an ADD that fails
//!              ├► check
//!              └► status
//! ```
//!
//! Invariants: an ADD that fails leaves nothing; a DEL can be repeated and needs
//! neither the namespace nor the pod; nothing but results and errors goes to
//! standard output; the configuration, which holds secrets, is never printed.
//!
//! Called `calico-ipam`, it is that plugin (`ipam_plugin`); as `calico` it carries calls of that
//! plugin out itself where both names are one file, see `delegate`.
//!
//! Where to start reading: `add`, then `plan`.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod add;
mod call;
mod check;
mod cleanup;
mod del;
mod delegate;
mod gates;
mod gc;
mod plan;
mod ready;
mod site;
mod status;
mod store;
mod trace;
mod vrf;
mod wire;
mod wishes;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use cni::config::{MAX_LEN, version_to_answer};
use cni::version::version_info;
use cni::{Environment, Error, ErrorCode, NetworkConfig, Request, Version};
use serde_json::Value;
use telemetry::plugin_log;

use crate::call::Call;
use crate::trace::Trace;

const USAGE: &str = "\
calico: CNI plugin. A container runtime runs it; see the CNI specification.

Usage: calico [-v | -t | -h]

  -v, --version  print the version
  -t             say whether the datastore (KUBECONFIG) is ready
  -h, --help     print this
";

fn main() -> ExitCode {
    if is_called_ipam(std::env::args_os().next().as_deref()) {
        return ipam_plugin::program::main();
    }
    let trace = Trace::start();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.first().map(|argument| argument.to_string_lossy()).as_deref() {
        None => serve(&trace),
        Some("-v" | "--version") => print(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Some("-h" | "--help") => print(USAGE),
        Some("-t") => {
            let tested = block_on(status::test_datastore(&trace));
            answer(tested.map(|()| None), Version::NEWEST)
        }
        Some(other) => {
            let message = format!("`{other}` is no argument of calico: use -v, -t, -h or none");
            answer(Err(Error::new(ErrorCode::Generic, message)), Version::NEWEST)
        }
    }
}

/// Is the program called by its other name?
fn is_called_ipam(name: Option<&OsStr>) -> bool {
    name.and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == "calico-ipam")
}

/// Serves one call of the runtime.
fn serve(trace: &Trace) -> ExitCode {
    let environment = match Environment::read(|name| std::env::var_os(name)) {
        Ok(environment) => environment,
        Err(error) => return answer(Err(error.into()), Version::NEWEST),
    };
    let stdin = match read_stdin() {
        Ok(stdin) => stdin,
        Err(error) => return answer(Err(error), Version::NEWEST),
    };
    let version = version_to_answer(&stdin);
    let served = dispatch(&environment, &stdin, trace);
    let code = served.as_ref().err().map_or(0, |error| error.code.number());
    let command = environment.request.command();
    match &served {
        Ok(_) => tracing::info!(command, "done"),
        Err(error) => tracing::error!(command, code, %error, "failed"),
    }
    trace.finish(command, code);
    answer(served, version)
}

fn dispatch(
    environment: &Environment,
    stdin: &[u8],
    trace: &Trace,
) -> Result<Option<Value>, Error> {
    if environment.request == Request::Version {
        return Ok(Some(version_info(version_to_answer(stdin))));
    }
    let config = NetworkConfig::parse(stdin)?;
    plugin_log::init(&config.logging);
    for ignored in config.ignored() {
        tracing::warn!("{ignored}");
    }
    let call = |attachment, netns| Call::new(environment, attachment, netns, &config, trace);
    match &environment.request {
        Request::Add(attachment, netns) => {
            let call = call(attachment, Some(netns))?;
            let success = block_on(add::run(&call))?;
            Ok(Some(success.to_json(config.version)))
        }
        Request::Del(attachment, netns) => {
            let call = call(attachment, netns.as_ref())?;
            block_on(del::run(&call)).map(|()| None)
        }
        Request::Check(attachment, netns) => {
            let call = call(attachment, Some(netns))?;
            block_on(check::run(&call)).map(|()| None)
        }
        Request::Status => block_on(status::run(&config, &environment.path, trace)).map(|()| None),
        Request::Gc => block_on(gc::run(&config, &environment.path)).map(|()| None),
        Request::Version => Ok(None),
    }
}

fn read_stdin() -> Result<Vec<u8>, Error> {
    let mut stdin = Vec::new();
    // One byte more than is allowed tells a long input from one that just fits.
    let limit = u64::try_from(MAX_LEN).unwrap_or(u64::MAX).saturating_add(1);
    match std::io::stdin().lock().take(limit).read_to_end(&mut stdin) {
        Ok(_) => Ok(stdin),
        Err(error) => Err(Error::new(ErrorCode::Io, "standard input cannot be read")
            .with_details(error.to_string())),
    }
}

/// Runs `future` to its end on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Error::new(ErrorCode::Io, "the event loop cannot start").with_details(error.to_string())
    })?;
    let outcome = runtime.block_on(future);
    // A thread that waits for the host's lock may still do so when the call has been given up.
    runtime.shutdown_background();
    outcome
}

/// Prints the answer and returns the exit status: 0, or 1 for any error.
fn answer(answer: Result<Option<Value>, Error>, version: Version) -> ExitCode {
    match answer {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(value)) => print(&format!("{value}\n")),
        Err(error) => {
            print(&format!("{}\n", error.to_json(version)));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output, which belongs to results and errors alone.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_name_is_known_wherever_it_is() {
        for name in ["calico-ipam", "/opt/cni/bin/calico-ipam"] {
            assert!(is_called_ipam(Some(OsStr::new(name))), "{name}");
        }
        for name in ["calico", "/opt/calico-ipam/calico", ""] {
            assert!(!is_called_ipam(Some(OsStr::new(name))), "{name}");
        }
        assert!(!is_called_ipam(None));
    }
}
