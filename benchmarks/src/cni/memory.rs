//! How much memory an idle calico-node holds.

use std::path::Path;
use std::time::Duration;

use lab::Error;

use super::world::World;
use crate::daemon::Daemon;

/// How long it is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(10);

/// Starts the calico-node in `bin`, waits until it is ready and idle, and returns its
/// resident memory in KiB.
///
/// # Errors
///
/// [`Error`] with the end of its log if it does not become ready.
pub(crate) async fn idle_kib(world: &World, bin: &Path) -> Result<u64, Error> {
    let daemon = Daemon::start(world, bin).await?;
    tokio::time::sleep(IDLE).await;
    daemon.resident_kib()
}
