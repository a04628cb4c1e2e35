//! A client that sends any request, right or wrong, and hides nothing of the answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Response, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

/// How long any answer or event may take.
const WITHIN: Duration = Duration::from_secs(20);

/// Where a server is and who may ask it everything.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// `https://ADDRESS:PORT`.
    pub(crate) server: String,
    /// The certificate of the authority, PEM.
    pub(crate) authority: Vec<u8>,
    /// The administrator's token.
    pub(crate) token: String,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The method, also one that HTTP does not know.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// All headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// What is compared of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// `Content-Type`.
    pub(crate) content_type: Option<String>,
    /// All `Warning` headers.
    pub(crate) warnings: Vec<String>,
    /// The body: JSON where it is JSON, else text.
    pub(crate) body: Value,
}

/// An open watch.
#[derive(Debug)]
pub(crate) struct Watch {
    body: Incoming,
    pending: Vec<u8>,
}

/// Connections to one server.
#[derive(Debug)]
pub(crate) struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: String,
}

impl Access {
    /// Reads a kubeconfig as the lab and the embedded datastore write it.
    pub(crate) fn read(kubeconfig: &Path) -> Self {
        let config: Value = crate::suite::read(kubeconfig);
        let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
        let cluster = "/clusters/0/cluster";
        let authority = match text(&format!("{cluster}/certificate-authority-data")) {
            Some(data) => data_encoding::BASE64.decode(data.as_bytes()).unwrap(),
            None => {
                std::fs::read(text(&format!("{cluster}/certificate-authority")).unwrap()).unwrap()
            }
        };
        let server = text(&format!("{cluster}/server")).unwrap().to_owned();
        Self { server, authority, token: text("/users/0/user/token").unwrap().to_owned() }
    }
}

impl Client {
    /// Makes a client without any connection yet.
    pub(crate) fn new(access: &Access) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&access.authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
        let connector = connector.enable_http1().build();
        let http =
            hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Self { http, server: access.server.clone() }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, String> {
        let answer = async { read(self.open(request).await?).await };
        tokio::time::timeout(WITHIN, answer).await.map_err(|_| "no answer in time".to_owned())?
    }

    /// Sends a request whose answer is a watch; an answer that is none comes back as it is.
    pub(crate) async fn watch(&self, request: &Request) -> Result<Result<Watch, Answer>, String> {
        let opened = tokio::time::timeout(WITHIN, self.open(request)).await;
        let response = opened.map_err(|_| "no answer in time".to_owned())??;
        if response.status() != 200 {
            return Ok(Err(read(response).await?));
        }
        Ok(Ok(Watch { body: response.into_body(), pending: Vec::new() }))
    }

    async fn open(&self, request: &Request) -> Result<Response<Incoming>, String> {
        let uri = format!("{}{}", self.server, request.path);
        let mut builder = hyper::Request::builder().method(request.method.as_str()).uri(uri);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let body = Full::new(Bytes::from(request.body.clone()));
        let request = builder.body(body).map_err(|error| error.to_string())?;
        self.http.request(request).await.map_err(|error| format!("{error:?}"))
    }
}

impl Watch {
    /// Returns the next event, or nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, String> {
        let next = tokio::time::timeout(WITHIN, self.line()).await;
        let Some(line) = next.map_err(|_| "no event in time".to_owned())?? else {
            return Ok(None);
        };
        serde_json::from_slice(&line).map(Some).map_err(|error| error.to_string())
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.pending, rest)));
            }
            match self.body.frame().await {
                None if self.pending.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.pending))),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => self.pending.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, String> {
    let headers = response.headers();
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let content_type = headers.get(header::CONTENT_TYPE).map(text);
    let warnings = headers.get_all(header::WARNING).iter().map(text).collect();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let words = String::from_utf8_lossy(&body).into_owned();
    let kind = content_type.as_deref().unwrap_or_default();
    let body = if kind.starts_with("application/yaml") {
        serde_saphyr::from_str(&words).map_err(|error| error.to_string())?
    } else {
        serde_json::from_slice(&body).unwrap_or(Value::String(words))
    };
    Ok(Answer { status, content_type, warnings, body })
}
