//! Kernel parameters as they were before calico-node changed them, for `calico-node uninstall`.

use std::collections::BTreeMap;
use std::path::Path;

use kernel::{files, sysctl};

/// Where they are kept; the first to change a parameter writes down what it found.
pub(crate) const FILE: &str = "/var/lib/calico/as-found.json";

/// How long the file may be, in bytes.
const LIMIT: u64 = 1 << 16;

/// Parameters by name, as in /proc/sys.
pub(crate) type Parameters = BTreeMap<String, String>;

/// Sets a parameter, and keeps what it was if nobody has before.
///
/// # Errors
///
/// [`sysctl::Error`] if it cannot be set.
pub(crate) fn set(file: &Path, name: &str, value: &str) -> Result<(), sysctl::Error> {
    let found = sysctl::read(name)?;
    if found == value {
        return Ok(());
    }
    let mut kept = read(file);
    if !kept.contains_key(name) {
        kept.insert(name.to_owned(), found);
        let text = serde_json::to_string(&kept).unwrap_or_default();
        if let Err(error) = files::write(file, text.as_bytes(), 0o644) {
            tracing::warn!(%error, name, "`calico-node uninstall` will not restore this parameter");
        }
    }
    sysctl::write(name, value)
}

/// Returns what was found.
pub(crate) fn read(file: &Path) -> Parameters {
    let text = files::read(file, LIMIT).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
