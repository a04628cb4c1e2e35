//! A real control plane: etcd and kube-apiserver, with identities and least privilege.
//!
//! Everything lives in one directory and listens on one address, so that
//! several control planes do not meet. Programs use it as they would any
//! cluster's: with a kubeconfig, TLS, tokens of service accounts and RBAC.

mod pki;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::Error;
use crate::process::{Process, Program, output};

/// How long the API server may take until it is ready, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// The administrator's token: worthless outside the lab's own namespaces.
const ADMIN_TOKEN: &str = "lab-administrator";

/// Where and how to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// The address that the API server listens on.
    pub addr: IpAddr,
    /// Its port; zero takes a free one.
    pub port: u16,
    /// Whether etcd may forget its last writes when the machine crashes, which is faster.
    pub is_durable: bool,
}

/// Who a kubeconfig is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity {
    /// May do everything.
    Admin,
    /// The service account of `calico-node`.
    Node,
    /// The service account of the CNI plugins.
    CniPlugin,
}

/// A running control plane; dropping it stops it.
#[derive(Debug)]
pub struct ControlPlane {
    settings: Settings,
    binary: PathBuf,
    etcd_port: u16,
    api_server: Option<Process>,
    etcd: Option<Process>,
}

impl Settings {
    /// Returns settings for `dir`, on the loopback address and a free port.
    #[must_use]
    pub fn loopback(dir: &Path) -> Self {
        let addr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Self { dir: dir.to_owned(), addr, port: 0, is_durable: true }
    }
}

impl Identity {
    const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Node => "calico-node",
            Self::CniPlugin => "calico-cni-plugin",
        }
    }
}

impl ControlPlane {
    /// Starts etcd and the API server and applies our CRDs and RBAC.
    ///
    /// # Errors
    ///
    /// [`Error`] with the end of the log of what failed.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        let binary = binary()?;
        let mut settings = settings;
        make_dir(&settings.dir)?;
        if settings.port == 0 {
            settings.port = free_port(settings.addr)?;
        }
        pki::write(&settings.dir, settings.addr)?;
        let etcd_port = free_port(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))?;
        let mut this = Self { settings, binary, etcd_port, api_server: None, etcd: None };
        this.write_secret("tokens.csv", &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
        this.write_kubeconfig(Identity::Admin, ADMIN_TOKEN)?;
        this.start_etcd()?;
        this.start_api_server()?;
        Ok(this)
    }

    /// Applies our CRDs and RBAC, and makes kubeconfigs for the programs' own identities.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] of kubectl.
    pub fn install(&self) -> Result<(), Error> {
        let manifests = manifests();
        self.kubectl(&["apply", "--filename", &manifests.join("crds").to_string_lossy()])?;
        self.kubectl(&["apply", "--filename", &manifests.join("rbac.yaml").to_string_lossy()])?;
        let crds = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
        self.kubectl(&crds)?;
        for identity in [Identity::Node, Identity::CniPlugin] {
            let create = ["create", "token", identity.name(), "--namespace", "kube-system"];
            let token = self.kubectl(&create)?;
            self.write_kubeconfig(identity, token.trim())?;
        }
        Ok(())
    }

    /// Returns the path of an identity's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self, identity: Identity) -> PathBuf {
        self.settings.dir.join(format!("{}.kubeconfig", identity.name()))
    }

    /// Returns where the API server is.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.settings.addr, self.settings.port)
    }

    /// Runs kubectl as the administrator and returns what it prints.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, Error> {
        output(self.kubectl_command().args(arguments))
    }

    /// Returns kubectl as the administrator, for arguments to be added.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("kubectl").env("KUBECONFIG", self.kubeconfig(Identity::Admin));
        // Discovery is cached per server; servers of the lab come and go on the same ports.
        command.env("KUBECACHEDIR", self.settings.dir.join("kubectl-cache"));
        command
    }

    /// Stops the API server at once, as a crash would; etcd stays.
    pub fn stop_api_server(&mut self) {
        if let Some(process) = self.api_server.take() {
            process.end(Signal::SIGKILL);
        }
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] if it ends, [`Error::Timeout`] if it does not become ready.
    pub fn start_api_server(&mut self) -> Result<(), Error> {
        let dir = &self.settings.dir;
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let flags = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--bind-address={}", self.settings.addr),
            format!("--advertise-address={}", advertised(self.settings.addr)),
            format!("--secure-port={}", self.settings.port),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("sa.key")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            // Pods here have no kubelet to mount a service account's token for.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--profiling=false".to_owned(),
        ];
        let command = [self.binary.clone().into_os_string(), "kube-apiserver".into()];
        let command = command.into_iter().chain(flags.into_iter().map(Into::into));
        let log = dir.join("kube-apiserver.log");
        self.api_server = Some(Program::new("kube-apiserver", &log, command).start()?);
        self.wait_ready()
    }

    fn start_etcd(&mut self) -> Result<(), Error> {
        let dir = &self.settings.dir;
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", free_port(IpAddr::V4([127, 0, 0, 1].into()))?);
        let data = dir.join("etcd");
        let flags = [
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--log-level=warn".to_owned(),
            format!("--unsafe-no-fsync={}", !self.settings.is_durable),
        ];
        let command = [self.binary.clone().into_os_string(), "etcd".into()];
        let command = command.into_iter().chain(flags.into_iter().map(Into::into));
        self.etcd = Some(Program::new("etcd", &dir.join("etcd.log"), command).start()?);
        Ok(())
    }

    fn wait_ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            for process in self.etcd.iter().chain(&self.api_server) {
                process.require_running()?;
            }
            let last = match self.kubectl(&["get", "--raw", "/readyz"]) {
                Ok(text) if text.trim() == "ok" => return Ok(()),
                Ok(text) => text,
                Err(error) => error.to_string(),
            };
            if started.elapsed() > READY_WITHIN {
                return Err(Error::Timeout {
                    what: "the API server to be ready".to_owned(),
                    seconds: READY_WITHIN.as_secs(),
                    detail: format!("; it says: {last}"),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Writes an administrator's kubeconfig for a server that is reached at another address.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn write_outside_kubeconfig(&self, server: SocketAddr) -> Result<PathBuf, Error> {
        let name = "outside.kubeconfig";
        self.write_secret(name, &self.kubeconfig_text(Identity::Admin, ADMIN_TOKEN, server))?;
        Ok(self.settings.dir.join(name))
    }

    fn write_kubeconfig(&self, identity: Identity, token: &str) -> Result<(), Error> {
        let text = self.kubeconfig_text(identity, token, self.endpoint());
        self.write_secret(&format!("{}.kubeconfig", identity.name()), &text)
    }

    fn kubeconfig_text(&self, identity: Identity, token: &str, server: SocketAddr) -> String {
        let ca = self.settings.dir.join("ca.crt");
        let text = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority": ca,
            }}],
            "users": [{"name": identity.name(), "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": identity.name()}}],
        });
        text.to_string()
    }

    fn write_secret(&self, name: &str, text: &str) -> Result<(), Error> {
        use std::io::Write as _;
        let path = self.settings.dir.join(name);
        let mut options = std::fs::File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let mut file = file.map_err(Error::file(&path))?;
        file.write_all(text.as_bytes()).map_err(Error::file(&path))
    }
}

/// Returns an address that others may be told; loopback may not.
fn advertised(addr: IpAddr) -> String {
    if addr.is_loopback() { "192.0.2.1".to_owned() } else { addr.to_string() }
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file(dir))
}

/// Returns a port that nobody listens on now.
fn free_port(addr: IpAddr) -> Result<u16, Error> {
    let listener = TcpListener::bind((addr, 0)).and_then(|listener| listener.local_addr());
    listener.map(|addr| addr.port()).map_err(|error| Error::program("free port", error))
}

/// Returns the executable of the control plane: where the environment says, or where xtask builds it.
///
/// # Errors
///
/// [`Error::Missing`] if it has not been built.
pub fn binary() -> Result<PathBuf, Error> {
    let default = || root().join("target/lab/control-plane");
    let path = std::env::var_os("CALICO_CONTROL_PLANE").map_or_else(default, PathBuf::from);
    if path.exists() { Ok(path) } else { Err(Error::Missing(path)) }
}

/// Returns the root of the checkout that this was built from.
#[must_use]
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or(root)
}

fn manifests() -> PathBuf {
    root().join("manifests")
}
