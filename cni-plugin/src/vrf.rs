//! The VRF of a pod on this node: the device that its link is put under (ADR 9).

use cni::{Error, ErrorCode};
use kernel::Netlink;
use model::net::{Family, IfIndex, IfName, Mtu};
use model::vrf::{VrfId, VrfName};

/// A VRF's device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct VrfDevice {
    /// Its number.
    pub(crate) index: IfIndex,
    /// The routing table of all links under it.
    pub(crate) table: u32,
    /// The largest packet that its tunnels to other nodes carry; `None` without tunnels.
    pub(crate) mtu: Option<Mtu>,
}

impl VrfDevice {
    /// Finds the device of `vrf`, which the namespace `namespace` is of.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TryAgainLater`] if calico-node has not made it yet, and
    /// [`ErrorCode::Kernel`].
    pub(crate) async fn find(
        host: &Netlink,
        vrf: &VrfName,
        namespace: &str,
    ) -> Result<Self, Error> {
        let refused =
            |error: kernel::netlink::Error| Error::new(ErrorCode::Kernel, error.to_string());
        let absent = |problem: &str| {
            let message = format!(
                "namespace {namespace} is of VRF {vrf}, but this node {problem}: see that \
                 calico-node runs here, that an IPPool with the annotation \
                 vrf.projectcalico.org/name: {vrf} selects the node, and that the kernel has the \
                 module vrf; the runtime tries again"
            );
            Error::new(ErrorCode::TryAgainLater, message)
        };
        let name = vrf.device();
        let name = name.ok_or_else(|| absent("cannot have a device of that name"))?;
        let link = host.link(&name).await.map_err(refused)?;
        let link = link.ok_or_else(|| absent(&format!("has no device {name}")))?;
        let table =
            link.vrf_table.ok_or_else(|| absent(&format!("has {name}, which is no VRF")))?;
        if !link.is_up {
            return Err(absent(&format!("has {name}, which is down")));
        }
        let mut mtu = None;
        if let Ok(id) = table.to_string().parse::<VrfId>() {
            for tunnel in Family::ALL.into_iter().filter_map(|family| id.tunnel(family)) {
                let tunnel = host.link(&tunnel).await.map_err(refused)?;
                mtu = mtu.into_iter().chain(tunnel.map(|tunnel| tunnel.mtu)).min();
            }
        }
        Ok(Self { index: link.index, table, mtu })
    }

    /// Finds the device that the link called `name` is under, if it is a VRF's.
    ///
    /// # Errors
    ///
    /// [`kernel::netlink::Error`].
    pub(crate) async fn above(
        host: &Netlink,
        name: &IfName,
    ) -> Result<Option<(VrfName, Self)>, kernel::netlink::Error> {
        let link = host.link(name).await?;
        let Some(master) = link.and_then(|link| link.master) else { return Ok(None) };
        let master = host.link_by_index(master).await?;
        Ok(master.and_then(|master| {
            let (vrf, table) = VrfName::of_device(&master.name).zip(master.vrf_table)?;
            Some((vrf, Self { index: master.index, table, mtu: None }))
        }))
    }

    /// Returns the MTU for a pod: what the node's pods have, and not more than the VRF's tunnels.
    pub(crate) fn mtu_of(vrf: Option<&Self>, site: Option<Mtu>) -> Option<Mtu> {
        let tunnels = vrf.and_then(|vrf| vrf.mtu);
        // Without a word of the node's MTU it is the kernel's default, 1500 bytes.
        tunnels.map(|tunnels| tunnels.min(site.unwrap_or(Mtu(1500)))).or(site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_vrf_fit_into_its_tunnels() {
        let vrf =
            |mtu: Option<u32>| VrfDevice { index: IfIndex(7), table: 5001, mtu: mtu.map(Mtu) };
        for (tunnels, site, pod) in [
            (Some(1450), Some(1500), Some(1450)),
            (Some(1450), None, Some(1450)),
            (Some(8950), None, Some(1500)),
            (Some(1450), Some(1400), Some(1400)),
            (None, Some(1480), Some(1480)),
            (None, None, None),
        ] {
            let found = VrfDevice::mtu_of(Some(&vrf(tunnels)), site.map(Mtu));
            assert_eq!(found, pod.map(Mtu), "{tunnels:?} {site:?}");
        }
        assert_eq!(VrfDevice::mtu_of(None, Some(Mtu(1440))), Some(Mtu(1440)));
    }
}
