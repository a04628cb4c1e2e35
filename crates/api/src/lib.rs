//! The objects of the datastore and their values: `crd.projectcalico.org/v1` and Kubernetes.
//!
//! Reading: an [`Object`] becomes a `model` value by `TryFrom`, once, at the
//! border; what is wrong with it is an [`Invalid`] that names the object, the
//! field, the value and the remedy. Writing: `from_model` makes a new object,
//! `set` changes one that was read. Fields that this version does not know
//! survive both, since every level keeps what it does not understand.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod annotations;
mod bgp;
mod cluster;
mod felix;
mod invalid;
mod ipam;
pub mod kubernetes;
pub mod names;
mod object;
mod pool;
mod time;

pub use bgp::{
    BgpConfiguration, BgpConfigurationSpec, BgpPeer, BgpPeerSpec, NamedCommunity,
    PrefixAdvertisementSpec,
};
pub use cluster::{
    ClusterInformation, ClusterInformationSpec, IpReservation, IpReservationSpec, IpamConfig,
    IpamConfigSpec,
};
pub use felix::{FelixConfiguration, FelixConfigurationSpec};
pub use invalid::Invalid;
pub use ipam::{
    AllocationAttribute, BlockAffinity, BlockAffinitySpec, IpamBlock, IpamBlockSpec, IpamHandle,
    IpamHandleSpec,
};
pub use object::{API_VERSION, Kind, Object};
pub use pool::{IpPool, IpPoolSpec};
