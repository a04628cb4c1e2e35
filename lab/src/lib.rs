//! A cluster on one machine, of real parts.
//!
//! The control plane is the embedded datastore, or the upstream kube-apiserver
//! and etcd, whichever is asked for; a node is a network namespace with a `calico-node` in it; a pod is a network namespace
//! that the real CNI binaries have attached. Nothing of it outlives the lab,
//! however it ends.
//!
//! ```text
//! the user's process ── sandbox ─► the lab: control plane, a bridge or a router
//!                                    ├─ agent of node-1: calico-node, pods, CNI plugins
//!                                    └─ agent of node-2: …         each in namespaces of its own
//! ```
//!
//! With kubelets a node is a machine of its own instead, with a container runtime, and pods
//! are what kubelet makes of them ([`kubernetes`], [`machine`]).
//!
//! Where to start reading: [`sandbox`] (why nothing is left behind), [`cluster`]
//! (what there is), [`agent`] (a node's inside), [`control_plane`] (also useful alone).

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod agent;
pub mod api_access;
pub mod bird;
pub mod canary;
pub mod capture;
mod cgroups;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod docker;
mod error;
mod fabric;
pub mod frames;
pub mod images;
pub mod kubernetes;
pub mod machine;
pub mod node;
pub mod patience;
pub mod policy;
pub mod process;
pub mod protocol;
pub mod proxy;
pub mod rbac;
pub mod reachability;
pub mod rest;
pub mod routes;
pub mod sandbox;

pub use error::Error;
pub use nix::sys::signal::Signal;
