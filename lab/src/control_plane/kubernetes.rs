//! The upstream servers: etcd and kube-apiserver, and where there are machines the controllers
//! and the scheduler.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    ADMIN_TOKEN, AuthorityStep, Extent, Identity, Settings, binary, free_port, pki, write_secret,
};
use crate::Error;
use crate::process::{Process, Program};

/// The range of Services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The API server's log of what our programs ask.
pub(crate) const AUDIT_LOG: &str = "audit.log";
/// Kubernetes' own programs that have an identity by the name of a user.
const PROGRAMS: &[&str] = &["kube-controller-manager", "kube-scheduler", "kube-proxy"];

/// The processes, and what is needed to start them again.
#[derive(Debug)]
pub(super) struct Servers {
    settings: Settings,
    binary: PathBuf,
    etcd_port: u16,
    api_server: Option<Process>,
    /// They begin only with an API server that is ready, and come back to it later.
    others: Vec<Process>,
    etcd: Process,
}

impl Servers {
    /// Writes keys, certificates and tokens, and starts the servers.
    pub(super) fn start(settings: Settings) -> Result<Self, Error> {
        let binary = binary()?;
        pki::write(&settings.dir, settings.addr)?;
        write_users(&settings)?;
        write_secret(&settings.dir, "audit-policy.json", &crate::rbac::audit_policy())?;
        let etcd_port = free_port(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))?;
        let etcd = start_etcd(&settings, &binary, etcd_port)?;
        let mut this =
            Self { settings, binary, etcd_port, api_server: None, others: Vec::new(), etcd };
        this.start_api_server()?;
        Ok(this)
    }

    /// Starts those who need an API server that is ready, where they are wanted.
    pub(super) fn start_others(&mut self) -> Result<(), Error> {
        if let Extent::Whole { pod_subnet, .. } = &self.settings.extent {
            let controllers = self.controllers(pod_subnet);
            let controllers = self.program("kube-controller-manager", controllers).start()?;
            let scheduler = self.program("kube-scheduler", self.scheduler()).start()?;
            self.others = vec![controllers, scheduler];
        }
        Ok(())
    }

    /// Starts the API server; etcd runs already.
    pub(super) fn start_api_server(&mut self) -> Result<(), Error> {
        let path = |name: &str| self.path(name);
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--bind-address={}", self.settings.addr),
            format!("--advertise-address={}", advertised(self.settings.addr)),
            format!("--secure-port={}", self.settings.port),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--profiling=false".to_owned(),
            format!("--audit-policy-file={}", path("audit-policy.json")),
            format!("--audit-log-path={}", path(AUDIT_LOG)),
        ];
        flags.extend(match self.settings.extent {
            // Pods here have no kubelet to mount a service account's token for.
            Extent::ApiServer => vec![
                "--endpoint-reconciler-type=none".to_owned(),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
            ],
            // As kubeadm starts it.
            Extent::Whole { .. } => vec![
                "--allow-privileged=true".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                format!("--kubelet-client-certificate={}", path("kubelet-client.crt")),
                format!("--kubelet-client-key={}", path("kubelet-client.key")),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
            ],
        });
        self.api_server = Some(self.program("kube-apiserver", flags).start()?);
        Ok(())
    }

    /// Stops the API server as a crash would; etcd stays.
    pub(super) fn stop_api_server(&mut self) {
        if let Some(process) = self.api_server.take() {
            process.end(Signal::SIGKILL);
        }
    }

    /// Writes a new key for tokens of service accounts: an API server that starts now takes none
    /// that was signed before.
    pub(super) fn change_token_keys(&self) -> Result<(), Error> {
        pki::write_token_keys(&self.settings.dir)
    }

    /// Does a step of the change of authority; the server has to be started anew after the second.
    pub(super) fn change_authority(&self, step: AuthorityStep) -> Result<(), Error> {
        let dir = &self.settings.dir;
        match step {
            AuthorityStep::Announce => pki::announce_authority(dir, self.settings.addr),
            AuthorityStep::Use => pki::use_authority(dir),
            AuthorityStep::Retire => pki::retire_authority(dir),
        }
    }

    /// Compacts etcd at its newest revision, through its JSON gateway.
    pub(super) fn compact(&self) -> Result<(), Error> {
        // The key `\0` need not be there: the answer's head has the revision.
        let answer = self.ask_etcd("range", &json!({"key": "AA=="}))?;
        let revision = answer.pointer("/header/revision").cloned();
        let revision = revision.ok_or_else(|| Error::wrong(format!("etcd says {answer}")))?;
        let answer =
            self.ask_etcd("compaction", &json!({"revision": revision, "physical": true}))?;
        let has_done = answer.pointer("/header/revision").is_some();
        if has_done { Ok(()) } else { Err(Error::wrong(format!("etcd says {answer}"))) }
    }

    fn ask_etcd(&self, what: &str, body: &Value) -> Result<Value, Error> {
        let addr = (std::net::Ipv4Addr::LOCALHOST, self.etcd_port);
        let wrong = |error: std::io::Error| Error::program("etcd", error);
        let mut stream = TcpStream::connect(addr).map_err(wrong)?;
        let body = body.to_string();
        let head = format!(
            "POST /v3/kv/{what} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).map_err(wrong)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(wrong)?;
        // The body may come in chunks: it is the only JSON object there.
        let json = answer.find('{').zip(answer.rfind('}'));
        let json = json.and_then(|(from, to)| answer.get(from..=to));
        let json = json.ok_or_else(|| Error::wrong(format!("etcd says {answer}")))?;
        serde_json::from_str(json).map_err(Error::wrong)
    }

    /// Returns the processes that run, or should.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.api_server.iter().chain([&self.etcd]).chain(&self.others)
    }

    /// Returns the flags of kube-controller-manager, as kubeadm sets them.
    fn controllers(&self, pod_subnet: &str) -> Vec<String> {
        let kubeconfig = self.settings.kubeconfig_of("kube-controller-manager");
        vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--root-ca-file={}", self.path("ca.crt")),
            format!("--service-account-private-key-file={}", self.path("sa.key")),
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={pod_subnet}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--cert-dir={}", self.path("controllers")),
        ]
    }

    fn scheduler(&self) -> Vec<String> {
        let kubeconfig = self.settings.kubeconfig_of("kube-scheduler");
        vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
            format!("--cert-dir={}", self.path("scheduler")),
        ]
    }

    fn program(&self, name: &str, flags: Vec<String>) -> Program {
        let command = [self.binary.clone().into_os_string(), name.into()];
        let command = command.into_iter().chain(flags.into_iter().map(Into::into));
        Program::new(name, &self.settings.dir.join(format!("{name}.log")), command)
    }

    fn path(&self, name: &str) -> String {
        self.settings.dir.join(name).to_string_lossy().into_owned()
    }
}

/// Writes who there is, by token, and a kubeconfig for each.
fn write_users(settings: &Settings) -> Result<(), Error> {
    let mut users = format!("{ADMIN_TOKEN},admin,admin,system:masters\n");
    settings.write_kubeconfig(Identity::Admin.name(), ADMIN_TOKEN)?;
    if let Extent::Whole { machines, .. } = &settings.extent {
        let programs =
            PROGRAMS.iter().map(|name| ((*name).to_owned(), format!("system:{name}"), ""));
        let machines = machines
            .iter()
            .map(|name| (name.clone(), format!("system:node:{name}"), "system:nodes"));
        for (name, user, group) in programs.chain(machines) {
            let token = format!("lab-{name}");
            users = format!("{users}{token},{user},{user},{group}\n");
            settings.write_kubeconfig(&name, &token)?;
        }
    }
    write_secret(&settings.dir, "tokens.csv", &users)
}

fn start_etcd(settings: &Settings, binary: &Path, port: u16) -> Result<Process, Error> {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{}", free_port(IpAddr::V4([127, 0, 0, 1].into()))?);
    let flags = [
        format!("--data-dir={}", settings.dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".to_owned(),
        format!("--unsafe-no-fsync={}", !settings.is_durable),
    ];
    let command = [binary.as_os_str().to_owned(), "etcd".into()];
    let command = command.into_iter().chain(flags.into_iter().map(Into::into));
    Program::new("etcd", &settings.dir.join("etcd.log"), command).start()
}

/// Returns an address that others may be told; loopback may not.
fn advertised(addr: IpAddr) -> String {
    if addr.is_loopback() { "192.0.2.1".to_owned() } else { addr.to_string() }
}
