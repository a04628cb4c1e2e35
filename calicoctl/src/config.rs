//! Where the datastore is: `calicoctl.cfg`, or else the environment.
//!
//! As with Calico, a file is all there is: what it leaves out is not taken from the environment.
//! Variables may have the prefix `CALICO_`, which then goes before those without it.

use std::path::{Path, PathBuf};

use datastore::{Inline, Options, Source};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;

/// Where the file is, if no other is named.
pub const DEFAULT_FILE: &str = "/etc/calico/calicoctl.cfg";

/// What the file or the environment says; absent and empty are the same.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Settings {
    datastore_type: String,
    kubeconfig: String,
    kubeconfig_inline: String,
    #[serde(rename = "k8sAPIEndpoint")]
    endpoint: String,
    #[serde(rename = "k8sKeyFile")]
    key_file: String,
    #[serde(rename = "k8sCertFile")]
    certificate_file: String,
    #[serde(rename = "k8sCAFile")]
    ca_file: String,
    #[serde(rename = "k8sAPIToken")]
    token: Token,
    #[serde(rename = "k8sInsecureSkipTLSVerify")]
    is_insecure: bool,
    #[serde(rename = "k8sCurrentContext")]
    context: String,
}

/// A credential that is not to be seen.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// Decides how to reach the datastore.
///
/// `file` is the path and the text of the file, if there is one; `env` looks up variables.
///
/// # Errors
///
/// [`Error::Config`] and [`Error::Unreadable`], which never quote a credential.
pub fn options(
    file: Option<(&Path, &str)>,
    env: &dyn Fn(&str) -> Option<String>,
    context: Option<&str>,
) -> Result<Options, Error> {
    let (settings, origin) = match file {
        Some((path, text)) => (from_file(path, text)?, path.display().to_string()),
        None => (from_environment(env)?, "environment".to_owned()),
    };
    let wrong = |problem: String| Error::Config { origin: origin.clone(), problem };
    if !matches!(settings.datastore_type.as_str(), "" | "kubernetes") {
        return Err(wrong(format!(
            "datastore type `{}` is not supported: use kubernetes",
            settings.datastore_type
        )));
    }
    let context = context.map(str::to_owned).or_else(|| some(&settings.context));
    Ok(Options {
        source: source(&settings).map_err(wrong)?,
        context,
        user_agent: concat!("calicoctl/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..Options::default()
    })
}

/// Reads the file that holds the configuration, if it is there; one that was named must be.
///
/// # Errors
///
/// [`Error::File`].
pub fn read(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, Error> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
}

fn from_file(path: &Path, text: &str) -> Result<Settings, Error> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        kind: String,
        #[serde(default)]
        spec: Settings,
    }
    let wrong = |problem: String| Error::Unreadable { path: path.to_owned(), problem };
    // The parser's own words could quote the line, and with it a token.
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|place| format!(" at line {}", place.line()));
        wrong(format!("it is no CalicoAPIConfig in YAML{}: correct it", line.unwrap_or_default()))
    })?;
    if file.kind != "CalicoAPIConfig" {
        return Err(wrong(format!("kind `{}`: use CalicoAPIConfig", file.kind)));
    }
    Ok(file.spec)
}

fn from_environment(env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Error> {
    let value = |name: &str| {
        let prefixed = env(&format!("CALICO_{name}")).filter(|value| !value.is_empty());
        prefixed.or_else(|| env(name)).unwrap_or_default()
    };
    let insecure = value("K8S_INSECURE_SKIP_TLS_VERIFY");
    let is_insecure = match insecure.to_ascii_lowercase().as_str() {
        "" | "false" | "0" | "f" => false,
        "true" | "1" | "t" => true,
        _ => {
            return Err(Error::Config {
                origin: "environment".to_owned(),
                problem: format!("K8S_INSECURE_SKIP_TLS_VERIFY `{insecure}`: use true or false"),
            });
        }
    };
    Ok(Settings {
        datastore_type: value("DATASTORE_TYPE"),
        kubeconfig: value("KUBECONFIG"),
        kubeconfig_inline: value("KUBECONFIG_INLINE"),
        endpoint: value("K8S_API_ENDPOINT"),
        key_file: value("K8S_KEY_FILE"),
        certificate_file: value("K8S_CERT_FILE"),
        ca_file: value("K8S_CA_FILE"),
        token: Token(value("K8S_API_TOKEN")),
        is_insecure,
        context: value("K8S_CURRENT_CONTEXT"),
    })
}

fn source(settings: &Settings) -> Result<Source, String> {
    if !settings.kubeconfig_inline.is_empty() {
        return Ok(Source::Inline(Inline::new(settings.kubeconfig_inline.clone())));
    }
    // Several files, as kubectl takes them, are what `Infer` knows how to merge.
    if !settings.kubeconfig.is_empty() && !settings.kubeconfig.contains(':') {
        return Ok(Source::Kubeconfig(PathBuf::from(&settings.kubeconfig)));
    }
    if settings.endpoint.is_empty() {
        return Ok(Source::Infer);
    }
    if !settings.endpoint.contains("://") {
        return Err(format!(
            "k8sAPIEndpoint `{}` is no URL: write https://HOST:PORT",
            settings.endpoint
        ));
    }
    Ok(Source::Inline(Inline::new(kubeconfig(settings).to_string())))
}

/// Writes the single settings as a kubeconfig.
fn kubeconfig(settings: &Settings) -> Value {
    let some = |text: &str| some(text).map_or(Value::Null, Value::String);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "calicoctl",
        "clusters": [{"name": "calicoctl", "cluster": {
            "server": settings.endpoint,
            "certificate-authority": some(&settings.ca_file),
            "insecure-skip-tls-verify": settings.is_insecure,
        }}],
        "users": [{"name": "calicoctl", "user": {
            "token": some(&settings.token.0),
            "client-certificate": some(&settings.certificate_file),
            "client-key": some(&settings.key_file),
        }}],
        "contexts": [{"name": "calicoctl", "context": {"cluster": "calicoctl", "user": "calicoctl"}}],
    })
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datastore::Client;

    fn of_environment(variables: &[(&str, &str)]) -> Result<Options, Error> {
        let env = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        options(None, &env, None)
    }

    fn of_file(text: &str) -> Result<Options, Error> {
        options(
            Some((Path::new("/etc/calico/calicoctl.cfg"), text)),
            &|_| Some("x".to_owned()),
            None,
        )
    }

    #[test]
    fn the_environment_names_a_kubeconfig() {
        let source = |variables: &[(&str, &str)]| of_environment(variables).unwrap().source;
        let file = |path: &str| Source::Kubeconfig(PathBuf::from(path));
        assert_eq!(source(&[]), Source::Infer);
        assert_eq!(source(&[("KUBECONFIG", "/a"), ("DATASTORE_TYPE", "kubernetes")]), file("/a"));
        assert_eq!(source(&[("KUBECONFIG", "/a"), ("CALICO_KUBECONFIG", "/b")]), file("/b"));
        assert_eq!(source(&[("KUBECONFIG", "/a:/b")]), Source::Infer);
        let context = of_environment(&[("K8S_CURRENT_CONTEXT", "c")]).unwrap().context;
        assert_eq!(context.as_deref(), Some("c"));
    }

    #[test]
    fn single_settings_become_a_kubeconfig() {
        let variables = [
            ("K8S_API_ENDPOINT", "http://127.0.0.1:8080"),
            ("K8S_API_TOKEN", "canary-of-the-test"),
        ];
        let options = of_environment(&variables).unwrap();
        assert!(!format!("{options:?}").contains("canary"));
        assert_eq!(Client::connect(&options).unwrap().server(), "http://127.0.0.1:8080");
    }

    #[test]
    fn a_file_is_all_there_is() {
        let text = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  \
                    datastoreType: kubernetes\n  kubeconfig: /k\n  k8sCurrentContext: c\n";
        let options = of_file(text).unwrap();
        assert_eq!(options.source, Source::Kubeconfig(PathBuf::from("/k")));
        assert_eq!(options.context.as_deref(), Some("c"));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_remedy() {
        for (text, expected) in [
            ("kind: CalicoAPIConfig\nspec: {datastoreType: etcdv3}", "use kubernetes"),
            ("kind: CalicoAPIConfig\nspec: {k8sAPIEndpoint: 'host:1'}", "write https://HOST:PORT"),
            ("kind: Config", "use CalicoAPIConfig"),
            ("kind: CalicoAPIConfig\nspec: {k8sAPIToken: [canary]}", "correct it"),
        ] {
            let error = of_file(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("calicoctl.cfg"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let error = of_environment(&[("DATASTORE_TYPE", "etcdv3")]).unwrap_err().to_string();
        assert_eq!(error, "environment: datastore type `etcdv3` is not supported: use kubernetes");
    }
}
