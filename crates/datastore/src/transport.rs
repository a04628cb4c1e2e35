//! One connection to the API server for all requests of a process (RFC 9113, RFC 9112).
//!
//! The first request opens TCP and TLS and offers HTTP/2; everybody else waits for that and then
//! shares the connection. A server that only speaks HTTP/1.1, and a plain `http://` one, is
//! served through a pool of connections instead.
//!
//! Whom a new connection trusts is read from files each time ([`crate::trust`]).
//!
//! A dead peer is found by HTTP/2 PING, and on HTTP/1.1 by TCP keepalive, within
//! [`Options::dead_after`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use tokio::sync::Mutex;
use tower::ServiceExt as _;

use crate::config::{Options, Server};
use crate::error::chain;
use crate::trust::{Connector, Protocols, Trust};

/// What one answer may send ahead of its reader; enough to fill a local network.
const STREAM_WINDOW: u32 = 256 << 10;

/// What all answers together may send ahead, so large that a watch whose reader is slow cannot
/// hold up the other requests.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The request was sent, or may have been.
    #[error("{0}")]
    Lost(String),
    /// The request was sent and the answer did not begin in time.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
}

/// A connection that is opened when it is first needed, and again when it broke.
pub(crate) struct Transport {
    server: Server,
    user_agent: HeaderValue,
    timeout: Duration,
    connect_timeout: Duration,
    dead_after: Duration,
    connector: Connector,
    shared: Mutex<Option<http2::SendRequest<Body>>>,
    pool: legacy::Client<Connector, Body>,
    is_http1_only: AtomicBool,
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Transport {
    /// Prepares a transport to `server`; opens nothing.
    pub(crate) fn new(server: Server, options: &Options) -> Self {
        let connect_timeout = options.connect_timeout.min(options.timeout);
        let dead_after = options.dead_after;
        let user_agent = HeaderValue::try_from(&options.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static("calico"));
        let is_plain = server.url.scheme() == Some(&http::uri::Scheme::HTTP);
        let connector = Connector {
            trust: Arc::new(Trust::new(&server, options)),
            http: connector(options),
            tls_name: server.tls_name.clone(),
            protocols: Protocols::Both,
        };
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(Connector { protocols: Protocols::Http1, ..connector.clone() });
        Self {
            connector,
            server,
            user_agent,
            timeout: options.timeout,
            connect_timeout,
            dead_after,
            shared: Mutex::new(None),
            pool,
            is_http1_only: AtomicBool::new(is_plain),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    /// Returns the server's URL, for messages.
    pub(crate) fn url(&self) -> String {
        self.server.url.to_string().trim_end_matches('/').to_owned()
    }

    /// Returns how long one operation may take.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns whether the token comes from a file, so that a refused one may be replaced by now.
    pub(crate) fn may_renew_token(&self) -> bool {
        self.server.credential.may_renew()
    }

    /// Returns how many requests were sent.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns how many HTTP/2 connections were opened.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Sends `request`, whose URI is a path and a query, and returns when the answer begins.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`] promises that the server did not see the request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let request = self.prepared(request)?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let start = Instant::now();
        let answer = if self.is_http1_only.load(Ordering::Relaxed) {
            self.send_pooled(request).await
        } else {
            self.send_shared(request).await
        };
        let millis = start.elapsed().as_secs_f64() * 1000.0;
        match &answer {
            Ok(answer) => {
                let status = answer.status().as_u16();
                tracing::debug!(%method, path, status, millis, "request");
                if answer.status() == StatusCode::UNAUTHORIZED {
                    self.server.credential.refuse();
                }
            }
            Err(problem) => tracing::debug!(%method, path, %problem, millis, "request failed"),
        }
        answer
    }

    fn prepared(&self, mut request: Request<Body>) -> Result<Request<Body>, Failure> {
        *request.uri_mut() = joined(&self.server.url, request.uri())
            .map_err(|problem| Failure::Unreachable(problem.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        if let Some(value) = self.server.credential.header() {
            headers.insert(header::AUTHORIZATION, value);
        }
        for (name, value) in &self.server.headers {
            headers.append(name, value.clone());
        }
        Ok(request)
    }

    async fn send_pooled(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(self.timeout, self.pool.request(request)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_connect() => Err(Failure::Unreachable(chain(&error))),
            Ok(Err(error)) => Err(Failure::Lost(chain(&error))),
            Err(_) => Err(Failure::Silent(self.timeout)),
        }
    }

    async fn send_shared(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        // A connection that closed while idle is noticed when it is used, and then the request
        // comes back unsent: it goes out once more on a new one.
        for _ in 0..2 {
            let Some(mut sender) = self.sender().await? else {
                return self.send_pooled(request).await;
            };
            self.requests.fetch_add(1, Ordering::Relaxed);
            let answer = tokio::time::timeout(self.timeout, sender.try_send_request(request)).await;
            let mut error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(Failure::Silent(self.timeout)),
            };
            match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(Failure::Lost(chain(error.error()))),
            }
        }
        Err(Failure::Unreachable("the server closes each connection".to_owned()))
    }

    /// Returns the shared connection, opening it if need be; `None` if the server lacks HTTP/2.
    ///
    /// The lock is held while connecting, so that parallel first requests make one connection.
    async fn sender(&self) -> Result<Option<http2::SendRequest<Body>>, Failure> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Some(sender.clone()));
        }
        if self.is_http1_only.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let sender =
            tokio::time::timeout(self.connect_timeout, self.connect()).await.map_err(|_| {
                Failure::Unreachable(format!(
                    "no connection within {} s",
                    self.connect_timeout.as_secs_f32()
                ))
            })??;
        if sender.is_none() {
            self.is_http1_only.store(true, Ordering::Relaxed);
        }
        shared.clone_from(&sender);
        Ok(sender)
    }

    async fn connect(&self) -> Result<Option<http2::SendRequest<Body>>, Failure> {
        let unreachable =
            |error: &(dyn std::error::Error + 'static)| Failure::Unreachable(chain(error));
        let stream = self
            .connector
            .clone()
            .oneshot(self.server.url.clone())
            .await
            .map_err(|error| unreachable(error.as_ref()))?;
        if !stream.connected().is_negotiated_h2() {
            return Ok(None);
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(probe_period(self.dead_after))
            .keep_alive_timeout(self.dead_after.saturating_sub(probe_period(self.dead_after)))
            .keep_alive_while_idle(true)
            .handshake(stream)
            .await
            .map_err(|error| unreachable(&error))?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(problem = chain(&error), "connection to the API server ended");
            }
        });
        Ok(Some(sender))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        let (requests, connections) = (self.requests(), self.connections());
        tracing::debug!(requests, connections, "datastore client closed");
    }
}

fn connector(options: &Options) -> HttpConnector {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    // Without it, the second packet of a request waits 40 ms for the server's delayed ACK.
    http.set_nodelay(true);
    http.set_connect_timeout(Some(options.connect_timeout.min(options.timeout)));
    http.set_keepalive(Some(probe_period(options.dead_after)));
    http.set_keepalive_interval(Some(probe_period(options.dead_after)));
    http.set_keepalive_retries(Some(2));
    http.set_tcp_user_timeout(Some(options.dead_after));
    http
}

/// Returns how often to probe a quiet connection: two probes may be lost before it is given up.
fn probe_period(dead_after: Duration) -> Duration {
    dead_after.checked_div(3).unwrap_or(dead_after)
}

/// Returns `server` with the path and query of `request` after its own path.
fn joined(server: &Uri, request: &Uri) -> Result<Uri, http::Error> {
    let base = server.path().trim_end_matches('/');
    let asked = request.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut builder = Uri::builder();
    if let Some(scheme) = server.scheme_str() {
        builder = builder.scheme(scheme);
    }
    if let Some(authority) = server.authority() {
        builder = builder.authority(authority.as_str());
    }
    builder.path_and_query(format!("{base}{asked}")).build()
}

/// A transport that the clones of a client share.
pub(crate) type Shared = Arc<Transport>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_path_of_the_server() {
        for (server, request, expected) in [
            (
                "https://10.0.0.1:6443",
                "/api/v1/pods?limit=5",
                "https://10.0.0.1:6443/api/v1/pods?limit=5",
            ),
            ("https://[fd00::1]", "/version", "https://[fd00::1]/version"),
            (
                "https://rancher.example/k8s/c-1/",
                "/api/v1/pods?",
                "https://rancher.example/k8s/c-1/api/v1/pods?",
            ),
        ] {
            let uri = joined(&server.parse().unwrap(), &request.parse().unwrap()).unwrap();
            assert_eq!(uri.to_string(), expected);
        }
    }
}
