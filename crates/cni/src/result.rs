//! The result of an ADD, in every version's form (CNI spec §5 "Success").
//!
//! [`Success`] holds what the newest version can say; [`Success::to_json`]
//! leaves out what an older caller would not understand.

mod wire;

use std::net::IpAddr;

use model::net::{Cidr, Family, InterfaceAddr};
use serde_json::{Map, Value};

use crate::version::Version;

/// What an ADD achieved.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Success {
    /// Interfaces that were made, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses that were given.
    pub ips: Vec<Ip>,
    /// Routes inside the container.
    pub routes: Vec<Route>,
    /// How to resolve names.
    pub dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address; may be empty.
    pub mac: String,
    /// Its MTU in bytes, if it is known (1.1.0).
    pub mtu: Option<u32>,
    /// The path of its network namespace; empty on the host.
    pub sandbox: String,
    /// The path of its socket, for user-space dataplanes (1.1.0).
    pub socket_path: String,
    /// Its PCI address (1.1.0).
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ip {
    /// The address with the length of its prefix.
    pub address: InterfaceAddr,
    /// Its default gateway.
    pub gateway: Option<IpAddr>,
    /// Which of [`Success::interfaces`] has it; IPAM plugins do not say.
    pub interface: Option<usize>,
}

/// A route inside the container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Where it leads.
    pub dst: Cidr,
    /// Through which gateway; `None` leaves it to the plugin.
    pub gateway: Option<IpAddr>,
    /// Path MTU in bytes (1.1.0).
    pub mtu: Option<u32>,
    /// Maximal segment size in bytes (1.1.0).
    pub advmss: Option<u32>,
    /// Lower ones go first (1.1.0).
    pub priority: Option<u32>,
    /// The number of the routing table (1.1.0).
    pub table: Option<u32>,
    /// The scope's number (1.1.0).
    pub scope: Option<u32>,
}

/// How to resolve names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// The local domain; may be empty.
    pub domain: String,
    /// Search domains.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
}

/// A result that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidResult {
    /// It is no JSON object.
    #[error("result is no JSON object: the plugin that printed it is broken")]
    Syntax,
    /// It has a version that we do not know.
    #[error("result has another cniVersion `{0}`: use one that VERSION lists")]
    Version(String),
    /// A value is wrong.
    #[error("result has `{path}` = {value}: use {expected}")]
    Value {
        /// The key, with those that lead to it.
        path: String,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Success {
    /// Reads a result that another plugin printed.
    ///
    /// # Errors
    ///
    /// [`InvalidResult`] at the first thing that is wrong.
    pub fn parse(stdout: &[u8], config: Version) -> Result<Self, InvalidResult> {
        let object = serde_json::from_slice(stdout).map_err(|_| InvalidResult::Syntax)?;
        Self::read(&object, config)
    }

    /// Reads a result in the form of its own `cniVersion`, or else of `config`.
    ///
    /// # Errors
    ///
    /// [`InvalidResult`] at the first thing that is wrong.
    pub fn read(object: &Map<String, Value>, config: Version) -> Result<Self, InvalidResult> {
        let stated = object.get("cniVersion").and_then(Value::as_str).filter(|v| !v.is_empty());
        let unknown = |text: &str| InvalidResult::Version(text.to_owned());
        let version = stated.map(|text| text.parse().map_err(|_| unknown(text)));
        wire::read(object, version.transpose()?.unwrap_or(config))
    }

    /// Returns the result in the form of `version`.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        Value::Object(wire::write(self, version))
    }

    /// Returns the addresses of a family.
    pub fn ips_of(&self, family: Family) -> impl Iterator<Item = &Ip> {
        self.ips.iter().filter(move |ip| Family::of(ip.address.addr()) == family)
    }
}

impl Route {
    /// Makes a route that leaves everything else to the plugin.
    #[must_use]
    pub const fn to(dst: Cidr) -> Self {
        Self {
            dst,
            gateway: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

#[cfg(test)]
mod tests;
