//! Everything that can change what packets may pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use calc::policy::Change;
use model::id::NodeName;
use model::net::{Cidr, IfName};
use model::node::Node;
use model::peer::BgpConfiguration;
use model::policy::{Policy, PolicyId};
use model::pool::IpPool;
use model::ruleset::{Snapshot, Transaction};
use model::vrf::VrfName;

use crate::felix::event::Kind;

/// An input of the [`Engine`](super::engine::Engine).
#[derive(Debug)]
pub(crate) enum Event {
    /// An object of the datastore, or an interface of this machine, has a new value, or none.
    Change(Change),
    /// A policy has a new value, or none.
    Policy(PolicyId, Option<Box<Known>>),
    /// A node has a new value, or none.
    Node(NodeName, Option<Box<Node>>),
    /// A pool has a new value, or none.
    Pool(String, Option<Box<IpPool>>),
    /// What policy must know of BGP.
    Bgp(Box<OfBgp>),
    /// The port that BGP listens on at a node, if that is another one there.
    BgpPort(NodeName, Option<u16>),
    /// What this machine has under VRFs' devices.
    VrfLinks(BTreeMap<IfName, VrfName>),
    /// What administrators decide has changed; pools, nodes and Services are told apart from it.
    Settings(Box<render::Settings>),
    /// All objects of a kind have been seen once.
    Synced(Kind),
    /// What the kernel holds now.
    Kernel(Box<Snapshot>),
    /// The kernel may hold something else than we believe.
    Drift,
    /// How the last [`Effect::Apply`] went.
    Applied(Outcome),
}

/// What policy must know of BGP.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct OfBgp {
    /// The ranges of Services' addresses.
    pub(crate) service_ranges: Vec<Cidr>,
    /// The addresses that workloads peer with.
    pub(crate) peering_addrs: Vec<IpAddr>,
    /// The port that nodes listen on.
    pub(crate) port: u16,
}

impl OfBgp {
    pub(crate) fn of(bgp: &BgpConfiguration) -> Self {
        Self {
            service_ranges: bgp.services.ranges().collect(),
            peering_addrs: bgp.workload_peering_addrs.clone(),
            port: bgp.listen_port,
        }
    }

    /// Returns what workloads may call, at a node where perhaps another port is listened on.
    pub(crate) fn peering(&self, port: Option<u16>) -> BTreeSet<SocketAddr> {
        let port = port.unwrap_or(self.port);
        self.peering_addrs.iter().map(|addr| SocketAddr::new(*addr, port)).collect()
    }
}

/// A policy, as its object was read.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// What to enforce.
    pub(crate) policy: Arc<Policy>,
    /// Which state of the object's spec it is (`metadata.generation`).
    pub(crate) generation: i64,
    /// What of it could not be read, and closes what it would have opened.
    pub(crate) faults: Vec<String>,
}

/// How a transaction went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The kernel holds what it should.
    Done,
    /// The kernel refused it, or nobody knows.
    Failed,
}

/// Something to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// Look what the kernel holds and report it as [`Event::Kernel`].
    List,
    /// Carry this out and report how it went as [`Event::Applied`].
    Apply(Transaction),
}
