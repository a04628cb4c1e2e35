//! Felix: this node's routes, from the datastore and BGP to the kernel.
//!
//! [`engine`] decides without IO; [`event`] is everything that it hears and
//! says; [`run`] is the loop around it, [`table`] its view of the kernel and
//! [`watch`] its view of the datastore.

pub(crate) mod engine;
pub(crate) mod event;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod table;
pub(crate) mod watch;
