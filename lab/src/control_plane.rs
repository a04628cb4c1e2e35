//! A control plane: the embedded datastore, or a real etcd and kube-apiserver.
//!
//! Both are used in the same way: with a kubeconfig, TLS, tokens of service accounts
//! and RBAC. Everything lives in one directory and listens on one address, so that
//! several control planes do not meet.

mod embedded;
pub(crate) mod kubernetes;
mod pki;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Error;
use crate::api_access::Api;
use crate::process::{Process, output};
use crate::rest::Request;

/// How long the API server may take until it is ready, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How often it is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The administrator's token of Kubernetes: worthless outside the lab's own namespaces.
const ADMIN_TOKEN: &str = "lab-administrator";

/// Which servers make up a control plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Kind {
    /// `calico-datastore`: one process, nothing to install.
    Embedded,
    /// kube-apiserver and etcd, as in a cluster.
    Kubernetes,
}

/// Where and how to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which servers.
    pub kind: Kind,
    /// Where everything is kept.
    pub dir: PathBuf,
    /// The address that the API server listens on.
    pub addr: IpAddr,
    /// Its port; zero takes a free one.
    pub port: u16,
    /// Whether etcd may forget its last writes when the machine crashes, which is faster.
    /// The embedded datastore never does.
    pub is_durable: bool,
    /// What runs beside the API server, on Kubernetes.
    pub extent: Extent,
}

/// How much of a control plane runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Extent {
    /// The API server alone: pods and nodes are what somebody writes there.
    ApiServer,
    /// The controllers and the scheduler too, for machines with kubelets.
    Whole {
        /// What kubeadm is told with `--pod-network-cidr`.
        pod_subnet: String,
        /// The names of the machines, each with an identity of its own.
        machines: Vec<String>,
    },
}

/// A step of the change of a cluster's certificate authority, as Kubernetes documents it ("Manual
/// Rotation of CA Certificates").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthorityStep {
    /// Everybody is told of the old authority and the new one.
    Announce,
    /// The API server has a certificate of the new one.
    Use,
    /// Everybody is told of the new one alone.
    Retire,
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
    /// The service account of `calico-kube-controllers`.
    KubeControllers,
    /// The service account of `calico-docker`.
    Docker,
}

/// A running control plane; dropping it stops it.
#[derive(Debug)]
pub struct ControlPlane {
    settings: Settings,
    servers: Servers,
}

#[derive(Debug)]
enum Servers {
    Embedded(embedded::Server),
    Kubernetes(kubernetes::Servers),
}

impl Kind {
    /// Both kinds, the one that needs less first.
    pub const ALL: [Self; 2] = [Self::Embedded, Self::Kubernetes];

    /// Returns the word for it on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl Settings {
    /// Returns settings for `dir`, on the loopback address and a free port.
    #[must_use]
    pub fn loopback(kind: Kind, dir: &Path) -> Self {
        let addr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let extent = Extent::ApiServer;
        Self { kind, dir: dir.to_owned(), addr, port: 0, is_durable: true, extent }
    }

    fn kubeconfig(&self, identity: Identity) -> PathBuf {
        self.kubeconfig_of(identity.name())
    }

    /// Returns where the kubeconfig of somebody is.
    fn kubeconfig_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.kubeconfig"))
    }

    fn write_kubeconfig(&self, name: &str, token: &str) -> Result<(), Error> {
        let server = SocketAddr::new(self.addr, self.port);
        let text = self.kubeconfig_text(name, token, server);
        write_secret(&self.dir, &format!("{name}.kubeconfig"), &text)
    }

    fn kubeconfig_text(&self, name: &str, token: &str, server: SocketAddr) -> String {
        let text = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority": self.dir.join("ca.crt"),
            }}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
        });
        text.to_string()
    }
}

impl Identity {
    const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Node => "calico-node",
            Self::CniPlugin => "calico-cni-plugin",
            Self::KubeControllers => "calico-kube-controllers",
            Self::Docker => "calico-docker",
        }
    }
}

impl ControlPlane {
    /// Starts the servers and waits until they are ready.
    ///
    /// # Errors
    ///
    /// [`Error`] with the end of the log of what failed.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        let mut settings = settings;
        make_dir(&settings.dir)?;
        if settings.port == 0 {
            settings.port = free_port(settings.addr)?;
        }
        let servers = match settings.kind {
            Kind::Embedded => Servers::Embedded(embedded::Server::start(settings.clone())?),
            Kind::Kubernetes => Servers::Kubernetes(kubernetes::Servers::start(settings.clone())?),
        };
        let mut this = Self { settings, servers };
        this.wait_ready()?;
        if let Servers::Kubernetes(servers) = &mut this.servers {
            servers.start_others()?;
        }
        Ok(this)
    }

    /// Applies our CRDs and RBAC, and makes kubeconfigs for the programs' own identities.
    ///
    /// # Errors
    ///
    /// [`Error`] of the first object that is refused.
    pub fn install(&self) -> Result<(), Error> {
        let (api, manifests) = (self.api()?, root().join("manifests"));
        api.apply_file(&manifests.join("crds"))?;
        api.wait_namespace("kube-system")?;
        api.apply_file(&manifests.join("parts/rbac.yaml"))?;
        api.wait_established()?;
        for identity in [Identity::Node, Identity::CniPlugin, Identity::KubeControllers] {
            let token = api.create_token("kube-system", identity.name())?;
            self.settings.write_kubeconfig(identity.name(), &token)?;
        }
        Ok(())
    }

    /// Applies what hosts with Docker need besides, and makes the plugin's kubeconfig.
    ///
    /// # Errors
    ///
    /// [`Error`] of the first object that is refused.
    pub fn install_docker(&self) -> Result<(), Error> {
        let api = self.api()?;
        api.apply_file(&root().join("manifests/docker"))?;
        api.wait_established()?;
        let token = api.create_token("kube-system", Identity::Docker.name())?;
        self.settings.write_kubeconfig(Identity::Docker.name(), &token)
    }

    /// Returns the API, as administrator.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kubeconfig cannot be read.
    pub fn api(&self) -> Result<Api, Error> {
        Api::connect(&self.kubeconfig(Identity::Admin))
    }

    /// Returns which servers these are.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.settings.kind
    }

    /// Returns the path of an identity's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self, identity: Identity) -> PathBuf {
        self.settings.kubeconfig(identity)
    }

    /// Returns the path of the kubeconfig of one of Kubernetes' own programs, by its name.
    #[must_use]
    pub fn kubeconfig_of(&self, program: &str) -> PathBuf {
        self.settings.kubeconfig_of(program)
    }

    /// Returns the path of a file of the control plane.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.settings.dir.join(name)
    }

    /// Returns where the API server is.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.settings.addr, self.settings.port)
    }

    /// Returns the servers' processes.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let processes: Box<dyn Iterator<Item = &Process>> = match &self.servers {
            Servers::Embedded(server) => Box::new(server.processes()),
            Servers::Kubernetes(servers) => Box::new(servers.processes()),
        };
        processes
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
        kubectl(&self.settings.dir, &self.kubeconfig(Identity::Admin))
    }

    /// Stops the API server at once, as a crash would; what it has written stays.
    pub fn stop_api_server(&mut self) {
        match &mut self.servers {
            Servers::Embedded(server) => server.stop(),
            Servers::Kubernetes(servers) => servers.stop_api_server(),
        }
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] if it ends, [`Error::Timeout`] if it does not become ready.
    pub fn start_api_server(&mut self) -> Result<(), Error> {
        match &mut self.servers {
            Servers::Embedded(server) => server.start_again()?,
            Servers::Kubernetes(servers) => servers.start_api_server()?,
        }
        self.wait_ready()
    }

    /// Starts the API server anew with another key for tokens of service accounts, and with no
    /// other: whoever has a token must get a new one.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] for the embedded datastore, else as [`ControlPlane::start_api_server`].
    pub fn change_token_keys(&mut self) -> Result<(), Error> {
        match &self.servers {
            Servers::Embedded(_) => {
                return Err(Error::wrong("the embedded datastore keeps no signing key"));
            }
            Servers::Kubernetes(servers) => servers.change_token_keys()?,
        }
        self.stop_api_server();
        self.start_api_server()
    }

    /// Does a step of the change of the certificate authority, and starts the API server anew:
    /// whoever had a connection opens another. `ca.crt` is what clients are told.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] for the embedded datastore, else as [`ControlPlane::start_api_server`].
    pub fn change_authority(&mut self, step: AuthorityStep) -> Result<(), Error> {
        match &self.servers {
            Servers::Embedded(_) => {
                return Err(Error::wrong("the embedded datastore makes its own authority"));
            }
            Servers::Kubernetes(servers) => servers.change_authority(step)?,
        }
        self.stop_api_server();
        self.start_api_server()
    }

    /// Lets the server forget what objects were like before: an older watch cannot be resumed.
    ///
    /// The embedded datastore keeps its history for a number of changes and cannot be told; it
    /// does not resume a watch from before its last start either.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with what etcd says.
    pub fn forget_history(&self) -> Result<(), Error> {
        match &self.servers {
            Servers::Embedded(_) => Ok(()),
            Servers::Kubernetes(servers) => servers.compact(),
        }
    }

    /// Writes an administrator's kubeconfig for a server that is reached at another address.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn write_outside_kubeconfig(&self, server: SocketAddr) -> Result<PathBuf, Error> {
        let access = crate::rest::Access::read(&self.kubeconfig(Identity::Admin))?;
        let name = Identity::Admin.name();
        let text = self.settings.kubeconfig_text(name, &access.token, server);
        let file = "outside.kubeconfig";
        write_secret(&self.settings.dir, file, &text)?;
        Ok(self.settings.dir.join(file))
    }

    fn wait_ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        let within = crate::patience::on_this_machine(READY_WITHIN);
        let mut api = None;
        loop {
            for process in self.processes() {
                process.require_running()?;
            }
            let Err(error) = self.ask_ready(&mut api) else { return Ok(()) };
            if started.elapsed() > within {
                return Err(Error::Timeout {
                    what: "the API server to be ready".to_owned(),
                    seconds: within.as_secs(),
                    detail: format!("; it says: {error}"),
                });
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Succeeds if the server is ready; keeps the client, once there is one, in `api`.
    fn ask_ready(&self, api: &mut Option<Api>) -> Result<(), Error> {
        if api.is_none()
            && let Servers::Embedded(server) = &self.servers
        {
            server.adopt_administrator()?;
        }
        let connected = match api.take() {
            Some(api) => api,
            None => self.api()?,
        };
        let answer = api.insert(connected).send(Request::get("/readyz"))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.failure()) }
    }
}

fn write_secret(dir: &Path, name: &str, text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    let path = dir.join(name);
    let mut options = std::fs::File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    let mut file = file.map_err(Error::file(&path))?;
    file.write_all(text.as_bytes()).map_err(Error::file(&path))
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file(dir))
}

/// Returns a port that nobody listens on now.
fn free_port(addr: IpAddr) -> Result<u16, Error> {
    let listener = TcpListener::bind((addr, 0)).and_then(|listener| listener.local_addr());
    listener.map(|addr| addr.port()).map_err(|error| Error::program("free port", error))
}

/// Returns kubectl for the control plane of a directory: the one that was built with
/// kube-apiserver, or else this machine's.
#[must_use]
pub fn kubectl(dir: &Path, kubeconfig: &Path) -> Command {
    let mut command = match binary() {
        Ok(binary) => {
            let mut command = Command::new(binary);
            command.arg("kubectl");
            command
        }
        Err(_) => Command::new("kubectl"),
    };
    command.env("KUBECONFIG", kubeconfig);
    // Discovery is cached per server; servers of the lab come and go on the same ports.
    command.env("KUBECACHEDIR", dir.join("kubectl-cache"));
    command
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
