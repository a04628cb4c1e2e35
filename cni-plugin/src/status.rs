//! STATUS and `-t`: would an ADD be served?

use cni::{Error, ErrorCode, NetworkConfig};

use crate::site::Site;
use crate::store::Store;
use crate::trace::Trace;

/// Says whether the node daemon and the datastore are ready.
///
/// # Errors
///
/// [`ErrorCode::NotAvailable`] with the reason; [`ErrorCode::IncompatibleVersion`] if the
/// configuration's version has no STATUS.
pub(crate) async fn run(config: &NetworkConfig, trace: &Trace) -> Result<(), Error> {
    if !config.version.has_status() {
        let message = format!("STATUS needs cniVersion 1.1.0 or newer, not {}", config.version);
        return Err(Error::new(ErrorCode::IncompatibleVersion, message));
    }
    ready(config, trace).await.map_err(|error| Error { code: ErrorCode::NotAvailable, ..error })
}

async fn ready(config: &NetworkConfig, trace: &Trace) -> Result<(), Error> {
    Site::read(config)?;
    let store = Store::connect(config, trace)?;
    store.read(None, None, None).await?.require_ready()
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
        store.read(None, None, None).await?.require_ready()
    };
    tested.await.map_err(|error: Error| Error { code: ErrorCode::Generic, ..error })
}
