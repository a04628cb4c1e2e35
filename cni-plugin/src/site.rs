//! What the node daemon has written for us: this node's name and MTU.

use std::io::ErrorKind;
use std::path::Path;
use std::{fs, io};

use cni::nodename::{self, not_ready};
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
    /// [`ErrorCode::NodeNotSetUp`] and [`ErrorCode::MtuFile`] if the node daemon has not written
    /// them yet.
    pub(crate) fn read(config: &NetworkConfig) -> Result<Self, Error> {
        let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file))?;
        let mtu = match config.mtu {
            Some(mtu) => Some(mtu),
            None => match read_mtu(Path::new(MTU_FILE))? {
                None if config.is_mtu_file_required => {
                    let absent = io::Error::from(ErrorKind::NotFound);
                    return Err(not_ready(ErrorCode::MtuFile, "MTU", Path::new(MTU_FILE), &absent));
                }
                mtu => mtu,
            },
        };
        Ok(Self { node, mtu })
    }
}

/// Reads the MTU file; `None` if there is none.
fn read_mtu(file: &Path) -> Result<Option<Mtu>, Error> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(not_ready(ErrorCode::MtuFile, "MTU", file, &error)),
    };
    // Below 68 bytes a link cannot carry IPv4 (RFC 791).
    let mtu = text.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
    mtu.map(|mtu| Some(Mtu(mtu))).ok_or_else(|| {
        let message = format!(
            "the MTU file {} holds `{text}`: calico-node must write a number from 68 to 65535",
            file.display()
        );
        Error::new(ErrorCode::MtuFile, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_file_may_be_absent_but_not_wrong() {
        assert_eq!(read_mtu(Path::new("/nonexistent/mtu")), Ok(None));
        let wrong = read_mtu(Path::new("/proc/sys/kernel/ostype")).unwrap_err();
        assert_eq!(wrong.code, ErrorCode::MtuFile);
    }
}
