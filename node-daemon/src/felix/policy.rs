//! Policy on this node, from the datastore to nftables.
//!
//! [`engine`] decides without IO; [`event`] is what it hears and says; [`run`]
//! is the loop around it; [`settings`] says what administrators decide;
//! [`report`] tells others what is in force here, [`status_files`] the CNI plugin;
//! [`connections`] has connections ended, [`denied`] says which.
//!
//! It has a thread of its own: a transaction of 25,000 rules takes the kernel
//! half a second, and routes do not wait for it.

mod connections;
mod denied;
pub(crate) mod engine;
pub(crate) mod event;
mod floating;
mod ledger;
mod news;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod settings;
mod status_files;
