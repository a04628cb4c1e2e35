//! The door to the Linux kernel: the only crate that changes the machine.
//!
//! ```text
//!  netns ──────── which network namespace a thread or a socket is in
//!  netlink ────── links, addresses, routes, neighbours (rtnetlink(7)); one socket, one namespace
//!  nftables ───── our tables: transactions, snapshots, other people's changes
//!  wireguard ──── keys and peers of WireGuard devices
//!  conntrack ──── connections that the kernel follows: listed, marked, forgotten
//!  monitor ────── what others change there, and when events were lost
//!  route_table ── one table as a map from destination to `model::desired::Route`
//!  tunnels ────── tunnel devices with their neighbours and far ends
//!  fake ───────── the same table and tunnels in memory; both pass the same tests
//!  socket  datagram   TCP as BGP wants it, UDP as BFD does
//!  checksums ──── whether what carries a tunnel spoils its packets
//!  ways ───────── by which interface packets leave for an address
//!  advertisement      Router Advertisements, by which BGP's neighbours find each other
//!  sysctl  files  directory  lock  process  socket_diag
//! ```
//!
//! Invariants:
//!
//! * A thread that entered another namespace is never used again.
//! * Each error names the object, what the kernel's number means and, where it
//!   is known, the remedy; `is_retryable()` says whether waiting may help.
//! * A list is consistent: a dump that was interrupted by a change is repeated.
//! * Nothing here decides; callers say what to write and what is theirs.
//!
//! Where to start reading: [`netns::Netns`], then [`netlink::Netlink`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod advertisement;
pub mod checksums;
pub mod conntrack;
pub mod datagram;
pub mod directory;
pub mod echo;
pub mod fake;
pub mod files;
pub mod lock;
pub mod monitor;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod process;
pub mod route_table;
pub mod socket;
pub mod socket_diag;
pub mod sysctl;
pub mod tunnels;
pub mod ways;
pub mod wireguard;

pub use monitor::Monitor;
pub use netlink::Netlink;
pub use netns::Netns;
pub use nftables::Nftables;
pub use nix::errno::Errno;
pub use route_table::RouteTable;
pub use tunnels::Tunnels;
pub use wireguard::Wireguard;
