//! The thread on which calls of the CNI plugin have their work at the datastore done.
//!
//! It is one of its own, so that pods do not wait for whatever else the daemon has to think about.

use std::path::Path;
use std::thread;

use cni_service::SOCKET;
use cni_service::listen::{self, Credentials};
use model::id::NodeName;
use telemetry::metrics::Registry;

/// Starts to serve plugins of this node, if there are credentials to do it with.
///
/// Without it they do the same themselves; that is only logged.
pub(crate) fn spawn(node: &NodeName, credentials: Option<Credentials>, registry: &Registry) {
    let Some(credentials) = credentials else { return };
    let (node, registry) = (node.clone(), registry.clone());
    let serve = move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = crate::admin::listen(Path::new(SOCKET))?;
            listen::run(listener, node, credentials, &registry).await;
            Ok(())
        })
    };
    let warn = |error: std::io::Error| {
        tracing::warn!(%error, path = SOCKET, "plugins talk to the API server themselves");
    };
    let thread = thread::Builder::new().name("cni-service".to_owned());
    let spawned = thread.spawn(move || serve().unwrap_or_else(warn));
    if let Err(error) = spawned {
        warn(error);
    }
}
