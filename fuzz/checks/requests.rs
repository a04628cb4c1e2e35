//! What holds for any request to the embedded datastore: an answer comes, and it is well formed.
//!
//! The input reads as HTTP does: a line with method and target, lines with headers, an empty
//! line, the body. Requests are the administrator's unless they say who sends them.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use embedded_api::server::{Config, Server};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// How long an answer may take, on a busy machine with a sanitizer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server for all inputs, in this process, and one connection to it.
struct World {
    runtime: Runtime,
    server: Server,
    token: String,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
    _directory: tempfile::TempDir,
}

/// Panics if the server gives no answer to `bytes`, or one that breaks the rules.
pub fn check(bytes: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::start);
    if let Some(request) = world.parse(bytes) {
        world.runtime.block_on(world.check(request));
    }
}

impl World {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().expect("a runtime");
        let config = Config::loopback(directory.path());
        let server = runtime.block_on(Server::start(config)).expect("a server");
        let kubeconfig = server.kubeconfig();
        let token = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("token: "));
        let token = token.expect("a token").to_owned();
        Self { runtime, server, token, connection: Mutex::default(), _directory: directory }
    }

    /// Returns the request that `bytes` stand for, if it is one that HTTP lets through.
    fn parse(&self, bytes: &[u8]) -> Option<Request<Full<Bytes>>> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
        let (head, body) = bytes.split_at(end);
        let mut lines = std::str::from_utf8(head).ok()?.lines();
        let (method, target) = lines.next()?.split_once(' ')?;
        let mut request = Request::builder().method(method).uri(target);
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            let is_framing =
                ["content-length", "transfer-encoding", "connection", "expect", "upgrade"];
            if !is_framing.contains(&name.to_ascii_lowercase().as_str()) {
                request = request.header(name, value);
            }
        }
        let body = Bytes::copy_from_slice(body.get(2..).unwrap_or_default());
        let mut request = request.body(Full::new(body)).ok()?;
        if method == "CONNECT" || !request.uri().path().starts_with('/') {
            return None;
        }
        let admin = format!("Bearer {}", self.token).parse().expect("a header");
        request.headers_mut().entry(header::AUTHORIZATION).or_insert(admin);
        request.headers_mut().entry(header::HOST).or_insert(header::HeaderValue::from_static("a"));
        Some(request)
    }

    async fn check(&self, request: Request<Full<Bytes>>) {
        let mut connection = self.connection().await;
        let name = format!("{} {}", request.method(), request.uri());
        let is_head = request.method() == "HEAD";
        let answer = tokio::time::timeout(PATIENCE, connection.send_request(request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{name}: no answer"));
        let answer = answer.unwrap_or_else(|error| panic!("{name}: no answer: {error}"));
        if is_endless(&answer) {
            return;
        }
        let (head, body) = answer.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await;
        let body = body.unwrap_or_else(|_| panic!("{name}: no end of the answer"));
        let body = body.unwrap_or_else(|error| panic!("{name}: {error}")).to_bytes();
        if !is_head {
            well_formed(&name, &Response::from_parts(head, ()), &body);
        }
        *self.connection.lock().expect("one user") = Some(connection);
    }

    /// Returns the connection of the last request, if the server lets it be used again.
    async fn connection(&self) -> SendRequest<Full<Bytes>> {
        let kept = self.connection.lock().expect("one user").take();
        if let Some(mut connection) = kept
            && connection.ready().await.is_ok()
        {
            return connection;
        }
        self.connect().await
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let authority = CertificateDer::from_pem_slice(self.server.authority().as_bytes());
        let mut roots = RootCertStore::empty();
        roots.add(authority.expect("a certificate")).expect("an authority");
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().expect("versions of TLS");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let address = self.server.address();
        let stream = TcpStream::connect(address).await.expect("the server accepts");
        stream.set_nodelay(true).expect("an option");
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = TokioIo::new(stream.expect("a handshake"));
        let (sender, connection) = http1::handshake(stream).await.expect("HTTP");
        tokio::spawn(connection);
        sender
    }
}

/// Whether this is a watch, whose answer has no end and tells no length.
fn is_endless(answer: &Response<Incoming>) -> bool {
    answer.status().is_success() && !answer.headers().contains_key(header::CONTENT_LENGTH)
}

/// JSON is JSON, a failure is a `Status` with the same code, and nothing is the server's fault.
fn well_formed(name: &str, answer: &Response<()>, body: &[u8]) {
    let code = answer.status().as_u16();
    let media = answer.headers().get(header::CONTENT_TYPE);
    let is_json = media.is_some_and(|media| media.as_bytes().starts_with(b"application/json"));
    if !is_json || body.is_empty() {
        return;
    }
    let value: Value = serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{name}: {error}: {}", text(body)));
    // Kubernetes calls a resourceVersion that is no number 500, too, without a reason.
    let is_fault = value.get("reason") == Some(&Value::from("InternalError"));
    assert!(!is_fault, "{name}: {code} {}", text(body));
    if code >= 400 {
        assert_eq!(value.get("kind"), Some(&Value::from("Status")), "{name}: {}", text(body));
        assert_eq!(value.get("code"), Some(&Value::from(code)), "{name}: {}", text(body));
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
