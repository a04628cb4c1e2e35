//! Labels for the affinities that releases before Calico 3.31 wrote.
//!
//! A node finds its affinities by label, so those without one would be as good
//! as lost. Every host labels its own once, and leaves a file to say so.

use std::fs;
use std::path::Path;

use datastore::{Client, Filter};
use model::block::{Affinity, Owner};
use model::id::NodeName;
use tracing::{info, warn};

use crate::Error;

/// The file that says that this host's affinities have labels.
pub const MARKER: &str = "/var/run/calico/cni/ipam_upgraded";

/// Labels the affinities of `node`, unless `marker` says that it was done.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn upgrade_once(client: &Client, node: &NodeName, marker: &Path) -> Result<(), Error> {
    if marker.exists() {
        return Ok(());
    }
    upgrade(client, node).await?;
    if let Err(error) = mark(marker) {
        warn!(%error, "will look for old affinities again next time");
    }
    Ok(())
}

/// Labels the affinities of `node`.
///
/// # Errors
///
/// What the datastore fails with; the labels written so far stay.
pub async fn upgrade(client: &Client, node: &NodeName) -> Result<(), Error> {
    for mut object in client.list::<api::BlockAffinity>(&Filter::default()).await? {
        let Ok(affinity) = Affinity::try_from(&object) else { continue };
        if affinity.owner != Owner::Host(node.clone()) {
            continue;
        }
        let before = object.metadata.labels.clone();
        let wanted = api::names::affinity_labels(&affinity.owner, affinity.cidr);
        object.metadata.labels.get_or_insert_default().extend(wanted);
        if object.metadata.labels == before {
            continue;
        }
        match client.update(&object).await {
            Ok(_) => info!(block = %affinity.cidr, "labelled an affinity"),
            // Whoever was first labelled it, or removed it.
            Err(error) if error.is_contention() => {}
            Err(datastore::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes the file that says that it was done.
///
/// # Errors
///
/// [`Error::Marker`] with the file.
pub fn mark(marker: &Path) -> Result<(), Error> {
    let write = || {
        if let Some(directory) = marker.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(marker, "")
    };
    write().map_err(|error| Error::Marker { path: marker.to_owned(), problem: error.to_string() })
}
