//! What a node's container runtime needs to call our CNI plugins: the plugins, their
//! configuration, and credentials that never get old.
//!
//! [`install`] puts all of it there before the daemon starts (`install-cni`). [`keep`] is the
//! part of the daemon that renews the credentials, with which [`serve`] does what calls of the plugin
//! would do one by one.

mod access;
mod binaries;
pub(crate) mod install;
pub(crate) mod keep;
mod renewal;
pub(crate) mod serve;
mod settings;
mod template;
