//! STATUS and `-t`: would an ADD be served?

use std::path::{Path, PathBuf};

use api::daemon_status::{self, DaemonStatus};
use cni::delegate::Call;
use cni::{Error, ErrorCode, NetworkConfig};
use cni_service::facts::Subject;

use kernel::files;

use crate::delegate;
use crate::site::Site;
use crate::store::{Store, require_ready};
use crate::trace::Trace;
use crate::wishes::delegate_config_to_release;

/// How long calico-node's file may be, in bytes.
const MAX_STATUS: u64 = 1 << 16;

/// Says whether the node daemon, the datastore and the IPAM plugin are ready;
/// `path` is where to look for the latter, and may be empty.
///
/// # Errors
///
/// [`ErrorCode::NotAvailable`] with the reason, [`ErrorCode::NotAvailableLimited`] if it also is
/// a reason why existing containers may suffer; [`ErrorCode::IncompatibleVersion`] if the
/// configuration's version has no STATUS.
pub(crate) async fn run(
    config: &NetworkConfig,
    path: &[PathBuf],
    trace: &Trace,
) -> Result<(), Error> {
    if !config.version.has_status() {
        let message = format!("STATUS needs cniVersion 1.1.0 or newer, not {}", config.version);
        return Err(Error::new(ErrorCode::IncompatibleVersion, message));
    }
    let asked = ready(config, path, trace).await;
    let trouble = trouble(&config.endpoint_status_dir);
    match (asked, trouble) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(trouble)) => Err(Error::new(ErrorCode::NotAvailableLimited, trouble)),
        (Err(error), trouble) => Err(error.unavailable(trouble)),
    }
}

/// Returns why containers of this node may suffer, as far as calico-node's file says so.
///
/// Without the file, as with Calico's calico-node, nothing is known.
fn trouble(endpoint_status_dir: &Path) -> Option<String> {
    let file = endpoint_status_dir.parent()?.join(daemon_status::FILE);
    let status = files::read(&file, MAX_STATUS).ok()?;
    let status: DaemonStatus = serde_json::from_str(&status).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    status.trouble(daemon_status::uptime(&uptime)?)
}

async fn ready(config: &NetworkConfig, path: &[PathBuf], trace: &Trace) -> Result<(), Error> {
    Site::read(config)?;
    let store = Store::connect(config, trace)?;
    require_ready(&store.read(Subject::default()).await?)?;
    // CNI_PATH is optional for STATUS; without it nobody can be asked.
    let Some(ipam) = config.ipam.as_ref().filter(|_| !path.is_empty()) else { return Ok(()) };
    let call = Call { command: "STATUS", attachment: None, netns: None, args: String::new(), path };
    let config = delegate_config_to_release(config.raw().expose());
    delegate::tell(&ipam.plugin_type, &call, &config, Some(&store)).await
}

/// Says whether the datastore that the environment names can be used.
///
/// # Errors
///
/// [`ErrorCode::Generic`] with the reason, as Calico's plugin does.
pub(crate) async fn test_datastore(trace: &Trace) -> Result<(), Error> {
    let config = br#"{"name":"test","type":"calico"}"#;
    let tested = async {
        let store = Store::connect(&NetworkConfig::parse(config)?, trace)?;
        require_ready(&store.read(Subject::default()).await?)
    };
    tested.await.map_err(|error: Error| Error { code: ErrorCode::Generic, ..error })
}
