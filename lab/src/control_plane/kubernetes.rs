//! The upstream servers: etcd and kube-apiserver.

use std::net::IpAddr;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::{ADMIN_TOKEN, Identity, Settings, binary, free_port, pki, write_secret};
use crate::Error;
use crate::process::{Process, Program};

/// The processes, and what is needed to start them again.
#[derive(Debug)]
pub(super) struct Servers {
    settings: Settings,
    binary: PathBuf,
    etcd_port: u16,
    api_server: Option<Process>,
    etcd: Process,
}

impl Servers {
    /// Writes keys, certificates and the administrator's token, and starts both.
    pub(super) fn start(settings: Settings) -> Result<Self, Error> {
        let binary = binary()?;
        pki::write(&settings.dir, settings.addr)?;
        let users = format!("{ADMIN_TOKEN},admin,admin,system:masters\n");
        write_secret(&settings.dir, "tokens.csv", &users)?;
        settings.write_kubeconfig(Identity::Admin, ADMIN_TOKEN)?;
        let etcd_port = free_port(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))?;
        let etcd = start_etcd(&settings, &binary, etcd_port)?;
        let mut this = Self { settings, binary, etcd_port, api_server: None, etcd };
        this.start_api_server()?;
        Ok(this)
    }

    /// Starts the API server; etcd runs already.
    pub(super) fn start_api_server(&mut self) -> Result<(), Error> {
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
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
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
        Ok(())
    }

    /// Stops the API server as a crash would; etcd stays.
    pub(super) fn stop_api_server(&mut self) {
        if let Some(process) = self.api_server.take() {
            process.end(Signal::SIGKILL);
        }
    }

    /// Returns the processes that run, or should.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.api_server.iter().chain([&self.etcd])
    }
}

fn start_etcd(settings: &Settings, binary: &std::path::Path, port: u16) -> Result<Process, Error> {
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
