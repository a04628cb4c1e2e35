//! A server whose certificate authority changes under a client that runs.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{config_map, kubeconfig};
use datastore::{Client, Error, Options};
use k8s_openapi::api::core::v1::ConfigMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// How long a client may go on with what it has read.
const WITHIN: Duration = Duration::from_secs(10);

/// Returns an authority; all have the same name, as those of kubeadm have.
fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Returns the settings of a server with a certificate of `authority`.
fn settings(authority: &Authority) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
}

/// Answers one request for each connection, by the settings of the time.
struct Server {
    address: SocketAddr,
    settings: Arc<Mutex<Arc<ServerConfig>>>,
}

impl Server {
    fn start(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let settings = Arc::new(Mutex::new(settings(authority)));
        let of_the_time = Arc::clone(&settings);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let settings = Arc::clone(&of_the_time.lock().unwrap());
                // A client that does not trust us goes away.
                drop(answer(stream, settings));
            }
        });
        Self { address, settings }
    }

    fn change(&self, authority: &Authority) {
        *self.settings.lock().unwrap() = settings(authority);
    }

    /// Makes a client that trusts what is in `ca.crt` of `directory`.
    fn client(&self, directory: &Path) -> Client {
        let cluster =
            format!("server: \"https://{}\", certificate-authority: ca.crt", self.address);
        let path = directory.join("kubeconfig");
        std::fs::write(&path, kubeconfig(&cluster, "{token: abc}")).unwrap();
        Client::connect(&Options::kubeconfig(path)).unwrap()
    }
}

fn answer(stream: TcpStream, settings: Arc<ServerConfig>) -> std::io::Result<()> {
    let connection = ServerConnection::new(settings).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let body = config_map("b", 7).to_string();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

async fn ask(client: &Client) -> Result<(), Error> {
    client.get_in::<ConfigMap>("a", "b").await.map(drop)
}

/// Asks until the answer is what it should become, which takes a client no more than a moment.
async fn becomes(client: &Client, is_right: impl Fn(&Result<(), Error>) -> bool, what: &str) {
    let started = Instant::now();
    loop {
        let answer = ask(client).await;
        if is_right(&answer) {
            return;
        }
        assert!(started.elapsed() < WITHIN, "{what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server of an old authority, and a client that trusts that one and has talked to it.
struct World {
    old: Authority,
    new: Authority,
    /// What the client trusts.
    authority: PathBuf,
    server: Server,
    client: Client,
    _directory: TempDir,
}

impl World {
    async fn start() -> Self {
        let (old, new) = (authority(), authority());
        let directory = tempfile::tempdir().unwrap();
        let authority = directory.path().join("ca.crt");
        std::fs::write(&authority, old.pem()).unwrap();
        let server = Server::start(&old);
        let client = server.client(directory.path());
        ask(&client).await.unwrap();
        Self { old, new, authority, server, client, _directory: directory }
    }
}

fn is_untrusted(answer: &Result<(), Error>) -> bool {
    matches!(answer, Err(Error::Unreachable { problem, remedy, .. })
        if problem.contains("certificate") && remedy.contains("certificate-authority"))
}

#[tokio::test]
async fn a_client_follows_the_change_of_an_authority() {
    let World { old, new, authority, server, client, _directory } = World::start().await;
    // As Kubernetes documents it: both are trusted, then the server changes, then the old one goes.
    std::fs::write(&authority, old.pem() + &new.pem()).unwrap();
    ask(&client).await.unwrap();
    server.change(&new);
    becomes(&client, Result::is_ok, "both are trusted").await;
    std::fs::write(&authority, new.pem()).unwrap();
    becomes(&client, Result::is_ok, "the new one alone").await;
    // What is not trusted any more is refused.
    server.change(&old);
    becomes(&client, is_untrusted, "the old one is gone").await;
}

#[tokio::test]
async fn a_client_that_was_told_too_late_comes_back() {
    let World { new, authority, server, client, _directory, .. } = World::start().await;
    server.change(&new);
    becomes(&client, is_untrusted, "the server is unknown").await;
    std::fs::write(&authority, new.pem()).unwrap();
    becomes(&client, Result::is_ok, "the new authority is read").await;
}
