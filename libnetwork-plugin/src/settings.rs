//! What the environment says: names of Calico's libnetwork plugin, and of its other programs.

use std::path::PathBuf;
use std::time::Duration;

use model::id::NodeName;
use model::net::{IfName, Mtu};

use crate::error::Error;

/// The longest name of an interface that Docker numbers.
const LONGEST_PREFIX: usize = 11;

/// What administrators decide.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// This node.
    pub(crate) node: NodeName,
    /// How to reach the datastore.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where Docker answers.
    pub(crate) docker_socket: PathBuf,
    /// Where Docker looks for plugins.
    pub(crate) plugin_dir: PathBuf,
    /// Where we keep what must survive us, but not the machine's restart.
    pub(crate) state_dir: PathBuf,
    /// Where we keep what must survive that, too.
    pub(crate) data_dir: PathBuf,
    /// The lock of all on this host who write to address management.
    pub(crate) ipam_lock_file: PathBuf,
    /// Where calico-node writes the MTU of workloads.
    pub(crate) mtu_file: PathBuf,
    /// Is a profile made for each network, and given to its endpoints?
    pub(crate) creates_profiles: bool,
    /// Do labels of containers become labels of endpoints?
    pub(crate) labels_endpoints: bool,
    /// The MTU of containers, if it is not that which calico-node says.
    pub(crate) mtu: Option<Mtu>,
    /// How interfaces in containers are called; Docker adds a number.
    pub(crate) container_prefix: String,
    /// How long what nobody owns is left alone: somebody may be about to.
    pub(crate) grace: Duration,
    /// How often everything is looked at though nothing happens.
    pub(crate) period: Duration,
    /// Whether much is logged.
    pub(crate) is_debug: bool,
}

impl Settings {
    /// Reads the settings; `variable` returns what the environment says.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with the variable, its value and what to write.
    pub(crate) fn read(
        node: NodeName,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let text = |name: &str| variable(name).filter(|text| !text.is_empty());
        let path = |name: &str, default: &str| text(name).map_or(default.into(), PathBuf::from);
        let switch = |name: &str, default: bool| match text(name).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "yes") => Ok(true),
            Some("false" | "0" | "no") => Ok(false),
            Some(other) => Err(Error::wrong(format!("{name}={other}: use true or false"))),
        };
        let seconds = |name: &str, default: u64| match text(name).map(|text| text.parse::<u64>()) {
            None => Ok(Duration::from_secs(default)),
            Some(Ok(number)) => Ok(Duration::from_secs(number)),
            Some(Err(_)) => Err(Error::wrong(format!("{name}: use a number of seconds"))),
        };
        let container_prefix =
            text("CALICO_LIBNETWORK_IFPREFIX").unwrap_or_else(|| "cali".to_owned());
        if container_prefix.len() > LONGEST_PREFIX || container_prefix.parse::<IfName>().is_err() {
            let wrong = format!(
                "CALICO_LIBNETWORK_IFPREFIX={container_prefix}: use at most {LONGEST_PREFIX} \
                 characters without `/`, `:` or spaces"
            );
            return Err(Error::wrong(wrong));
        }
        Ok(Self {
            node,
            kubeconfig: text("KUBECONFIG").map(PathBuf::from),
            docker_socket: path("CALICO_DOCKER_SOCKET", "/var/run/docker.sock"),
            plugin_dir: path("CALICO_DOCKER_PLUGIN_DIR", "/run/docker/plugins"),
            state_dir: path("CALICO_DOCKER_STATE_DIR", "/run/calico/libnetwork"),
            data_dir: path("CALICO_DOCKER_DATA_DIR", "/var/lib/calico/libnetwork"),
            ipam_lock_file: path("CALICO_IPAM_LOCK_FILE", "/var/run/calico/ipam.lock"),
            mtu_file: path("CALICO_MTU_FILE", "/var/lib/calico/mtu"),
            creates_profiles: switch("CALICO_LIBNETWORK_CREATE_PROFILES", true)?,
            labels_endpoints: switch("CALICO_LIBNETWORK_LABEL_ENDPOINTS", true)?,
            mtu: mtu(text("CALICO_LIBNETWORK_VETH_MTU"))?,
            container_prefix,
            grace: seconds("CALICO_LIBNETWORK_RELEASE_GRACE", 60)?,
            period: seconds("CALICO_LIBNETWORK_RESYNC_PERIOD", 60)?,
            is_debug: switch("CALICO_DEBUG", false)?,
        })
    }
}

/// Reads an MTU: what IPv4 needs at least, and what a link can carry at most.
fn mtu(text: Option<String>) -> Result<Option<Mtu>, Error> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<u32>() {
        Ok(number @ 68..=65_535) => Ok(Some(Mtu(number))),
        Ok(_) | Err(_) => {
            Err(Error::wrong(format!("CALICO_LIBNETWORK_VETH_MTU={text}: use 68 to 65535")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        let node = "node-1".parse().unwrap();
        Settings::read(node, |name| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_need_be_set() {
        let settings = read(&[]).unwrap();
        assert!(settings.creates_profiles && settings.labels_endpoints);
        assert_eq!(settings.container_prefix, "cali");
        assert_eq!(settings.mtu, None);
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [
            ("CALICO_LIBNETWORK_CREATE_PROFILES", "maybe"),
            ("CALICO_LIBNETWORK_VETH_MTU", "67"),
            ("CALICO_LIBNETWORK_VETH_MTU", "x"),
            ("CALICO_LIBNETWORK_IFPREFIX", "much-too-long"),
            ("CALICO_LIBNETWORK_RELEASE_GRACE", "soon"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
