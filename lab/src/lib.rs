//! A cluster on one machine, of real parts.
//!
//! The control plane is the upstream kube-apiserver and etcd; a node is a
//! network namespace with a `calico-node` in it; a pod is a network namespace
//! that the real CNI binaries have attached. Nothing of it outlives the lab,
//! however it ends.
//!
//! Where to start reading: [`control_plane`].

pub mod control_plane;
mod error;
pub mod process;

pub use error::Error;
