//! What the node daemon has written for us: this node's name and MTU.

use std::io::ErrorKind;
use std::path::Path;
use std::{fs, io};

use cni::config::Nodename;
use cni::{Error, ErrorCode, NetworkConfig};
use model::id::NodeName;
use model::net::Mtu;

/// Where the node daemon writes the MTU for workloads.
const MTU_FILE: &str = "/var/lib/calico/mtu";

/// What is the same for every container of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Site {
    /// This node's name in the datastore.
    pub(crate) node: NodeName,
    /// The MTU of workloads' links; `None` is the kernel's default.
    pub(crate) mtu: Option<Mtu>,
}

impl Site {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TryAgainLater`] if the node daemon has not written them yet.
    pub(crate) fn read(config: &NetworkConfig) -> Result<Self, Error> {
        let node = node_name(&config.nodename, read_text, host_name)?;
        let mtu = match config.mtu {
            Some(mtu) => Some(mtu),
            None => match read_mtu(Path::new(MTU_FILE))? {
                None if config.is_mtu_file_required => {
                    let absent = io::Error::from(ErrorKind::NotFound);
                    return Err(not_ready("MTU", Path::new(MTU_FILE), &absent));
                }
                mtu => mtu,
            },
        };
        Ok(Self { node, mtu })
    }
}

/// Decides this node's name: `nodename`, the file, `hostname`, the machine's own name.
///
/// The file must exist even if its contents do not count, since it says that the
/// node daemon is ready.
pub(crate) fn node_name(
    config: &Nodename,
    read: impl FnOnce(&Path) -> io::Result<String>,
    host_name: impl FnOnce() -> String,
) -> Result<NodeName, Error> {
    let from_file = match read(&config.file) {
        Ok(text) => Some(text).filter(|text| !text.is_empty()),
        Err(error) if config.is_file_optional && error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(not_ready("node name", &config.file, &error)),
    };
    let configured = config.configured.clone();
    let name = configured.or(from_file).or_else(|| config.hostname.clone());
    name.unwrap_or_else(host_name).parse().map_err(|error| {
        let message = format!(
            "the node's name, from `nodename`, {} or the machine's name, is wrong",
            config.file.display()
        );
        let error: model::id::InvalidName = error;
        Error::new(ErrorCode::InvalidConfig, message).with_details(error.to_string())
    })
}

/// Reads the MTU file; `None` if there is none.
fn read_mtu(file: &Path) -> Result<Option<Mtu>, Error> {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(not_ready("MTU", file, &error)),
    };
    // Below 68 bytes a link cannot carry IPv4 (RFC 791).
    let mtu = text.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
    mtu.map(|mtu| Some(Mtu(mtu))).ok_or_else(|| {
        let message = format!(
            "the MTU file {} holds `{text}`: calico-node must write a number from 68 to 65535",
            file.display()
        );
        Error::new(ErrorCode::InvalidConfig, message)
    })
}

fn not_ready(what: &str, file: &Path, error: &io::Error) -> Error {
    let message = format!(
        "the {what} file {} cannot be read: check that the calico/node container is running \
         and has mounted /var/lib/calico/",
        file.display()
    );
    Error::new(ErrorCode::TryAgainLater, message).with_details(error.to_string())
}

fn read_text(file: &Path) -> io::Result<String> {
    fs::read_to_string(file).map(|text| text.trim().to_owned())
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(configured: Option<&str>, hostname: Option<&str>) -> Nodename {
        Nodename {
            configured: configured.map(str::to_owned),
            file: "/var/lib/calico/nodename".into(),
            hostname: hostname.map(str::to_owned),
            is_file_optional: true,
        }
    }

    #[test]
    fn the_first_source_that_knows_the_name_counts() {
        let name = |configured, file: &str, hostname| {
            let read = |_: &Path| Ok(file.to_owned());
            node_name(&config(configured, hostname), read, || "machine".to_owned())
                .unwrap()
                .to_string()
        };
        assert_eq!(name(Some("a"), "b", Some("c")), "a");
        assert_eq!(name(None, "b", Some("c")), "b");
        assert_eq!(name(None, "", Some("c")), "c");
        assert_eq!(name(None, "", None), "machine");
    }

    #[test]
    fn an_absent_file_means_try_later_unless_it_is_optional() {
        let absent = |_: &Path| Err(io::Error::from(ErrorKind::NotFound));
        let mut config = config(Some("a"), None);
        assert_eq!(node_name(&config, absent, String::new).unwrap().as_str(), "a");
        config.is_file_optional = false;
        let error = node_name(&config, absent, String::new).unwrap_err();
        assert_eq!(error.code, ErrorCode::TryAgainLater);
        assert_eq!(
            error.message,
            "the node name file /var/lib/calico/nodename cannot be read: check that the \
             calico/node container is running and has mounted /var/lib/calico/"
        );
    }

    #[test]
    fn a_wrong_name_is_refused() {
        let read = |_: &Path| Ok("Node_1".to_owned());
        let error = node_name(&config(None, None), read, String::new).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
    }

    #[test]
    fn the_mtu_file_may_be_absent_but_not_wrong() {
        assert_eq!(read_mtu(Path::new("/nonexistent/mtu")), Ok(None));
        let wrong = read_mtu(Path::new("/proc/sys/kernel/ostype")).unwrap_err();
        assert_eq!(wrong.code, ErrorCode::InvalidConfig);
    }
}
