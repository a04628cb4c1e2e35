//! Whether what carries VXLAN spoils checksums that are left to it, asked of the far ends of devices.

use kernel::checksums::{self, Outcome, Way, ask};
use kernel::netlink::Netlink;
use model::desired::Checksums;
use model::net::IfName;

/// The most far ends of a device that are asked: what is wrong with an interface shows at some.
const MOST: usize = 16;

/// What was found of a tunnel's device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tunnel {
    /// The device.
    pub device: String,
    /// Who fills in checksums.
    pub checksums: Checksums,
    /// Far ends at which those that are left to what carries the packets arrive spoiled.
    pub corrupted: Vec<String>,
}

/// Looks at the devices, and asks where checksums are left to what carries the packets.
///
/// # Errors
///
/// Why nothing can be said, for people.
pub(super) async fn look() -> Result<Vec<Tunnel>, String> {
    let netlink = Netlink::open().map_err(|error| error.to_string())?;
    let found = checksums::tunnels(&netlink).await.map_err(|error| error.to_string())?;
    let ways: Vec<Way> =
        found.iter().flat_map(|tunnel| tunnel.ways.iter().take(MOST)).cloned().collect();
    // Waits in the kernel; nothing else is done meanwhile.
    let outcomes = ask(&ways);
    let corrupted = |device: &IfName| {
        let asked = ways.iter().zip(&outcomes).filter(|(way, _)| way.device == *device);
        let corrupted = asked.filter(|(_, outcome)| **outcome == Outcome::Corrupted);
        corrupted.map(|(way, _)| way.to.to_string()).collect()
    };
    let told = found.iter().map(|tunnel| Tunnel {
        device: tunnel.device.to_string(),
        checksums: tunnel.checksums,
        corrupted: corrupted(&tunnel.device),
    });
    Ok(told.collect())
}
