//! The plugin's credentials: a token of its service account, in a kubeconfig.

use std::path::{Path, PathBuf};

use api::ClusterInformation;
use base64::Engine as _;
use datastore::{Client, Inline, Options, Source, Token};
use kernel::files;
use secrecy::{ExposeSecret as _, SecretString};

use super::renewal::LIFETIME;
use super::settings::Access;

/// Where a kubelet mounts what belongs to our service account.
const OWN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longer than any authority's certificates.
const LIMIT: u64 = 1 << 20;
/// Only root may read credentials.
const SECRET: u32 = 0o600;

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A token that would break out of its line.
    #[error("the API server made a token with characters that no token has; look at its proxies")]
    OddToken,
    /// Certificates that nobody could trust.
    #[error(
        "the certificate authority in {} cannot be given to the CNI plugin, which keeps the one of \
         before: {problem}",
        path.display()
    )]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: datastore::Error,
    },
}

/// A kubeconfig and what is in it; the token is never shown.
pub(crate) struct Credentials {
    /// The whole file.
    pub(crate) text: SecretString,
    /// The token.
    pub(crate) token: Token,
    /// The certificates of the API server's authority; `None` trusts anybody.
    pub(crate) authority: Option<String>,
}

impl Credentials {
    /// Puts a token into a kubeconfig, beside the authority that we are given at this time.
    ///
    /// # Errors
    ///
    /// [`Error`] if the authority is none, such as a file that is just being written.
    fn new(access: &Access, token: Token) -> Result<Self, Error> {
        let authority = access.authority.as_deref().map(|path| files::read(path, LIMIT));
        let authority = authority.transpose()?;
        let text = kubeconfig(&access.server, authority.as_deref(), token.secret.expose_secret());
        let text = SecretString::from(text);
        connect(&text).map_err(|problem| Error::Authority {
            path: access.authority.clone().unwrap_or_default(),
            problem,
        })?;
        Ok(Self { text, token, authority })
    }

    /// Returns the same token beside the authority that we are given now.
    pub(crate) fn trusting_anew(&self, access: &Access) -> Result<Self, Error> {
        Self::new(access, self.token.clone())
    }

    /// Whether we are given another authority now. One that cannot be read is none: kubelet takes
    /// the files of before away in a moment's time, when it writes new ones.
    pub(crate) fn is_of_other_authority(&self, access: &Access) -> bool {
        let Some(path) = &access.authority else { return false };
        files::read(path, LIMIT).is_ok_and(|found| self.authority.as_ref() != Some(&found))
    }
}

/// Returns the path of something of our own service account.
pub(crate) fn own(name: &str) -> String {
    format!("{OWN}/{name}")
}

/// Returns the namespace that we run in; outside of a pod the usual one.
pub(crate) fn own_namespace() -> String {
    let found = files::read(Path::new(&own("namespace")), LIMIT);
    found.map_or_else(|_| "kube-system".to_owned(), |text| text.trim().to_owned())
}

/// Asks for a new token.
pub(crate) async fn request(client: &Client, access: &Access) -> Result<Credentials, Error> {
    let token = client.create_token(&access.namespace, &access.account, LIFETIME).await?;
    let is_odd = |byte: u8| !byte.is_ascii_alphanumeric() && !b"-_.=".contains(&byte);
    if token.secret.expose_secret().bytes().any(is_odd) {
        return Err(Error::OddToken);
    }
    Credentials::new(access, token)
}

/// Asks something of the API server with the plugin's credentials.
pub(crate) async fn probe(credentials: &SecretString) -> Result<(), datastore::Error> {
    // Whether there is one yet does not matter: the first calico-node makes it.
    connect(credentials)?.get_recent::<ClusterInformation>("default").await.map(drop)
}

/// Prepares a connection with the plugin's credentials; asks nobody.
fn connect(credentials: &SecretString) -> Result<Client, datastore::Error> {
    let source = Source::Inline(Inline::new(credentials.expose_secret()));
    let user_agent = concat!("calico-cni-probe/", env!("CARGO_PKG_VERSION")).to_owned();
    Client::connect(&Options { source, user_agent, ..Options::default() })
}

/// Writes the credentials; only root can read them, and nobody meets half of them.
pub(crate) fn write(path: &Path, text: &SecretString) -> Result<(), files::Error> {
    files::write(path, text.expose_secret().as_bytes(), SECRET)
}

/// Whether the file is what was written, for root's eyes only.
pub(crate) fn is_in_place(path: &Path, text: &SecretString) -> bool {
    let mode = std::fs::symlink_metadata(path).map(|found| {
        use std::os::unix::fs::PermissionsExt as _;
        found.is_file() && found.permissions().mode() & 0o7777 == SECRET
    });
    mode.unwrap_or_default()
        && files::read(path, LIMIT).is_ok_and(|found| found == text.expose_secret())
}

/// The names in it are Calico's.
fn kubeconfig(server: &str, authority: Option<&str>, token: &str) -> String {
    let trust = match authority {
        Some(pem) => {
            let data = base64::engine::general_purpose::STANDARD.encode(pem);
            format!("certificate-authority-data: \"{data}\"")
        }
        None => "insecure-skip-tls-verify: true".to_owned(),
    };
    format!(
        "# Written by calico-node for the CNI plugin, and renewed by it: changes do not last.\n\
         apiVersion: v1\nkind: Config\nclusters:\n- name: local\n  cluster:\n    \
         server: {server}\n    {trust}\nusers:\n- name: calico\n  user:\n    token: \"{token}\"\n\
         contexts:\n- name: calico-context\n  context:\n    cluster: local\n    user: calico\n\
         current-context: calico-context\n"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_kubeconfig_has_calicos_names() {
        let expected = "\
# Written by calico-node for the CNI plugin, and renewed by it: changes do not last.
apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    server: https://[fd00::1]:443
    certificate-authority-data: \"UEVN\"
users:
- name: calico
  user:
    token: \"abc\"
contexts:
- name: calico-context
  context:
    cluster: local
    user: calico
current-context: calico-context
";
        assert_eq!(kubeconfig("https://[fd00::1]:443", Some("PEM"), "abc"), expected);
        let open = kubeconfig("https://x:443", None, "abc");
        assert!(open.contains("insecure-skip-tls-verify: true"), "{open}");
    }

    #[tokio::test]
    async fn another_authority_comes_beside_the_same_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let access = Access {
            server: "https://10.96.0.1:443".to_owned(),
            authority: Some(path.clone()),
            namespace: "kube-system".to_owned(),
            account: "calico-cni-plugin".to_owned(),
        };
        let pem = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
        };
        let data = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        let (old, new) = (pem(), pem());
        let token = || Token { secret: SecretString::from("canary"), lifetime: LIFETIME };
        std::fs::write(&path, &old).unwrap();
        let mut credentials = Credentials::new(&access, token()).unwrap();
        assert!(!credentials.is_of_other_authority(&access));
        for now in [format!("{old}{new}"), new.clone()] {
            std::fs::write(&path, &now).unwrap();
            assert!(credentials.is_of_other_authority(&access));
            credentials = credentials.trusting_anew(&access).unwrap();
            let text = credentials.text.expose_secret();
            assert!(text.contains(&data(&now)) && text.contains("token: \"canary\""), "{text}");
            assert!(!credentials.is_of_other_authority(&access));
        }
        // What is half written is not for the plugin.
        for broken in ["", "-----BEGIN CERTIFICATE-----\nMIIB"] {
            std::fs::write(&path, broken).unwrap();
            let error = credentials.trusting_anew(&access).err().unwrap().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(error.contains("which keeps the one of before"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!credentials.is_of_other_authority(&access), "files are swapped");
        let unchecked = Access { authority: None, ..access };
        assert!(!credentials.is_of_other_authority(&unchecked));
    }

    #[test]
    fn others_must_not_be_able_to_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calico-kubeconfig");
        let text = SecretString::from("token: abc");
        assert!(!is_in_place(&path, &text), "missing");
        write(&path, &text).unwrap();
        assert!(is_in_place(&path, &text));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!is_in_place(&path, &text), "everybody could read it");
        assert!(!is_in_place(&path, &SecretString::from("other")));
    }
}
