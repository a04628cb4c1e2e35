//! Felix: this node's routes and policy, from the datastore and BGP to the kernel.
//!
//! [`engine`] decides about routes without IO; [`event`] is everything that it hears and says;
//! [`run`] is the loop around it, [`table`] its view of the kernel, [`wireguard`] the loop that
//! keeps encryption, [`vrf`] that of VRFs, [`looks`] their clock, [`checksums`] finds out what
//! becomes of packets in tunnels, [`watch`] and [`border`] are its view of the datastore.
//! [`policy`] has the same rooms for policy.

pub(crate) mod border;
pub(crate) mod checksums;
pub(crate) mod demand;
pub(crate) mod engine;
pub(crate) mod event;
pub(crate) mod looks;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod table;
pub(crate) mod tunnel_addrs;
pub(crate) mod vrf;
pub(crate) mod watch;
pub(crate) mod wireguard;
