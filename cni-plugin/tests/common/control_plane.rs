//! etcd and kube-apiserver on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use datastore::{Client, Options};
use k8s_openapi::api::core::v1::Namespace;

/// Tokens: one may do everything, the other may only read.
const TOKENS: &str = "admin-token,admin,1,\"system:masters\"\nreader-token,reader,2,\"readers\"\n";

/// Both programs; dropping it ends them.
pub(crate) struct ControlPlane {
    directory: PathBuf,
    port: u16,
    children: Vec<Child>,
}

/// Returns the program that is both, if it has been built.
pub(crate) fn program() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/control-plane");
    let program = env::var_os("CALICO_CONTROL_PLANE").map_or(built, PathBuf::from);
    program.exists().then_some(program)
}

impl ControlPlane {
    pub(crate) fn start(program: &Path, directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("tokens"), TOKENS).unwrap();
        let made = Command::new("openssl")
            .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
            .arg(directory.join("sa.key"))
            .status();
        assert!(made.unwrap().success(), "openssl made no key");
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let children = vec![
            start_etcd(program, directory, etcd_port, peer_port),
            start_api_server(program, directory, etcd_port, port),
        ];
        Self { directory: directory.to_owned(), port, children }
    }

    /// Writes a kubeconfig for the holder of `token`.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.directory.join(format!("kubeconfig-{token}"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{}\", \
             certificate-authority: {}}}}}]\n\
             users: [{{name: c, user: {{token: {token}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n",
            self.port,
            self.directory.join("certs/apiserver.crt").display(),
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Waits until the server answers, and returns a client that may do everything.
    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = self.kubeconfig("admin-token");
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if self.directory.join("certs/apiserver.crt").exists() {
                let client = Client::connect(&Options::kubeconfig(&kubeconfig)).unwrap();
                if let Ok(Some(_)) = client.get::<Namespace>("default").await {
                    return client;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("kube-apiserver did not start; see {}", self.directory.display());
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn log(directory: &Path, name: &str) -> Stdio {
    fs::File::create(directory.join(name)).unwrap().into()
}

fn start_etcd(program: &Path, directory: &Path, port: u16, peer_port: u16) -> Child {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
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
