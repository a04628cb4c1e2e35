//! What an ADD depends on, read before it is known what the container wants.
//!
//! `calico` reads the pod meanwhile, so that both take one round trip.

use std::fs;
use std::path::Path;

use cni::environment::Attachment;
use cni::{NetworkConfig, nodename};
use datastore::Client;
use ledger::Ahead;

use crate::upgrade;

/// Reads it; there is none if something is in the way, which the ADD itself will meet and tell.
pub async fn read(
    client: &Client,
    config: &NetworkConfig,
    attachment: &Attachment,
) -> Option<Ahead> {
    if !Path::new(upgrade::MARKER).exists() {
        return None;
    }
    let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file)).ok()?;
    let namespace = attachment.args.pod.as_ref().map(|pod| pod.name.namespace.as_str());
    Ahead::read(crate::plugin::driver(client.clone(), config), &node, namespace).await
}
