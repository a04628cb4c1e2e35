//! What this node is called in the datastore; both plugins decide it by the same rules.
//!
//! The node daemon writes the name into a file and so says that it is ready: until then
//! a call is answered with [`ErrorCode::NodeNotSetUp`]. The files are read by the caller.

use std::io;
use std::path::Path;

use model::id::NodeName;

use crate::config::Nodename;
use crate::{Error, ErrorCode};

/// Where the kernel says what the machine is called.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// Decides this node's name: `nodename`, the file that the node daemon writes, `hostname`,
/// or the machine's own name in lower case; the first counts.
///
/// `read` returns what a file holds. The node daemon's file must exist even if its contents
/// do not count, unless it is optional; the machine's own name is only read at last.
///
/// # Errors
///
/// [`ErrorCode::NodeNotSetUp`] if the file cannot be read, [`ErrorCode::InvalidConfig`] if
/// the name cannot be a node's.
pub fn decide(
    config: &Nodename,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<NodeName, Error> {
    let from_file = match read(&config.file) {
        Ok(text) => Some(text).filter(|text| !text.trim().is_empty()),
        Err(error) if config.is_file_optional && error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(not_ready(ErrorCode::NodeNotSetUp, "node name", &config.file, &error));
        }
    };
    let named = config.configured.clone().or(from_file).or_else(|| config.hostname.clone());
    let name = match named {
        Some(name) => name,
        None => read(Path::new(HOST_NAME_FILE))
            .map_err(|error| wrong(config, &format!("{HOST_NAME_FILE}: {error}")))?
            .to_lowercase(),
    };
    name.trim().parse().map_err(|error: model::id::InvalidName| wrong(config, &error.to_string()))
}

/// Returns the error for a file with the node's `what` that the node daemon should have written.
#[must_use]
pub fn not_ready(code: ErrorCode, what: &str, file: &Path, error: &io::Error) -> Error {
    let message = format!(
        "the {what} file {} cannot be read: check that the calico/node container is running \
         and has mounted /var/lib/calico/",
        file.display()
    );
    Error::new(code, message).with_details(error.to_string())
}

fn wrong(config: &Nodename, problem: &str) -> Error {
    let message = format!(
        "the node's name, from `nodename`, {} or the machine's name, is wrong",
        config.file.display()
    );
    Error::new(ErrorCode::InvalidConfig, message).with_details(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/var/lib/calico/nodename";

    fn config(configured: Option<&str>, hostname: Option<&str>) -> Nodename {
        Nodename {
            configured: configured.map(str::to_owned),
            file: FILE.into(),
            hostname: hostname.map(str::to_owned),
            is_file_optional: true,
        }
    }

    /// A machine that is called "Machine"; `file` is what the node daemon has written.
    fn files(file: Option<&str>) -> impl Fn(&Path) -> io::Result<String> {
        move |path| match (path.to_str().unwrap(), file) {
            (FILE, Some(text)) => Ok(text.to_owned()),
            (HOST_NAME_FILE, _) => Ok("Machine\n".to_owned()),
            _ => Err(io::Error::from_raw_os_error(2)),
        }
    }

    #[test]
    fn the_first_source_that_knows_the_name_counts() {
        for (configured, file, hostname, name) in [
            (Some("a"), Some("b\n"), Some("c"), "a"),
            (Some("a"), None, Some("c"), "a"),
            (None, Some("b\n"), Some("c"), "b"),
            (None, Some("\n"), Some("c"), "c"),
            (None, None, Some("c"), "c"),
            (None, Some(""), None, "machine"),
            (None, None, None, "machine"),
        ] {
            let decided = decide(&config(configured, hostname), files(file)).unwrap();
            assert_eq!(decided.as_str(), name, "{configured:?} {file:?} {hostname:?}");
        }
    }

    #[test]
    fn the_machines_own_name_is_only_read_at_last() {
        let read = |path: &Path| {
            assert_eq!(path, Path::new(FILE));
            Ok("b".to_owned())
        };
        assert_eq!(decide(&config(None, None), read).unwrap().as_str(), "b");
    }

    #[test]
    fn an_absent_file_means_try_later_unless_it_is_optional() {
        let mut config = config(Some("a"), None);
        assert_eq!(decide(&config, files(None)).unwrap().as_str(), "a");
        config.is_file_optional = false;
        let error = decide(&config, files(None)).unwrap_err();
        assert_eq!(error.code, ErrorCode::NodeNotSetUp);
        assert_eq!(
            error.message,
            "the node name file /var/lib/calico/nodename cannot be read: check that the \
             calico/node container is running and has mounted /var/lib/calico/"
        );
        assert!(error.details.contains("No such file"), "{error}");
    }

    #[test]
    fn a_file_that_exists_but_cannot_be_read_is_never_done_without() {
        let read = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let error = decide(&config(Some("a"), None), read).unwrap_err();
        assert_eq!(error.code, ErrorCode::NodeNotSetUp);
    }

    #[test]
    fn a_wrong_name_is_refused() {
        let error = decide(&config(None, None), files(Some("Node_1"))).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert_eq!(
            error.message,
            "the node's name, from `nodename`, /var/lib/calico/nodename or the machine's name, \
             is wrong"
        );
        assert!(error.details.contains("Node_1"), "{error}");
    }

    #[test]
    fn a_machine_without_a_name_is_refused() {
        let read = |path: &Path| match path.to_str() {
            Some(FILE) => Ok(String::new()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let error = decide(&config(None, None), read).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.details.contains(HOST_NAME_FILE), "{error}");
    }
}
