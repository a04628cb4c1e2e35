//! Links, addresses, routes and neighbours by netlink (rtnetlink(7)).

#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are not ours and grow")]

mod addr;
mod dump;
mod error;
mod link;
mod neigh;
mod route;
mod transport;

pub use addr::{AddrScope, LinkAddr};
pub use error::{Error, Refusal};
pub use link::{Link, VethSpec};
pub use neigh::Neighbour;
pub use route::{
    DEFAULT_METRIC_V6, MAIN_TABLE, NextHop, RouteChange, RouteEntry, RouteFilter, Target,
    default_metric,
};

use std::sync::Arc;

use crate::netns::Netns;
use transport::Transport;

/// A route socket in one network namespace; clones share it.
///
/// It stays in its namespace whichever thread uses it. Requests are made one
/// after the other, as the kernel would do anyway.
#[derive(Clone, Debug)]
pub struct Netlink {
    transport: Arc<Transport>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a tokio runtime (which must have IO
    /// enabled), or [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self { transport: Arc::new(Transport::open()?) })
    }

    /// Opens a socket in `netns`.
    ///
    /// # Errors
    ///
    /// As for [`Netlink::open`], and [`Error::Netns`].
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        netns.run(|| {
            let _entered = runtime.enter();
            Self::open()
        })?
    }
}
