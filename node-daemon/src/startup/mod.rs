//! What the node does once before it serves: who it is, and what every cluster has.
//!
//! ```text
//!  wait for the datastore, read it and the machine
//!        │
//!  address::decide ── addresses and AS ──► nodes/<name>/status (annotations)
//!  pools::plan ────── default pools ─────► ippools
//!  cluster::… ─────── what all share ────► clusterinformations, tiers, felixconfigurations
//!        │
//!  mtu::of_pods ────► /var/lib/calico/mtu        the CNI plugin reads both
//!  the name ────────► /var/lib/calico/nodename   and waits for the second
//! ```
//!
//! The boxes on the left are pure. [`run()`] is one pass of them that may be
//! repeated at any point: what is there is left alone, what another node
//! created first is taken as it is, and nothing that people changed is
//! written over.
//!
//! Where to start reading: [`run()`], then [`address`], [`autodetect`] and [`pools`].

mod address;
mod autodetect;
mod cluster;
mod error;
mod host;
pub(crate) mod mtu;
mod name;
mod patience;
mod pools;
mod router_id;
mod run;
mod status;
mod world;

pub use address::Refusal;
pub use error::StartupError;
pub use name::{configure, node_name};
pub(crate) use run::write_mtu;
pub use run::{Inputs, StartedNode, run};
pub use status::{Availability, announce};
