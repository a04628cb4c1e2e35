//! The client on the real kube-apiserver with etcd, through a proxy that can break connections.
//!
//! The programs come from `CALICO_CONTROL_PLANE` or `target/lab/control-plane`; without them the
//! test says that it is skipped.

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
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datastore::{Client, Error, Filter, Options, WatchEvent};
use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tracing_subscriber::util::SubscriberInitExt as _;

const TOKEN: &str = "token-of-the-test";

/// etcd and kube-apiserver on free loopback ports; dropping it ends both.
struct ControlPlane {
    directory: TempDir,
    program: PathBuf,
    etcd: Child,
    api_server: Child,
    port: u16,
    etcd_port: u16,
}

impl ControlPlane {
    fn start(program: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("tokens"), format!("{TOKEN},admin,1,\"system:masters\"\n")).unwrap();
        let made = Command::new("openssl")
            .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
            .arg(path.join("sa.key"))
            .status();
        assert!(made.unwrap().success(), "openssl made no key");
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let etcd = start_etcd(&program, path, etcd_port, peer_port);
        let api_server = start_api_server(&program, path, etcd_port, port);
        Self { directory, program, etcd, api_server, port, etcd_port }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn restart_api_server(&mut self) {
        stop(&mut self.api_server);
        let path = self.directory.path();
        self.api_server = start_api_server(&self.program, path, self.etcd_port, self.port);
    }

    /// Returns a client that goes to `address` and gives up silent connections after a second.
    fn client(&self, address: SocketAddr) -> Client {
        let path = self.directory.path();
        let ca = path.join("certs/apiserver.crt");
        let cluster =
            format!("server: \"https://{address}\", certificate-authority: {}", ca.display());
        let file = path.join(format!("kubeconfig-{}", address.port()));
        fs::write(&file, common::kubeconfig(&cluster, &format!("{{token: {TOKEN}}}"))).unwrap();
        let dead_after = Duration::from_secs(1);
        Client::connect(&Options { dead_after, ..Options::kubeconfig(file) }).unwrap()
    }

    /// Waits until the server answers and has made its namespaces.
    async fn ready(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let is_up = self.directory.path().join("certs/apiserver.crt").exists();
            if is_up
                && matches!(
                    self.client(self.address()).get::<Namespace>("default").await,
                    Ok(Some(_))
                )
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("kube-apiserver did not start; see {}", self.directory.path().display());
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        stop(&mut self.api_server);
        stop(&mut self.etcd);
    }
}

fn stop(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn log(directory: &Path, name: &str) -> Stdio {
    fs::File::create(directory.join(name)).unwrap().into()
}

fn start_etcd(program: &Path, directory: &Path, port: u16, peer_port: u16) -> Child {
    let (client, peer) =
        (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    Command::new(program)
        .args(["etcd", "--unsafe-no-fsync", "--data-dir"])
        .arg(directory.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stderr(log(directory, "etcd.log"))
        .spawn()
        .unwrap()
}

fn start_api_server(program: &Path, directory: &Path, etcd_port: u16, port: u16) -> Child {
    let file = |name: &str| directory.join(name).display().to_string();
    Command::new(program)
        .args(["kube-apiserver", "--etcd-servers", &format!("http://127.0.0.1:{etcd_port}")])
        .args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string()])
        .args(["--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none"])
        .args(["--cert-dir", &file("certs"), "--token-auth-file", &file("tokens")])
        .args(["--service-account-issuer", "https://kubernetes.default.svc"])
        .args(["--service-account-key-file", &file("sa.key")])
        .args(["--service-account-signing-key-file", &file("sa.key")])
        .args(["--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC"])
        .args(["--disable-admission-plugins", "ServiceAccount"])
        .stderr(log(directory, "kube-apiserver.log"))
        .spawn()
        .unwrap()
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
async fn works_on_the_real_api_server() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab/control-plane");
    let program = std::env::var_os("CALICO_CONTROL_PLANE").map_or(built, PathBuf::from);
    if !program.exists() {
        eprintln!("skipped: {} is missing; run cargo xtask cluster up", program.display());
        return;
    }
    let mut plane = ControlPlane::start(program);
    plane.ready().await;
    parallel_requests_share_one_connection(&plane).await;
    writes_are_compare_and_swap(&plane).await;
    a_status_is_patched(&plane).await;
    a_list_is_complete(&plane).await;
    a_wrong_token_is_refused(&plane).await;
    nothing_secret_is_logged(&plane).await;
    a_watch_survives_what_happens_to_it(&mut plane).await;
}

async fn parallel_requests_share_one_connection(plane: &ControlPlane) {
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

async fn writes_are_compare_and_swap(plane: &ControlPlane) {
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

async fn a_status_is_patched(plane: &ControlPlane) {
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

async fn a_list_is_complete(plane: &ControlPlane) {
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

async fn a_wrong_token_is_refused(plane: &ControlPlane) {
    let path = plane.directory.path().join(format!("kubeconfig-{}", plane.port));
    let text = fs::read_to_string(&path).unwrap().replace(TOKEN, "wrong");
    let wrong = plane.directory.path().join("wrong");
    fs::write(&wrong, &text).unwrap();
    let client = Client::connect(&Options::kubeconfig(&wrong)).unwrap();
    let error = client.get::<Namespace>("default").await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let ca = plane.directory.path().join("certs/apiserver.crt").display().to_string();
    let other = plane.directory.path().join("sa.key").display().to_string();
    fs::write(&wrong, text.replace(&ca, &other)).unwrap();
    let error = Client::connect(&Options::kubeconfig(&wrong)).unwrap_err().to_string();
    assert!(error.contains("holds no PEM certificate"), "{error}");
}

/// Everything that all crates log at the trace level while a client works, in one thread.
async fn nothing_secret_is_logged(plane: &ControlPlane) {
    let path = plane.directory.path();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout"])
        .args([path.join("client.key"), "-out".into(), path.join("client.crt")])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success(), "openssl made no certificate");
    let key = fs::read_to_string(path.join("client.key")).unwrap();
    let user =
        format!("{{token: {TOKEN}, client-certificate: client.crt, client-key: client.key}}");
    let cluster = format!(
        "server: \"https://{}\", certificate-authority: certs/apiserver.crt",
        plane.address()
    );
    let file = path.join("canary");
    fs::write(&file, common::kubeconfig(&cluster, &user)).unwrap();
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
            while !matches!(watch.next().await, Some(WatchEvent::InitDone)) {}
        });
    })
    .await
    .unwrap();
    let logged = String::from_utf8(buffer.lock().unwrap().clone()).unwrap();
    for part in ["h2::", "rustls::", "datastore::transport"] {
        assert!(logged.contains(part), "{part} says nothing, so the test would prove nothing");
    }
    assert!(!logged.contains(TOKEN), "the token is logged");
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

async fn a_watch_survives_what_happens_to_it(plane: &mut ControlPlane) {
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

    plane.restart_api_server();
    plane.ready().await;
    watched.data = map("", "after a restart").data;
    direct.update(&watched).await.unwrap();
    let waited = next("after a restart").await;
    eprintln!("the watch was current {waited:?} after the restart");
}
