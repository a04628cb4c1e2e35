//! The HTTP servers for the kubelet's probes and for Prometheus (RFC 9110).

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::health::{Aggregator, Probe};
use crate::metrics::{CONTENT_TYPE, Registry};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {host}:{port} for {purpose}: {source}; stop the program that uses it or set {setting}"
    )]
    Bind {
        /// What the server is for.
        purpose: &'static str,
        /// The host that was asked for.
        host: String,
        /// The port that was asked for.
        port: u16,
        /// The parameter to change.
        setting: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `/liveness` and `/readiness` on `host` and `port` (Calico: localhost, 9099).
    ///
    /// The status is 200 or 503, and the body says which part is how.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] with the address and the parameter that changes it.
    pub async fn health(host: &str, port: u16, aggregator: Aggregator) -> Result<Self, Error> {
        let answer = move |probe| {
            let aggregator = aggregator.clone();
            get(move || async move {
                let verdict = aggregator.verdict(probe, Instant::now());
                let status =
                    if verdict.is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (status, verdict.details)
            })
        };
        let router = Router::new()
            .route("/liveness", answer(Probe::Liveness))
            .route("/readiness", answer(Probe::Readiness));
        Self::start(host, port, router).await.map_err(|source| Error::Bind {
            purpose: "health checks",
            host: host.to_owned(),
            port,
            setting: "healthPort",
            source,
        })
    }

    /// Serves `/metrics` on `host` and `port` (Calico: every address, 9091); an empty host means
    /// every address.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] with the address and the parameter that changes it.
    pub async fn metrics(host: &str, port: u16, registry: Registry) -> Result<Self, Error> {
        let answer = get(move || {
            let registry = registry.clone();
            async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], registry.encode()).into_response() }
        });
        let router = Router::new().route("/metrics", answer);
        Self::start(host, port, router).await.map_err(|source| Error::Bind {
            purpose: "metrics",
            host: host.to_owned(),
            port,
            setting: "prometheusMetricsPort",
            source,
        })
    }

    /// Returns the address that is listened on, with the real port if port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn start(host: &str, port: u16, router: Router) -> io::Result<Self> {
        let listener = match host {
            // A machine without IPv6 has no unspecified IPv6 address to listen on.
            "" => match TcpListener::bind(("::", port)).await {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind(("0.0.0.0", port)).await?
                }
                other => other?,
            },
            host => TcpListener::bind((host, port)).await?,
        };
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%address, %error, "HTTP server stopped");
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::health::Health;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_answer_with_status_and_reason() {
        let aggregator = Aggregator::new();
        let felix = aggregator.register("felix", None);
        let server = Server::health("localhost", 0, aggregator).await.unwrap();
        let live = fetch(server.address(), "/liveness").await;
        assert!(live.starts_with("HTTP/1.1 200 "), "{live}");
        let ready = fetch(server.address(), "/readiness").await;
        assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
        assert!(ready.ends_with("felix: live, not ready: it has not reported yet\n"), "{ready}");
        felix.report(Health::Ready);
        let ready = fetch(server.address(), "/readiness").await;
        assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
        assert!(fetch(server.address(), "/").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test]
    async fn metrics_are_served_on_every_address_with_their_type() {
        let registry = Registry::new();
        registry.gauge("felix_active_local_endpoints", "Endpoints").set(30);
        let server = Server::metrics("", 0, registry).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
        let answer = fetch(address, "/metrics").await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.ends_with("felix_active_local_endpoints 30\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_setting() {
        let first = Server::metrics("127.0.0.1", 0, Registry::new()).await.unwrap();
        let port = first.address().port();
        let error = Server::health("127.0.0.1", port, Aggregator::new()).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("cannot listen on 127.0.0.1:{port} for health")),
            "{text}"
        );
        assert!(text.ends_with("or set healthPort"), "{text}");
    }
}
