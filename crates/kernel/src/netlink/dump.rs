//! Reading tables so that each list is of one moment, and naming what fails.

use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use super::transport::{Failure, Reason};
use super::{Error, Netlink, Refusal};

/// How often a table that keeps changing is read before we give up.
const ATTEMPTS: u32 = 20;

impl Netlink {
    /// Reads a table, again if it changed meanwhile.
    pub(super) async fn dump(
        &self,
        table: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..ATTEMPTS {
            match self.transport.dump_once(message.clone()).await {
                Ok(found) => return Ok(found),
                Err(Failure::Interrupted) => tokio::task::yield_now().await,
                Err(Failure::Refused(Reason { errno: Errno::EBUSY | Errno::EAGAIN, .. })) => {
                    tokio::task::yield_now().await;
                }
                Err(Failure::Refused(reason)) => {
                    return Err(refused("list", table.to_owned(), reason));
                }
                Err(Failure::Broken(error)) => return Err(error),
            }
        }
        Err(Error::KeepsChanging { table, attempts: ATTEMPTS })
    }

    /// Sends one request; `object` says what it is about, as ip(8) would write it.
    pub(super) async fn request(
        &self,
        (message, flags): (RouteNetlinkMessage, u16),
        action: &'static str,
        object: impl FnOnce() -> String + Send,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        self.transport.request(message, flags).await.map_err(|failure| match failure {
            Failure::Refused(reason) => refused(action, object(), reason),
            Failure::Broken(error) => error,
            Failure::Interrupted => Error::KeepsChanging { table: "objects", attempts: 1 },
        })
    }
}

/// Names what the kernel refused.
pub(super) fn refused(action: &'static str, object: String, reason: Reason) -> Error {
    Refusal { action, object, errno: reason.errno, detail: reason.detail }.into()
}
