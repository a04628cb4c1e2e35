//! The client on a real API server, through a proxy that can break connections.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datastore::{Client, Error, Filter, Options, WatchEvent};
use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A control plane on a free loopback port; dropping it ends it.
struct Plane {
    running: ControlPlane,
    directory: TempDir,
}

impl Plane {
    fn start(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings::loopback(kind, directory.path());
        let settings = Settings { is_durable: false, ..settings };
        let running = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
        Self { running, directory }
    }

    fn address(&self) -> SocketAddr {
        self.running.endpoint()
    }

    /// Returns the administrator's kubeconfig, which is JSON.
    fn kubeconfig(&self) -> Value {
        let text = fs::read(self.running.kubeconfig(Identity::Admin)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Makes a key and a certificate that the server does not ask for.
    fn write_client_certificate(&self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let path = self.directory.path();
        fs::write(path.join("client.key"), key.serialize_pem()).unwrap();
        fs::write(path.join("client.crt"), certificate.pem()).unwrap();
    }

    fn token(&self) -> String {
        self.kubeconfig()["users"][0]["user"]["token"].as_str().unwrap().to_owned()
    }

    /// Returns a client that goes to `address` and gives up silent connections after a second.
    fn client(&self, address: SocketAddr) -> Client {
        let file = self.running.write_outside_kubeconfig(address).unwrap();
        let dead_after = Duration::from_secs(1);
        Client::connect(&Options { dead_after, ..Options::kubeconfig(file) }).unwrap()
    }

    /// Waits until the server has made its namespaces, which comes after it is ready.
    async fn has_namespaces(&self) {
        let client = self.client(self.address());
        let mut watch = Box::pin(client.watch::<Namespace>(&Filter::default()));
        let found = async {
            while let Some(event) = watch.next().await {
                if let WatchEvent::Apply(found) | WatchEvent::InitApply(found) = event
                    && found.metadata.name.as_deref() == Some("default")
                {
                    return;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        found.expect("namespace default");
    }
}

/// A TCP proxy that counts connections and can freeze or cut them.
struct Proxy {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    frozen: Arc<AtomicUsize>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            frozen: Arc::default(),
            tasks: Arc::default(),
        };
        let (connections, tasks) = (Arc::clone(&proxy.connections), Arc::clone(&proxy.tasks));
        let frozen = Arc::clone(&proxy.frozen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let frozen = Arc::clone(&frozen);
                let is_frozen = move || number < frozen.load(Ordering::SeqCst);
                tasks.lock().unwrap().push(tokio::spawn(forward(client, to, is_frozen)));
            }
        });
        proxy
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// From now on swallows what comes on the connections that are open, as a firewall does.
    fn freeze(&self) {
        self.frozen.store(self.connections(), Ordering::SeqCst);
    }

    fn cut(&self) {
        self.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

async fn forward(client: TcpStream, to: SocketAddr, is_frozen: impl Fn() -> bool) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = pump(client_read, server_write, &is_frozen);
    let down = pump(server_read, client_write, &is_frozen);
    tokio::select! { () = up => {}, () = down => {} }
}

async fn pump(
    mut from: impl tokio::io::AsyncReadExt + Unpin,
    mut to: impl tokio::io::AsyncWriteExt + Unpin,
    is_frozen: &impl Fn() -> bool,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || (!is_frozen() && to.write_all(&buffer[..count]).await.is_err()) {
            return;
        }
    }
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"}, "data": {"value": value},
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_the_embedded_datastore() {
    works_on(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_kubernetes() {
    works_on(Kind::Kubernetes).await;
}

async fn works_on(kind: Kind) {
    let mut plane = Plane::start(kind);
    plane.write_client_certificate();
    plane.has_namespaces().await;
    parallel_requests_share_one_connection(&plane).await;
    writes_are_compare_and_swap(&plane).await;
    a_status_is_patched(&plane).await;
    a_list_is_complete(&plane).await;
    a_wrong_token_is_refused(&plane).await;
    nothing_secret_is_logged(&plane).await;
    a_watch_survives_what_happens_to_it(&mut plane).await;
}

async fn parallel_requests_share_one_connection(plane: &Plane) {
    let proxy = Proxy::start(plane.address()).await;
    let client = plane.client(proxy.address);
    assert_eq!(proxy.connections(), 0, "connecting is left to the first request");
    let answers = join_all((0..8).map(|_| client.get::<Namespace>("default"))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().is_some()));
    assert_eq!(proxy.connections(), 1);
    assert_eq!((client.requests(), client.connections()), (8, 1));
    assert!(client.server_version().await.unwrap().git_version.starts_with("v1."));
    proxy.cut();
    assert!(client.get::<Namespace>("default").await.unwrap().is_some(), "a read reconnects");
    assert_eq!(proxy.connections(), 2);
}

async fn writes_are_compare_and_swap(plane: &Plane) {
    let client = plane.client(plane.address());
    let first = client.create(&map("swap", "1")).await.unwrap();
    let again = client.create(&map("swap", "1")).await.unwrap_err();
    assert!(matches!(again, Error::AlreadyExists { .. }), "{again}");
    let mut second = first.clone();
    second.data = map("swap", "2").data;
    let second = client.update(&second).await.unwrap();
    for stale in [client.update(&first).await.map(|_| ()), client.delete(&first).await] {
        let error = stale.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
    }
    assert!(second.metadata.managed_fields.is_none(), "dropped at the border");
    client.delete(&second).await.unwrap();
    let gone = client.delete(&second).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
    assert_eq!(client.get_in::<ConfigMap>("default", "swap").await.unwrap(), None);
    let elsewhere: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "none"}})).unwrap();
    let error = client.create(&elsewhere).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

async fn a_status_is_patched(plane: &Plane) {
    let client = plane.client(plane.address());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    client.create(&node).await.unwrap();
    for (kind, status) in [("Ready", "True"), ("NetworkUnavailable", "False")] {
        let patch = json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        client.patch_status::<Node>(None, "n1", &patch).await.unwrap();
    }
    let node = client.get::<Node>("n1").await.unwrap().unwrap();
    let conditions = node.status.unwrap().conditions.unwrap_or_default();
    assert_eq!(conditions.len(), 2, "strategic: the second patch keeps the first condition");
}

async fn a_list_is_complete(plane: &Plane) {
    let client = plane.client(plane.address());
    let names: Vec<_> = (0..520).map(|number| format!("many-{number}")).collect();
    for names in names.chunks(40) {
        let created = join_all(names.iter().map(|name| {
            let (client, map) = (client.clone(), map(name, "x"));
            async move { client.create(&map).await }
        }));
        assert!(created.await.iter().all(Result::is_ok));
    }
    let filter = Filter { namespace: Some("default".to_owned()), ..Filter::default() };
    let before = client.requests();
    let maps = client.list::<ConfigMap>(&filter).await.unwrap();
    let many = maps.iter().filter_map(|map| map.metadata.name.as_deref());
    assert_eq!(many.filter(|name| name.starts_with("many-")).count(), 520);
    assert_eq!(client.requests() - before, 2, "two pages");
}

async fn a_wrong_token_is_refused(plane: &Plane) {
    let wrong = plane.directory.path().join("wrong");
    let mut config = plane.kubeconfig();
    config["users"][0]["user"]["token"] = json!("wrong");
    fs::write(&wrong, config.to_string()).unwrap();
    let client = Client::connect(&Options::kubeconfig(&wrong)).unwrap();
    let error = client.get::<Namespace>("default").await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    config["clusters"][0]["cluster"]["certificate-authority"] = json!("client.key");
    fs::write(&wrong, config.to_string()).unwrap();
    let error = Client::connect(&Options::kubeconfig(&wrong)).unwrap_err().to_string();
    assert!(error.contains("holds no PEM certificate"), "{error}");
}

/// Everything that all crates log at the trace level while a client works, in one thread.
async fn nothing_secret_is_logged(plane: &Plane) {
    let path = plane.directory.path();
    let key = fs::read_to_string(path.join("client.key")).unwrap();
    let token = plane.token();
    let mut config = plane.kubeconfig();
    let user = json!({
        "token": token, "client-certificate": "client.crt", "client-key": "client.key",
    });
    config["users"][0]["user"] = user;
    let file = path.join("canary");
    fs::write(&file, config.to_string()).unwrap();
    let buffer = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&buffer);
    tokio::task::spawn_blocking(move || {
        let writer = move || Writer(Arc::clone(&writer));
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(writer);
        let _guard = subscriber.finish().set_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(&Options::kubeconfig(&file)).unwrap();
            client.get::<Namespace>("default").await.unwrap();
            let error = client.get::<Namespace>("..").await.unwrap_err();
            tracing::info!(?client, ?error, %error, "all that can be said");
            let mut watch = Box::pin(client.watch::<Namespace>(&Filter::default()));
            let synced =
                async { while !matches!(watch.next().await, Some(WatchEvent::InitDone)) {} };
            tokio::time::timeout(Duration::from_secs(40), synced).await.unwrap();
        });
    })
    .await
    .unwrap();
    let logged = String::from_utf8(buffer.lock().unwrap().clone()).unwrap();
    for part in ["h2::", "rustls::", "datastore::transport"] {
        assert!(logged.contains(part), "{part} says nothing, so the test would prove nothing");
    }
    assert!(!logged.contains(&token), "the token is logged");
    for line in key.lines().filter(|line| line.len() == 64) {
        assert!(!logged.contains(line), "the key is logged");
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn a_watch_survives_what_happens_to_it(plane: &mut Plane) {
    let proxy = Proxy::start(plane.address()).await;
    let direct = plane.client(plane.address());
    let filter = Filter { fields: Some("metadata.name=watched".to_owned()), ..Filter::default() };
    let mut watch = Box::pin(plane.client(proxy.address).watch::<ConfigMap>(&filter));
    let mut next = async |wanted: &str| {
        let found = async {
            loop {
                match watch.next().await.unwrap() {
                    WatchEvent::Apply(map) | WatchEvent::InitApply(map) => {
                        let value = map.data.unwrap_or_default().remove("value");
                        if value.as_deref() == Some(wanted) {
                            return;
                        }
                    }
                    WatchEvent::InitDone if wanted == "synced" => return,
                    WatchEvent::Init
                    | WatchEvent::InitDone
                    | WatchEvent::Delete(_)
                    | WatchEvent::Invalid { .. }
                    | WatchEvent::Failed(_) => {}
                }
            }
        };
        let start = Instant::now();
        tokio::time::timeout(Duration::from_secs(40), found).await.expect(wanted);
        start.elapsed()
    };
    next("synced").await;
    let mut watched = direct.create(&map("watched", "created")).await.unwrap();
    next("created").await;

    proxy.cut();
    watched.data = map("", "while cut").data;
    watched = direct.update(&watched).await.unwrap();
    next("while cut").await;

    proxy.freeze();
    watched.data = map("", "while half open").data;
    watched = direct.update(&watched).await.unwrap();
    // The old connection swallows the event and stays silent: only the probe finds that out.
    let waited = next("while half open").await;
    eprintln!("a half-open connection was replaced after {waited:?} (limit set to 1 s)");

    plane.running.stop_api_server();
    plane.running.start_api_server().unwrap();
    watched.data = map("", "after a restart").data;
    direct.update(&watched).await.unwrap();
    let waited = next("after a restart").await;
    eprintln!("the watch was current {waited:?} after the restart");
}
