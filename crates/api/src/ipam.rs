//! `IPAMBlock`, `BlockAffinity` and `IPAMHandle`: who holds which address.
//!
//! These are written by several programs at once, so each is read into the
//! model, changed there, and put back into the very object that was read: its
//! resource version makes the write a compare-and-swap, and what this version
//! does not know stays in it.

mod affinity;
mod block;
mod handle;

pub use affinity::{BlockAffinity, BlockAffinitySpec};
pub use block::{AllocationAttribute, IpamBlock, IpamBlockSpec};
pub use handle::{IpamHandle, IpamHandleSpec};

/// Returns a handle's id without the debris that very old versions left behind `\r`.
fn plain_handle(id: &str) -> &str {
    id.split_once('\r').map_or(id, |(plain, _)| plain)
}
