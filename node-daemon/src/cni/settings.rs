//! The environment of `install-cni`, with Calico's names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Where the node's directories are mounted in our container.
const MOUNTED_CONFIG: &str = "/host/etc/cni/net.d";
/// Where plugins go; the second is for distributions that look elsewhere.
const MOUNTED_PLUGINS: [&str; 2] = ["/host/opt/cni/bin", "/host/secondary-bin-dir"];
/// The name of the file with the plugin's credentials.
pub(crate) const KUBECONFIG: &str = "calico-kubeconfig";

/// A variable that cannot be followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{variable} is `{value}`, {problem}")]
pub(crate) struct Wrong {
    variable: &'static str,
    value: String,
    problem: &'static str,
}

/// Where the API server is for the plugin, and as whom it goes there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Access {
    /// The URL of the API server.
    pub(crate) server: String,
    /// The certificates of its authority; `None` trusts anybody.
    pub(crate) authority: Option<PathBuf>,
    /// The namespace of the plugin's service account, which is ours.
    pub(crate) namespace: String,
    /// The plugin's service account.
    pub(crate) account: String,
}

/// What to install and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    /// Where the plugins come from.
    pub(crate) source: PathBuf,
    /// Where they go; what is not mounted is left out.
    pub(crate) plugin_dirs: Vec<PathBuf>,
    /// Plugins that are left out.
    pub(crate) skipped: BTreeSet<String>,
    /// Whether plugins that are there are replaced.
    pub(crate) is_update: bool,
    /// The directory of the configuration, as we see it.
    pub(crate) mounted_dir: PathBuf,
    /// The same directory, as the node sees it.
    pub(crate) node_dir: PathBuf,
    /// The name of the configuration.
    pub(crate) name: String,
    /// The name that it had before.
    pub(crate) old_name: Option<String>,
    /// The configuration, if it is given here.
    pub(crate) template: Option<String>,
    /// The file with the configuration, if it is given there.
    pub(crate) template_file: Option<PathBuf>,
    /// Values for the placeholders that come from variables of their own.
    pub(crate) values: BTreeMap<&'static str, String>,
    /// How the plugin reaches the API server.
    pub(crate) access: Access,
    /// Whether to stay and keep the credentials fresh.
    pub(crate) stays: bool,
}

/// Placeholders, the variables that they come from, and what stands where these are not set.
const VALUES: &[(&str, &str, &str)] = &[
    ("__LOG_LEVEL__", "LOG_LEVEL", "info"),
    ("__LOG_FILE_PATH__", "LOG_FILE_PATH", "/var/log/calico/cni/cni.log"),
    ("__LOG_FILE_MAX_SIZE__", "LOG_FILE_MAX_SIZE", "100"),
    ("__LOG_FILE_MAX_AGE__", "LOG_FILE_MAX_AGE", "30"),
    ("__LOG_FILE_MAX_COUNT__", "LOG_FILE_MAX_COUNT", "10"),
    ("__DATASTORE_TYPE__", "DATASTORE_TYPE", "kubernetes"),
    ("__CNI_MTU__", "CNI_MTU", "1500"),
    ("__CALICO_API_GROUP__", "CALICO_API_GROUP", "crd.projectcalico.org/v1"),
    ("__REQUIRE_MTU_FILE__", "REQUIRE_MTU_FILE", "false"),
    ("__ASSIGN_IPV4__", "ASSIGN_IPV4", "true"),
    ("__ASSIGN_IPV6__", "ASSIGN_IPV6", "false"),
    ("__KUBERNETES_SERVICE_HOST__", "KUBERNETES_SERVICE_HOST", ""),
    ("__KUBERNETES_SERVICE_PORT__", "KUBERNETES_SERVICE_PORT", "443"),
];

/// The variables of a process.
pub(crate) type Environment = BTreeMap<String, String>;

impl Settings {
    /// Reads the settings; `namespace` is that of our own service account.
    ///
    /// # Errors
    ///
    /// [`Wrong`] with the first variable that cannot be followed.
    pub(crate) fn read(environment: &Environment, namespace: &str) -> Result<Self, Wrong> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let or = |name: &str, default: &str| get(name).map_or(default, String::as_str).to_owned();
        let name = file_name("CNI_CONF_NAME", or("CNI_CONF_NAME", "10-calico.conflist"))?;
        let old_name = get("CNI_OLD_CONF_NAME").filter(|old| **old != name);
        let old_name =
            old_name.map(|old| file_name("CNI_OLD_CONF_NAME", old.clone())).transpose()?;
        let value = |(placeholder, variable, default): &(&'static str, &str, &str)| {
            (*placeholder, or(variable, default))
        };
        let mut values: BTreeMap<&'static str, String> = VALUES.iter().map(value).collect();
        let node = get("KUBERNETES_NODE_NAME").or_else(|| get("NODENAME")).cloned();
        values.insert("__KUBERNETES_NODE_NAME__", node.unwrap_or_default());
        Ok(Self {
            source: PathBuf::from("/opt/cni/bin"),
            plugin_dirs: MOUNTED_PLUGINS.map(PathBuf::from).into(),
            skipped: words(&or("SKIP_CNI_BINARIES", "")),
            is_update: switch(environment, "UPDATE_CNI_BINARIES", true)?,
            mounted_dir: PathBuf::from(MOUNTED_CONFIG),
            node_dir: PathBuf::from(or("CNI_NET_DIR", "/etc/cni/net.d")),
            name,
            old_name,
            template: get("CNI_NETWORK_CONFIG").cloned(),
            template_file: get("CNI_NETWORK_CONFIG_FILE").map(PathBuf::from),
            values,
            access: Access::read(environment, namespace)?,
            stays: switch(environment, "SLEEP", true)?,
        })
    }

    /// Returns the path of the credentials, as we see it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.mounted_dir.join(KUBECONFIG)
    }

    /// Returns the path of the configuration, as we see it.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.mounted_dir.join(&self.name)
    }
}

impl Access {
    /// Reads how the plugin reaches the API server.
    ///
    /// # Errors
    ///
    /// [`Wrong`] if there is no API server, as outside of a pod.
    pub(crate) fn read(environment: &Environment, namespace: &str) -> Result<Self, Wrong> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let host = get("KUBERNETES_SERVICE_HOST").ok_or_else(|| Wrong {
            variable: "KUBERNETES_SERVICE_HOST",
            value: String::new(),
            problem: "so there is no API server to name to the plugin: run in a pod, or set it",
        })?;
        let protocol = get("KUBERNETES_SERVICE_PROTOCOL").map_or("https", String::as_str);
        let port = get("KUBERNETES_SERVICE_PORT").map_or("443", String::as_str);
        let host = match host.parse::<Ipv6Addr>() {
            Ok(addr) => format!("[{addr}]"),
            Err(_) => host.clone(),
        };
        let is_host = host.parse::<IpAddr>().is_ok() || host.starts_with('[') || is_plain(&host);
        if !is_host || !port.bytes().all(|byte| byte.is_ascii_digit()) || !is_plain(protocol) {
            let problem = "with its protocol and port no URL: correct them";
            return Err(Wrong { variable: "KUBERNETES_SERVICE_HOST", value: host, problem });
        }
        let is_unchecked = switch(environment, "SKIP_TLS_VERIFY", false)?;
        let authority =
            get("KUBE_CA_FILE").cloned().unwrap_or_else(|| super::access::own("ca.crt"));
        let account = get("CALICO_CNI_SERVICE_ACCOUNT").map_or("calico-cni-plugin", String::as_str);
        Ok(Self {
            server: format!("{protocol}://{host}:{port}"),
            authority: (!is_unchecked).then(|| PathBuf::from(authority)),
            namespace: namespace.to_owned(),
            account: account.to_owned(),
        })
    }
}

/// Returns where the credentials are for the daemon, if that directory is mounted.
pub(crate) fn mounted_kubeconfig() -> Option<PathBuf> {
    let dir = Path::new(MOUNTED_CONFIG);
    dir.is_dir().then(|| dir.join(KUBECONFIG))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// Returns the name of a file that stays in its directory.
fn file_name(variable: &'static str, value: String) -> Result<String, Wrong> {
    if value.contains('/') || value.starts_with('.') {
        let problem = "which is no name of a file: write one such as 10-calico.conflist";
        return Err(Wrong { variable, value, problem });
    }
    Ok(value)
}

fn switch(environment: &Environment, name: &'static str, default: bool) -> Result<bool, Wrong> {
    let Some(value) = environment.get(name).filter(|value| !value.is_empty()) else {
        return Ok(default);
    };
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => {
            let value = value.clone();
            Err(Wrong { variable: name, value, problem: "neither true nor false" })
        }
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Returns the settings of a pod whose environment has these variables beside the usual.
#[cfg(test)]
pub(super) fn tests_settings(pairs: &[(&str, &str)]) -> Result<Settings, Wrong> {
    let mut environment = Environment::new();
    for (name, value) in [("KUBERNETES_SERVICE_HOST", "10.96.0.1")].iter().chain(pairs) {
        environment.insert((*name).to_owned(), (*value).to_owned());
    }
    Settings::read(&environment, "kube-system")
}

#[cfg(test)]
mod tests {
    use super::tests_settings as read;
    use super::*;

    #[test]
    fn the_defaults_are_calicos() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.configuration(), Path::new("/host/etc/cni/net.d/10-calico.conflist"));
        assert_eq!(settings.kubeconfig(), Path::new("/host/etc/cni/net.d/calico-kubeconfig"));
        assert_eq!(settings.access.server, "https://10.96.0.1:443");
        assert_eq!(settings.access.account, "calico-cni-plugin");
        assert!(settings.is_update && settings.stays);
    }

    #[test]
    fn an_ipv6_server_gets_brackets() {
        let settings = read(&[("KUBERNETES_SERVICE_HOST", "fd00::1")]).unwrap();
        assert_eq!(settings.access.server, "https://[fd00::1]:443");
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        for (name, value, says) in [
            ("CNI_CONF_NAME", "../shadow", "no name of a file"),
            ("CNI_OLD_CONF_NAME", ".x", "no name of a file"),
            ("SLEEP", "maybe", "neither true nor false"),
            ("KUBERNETES_SERVICE_HOST", "", "no API server"),
            ("KUBERNETES_SERVICE_HOST", "a b", "no URL"),
            ("KUBERNETES_SERVICE_PORT", "x", "no URL"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn an_old_name_that_is_the_name_is_none() {
        assert_eq!(read(&[("CNI_OLD_CONF_NAME", "10-calico.conflist")]).unwrap().old_name, None);
        let old = read(&[("CNI_OLD_CONF_NAME", "10-calico.conf")]).unwrap().old_name;
        assert_eq!(old.as_deref(), Some("10-calico.conf"));
    }
}
