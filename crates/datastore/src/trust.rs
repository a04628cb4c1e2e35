//! Whom connections trust, read again for each new one: authorities change while a daemon runs.
//!
//! A cluster's authority is replaced by bundles of the old and the new one (Kubernetes: "Manual
//! Rotation of CA Certificates"). A kubelet writes them into files that a process has long read,
//! so what it has in memory would end it at the first connection after the change.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

use crate::config::{self, Options, Server};

/// How long what was read is used for further connections: a crowd of them reads files once.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Certificates of authorities, DER.
pub(crate) type Authorities = Vec<Vec<u8>>;

/// The settings of TLS as the configuration's files have them.
pub(crate) struct Trust {
    options: Options,
    last: Mutex<Last>,
}

struct Last {
    tls: Arc<ClientConfig>,
    authorities: Option<Authorities>,
    read: Instant,
}

impl Trust {
    /// Starts with what `server` was just read with, from what `options` name.
    pub(crate) fn new(server: &Server, options: &Options) -> Self {
        let authorities = server.authorities.clone();
        let last = Last { tls: Arc::clone(&server.tls), authorities, read: Instant::now() };
        Self { options: options.clone(), last: Mutex::new(last) }
    }

    /// Returns the settings for a connection that is opened at `now`.
    ///
    /// Files that cannot be used leave the last settings in use: they may be half written.
    pub(crate) fn at(&self, now: Instant) -> Arc<ClientConfig> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(last.read) < READ_AGAIN_AFTER {
            return Arc::clone(&last.tls);
        }
        last.read = now;
        match config::load(&self.options) {
            // The old settings keep the server's sessions, by which handshakes are cheaper.
            Ok(server)
                if server.authorities.is_some() && server.authorities == last.authorities => {}
            Ok(server) => {
                if server.authorities != last.authorities {
                    tracing::info!("the API server's certificate authority has changed");
                }
                last.authorities = server.authorities;
                last.tls = server.tls;
            }
            Err(problem) => {
                tracing::warn!(%problem, "keeping the last certificate authority");
            }
        }
        Arc::clone(&last.tls)
    }
}

/// Which versions of HTTP a connector offers to the server.
#[derive(Clone, Copy)]
pub(crate) enum Protocols {
    Both,
    Http1,
}

/// Opens connections to the server by the settings of the time.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) trust: Arc<Trust>,
    pub(crate) http: HttpConnector,
    pub(crate) tls_name: Option<ServerName<'static>>,
    pub(crate) protocols: Protocols,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // What is made by each call is asked then.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let tls = self.trust.at(Instant::now());
        let builder =
            HttpsConnectorBuilder::new().with_tls_config(tls.as_ref().clone()).https_or_http();
        let builder = match &self.tls_name {
            Some(name) => {
                builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone()))
            }
            None => builder,
        };
        let connector = match self.protocols {
            Protocols::Both => builder.enable_all_versions().wrap_connector(self.http.clone()),
            Protocols::Http1 => builder.enable_http1().wrap_connector(self.http.clone()),
        };
        Box::pin(connector.oneshot(server))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Trust(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns certificates, one after the other in PEM.
    fn pem(count: usize) -> String {
        let certificate = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
        };
        std::iter::repeat_with(certificate).take(count).collect()
    }

    #[test]
    fn files_are_read_again_and_only_what_can_be_used_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (config, authority) = (directory.path().join("c"), directory.path().join("ca.crt"));
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                    contexts: [{name: c, context: {cluster: c, user: u}}]\n\
                    users: [{name: u, user: {token: abc}}]\n\
                    clusters: [{name: c, cluster: {server: \"https://a\", \
                    certificate-authority: ca.crt}}]\n";
        std::fs::write(&config, text).unwrap();
        let first = pem(1);
        std::fs::write(&authority, &first).unwrap();
        let options = Options::kubeconfig(config);
        let trust = Trust::new(&config::load(&options).unwrap(), &options);
        let start = Instant::now();
        let at = |seconds: u32| trust.at(start + READ_AGAIN_AFTER * (seconds + 1));
        let old = at(0);
        let whole = pem(2);
        for (second, text, is_old, what) in [
            (1, first.as_str(), true, "the same, and its sessions"),
            (2, "", true, "nothing is written yet"),
            (3, whole.get(..80).unwrap(), true, "half is written"),
            (4, whole.as_str(), false, "the old and the new one"),
        ] {
            std::fs::write(&authority, text).unwrap();
            assert_eq!(Arc::ptr_eq(&at(second), &old), is_old, "{what}");
        }
        let new = at(4);
        std::fs::remove_file(&authority).unwrap();
        assert!(Arc::ptr_eq(&at(5), &new), "files are being swapped");
        std::fs::write(&authority, pem(1)).unwrap();
        assert!(Arc::ptr_eq(&at(5), &new), "a crowd of connections reads once");
        assert!(!Arc::ptr_eq(&at(6), &new));
    }
}
