//! The server as a whole: what it needs, what it is known by, how it starts and ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::auth::authority::{self, Authority};
use crate::auth::guard::{self, Guard};
use crate::auth::jwt::{self, Issuer};
use crate::auth::{files, secret::Token};
use crate::http::api::Api;
use crate::http::{limit, listen};
use crate::service::Service;
use crate::store::{self, Store};

/// The store's file in the data directory.
pub const STORE: &str = "datastore.sqlite";
/// The administrator's kubeconfig in the data directory.
const KUBECONFIG: &str = "admin.kubeconfig";

/// What a server needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept; made with mode 0700.
    pub directory: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How the store behaves.
    pub store: store::Options,
}

impl Config {
    /// Returns a configuration that keeps everything in `directory` and listens on a free
    /// port of the loopback address.
    #[must_use]
    pub fn loopback(directory: &Path) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { directory: directory.to_owned(), listen, store: store::Options::default() }
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The issuer of tokens.
    #[error(transparent)]
    Issuer(#[from] jwt::Error),
    /// The administrator's token.
    #[error(transparent)]
    Token(#[from] guard::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What must be in the store, and cannot be written.
    #[error("cannot prepare the datastore: {0}")]
    Prepare(#[from] crate::Status),
    /// The address.
    #[error("cannot listen on {address}: {source}; choose a free address, or port 0 for any")]
    Listen {
        /// What was given.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Makes a directory that only its owner may enter, or checks that it is one.
///
/// # Errors
///
/// If others may read it, or it cannot be made.
pub fn prepare(directory: &Path) -> Result<(), Error> {
    Ok(files::private_directory(directory)?)
}

/// What a data directory is known by: its authority, its tokens, where it was served last.
pub struct Identity {
    authority: Authority,
    issuer: Arc<Issuer>,
    token: Token,
    endpoint: String,
}

impl Identity {
    /// Reads the identity in a directory; what is missing is made.
    ///
    /// # Errors
    ///
    /// [`Error`] if a file is unreadable, or others may have read it.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let kubeconfig = files::read_private(&directory.join(KUBECONFIG))?.unwrap_or_default();
        let endpoint = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("server: "));
        Ok(Self {
            authority: Authority::open(directory)?,
            issuer: Arc::new(Issuer::open(directory)?),
            token: guard::admin_token(directory)?,
            endpoint: endpoint.unwrap_or("https://127.0.0.1:6443").to_owned(),
        })
    }

    /// Returns the administrator's token.
    #[must_use]
    pub const fn admin_token(&self) -> &Token {
        &self.token
    }

    /// Returns what signs the tokens of service accounts.
    #[must_use]
    pub fn signer(&self) -> &dyn crate::service::Signer {
        &*self.issuer
    }

    /// Returns a kubeconfig for the holder of a token.
    #[must_use]
    pub fn kubeconfig(&self, user: &str, token: &str) -> String {
        kubeconfig(&self.endpoint, self.authority.certificate(), user, token)
    }
}

/// A running server. Dropping it stops it without waiting; [`Server::stop`] waits.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    authority: String,
    token: Token,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Opens the store and serves it; what the directory lacks is made.
    ///
    /// When this returns, connections are accepted, and `admin.kubeconfig` is in the directory.
    ///
    /// # Errors
    ///
    /// [`Error`]; then nothing runs.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let Config { directory, listen, store } = config;
        files::private_directory(&directory)?;
        let store = Store::open(&directory.join(STORE), store)?;
        let Identity { authority, issuer, token, .. } = Identity::open(&directory)?;
        let refused = |source| Error::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let tls = Arc::new(authority.server(&names(address.ip()))?);
        let guard = Arc::new(Guard::new(&token, Arc::clone(&issuer), store.clone()));
        let service = Service::open(store).await?;
        guard::follow(&guard);
        let (stop, stopping) = watch::channel(false);
        let places = Semaphore::new(limit::REQUESTS);
        let stop_watches = stopping.clone();
        let shown = reachable(address).to_string();
        let api = Api { guard, service, issuer, address: shown, stop: stop_watches, places };
        let serving = listen::serve(listener, TlsAcceptor::from(tls), Arc::new(api), stopping);
        let serving = tokio::spawn(serving);
        let authority = authority.certificate().to_owned();
        let this = Self { address: reachable(address), authority, token, stop, serving };
        files::write_private(&directory.join(KUBECONFIG), this.kubeconfig().as_bytes())?;
        Ok(this)
    }

    /// Returns where clients find the server: `https://127.0.0.1:6443`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the address and port, as clients reach it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the certificate of the server's authority, in PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the administrator's token.
    #[must_use]
    pub const fn admin_token(&self) -> &Token {
        &self.token
    }

    /// Returns the administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        kubeconfig(&self.endpoint(), &self.authority, "admin", self.token.reveal())
    }

    /// Ends watches, finishes requests for a few seconds, and closes the store.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A panic of the server was logged when it happened.
        drop(self.serving.await);
    }
}

/// Returns a kubeconfig, in the order of kubectl's own.
#[must_use]
pub fn kubeconfig(endpoint: &str, authority: &str, user: &str, token: &str) -> String {
    let authority = BASE64.encode(authority.as_bytes());
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: calico-datastore\n  \
           cluster:\n    \
             certificate-authority-data: {authority}\n    \
             server: {endpoint}\n\
         contexts:\n\
         - name: {user}@calico-datastore\n  \
           context:\n    \
             cluster: calico-datastore\n    \
             user: {user}\n\
         current-context: {user}@calico-datastore\n\
         users:\n\
         - name: {user}\n  \
           user:\n    \
             token: {token}\n"
    )
}

/// Returns the addresses that the certificate is for.
fn names(address: IpAddr) -> Vec<IpAddr> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let other = Some(address).filter(|address| !address.is_loopback() && !address.is_unspecified());
    // 127.0.0.2 is a loopback address, too, and a client compares names.
    let exact = Some(address).filter(IpAddr::is_loopback);
    let mut all: Vec<IpAddr> = loopback.into_iter().chain(other).chain(exact).collect();
    all.sort();
    all.dedup();
    all
}

/// Returns an address that a client on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, address.port())
}
