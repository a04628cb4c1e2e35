//! GC: lets the IPAM plugin give back what no container holds any more.
//!
//! Links, routes and annotations need none: they go with the container's namespace
//! and with the pod.

use std::path::PathBuf;

use cni::delegate::Call;
use cni::{Error, ErrorCode, NetworkConfig};

use crate::delegate;
use crate::wishes::delegate_config_to_release;

/// Hands GC on to the IPAM plugin; `path` is where to look for it.
///
/// # Errors
///
/// [`ErrorCode::IncompatibleVersion`] if the configuration's version has no GC,
/// [`ErrorCode::InvalidConfig`] if it does not say what is valid, and the plugin's own error.
pub(crate) async fn run(config: &NetworkConfig, path: &[PathBuf]) -> Result<(), Error> {
    if !config.version.has_status() {
        let message = format!("GC needs cniVersion 1.1.0 or newer, not {}", config.version);
        return Err(Error::new(ErrorCode::IncompatibleVersion, message));
    }
    if config.valid_attachments.is_none() {
        let message = "GC needs `cni.dev/valid-attachments` in the network configuration: \
                       add it, or set disableGC in the configuration list";
        return Err(Error::new(ErrorCode::InvalidConfig, message));
    }
    let Some(ipam) = &config.ipam else { return Ok(()) };
    let call = Call { command: "GC", attachment: None, netns: None, args: String::new(), path };
    let config = delegate_config_to_release(config.raw().expose());
    delegate::tell(&ipam.plugin_type, &call, &config, None).await
}
