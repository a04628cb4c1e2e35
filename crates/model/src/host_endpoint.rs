//! Host endpoints: the attachments of the machines themselves.

use std::net::IpAddr;

use crate::Labels;
use crate::endpoint::NamedPort;
use crate::id::NodeName;
use crate::net::IfName;

/// A machine's attachment to the network (`HostEndpoint`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostEndpoint {
    /// The object's name.
    pub name: String,
    /// The machine.
    pub node: NodeName,
    /// Which of its interfaces.
    pub interface: HostInterface,
    /// Its labels.
    pub labels: Labels,
    /// Addresses that rules about it use; those of the interface if empty.
    pub expected_addrs: Vec<IpAddr>,
    /// The profiles that apply to it, first one first.
    pub profiles: Vec<String>,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
}

/// Which of a machine's interfaces a host endpoint is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostInterface {
    /// All that lead outside (`*`).
    All,
    /// The one of that name.
    Named(IfName),
    /// The one that has an expected address.
    WithExpectedAddr,
}
