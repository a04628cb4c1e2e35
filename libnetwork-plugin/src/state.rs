//! What must survive us: endpoints and addresses that Docker was promised, and its networks, one
//! file each.
//!
//! The former are in a directory that the machine's restart empties, as it removes the interfaces
//! that they tell of. Networks outlive it, and Docker starts their containers again before it
//! answers anybody who asks what they are like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use kernel::{directory, files};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How long a file may be, in bytes.
const LIMIT: u64 = 1 << 16;
/// Only root may read what we keep.
const MODE: u32 = 0o600;

/// An endpoint that Docker has asked for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Endpoint {
    /// Its network.
    pub(crate) network: String,
    /// Its addresses.
    pub(crate) addrs: Vec<IpAddr>,
    /// The container's Ethernet address; empty lets the kernel choose.
    pub(crate) mac: String,
    /// Its ports that this host publishes.
    #[serde(default)]
    pub(crate) ports: Vec<Published>,
    /// Where it has been moved to; `None` if it is in no container.
    #[serde(default)]
    pub(crate) place: Option<Place>,
}

/// Where an endpoint is, and what leads through it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Place {
    /// The container's network namespace, as Docker calls it.
    pub(crate) sandbox: String,
    /// The IPv4 gateway.
    pub(crate) gateway: Ipv4Addr,
    /// The networks that are reached through it.
    pub(crate) routes: BTreeSet<String>,
}

/// A network, as far as its endpoints depend on it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct NetworkFacts {
    /// The MTU of its interfaces, in bytes, if it has one of its own.
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
    /// Its IPv4 ranges.
    #[serde(default)]
    pub(crate) subnets_v4: BTreeSet<String>,
}

/// A port that this host publishes.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Published {
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    /// The host's address; `None` is any.
    pub(crate) host_ip: Option<IpAddr>,
    /// The host's port.
    pub(crate) host_port: u16,
    /// The container's port.
    pub(crate) port: u16,
}

/// The files.
#[derive(Clone, Debug)]
pub(crate) struct State {
    endpoints: PathBuf,
    addresses: PathBuf,
    networks: PathBuf,
}

impl State {
    /// Makes the directories, if they are not there.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn at(path: &Path, lasting: &Path) -> Result<Self, Error> {
        let this = Self {
            endpoints: path.join("endpoints"),
            addresses: path.join("addresses"),
            networks: lasting.join("networks"),
        };
        for dir in [&this.endpoints, &this.addresses, &this.networks] {
            directory::make(dir)?;
        }
        Ok(this)
    }

    /// Returns all endpoints, by their ids.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; what cannot be read is left out.
    pub(crate) fn endpoints(&self) -> Result<BTreeMap<String, Endpoint>, Error> {
        let found = directory::read(&self.endpoints, LIMIT)?.into_iter();
        Ok(found.filter_map(|(id, text)| Some((id, serde_json::from_str(&text).ok()?))).collect())
    }

    /// Returns an endpoint; its id must have been checked.
    pub(crate) fn endpoint(&self, id: &str) -> Option<Endpoint> {
        let text = files::read(&self.endpoints.join(id), LIMIT).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Keeps an endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn put_endpoint(&self, id: &str, endpoint: &Endpoint) -> Result<(), Error> {
        let text = serde_json::to_string(endpoint).unwrap_or_default();
        Ok(files::publish(&self.endpoints.join(id), text.as_bytes(), MODE)?)
    }

    /// Forgets an endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn delete_endpoint(&self, id: &str) -> Result<(), Error> {
        Ok(files::delete(&self.endpoints.join(id)).map(drop)?)
    }

    /// Returns the ids of all networks.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn networks(&self) -> Result<BTreeSet<String>, Error> {
        Ok(directory::read(&self.networks, LIMIT)?.into_keys().collect())
    }

    /// Returns a network; its id must have been checked.
    pub(crate) fn network(&self, id: &str) -> Option<NetworkFacts> {
        let text = files::read(&self.networks.join(id), LIMIT).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Keeps a network.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn put_network(&self, id: &str, network: &NetworkFacts) -> Result<(), Error> {
        if self.network(id).as_ref() == Some(network) {
            return Ok(());
        }
        let text = serde_json::to_string(network).unwrap_or_default();
        Ok(files::publish(&self.networks.join(id), text.as_bytes(), MODE)?)
    }

    /// Forgets a network.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn delete_network(&self, id: &str) -> Result<(), Error> {
        Ok(files::delete(&self.networks.join(id)).map(drop)?)
    }

    /// Returns all addresses and the handles that hold them.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn addresses(&self) -> Result<BTreeMap<IpAddr, String>, Error> {
        let found = directory::read(&self.addresses, LIMIT)?.into_iter();
        Ok(found.filter_map(|(addr, handle)| Some((addr.parse().ok()?, handle))).collect())
    }

    /// Returns the handle that holds an address.
    pub(crate) fn handle(&self, addr: IpAddr) -> Option<String> {
        files::read(&self.addresses.join(addr.to_string()), LIMIT).ok()
    }

    /// Keeps the handle that holds an address.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn put_address(&self, addr: IpAddr, handle: &str) -> Result<(), Error> {
        let path = self.addresses.join(addr.to_string());
        Ok(files::publish(&path, handle.as_bytes(), MODE)?)
    }

    /// Forgets an address.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) fn delete_address(&self, addr: IpAddr) -> Result<(), Error> {
        Ok(files::delete(&self.addresses.join(addr.to_string())).map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_by_the_next_life() {
        let (dir, lasting) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let state = State::at(dir.path(), lasting.path()).unwrap();
        let network =
            NetworkFacts { mtu: Some(1400), subnets_v4: ["10.0.0.0/16".to_owned()].into() };
        state.put_network("1", &network).unwrap();
        let port = Published { protocol: "tcp".into(), host_ip: None, host_port: 8080, port: 80 };
        let endpoint = Endpoint {
            network: "n".into(),
            addrs: vec!["10.0.0.1".parse().unwrap()],
            mac: "02:42:00:00:00:01".into(),
            ports: vec![port],
            place: None,
        };
        state.put_endpoint("0f", &endpoint).unwrap();
        let addr = "fd00::1".parse().unwrap();
        state.put_address(addr, "libnetwork.x").unwrap();
        let state = State::at(tempfile::tempdir().unwrap().path(), lasting.path()).unwrap();
        assert_eq!(state.network("1"), Some(network), "the machine has restarted");
        assert_eq!(state.networks().unwrap(), ["1".to_owned()].into());
        state.delete_network("1").unwrap();
        assert_eq!(state.network("1"), None);
        let state = State::at(dir.path(), lasting.path()).unwrap();
        assert_eq!(state.endpoint("0f"), Some(endpoint.clone()));
        assert_eq!(state.endpoints().unwrap(), [("0f".to_owned(), endpoint)].into());
        assert_eq!(state.handle(addr).as_deref(), Some("libnetwork.x"));
        state.delete_endpoint("0f").unwrap();
        state.delete_endpoint("0f").unwrap();
        state.delete_address(addr).unwrap();
        assert!(state.endpoint("0f").is_none() && state.handle(addr).is_none());
    }
}
