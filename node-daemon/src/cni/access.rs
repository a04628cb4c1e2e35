//! The plugin's credentials: a token of its service account, in a kubeconfig.

use std::path::Path;

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
}

/// A kubeconfig and the token in it; neither is ever shown.
pub(crate) struct Credentials {
    /// The whole file.
    pub(crate) text: SecretString,
    /// The token.
    pub(crate) token: Token,
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
    let authority = match &access.authority {
        Some(path) => Some(files::read(path, LIMIT)?),
        None => None,
    };
    let text = kubeconfig(&access.server, authority.as_deref(), token.secret.expose_secret());
    Ok(Credentials { text: SecretString::from(text), token })
}

/// Asks something of the API server with the plugin's credentials.
pub(crate) async fn probe(credentials: &SecretString) -> Result<(), datastore::Error> {
    let source = Source::Inline(Inline::new(credentials.expose_secret()));
    let user_agent = concat!("calico-cni-probe/", env!("CARGO_PKG_VERSION")).to_owned();
    let client = Client::connect(&Options { source, user_agent, ..Options::default() })?;
    // Whether there is one yet does not matter: the first calico-node makes it.
    client.get_recent::<ClusterInformation>("default").await.map(drop)
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
