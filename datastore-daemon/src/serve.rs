//! `calico-datastore serve`: runs until somebody says to stop.

use std::path::Path;
use std::time::Instant;

use embedded_api::Server;
use embedded_api::server::Config;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::arguments::Serve;
use crate::error::Error;
use crate::offline::print;

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: Serve) -> Result<(), Error> {
    let begun = Instant::now();
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    let Serve { data, listen, ready_file, print_kubeconfig } = arguments;
    let config = Config { listen, ..Config::loopback(&data.path) };
    let server = Server::start(config).await?;
    info!(
        endpoint = server.endpoint(),
        kubeconfig = %data.path.join("admin.kubeconfig").display(),
        milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    if print_kubeconfig {
        print(server.kubeconfig().as_bytes())?;
    }
    if let Some(path) = ready_file {
        announce(&path, &server.endpoint())?;
    }
    tokio::select! {
        _ = terminate.recv() => info!("stopping on SIGTERM"),
        _ = interrupt.recv() => info!("stopping on SIGINT"),
    }
    server.stop().await;
    info!("stopped");
    Ok(())
}

/// Whoever waits for the file must not find it half written.
fn announce(path: &Path, endpoint: &str) -> Result<(), Error> {
    let failed = |source| Error::File { action: "write", path: path.to_owned(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, format!("{endpoint}\n")).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}
