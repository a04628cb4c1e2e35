//! A plain HTTP client of an API server, for requests that have no type of their own.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderValue, Method, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// What JSON objects travel as.
pub const JSON: &str = "application/json";
/// A patch that is merged into the object (RFC 7386).
pub const MERGE_PATCH: &str = "application/merge-patch+json";

/// A client; clones share its connection.
#[derive(Clone)]
pub struct Rest {
    client: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: String,
    authorization: HeaderValue,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What to ask.
#[derive(Clone, Debug)]
pub struct Request {
    /// The verb.
    pub method: Method,
    /// The path with its query, as `/api/v1/pods?limit=5`.
    pub path: String,
    /// What the body is, if there is one.
    pub content_type: &'static str,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns a request for what is at a path.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), content_type: JSON, body: Vec::new() }
    }

    /// Returns a request with a JSON body.
    #[must_use]
    pub fn json(method: Method, path: impl Into<String>, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { method, path: path.into(), content_type: JSON, body }
    }

    /// Returns a request that merges a patch into an object.
    #[must_use]
    pub fn merge(path: impl Into<String>, change: &Value) -> Self {
        Self { content_type: MERGE_PATCH, ..Self::json(Method::PATCH, path, change) }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    request: String,
}

impl Answer {
    /// Returns the body of a success as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with the request and what the server says, if it is none.
    pub fn success(&self) -> Result<Value, Error> {
        if (200..300).contains(&self.status) {
            return serde_json::from_slice(&self.body)
                .map_err(|error| Error::wrong(format!("{}: {error}", self.request)));
        }
        Err(self.failure())
    }

    /// Returns the error of an answer that should have been another.
    #[must_use]
    pub fn failure(&self) -> Error {
        let said = String::from_utf8_lossy(&self.body);
        Error::wrong(format!("{}: {} {said}", self.request, self.status))
    }
}

impl Rest {
    /// Makes a client of a kubeconfig that has a token and trusts one authority.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kubeconfig is not like that.
    pub fn connect(kubeconfig: &Path) -> Result<Self, Error> {
        let access = Access::read(kubeconfig)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&access.ca) {
            let certificate = certificate.map_err(Error::wrong)?;
            roots.add(certificate).map_err(Error::wrong)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.map_err(Error::wrong)?.with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // A request's body follows its head at once, not when the head was acknowledged.
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let connector = connector.enable_http1().enable_http2().wrap_connector(tcp);
        let authorization = HeaderValue::try_from(format!("Bearer {}", access.token));
        let mut authorization = authorization.map_err(Error::wrong)?;
        authorization.set_sensitive(true);
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Ok(Self { client: client.build(connector), server: access.server, authorization })
    }

    /// Sends a request and returns the whole answer.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if none comes; an answer that tells of a failure is no error.
    pub async fn send(&self, request: Request) -> Result<Answer, Error> {
        let name = format!("{} {}", request.method, request.path);
        let response = self.open(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| Error::wrong(format!("{name}: {error}")))?.to_bytes();
        Ok(Answer { status, body, request: name })
    }

    /// Sends a request and returns the answer as soon as it begins, as watches need it.
    ///
    /// # Errors
    ///
    /// As [`Rest::send`].
    pub async fn open(&self, request: Request) -> Result<Response<Incoming>, Error> {
        let name = format!("{} {}", request.method, request.path);
        let failed = |what: String| Error::wrong(format!("{name}: {what}"));
        let http = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", self.server, request.path))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, JSON);
        let http = if request.body.is_empty() {
            http
        } else {
            http.header(header::CONTENT_TYPE, request.content_type)
        };
        let body = Full::new(Bytes::from(request.body));
        let http = http.body(body).map_err(|error| failed(error.to_string()))?;
        self.client.request(http).await.map_err(|error| failed(chain(&error)))
    }
}

/// Returns an error with its causes: the last one says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What a kubeconfig says about its server and its user.
pub(crate) struct Access {
    /// The server's URL, without a slash at its end.
    pub(crate) server: String,
    /// Certificates of the authority, PEM.
    pub(crate) ca: Vec<u8>,
    /// The user's token.
    pub(crate) token: String,
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
struct User {
    token: String,
}

impl Access {
    /// Reads a kubeconfig with one cluster and one user.
    ///
    /// # Errors
    ///
    /// [`Error`] if it is not like that.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |what: &str| Error::wrong(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        let config: Kubeconfig =
            serde_saphyr::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        let cluster =
            config.clusters.into_iter().next().ok_or_else(|| wrong("no cluster"))?.cluster;
        let user = config.users.into_iter().next().ok_or_else(|| wrong("no user"))?.user;
        let ca = match (cluster.certificate_authority_data, cluster.certificate_authority) {
            (Some(data), _) => {
                let data = base64::engine::general_purpose::STANDARD.decode(data);
                data.map_err(|error| wrong(&error.to_string()))?
            }
            (None, Some(file)) => {
                let file = path.parent().unwrap_or(path).join(file);
                std::fs::read(&file).map_err(Error::file(&file))?
            }
            (None, None) => return Err(wrong("no certificate authority")),
        };
        let server = cluster.server.trim_end_matches('/').to_owned();
        Ok(Self { server, ca, token: user.token })
    }
}
