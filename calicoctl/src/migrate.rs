//! The lock of the datastore: `datastoreReady` of `ClusterInformation`.

use api::ClusterInformation;
use datastore::Client;

use crate::Error;
use crate::arguments::Migrate;

/// Locks or unlocks, and says so.
///
/// # Errors
///
/// What the datastore fails with, and [`Error::Refused`] if there is no `ClusterInformation`.
pub async fn run(client: &Client, task: Migrate) -> Result<&'static str, Error> {
    let mut information = client.get::<ClusterInformation>("default").await?.ok_or_else(|| {
        let remedy = "start calico-node, which makes it";
        Error::Refused(format!("ClusterInformation default does not exist: {remedy}"))
    })?;
    information.spec.datastore_ready = Some(task == Migrate::Unlock);
    client.update(&information).await?;
    Ok(match task {
        Migrate::Lock => "Datastore locked.",
        Migrate::Unlock => "Datastore unlocked.",
    })
}
