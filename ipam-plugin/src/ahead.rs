//! What an ADD depends on, read before it is known what the container wants.
//!
//! `calico` reads the pod meanwhile, so that both take one round trip. Nothing is refused for what
//! was read here, and nothing written that rests on it alone: see [`ledger::surroundings`].

use std::fs;
use std::path::Path;

use cni::environment::Attachment;
use cni::{NetworkConfig, nodename};
use datastore::Client;
use ipam::View;
use ledger::surroundings::Surroundings;
use ledger::{Age, Driver};
use model::id::NodeName;

use crate::upgrade;

/// What was read, and the driver that has read it.
#[derive(Debug)]
pub struct Ahead {
    pub(crate) driver: Driver,
    pub(crate) node: NodeName,
    pub(crate) namespace: Option<String>,
    pub(crate) found: (Surroundings, View),
}

impl Ahead {
    /// Reads it; there is none if something is in the way, which the ADD itself will meet and tell.
    pub async fn read(
        client: &Client,
        config: &NetworkConfig,
        attachment: &Attachment,
    ) -> Option<Self> {
        if !Path::new(upgrade::MARKER).exists() {
            return None;
        }
        let node = nodename::decide(&config.nodename, |file| fs::read_to_string(file)).ok()?;
        let namespace = attachment.args.pod.as_ref().map(|pod| pod.name.namespace.clone());
        let mut driver = crate::plugin::driver(client.clone(), config);
        let read = Surroundings::read(&mut driver, &node, namespace.as_deref(), Age::Recent);
        let found = Box::pin(read).await.ok()?;
        Some(Self { driver, node, namespace, found })
    }
}
