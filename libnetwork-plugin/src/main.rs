//! `calico-docker`: networks of Docker without Kubernetes, by Calico's drivers.
//!
//! Docker finds two drivers by their sockets, `calico` for networks and `calico-ipam` for
//! addresses (libnetwork's remote protocols), and this program answers both.
//!
//! ```text
//! dockerd ─ HTTP ─► server ─► driver ─► addresses (ipam, datastore)   pool: decisions
//!    ▲                          ├─────► link (kernel), ports (iptables)
//!    │ networks, containers     ▼
//!    └───────────────────────  sync  ─► registry: decisions ─► WorkloadEndpoints, Profiles
//! ```
//!
//! Docker's requests make interfaces and take addresses. What is attached is not kept from
//! request to request: `sync` asks Docker what there is, and makes the datastore say so.
//!
//! Invariants: a request may be repeated; one that fails leaves nothing; an endpoint has an
//! object, and with it a way through policy, only when the labels of its container are known; what
//! nobody owns goes only after a grace, since somebody may be about to.
//!
//! Start reading at `driver`, then `sync`.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::panic))]

mod addresses;
mod docker;
mod driver;
mod endpoint;
mod error;
mod later;
mod link;
mod place;
mod pool;
mod ports;
mod profile;
mod registry;
mod server;
mod settings;
mod shared;
mod state;
mod sync;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use cni::config::Nodename;
use datastore::{Client, Source};
use kernel::Netlink;
use telemetry::logging;
use tokio::signal::unix::{SignalKind, signal};

use crate::driver::Driver;
use crate::error::Error;
use crate::server::Plugin;
use crate::settings::Settings;
use crate::state::State;

/// Calico's network and address drivers for Docker.
///
/// It runs until SIGTERM, and then leaves containers as they are. Its settings are environment
/// variables; docs/docker.md lists them.
#[derive(Debug, Parser)]
#[command(name = "calico-docker", version)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(Error::wrong(format!("cannot start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calico-docker: {}", error.line());
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let settings = read_settings()?;
    let screen = if settings.is_debug { logging::Level::Debug } else { logging::Level::Info };
    logging::init(&logging::Options { screen, ..logging::Options::default() })
        .map_err(|error| Error::wrong(error.to_string()))?;
    let client = Client::connect(&datastore::Options {
        source: settings.kubeconfig.clone().map_or(Source::Infer, Source::Kubeconfig),
        user_agent: concat!("calico-docker/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..datastore::Options::default()
    })?;
    let state = State::at(&settings.state_dir, &settings.data_dir)?;
    let plugin_dir = settings.plugin_dir.clone();
    let node = settings.node.clone();
    let (driver, jobs) = Driver::new(settings, client, Netlink::open()?, state)?;
    let driver = Arc::new(driver);
    let mut terminate = caught(SignalKind::terminate())?;
    let mut interrupt = caught(SignalKind::interrupt())?;
    let mut servers = tokio::task::JoinSet::new();
    for plugin in Plugin::ALL {
        let path = plugin_dir.join(plugin.socket());
        let server = server::spawn(plugin, &plugin_dir, Arc::clone(&driver)).map_err(|error| {
            Error::wrong(format!("cannot listen at {}: {error}", path.display()))
        })?;
        servers.spawn(server);
    }
    tracing::info!(%node, dir = %plugin_dir.display(), "serving Docker");
    tokio::select! {
        () = later::run(Arc::clone(&driver), jobs) => {
            Err(Error::wrong("what gives addresses back has ended"))
        }
        () = sync::run(driver) => Err(Error::wrong("what looks after Docker has ended")),
        _ = servers.join_next() => Err(Error::wrong("a socket for Docker was closed")),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn caught(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    signal(kind).map_err(|error| Error::wrong(format!("cannot wait for signals: {error}")))
}

fn read_settings() -> Result<Settings, Error> {
    let variable = |name: &str| std::env::var(name).ok();
    let nodename = Nodename {
        configured: variable("NODENAME").filter(|name| !name.is_empty()),
        file: "/var/lib/calico/nodename".into(),
        hostname: variable("HOSTNAME"),
        is_file_optional: true,
    };
    let node = cni::nodename::decide(&nodename, |file| std::fs::read_to_string(file));
    let node = node.map_err(|error| Error::wrong(error.to_string()))?;
    Settings::read(node, variable)
}
