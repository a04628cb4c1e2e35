//! Where the API server is and who we are there: kubeconfig files and service accounts.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use kube::client::ConfigExt as _;
use kube::config::{AuthInfo, Cluster, Kubeconfig, KubeconfigError};

use crate::credential::Credential;
use crate::error::{Error, chain};
use crate::trust::Authorities;

/// Where a kubelet mounts a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where to find the datastore, and how patient to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server's address and the credentials come from.
    pub source: Source,
    /// The context of the kubeconfig to use instead of its current one.
    pub context: Option<String>,
    /// How long one request may take, retries included.
    pub timeout: Duration,
    /// How long a connection may take to open; never longer than `timeout`.
    pub connect_timeout: Duration,
    /// How long a connection may be silent, probes included, before it is given up for dead.
    pub dead_after: Duration,
    /// What the server's audit log calls us.
    pub user_agent: String,
}

/// Where the server's address and the credentials come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// This kubeconfig file.
    Kubeconfig(PathBuf),
    /// The text of a kubeconfig.
    Inline(Inline),
    /// The service account of the pod that we run in.
    InCluster,
    /// `KUBECONFIG`, else `~/.kube/config`, else the service account.
    Infer,
}

/// The text of a kubeconfig, which holds secrets.
#[derive(Clone, Eq, PartialEq)]
pub struct Inline(String);

impl Inline {
    /// Takes the text, YAML or JSON.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Inline(..)")
    }
}

/// What a transport needs to know of the server.
#[derive(Clone)]
pub(crate) struct Server {
    /// Scheme, host, port and perhaps a path that goes before each request's.
    pub(crate) url: Uri,
    /// Trust and client certificate.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// What `tls` was made of, if that is all: there is no client certificate, and the system's
    /// authorities are not asked.
    pub(crate) authorities: Option<Authorities>,
    /// The name to find in the server's certificate, if it is not the URL's.
    pub(crate) tls_name: Option<rustls::pki_types::ServerName<'static>>,
    /// What goes into the `Authorization` header.
    pub(crate) credential: Credential,
    /// Impersonation headers.
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source: Source::Infer,
            context: None,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            dead_after: Duration::from_secs(30),
            user_agent: concat!("calico/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Options {
    /// Returns options for the kubeconfig file at `path`, with the usual patience.
    #[must_use]
    pub fn kubeconfig(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::Kubeconfig(path.into()), ..Self::default() }
    }
}

/// Reads what the source of `options` names.
///
/// # Errors
///
/// [`Error::Config`] with the file and the remedy. It never quotes the file, which holds secrets.
pub(crate) fn load(options: &Options) -> Result<Server, Error> {
    let context = options.context.as_deref();
    match &options.source {
        Source::Kubeconfig(path) => from_file(path, context),
        Source::Inline(Inline(text)) => {
            let path = Path::new("given inline");
            let read = Kubeconfig::from_yaml(text).map_err(|error| unreadable(path, &error))?;
            from_kubeconfig(path, read, context)
        }
        Source::InCluster => in_cluster(),
        Source::Infer => infer(context),
    }
}

fn infer(context: Option<&str>) -> Result<Server, Error> {
    if let Some(paths) = env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        let path = PathBuf::from(paths);
        let read = Kubeconfig::read().map_err(|error| unreadable(&path, &error))?;
        return from_kubeconfig(&path, read, context);
    }
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    if let Some(path) = home.filter(|path| path.exists()) {
        return from_file(&path, context);
    }
    if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return in_cluster();
    }
    Err(problem(
        Path::new("~/.kube/config"),
        "no kubeconfig found and not in a pod; set KUBECONFIG to the path of a kubeconfig",
    ))
}

fn from_file(path: &Path, context: Option<&str>) -> Result<Server, Error> {
    let read = Kubeconfig::read_from(path).map_err(|error| unreadable(path, &error))?;
    from_kubeconfig(path, read, context)
}

fn from_kubeconfig(
    path: &Path,
    mut kubeconfig: Kubeconfig,
    context: Option<&str>,
) -> Result<Server, Error> {
    if let Some(context) = context {
        kubeconfig.current_context = Some(context.to_owned());
    }
    let current = kubeconfig.current_context.clone();
    if current.as_deref().unwrap_or_default().is_empty() {
        return Err(problem(path, "current-context is not set; set it to the name of a context"));
    }
    let has_ca = |cluster: &Cluster| {
        cluster.certificate_authority.is_some() || cluster.certificate_authority_data.is_some()
    };
    let with_ca = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()).any(has_ca);
    let proxy = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref())
        .find_map(|cluster| cluster.proxy_url.clone().filter(|url| !url.is_empty()));
    let config = kube::Config::try_from(kubeconfig).map_err(|error| unreadable(path, &error))?;
    if proxy.is_some() {
        return Err(problem(path, "proxy-url is not supported; name the API server itself"));
    }
    if with_ca && config.root_cert.as_ref().is_some_and(Vec::is_empty) {
        return Err(problem(
            path,
            "the certificate authority holds no PEM certificate; correct it",
        ));
    }
    server(path, config)
}

fn in_cluster() -> Result<Server, Error> {
    let path = Path::new(SERVICE_ACCOUNT);
    let config = kube::Config::incluster().map_err(|error| {
        let cause = chain(&error);
        problem(path, &format!("{cause}; run in a pod with a service account or set KUBECONFIG"))
    })?;
    server(path, config)
}

fn server(path: &Path, mut config: kube::Config) -> Result<Server, Error> {
    check_url(path, &config.cluster_url)?;
    let plain = config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTP);
    if (plain || config.accept_invalid_certs) && config.root_cert.is_none() {
        // Reading the system's store of certificates costs milliseconds and would not be used.
        config.root_cert = Some(Vec::new());
    }
    let credential = credential(path, &config.auth_info)?;
    let headers = impersonation(path, &config.auth_info)?;
    let tls_name = config.tls_server_name.clone().filter(|name| !name.is_empty());
    let tls_name = tls_name.map(|name| {
        name.clone().try_into().map_err(|_| {
            problem(path, &format!("tls-server-name {name:?} is neither a DNS name nor an address"))
        })
    });
    let user = &config.auth_info;
    let has_certificate =
        user.client_certificate.is_some() || user.client_certificate_data.is_some();
    let authorities = config.root_cert.clone().filter(|_| !has_certificate);
    // The provider is named because a second one in the program would make the choice ambiguous.
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = config.rustls_client_config().map_err(|error| {
        let cause = chain(&error);
        problem(path, &format!("{cause}; correct the certificates and the key it names"))
    })?;
    Ok(Server {
        url: config.cluster_url,
        tls: Arc::new(tls),
        authorities,
        tls_name: tls_name.transpose()?,
        credential,
        headers,
    })
}

fn check_url(path: &Path, url: &Uri) -> Result<(), Error> {
    let known = matches!(url.scheme_str(), Some("http" | "https"));
    if known && url.host().is_some_and(|host| !host.is_empty()) {
        return Ok(());
    }
    Err(problem(path, &format!("server {url} is not a URL; write https://HOST:PORT")))
}

fn credential(path: &Path, user: &AuthInfo) -> Result<Credential, Error> {
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err(problem(
            path,
            "credential plugins (exec, auth-provider) are not supported; \
             use token, tokenFile or a client certificate",
        ));
    }
    let credential = match (&user.token, &user.token_file, &user.username, &user.password) {
        (Some(token), ..) => Credential::token(token),
        (None, Some(file), ..) => Credential::token_file(PathBuf::from(file)),
        (None, None, Some(name), Some(password)) => Credential::basic(name, password),
        _ => Ok(Credential::none()),
    };
    credential.map_err(|cause| problem(path, &cause))
}

fn impersonation(
    path: &Path,
    user: &AuthInfo,
) -> Result<Vec<(http::HeaderName, http::HeaderValue)>, Error> {
    let groups = user.impersonate_groups.iter().flatten().map(|group| ("impersonate-group", group));
    let names = user.impersonate.iter().map(|name| ("impersonate-user", name));
    let uids = user.impersonate_uid.iter().map(|uid| ("impersonate-uid", uid));
    let header = |(name, value): (&'static str, &String)| {
        let value = http::HeaderValue::try_from(value).map_err(|_| {
            problem(path, &format!("{value:?} cannot be impersonated; use printable ASCII"))
        });
        value.map(|value| (http::HeaderName::from_static(name), value))
    };
    names.chain(uids).chain(groups).map(header).collect()
}

/// Describes `error` without the lines of the file that a YAML error would quote.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others quote names and paths only")]
fn unreadable(path: &Path, error: &KubeconfigError) -> Error {
    let cause = match error {
        KubeconfigError::Parse(cause) => match cause.location() {
            Some(place) => format!("it is not valid YAML at line {}", place.line()),
            None => "it is not valid YAML".to_owned(),
        },
        KubeconfigError::LoadClientKey(_) => {
            "the client key cannot be read; check client-key and client-key-data".to_owned()
        }
        other => chain(other),
    };
    problem(path, &format!("{cause}; correct the kubeconfig or its path"))
}

fn problem(path: &Path, problem: &str) -> Error {
    Error::Config { path: path.to_owned(), problem: problem.to_owned() }
}
