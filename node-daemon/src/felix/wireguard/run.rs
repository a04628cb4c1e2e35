//! The loop that keeps WireGuard as it should be, and tells the other nodes our key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ::kernel::Netlink;
use ::kernel::monitor::Topic;
use ::kernel::wireguard::Device;
use datastore::Client;
use k8s_openapi::api::core::v1::Node;
use model::net::{Family, IfName};
use model::wireguard::PublicKey;
use serde_json::{Value, json};
use telemetry::metrics::Registry;
use tokio::sync::{mpsc, oneshot, watch};

use super::actual::{Error, Kernel};
use super::numbers::Numbers;
use super::plan::{Actual, Step, Told, steps};
use super::{OfFamily, Wanted};
use crate::felix::looks::{Looks, Outcome, after};

/// How often one look may lead to changes: a device that is made is looked at twice.
const ROUNDS: usize = 6;
/// How long other nodes may take to hear of a new key before the command says so.
const HEARD_WITHIN: Duration = Duration::from_secs(15);
/// How often is looked whether they have.
const HEARD_EVERY: Duration = Duration::from_millis(100);

/// A wish of an administrator on this node: new keys. The answer is for people.
pub(crate) type Rotation = oneshot::Sender<Result<String, String>>;

/// What the loop is made of.
#[derive(Debug)]
pub(crate) struct Start {
    /// What should be; as long as it is `None` nobody knows, and nothing is done.
    pub(crate) wanted: watch::Receiver<Option<Wanted>>,
    /// Wishes of administrators.
    pub(crate) rotations: mpsc::Receiver<Rotation>,
    /// Where the Node is.
    pub(crate) client: Client,
    /// What the Node is called.
    pub(crate) node: String,
    /// Where numbers are told; `None` if nobody wants them.
    pub(crate) registry: Option<Registry>,
}

#[derive(Debug)]
struct Loop {
    kernel: Kernel,
    client: Client,
    node: String,
    told: BTreeMap<Family, Told>,
    /// What was last written to the Node, which may not have come back to us yet.
    written: BTreeMap<Family, Option<PublicKey>>,
    /// What devices held when they were last read.
    devices: BTreeMap<IfName, Device>,
    numbers: Option<Numbers>,
}

/// Runs for as long as the daemon does.
///
/// # Errors
///
/// [`::kernel::netlink::Error`] if the kernel cannot be talked to at all.
pub(crate) async fn run(start: Start) -> Result<(), ::kernel::netlink::Error> {
    let Start { wanted, mut rotations, client, node, registry } = start;
    // Of changes inside of devices WireGuard tells nobody.
    let mut looks = Looks::open(wanted, &[Topic::Links, Topic::Routes, Topic::Rules])?;
    let mut this = Loop {
        kernel: Kernel::new(Netlink::open()?),
        client,
        numbers: registry.map(|registry| Numbers::new(&registry, node.clone())),
        node,
        told: BTreeMap::new(),
        written: BTreeMap::new(),
        devices: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            wanted = looks.next() => match wanted? {
                Some(wanted) => {
                    let is_done = this.look(&wanted).await;
                    looks.looked(if is_done { Outcome::Done } else { Outcome::Failed });
                }
                None => return Ok(()),
            },
            Some(reply) = rotations.recv() => {
                let now = looks.wanted().unwrap_or_default();
                // Whoever asked may have gone.
                drop(reply.send(this.rotate(&now).await));
            }
        }
    }
}

/// Has the kernel look at the mark, too, as it checks the way back to a sender: that of what carries
/// others is not that of all the rest (`rp_filter`).
fn heed_marks() {
    const NAME: &str = "net/ipv4/conf/all/src_valid_mark";
    if ::kernel::sysctl::read(NAME).is_ok_and(|value| value == "1") {
        return;
    }
    if let Err(error) = ::kernel::sysctl::write(NAME, "1") {
        tracing::warn!(%error, "packets of WireGuard may be dropped as they come in; set {NAME} to 1");
    }
}

impl Loop {
    /// Makes all as it should be; returns whether it is.
    async fn look(&mut self, wanted: &Wanted) -> bool {
        let mut is_done = true;
        for (family, of_family) in &wanted.families {
            let brought = self.bring(*family, of_family).await;
            if let Err(error) = brought {
                let device = &of_family.place.name;
                tracing::warn!(%device, %error, "WireGuard is not as it should be, will be retried");
                is_done = false;
            }
        }
        if let Some(numbers) = &self.numbers {
            numbers.set(&self.devices);
        }
        is_done & self.publish(wanted).await
    }

    /// Makes a family's device as it should be.
    async fn bring(&mut self, family: Family, wanted: &OfFamily) -> Result<(), Error> {
        if wanted.device.is_some() && family == Family::V4 {
            heed_marks();
        }
        for _ in 0..ROUNDS {
            let actual = self.kernel.read(&wanted.place, family).await?;
            self.written_is(family, &actual);
            self.devices.insert(wanted.place.name.clone(), actual.device.clone());
            let steps = steps(wanted, &actual, self.told.entry(family).or_default());
            if steps.is_empty() {
                break;
            }
            for step in &steps {
                tracing::debug!(device = %wanted.place.name, ?step, "WireGuard");
                self.kernel.apply(&wanted.place, step).await?;
            }
            let peers = wanted.device.iter().flat_map(|device| &device.peers);
            self.told.insert(family, peers.map(|(key, peer)| (*key, peer.peer_addr)).collect());
            if wanted.device.is_some() && steps.contains(&Step::MakeKey) {
                tracing::info!(device = %wanted.place.name, "WireGuard has a new key");
            }
        }
        Ok(())
    }

    /// Notes which key the device has.
    fn written_is(&mut self, family: Family, actual: &Actual) {
        self.written.insert(family, actual.device.public_key);
    }

    /// Tells the other nodes which keys we have; returns whether they can know.
    async fn publish(&mut self, wanted: &Wanted) -> bool {
        let mut annotations = serde_json::Map::new();
        for (family, of_family) in &wanted.families {
            let has_device = of_family.device.is_some();
            let key = self.written.get(family).copied().flatten().filter(|_| has_device);
            if key != of_family.published {
                let text = key.map_or(Value::Null, |key| Value::String(key.to_string()));
                annotations.insert(api::annotations::wireguard_key(*family).to_owned(), text);
            }
        }
        if annotations.is_empty() {
            return true;
        }
        let patch = json!({ "metadata": { "annotations": annotations } });
        match self.client.patch_status::<Node>(None, &self.node, &patch).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "other nodes do not know our WireGuard key yet, will be retried");
                false
            }
        }
    }

    /// Gives all devices new keys.
    ///
    /// First the device has the new key: what comes by sessions of the old one is still taken, and
    /// what is to be sent waits there for a session of the new one. Then the others hear of
    /// it, and begin one.
    async fn rotate(&mut self, wanted: &Wanted) -> Result<String, String> {
        let devices: Vec<_> =
            wanted.families.iter().filter(|(_, of_family)| of_family.device.is_some()).collect();
        if devices.is_empty() {
            return Err("WireGuard is not enabled on this node: set wireguardEnabled or \
                        wireguardEnabledV6 in FelixConfiguration"
                .to_owned());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let told = |error: Error| error.to_string();
        for (family, of_family) in &devices {
            self.kernel.apply(&of_family.place, &Step::MakeKey).await.map_err(told)?;
            let actual = self.kernel.read(&of_family.place, **family).await.map_err(told)?;
            self.written_is(**family, &actual);
        }
        if !self.publish(wanted).await {
            return Err("the new key is in use here, but could not be written to the Node yet; \
                        that is tried again"
                .to_owned());
        }
        let mut lines = Vec::new();
        for (family, of_family) in devices {
            lines.push(self.heard(*family, of_family, since).await.map_err(told)?);
        }
        Ok(lines.join("\n"))
    }

    /// Waits until peers have made sessions with the new key, and says how many have.
    async fn heard(
        &mut self,
        family: Family,
        of_family: &OfFamily,
        since: Duration,
    ) -> Result<String, Error> {
        let until = after(HEARD_WITHIN);
        let name = &of_family.place.name;
        loop {
            let actual = self.kernel.read(&of_family.place, family).await?;
            let peers = &actual.device.peers;
            let is_new = |time: &Duration| *time >= since;
            let new = peers.values().filter_map(|peer| peer.last_handshake);
            let new = new.filter(is_new).count();
            if new == peers.len() || Instant::now() >= until {
                let key = actual.device.public_key;
                let key = key.map_or_else(|| "none".to_owned(), |key| key.to_string());
                return Ok(format!(
                    "{name}: new key {key}, used with {new} of {} peers",
                    peers.len()
                ));
            }
            tokio::time::sleep(HEARD_EVERY).await;
        }
    }
}
