//! The sockets that Docker finds plugins by, and what is answered there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::driver::Driver;
use crate::error::Error;

/// What our answers are (Docker's plugin protocol).
const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";

/// The drivers, each with its own socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plugin {
    /// Networks and endpoints: `calico`.
    Network,
    /// Addresses: `calico-ipam`.
    Ipam,
}

impl Plugin {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Network, Self::Ipam];

    /// Returns the name of the socket.
    pub(crate) const fn socket(self) -> &'static str {
        match self {
            Self::Network => "calico.sock",
            Self::Ipam => "calico-ipam.sock",
        }
    }

    const fn implements(self) -> &'static str {
        match self {
            Self::Network => "NetworkDriver",
            Self::Ipam => "IpamDriver",
        }
    }
}

/// Serves a plugin until the program ends.
///
/// # Errors
///
/// The operating system's, if the socket cannot be listened on.
pub(crate) fn spawn(
    plugin: Plugin,
    dir: &Path,
    driver: Arc<Driver>,
) -> std::io::Result<tokio::task::JoinHandle<std::io::Result<()>>> {
    let listener = listen(&dir.join(plugin.socket()))?;
    let answer = move |uri: Uri, body: Bytes| {
        let driver = Arc::clone(&driver);
        // Docker may hang up, but what it has asked for is done as a whole.
        async move {
            let method = uri.path().trim_start_matches('/').to_owned();
            let task =
                tokio::spawn(
                    async move { Box::pin(answer(plugin, &driver, &method, &body)).await },
                );
            task.await.unwrap_or_else(|error| refuse(&Error::wrong(error.to_string())))
        }
    };
    let router = Router::new().fallback(answer);
    Ok(tokio::spawn(async move { axum::serve(listener, router).await }))
}

/// Listens at `path`, for root only.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Left behind by an earlier life; nobody else listens at this path.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(plugin: Plugin, driver: &Driver, method: &str, body: &[u8]) -> Response {
    let started = Instant::now();
    let answered = match method {
        "Plugin.Activate" => Ok(json!({"Implements": [plugin.implements()]})),
        _ => Box::pin(dispatch(driver, method, body)).await,
    };
    let took_us = started.elapsed().as_micros();
    match answered {
        Ok(value) => {
            tracing::debug!(method, took_us, answer = %value, "done");
            respond(StatusCode::OK, &value)
        }
        Err(error) => {
            tracing::warn!(method, took_us, error = error.line(), "refused");
            refuse(&error)
        }
    }
}

async fn dispatch(driver: &Driver, method: &str, body: &[u8]) -> Result<Value, Error> {
    // Docker sends nothing where there is nothing to say.
    let body = if body.is_empty() { &b"{}"[..] } else { body };
    let undecodable = |error: serde_json::Error| Error::Undecodable {
        method: method.to_owned(),
        problem: error.to_string(),
    };
    macro_rules! read {
        () => {
            serde_json::from_slice(body).map_err(undecodable)?
        };
    }
    macro_rules! ask {
        ($call:ident) => {
            driver.$call(read!()).await
        };
    }
    match method {
        "NetworkDriver.GetCapabilities" => {
            Ok(json!({"Scope": "local", "ConnectivityScope": "global"}))
        }
        "NetworkDriver.AllocateNetwork" => Err(Error::wrong(
            "networks of driver calico are of one host each, and Docker Swarm wants those of many: \
             make the network on every host, without Swarm's --scope",
        )),
        "NetworkDriver.CreateNetwork" => driver.create_network(&read!()),
        "NetworkDriver.CreateEndpoint" => ask!(create_endpoint),
        "NetworkDriver.DeleteEndpoint" => ask!(delete_endpoint),
        "NetworkDriver.EndpointOperInfo" => Ok(json!({"Value": {}})),
        "NetworkDriver.Join" => ask!(join),
        "NetworkDriver.Leave" => ask!(leave),
        "NetworkDriver.ProgramExternalConnectivity" => ask!(program_external_connectivity),
        "NetworkDriver.RevokeExternalConnectivity" => ask!(revoke_external_connectivity),
        "NetworkDriver.FreeNetwork"
        | "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete" => Ok(json!({})),
        "NetworkDriver.DeleteNetwork" => driver.delete_network(&read!()),
        "IpamDriver.GetCapabilities" => {
            Ok(json!({"RequiresMACAddress": true, "RequiresRequestReplay": false}))
        }
        "IpamDriver.GetDefaultAddressSpaces" => Ok(json!({
            "LocalDefaultAddressSpace": "CalicoLocalAddressSpace",
            "GlobalDefaultAddressSpace": "CalicoGlobalAddressSpace",
        })),
        "IpamDriver.RequestPool" => ask!(request_pool),
        "IpamDriver.ReleasePool" => Ok(driver.release_pool(&read!())),
        "IpamDriver.RequestAddress" => ask!(request_address),
        "IpamDriver.ReleaseAddress" => driver.release_address(&read!()),
        _ => Err(Error::NoMethod(method.to_owned())),
    }
}

/// Both names of the field: which one Docker reads depends on the driver's kind.
fn refuse(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let line = error.line();
    respond(status, &json!({"Err": line, "Error": line}))
}

fn respond(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], value.to_string()).into_response()
}
