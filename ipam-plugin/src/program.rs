//! The program `calico-ipam`: the CNI plugin that assigns and releases addresses.
//!
//! A runtime's CNI plugin calls it with `CNI_…` variables and a network
//! configuration on standard input (CNI spec §4 "Plugin Delegation"). Besides:
//!
//! * `calico-ipam -v` prints the version.
//! * `calico-ipam -upgrade` labels the affinities that old releases wrote, and takes the addresses
//!   over that host-local gave to pods.
//!
//! What is installed is the program `calico` by another name, which does this if it is called so.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::{env, fs, io};

use cni::config::{self, Nodename};
use cni::{Environment, ErrorCode, NetworkConfig, Request, Version, nodename};
use ledger::HostLock;
use serde_json::Value;
use telemetry::plugin_log;

use crate::{host_local, plugin, upgrade};

/// Larger ones are refused by [`NetworkConfig::parse`].
const MAX_STDIN: u64 = config::MAX_LEN as u64 + 1;

/// Where the host's lock is, as in a network configuration that does not say.
const LOCK: &str = "/var/run/calico/ipam.lock";

/// Does what the program's arguments and its environment say.
#[must_use]
pub fn main() -> ExitCode {
    let argument = env::args().nth(1);
    let outcome = match argument.as_deref().map(|argument| argument.trim_start_matches('-')) {
        None => return answer(),
        Some("v" | "version") => print(env!("CARGO_PKG_VERSION")),
        Some("upgrade") => label_affinities(),
        Some(other) => Err(format!(
            "calico-ipam: unknown argument `{other}`: use -v, -upgrade, or none and CNI_COMMAND"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Speaks CNI: one command, one answer.
fn answer() -> ExitCode {
    let mut stdin = Vec::new();
    let read = io::stdin().take(MAX_STDIN).read_to_end(&mut stdin);
    let version = config::version_to_answer(&stdin);
    let answer = match read {
        Ok(_) => carry_out(&stdin, version),
        Err(error) => Err(cni::Error::new(
            ErrorCode::Io,
            format!("cannot read standard input: {error}; send the network configuration there"),
        )),
    };
    let (value, code) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value, ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(code = error.code.number(), "{}", error.message);
            (error.to_json(version), ExitCode::FAILURE)
        }
    };
    if print(&value.to_string()).is_err() { ExitCode::FAILURE } else { code }
}

fn carry_out(stdin: &[u8], version: Version) -> Result<Option<Value>, cni::Error> {
    let environment = Environment::read(|name| env::var_os(name))?;
    if environment.request == Request::Version {
        return Ok(Some(cni::version::version_info(version)));
    }
    let config = NetworkConfig::parse(stdin)?;
    plugin_log::init(&config.logging);
    runtime()?.block_on(plugin::run(&environment, &config))
}

fn label_affinities() -> Result<(), String> {
    let text = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    let wanted = Nodename {
        configured: text("KUBERNETES_NODE_NAME").or_else(|| text("NODENAME")),
        file: "/var/lib/calico/nodename".into(),
        hostname: None,
        is_file_optional: true,
    };
    let node = nodename::decide(&wanted, |file| fs::read_to_string(file))
        .map_err(|error| error.to_string())?;
    let work = async {
        let client = datastore::Client::connect(&datastore::Options::default())?;
        upgrade::upgrade(&client, &node).await?;
        let lock = HostLock::at(LOCK.into());
        host_local::adopt(&client, &lock, &node, host_local::DIRECTORY.as_ref()).await?;
        upgrade::mark(upgrade::MARKER.as_ref())
    };
    let runtime = runtime().map_err(|error| error.message)?;
    runtime.block_on(work).map_err(|error| format!("calico-ipam: {error}"))
}

fn runtime() -> Result<tokio::runtime::Runtime, cni::Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        let text = format!("cannot start: {error}; raise the limits of open files and processes");
        cni::Error::new(ErrorCode::Io, text)
    })
}

fn print(text: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{text}").map_err(|error| format!("cannot write the answer: {error}"))
}
