//! What this node is called in the datastore.

use std::path::Path;
use std::{fs, io};

use cni::config::Nodename;
use model::id::NodeName;

use crate::Error;

/// Where the kernel says what the host is called.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Finds the node's name: `nodename`, the file that calico-node writes, the
/// older `hostname`, or the host's own name in lower case; the first counts.
///
/// The file must exist even if its contents do not count, unless it is
/// optional: it says that calico-node is ready.
///
/// # Errors
///
/// [`Error::NoNodeName`] if the file is missing, or the name cannot be a node's.
pub fn find(wanted: &Nodename) -> Result<NodeName, Error> {
    let from_file = match fs::read_to_string(&wanted.file) {
        Ok(name) => Some(name.trim().to_owned()).filter(|name| !name.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && wanted.is_file_optional => None,
        Err(error) => return Err(missing(&wanted.file, &error)),
    };
    let named = wanted.configured.clone().or(from_file).or_else(|| wanted.hostname.clone());
    if let Some(name) = named {
        return parse(&name, &wanted.file);
    }
    let path = Path::new(HOSTNAME);
    let name = fs::read_to_string(path).map_err(|error| missing(path, &error))?;
    parse(&name.to_lowercase(), path)
}

fn parse(text: &str, path: &Path) -> Result<NodeName, Error> {
    text.trim().parse().map_err(|error| missing(path, &error))
}

fn missing(path: &Path, problem: &dyn ToString) -> Error {
    Error::NoNodeName { path: path.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn wanted(configured: Option<&str>, file: &str) -> Nodename {
        Nodename {
            configured: configured.map(str::to_owned),
            file: PathBuf::from(file),
            hostname: None,
            is_file_optional: false,
        }
    }

    #[test]
    fn the_configuration_goes_first_then_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nodename");
        fs::write(&file, "node-1\n").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(find(&wanted(Some("other"), file)).unwrap().as_str(), "other");
        assert_eq!(find(&wanted(None, file)).unwrap().as_str(), "node-1");
    }

    #[test]
    fn a_missing_file_means_try_again_later() {
        let error = find(&wanted(None, "/nonexistent/nodename")).unwrap_err();
        assert_eq!(error.code(), cni::ErrorCode::TryAgainLater);
        let text = error.to_string();
        assert!(text.contains("/nonexistent/nodename: No such file"), "{text}");
        assert!(text.contains("calico/node container is running"), "{text}");
    }

    #[test]
    fn the_hosts_name_does_where_the_file_is_optional() {
        let optional = Nodename { is_file_optional: true, ..wanted(None, "/nonexistent/nodename") };
        let host = fs::read_to_string(HOSTNAME).unwrap();
        assert_eq!(find(&optional).unwrap().as_str(), host.trim().to_lowercase());
    }
}
