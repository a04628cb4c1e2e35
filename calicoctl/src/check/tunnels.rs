//! Whether what carries VXLAN spoils checksums that are left to it, asked of the far ends of devices.

use std::collections::BTreeMap;

use kernel::checksums::{Outcome, Way, ask};
use kernel::netlink::{Error, Netlink};
use model::desired::{Checksums, TunnelDevice};

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
    let (mut tunnels, ways) = find(&netlink).await.map_err(|error| error.to_string())?;
    // Waits in the kernel; nothing else is done meanwhile.
    for (way, outcome) in ways.iter().zip(ask(&ways)) {
        if let (Outcome::Corrupted, Some(tunnel)) = (outcome, tunnels.get_mut(way.device.as_str()))
        {
            tunnel.corrupted.push(way.to.to_string());
        }
    }
    Ok(tunnels.into_values().collect())
}

async fn find(netlink: &Netlink) -> Result<(BTreeMap<String, Tunnel>, Vec<Way>), Error> {
    let (mut tunnels, mut ways) = (BTreeMap::new(), Vec::new());
    for name in TunnelDevice::names() {
        let link = netlink.link(&name).await?;
        let Some(link) = link.filter(|link| link.vxlan.is_some() && link.is_up) else { continue };
        let checksums = netlink.checksums(&name).await?;
        if checksums == Checksums::Offloaded {
            let far = netlink.neighbours_of(link.index).await?.into_iter();
            let far = far.filter(|far| far.is_permanent && !far.addr.is_multicast()).take(MOST);
            ways.extend(far.map(|far| Way { device: name.clone(), to: far.addr }));
        }
        let device = name.to_string();
        tunnels.insert(device.clone(), Tunnel { device, checksums, corrupted: Vec::new() });
    }
    Ok((tunnels, ways))
}
