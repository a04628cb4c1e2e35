//! The versions of this program and of the cluster.

use api::{CALICO_VERSION, ClusterInformation};
use datastore::Client;

use crate::Error;

/// Returns the lines that Calico's program prints about itself.
#[must_use]
pub fn client() -> String {
    format!("Client Version:    {CALICO_VERSION}\nBuild:             {}", env!("CARGO_PKG_VERSION"))
}

/// Returns those of the cluster, which has no information about itself before its first node.
#[must_use]
pub fn cluster(information: Option<&ClusterInformation>) -> String {
    let unknown = || "unknown".to_owned();
    let spec = information.map(|one| &one.spec);
    let version = spec.and_then(|spec| spec.calico_version.clone()).unwrap_or_else(unknown);
    let kind = spec.and_then(|spec| spec.cluster_type.clone()).unwrap_or_else(unknown);
    format!("Cluster Version:   {version}\nCluster Type:      {kind}")
}

/// Refuses to go on if the cluster is of another release.
///
/// Differs from Calico: only what writes asks, and releases that differ in the last number only
/// are the same, since they write the same objects.
///
/// # Errors
///
/// [`Error::VersionMismatch`], and what the datastore fails with.
pub async fn require_match(client: &Client) -> Result<(), Error> {
    let information = client.get::<ClusterInformation>("default").await?;
    match information.and_then(|one| one.spec.calico_version) {
        Some(cluster) if !is_same_release(&cluster) => {
            Err(Error::VersionMismatch { cluster, client: CALICO_VERSION })
        }
        _ => Ok(()),
    }
}

fn is_same_release(cluster: &str) -> bool {
    let release = |version: &str| {
        let mut numbers = version.trim_start_matches('v').split('.').map(str::to_owned);
        (numbers.next(), numbers.next())
    };
    cluster.is_empty() || release(cluster) == release(CALICO_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_makes_no_other_release() {
        for same in ["v3.32.1", "v3.32.0", "3.32.7", "v3.32.0-rc1", ""] {
            assert!(is_same_release(same), "{same}");
        }
        for other in ["v3.31.7", "v3.33.0", "v4.32.1", "latest"] {
            assert!(!is_same_release(other), "{other}");
        }
    }

    #[test]
    fn a_cluster_without_a_node_has_no_version() {
        assert_eq!(cluster(None), "Cluster Version:   unknown\nCluster Type:      unknown");
    }
}
